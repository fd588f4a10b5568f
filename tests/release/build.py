"""What is built for a release, from a copy of the tree as git has it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.distribution import IGNORED, ROOT

from .checks import run

#: The oldest glibc that the Linux wheels shall run with: that of the image that the workflow builds in.
GLIBC = "2.28"
GLIBC_TAG = f"manylinux_{GLIBC.replace('.', '_')}"
#: The same of musl, as the names of wheels say it.
MUSL = "musllinux_1_2"


def tree(work: Path) -> Path:
    """A copy of what git knows of, or where there is no git (an unpacked sdist) of all that is no leftover."""
    copy = work / "source"
    if not copy.exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True) if (ROOT / ".git").exists() else None
        if listed is None or listed.returncode:
            shutil.copytree(ROOT, copy, ignore=IGNORED)
        else:
            for name in filter(None, listed.stdout.split("\0")):
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / name).exists():
                    shutil.copy(ROOT / name, copy / name)
    return copy


def native(dist: Path, work: Path, isolated: bool) -> str:
    """The sdist, and from it the wheel for this machine. `isolated`: with the newest tools from the index."""
    command = [sys.executable, "-m", "build", "--outdir", str(dist)]
    run([*command, *([] if isolated else ["--no-isolation"]), str(tree(work))])
    return ", ".join(sorted(path.name for path in dist.iterdir()))


class Linux(NamedTuple):
    """What a Linux wheel is for: an architecture, and the tag of a C library without it."""

    architecture: str
    library: str

    @property
    def tag(self) -> str:
        """As in the wheel's name."""
        return f"{self.library}_{self.architecture}"

    @property
    def target(self) -> str:
        """As the compiler says it."""
        return f"{self.architecture}-linux-{'musl' if self.library == MUSL else f'gnu.{GLIBC}'}"


#: Every Linux that wheels are given out for. All of them are built here, whatever this machine is: the package `ziglang`
#: brings a compiler, and the headers and symbols of both C libraries.
LINUX = [Linux(architecture, library) for architecture in ("x86_64", "aarch64") for library in (GLIBC_TAG, MUSL)]


def linux(dist: Path, work: Path, wanted: Linux) -> str:
    """The wheel for one Linux. It replaces what was built for this machine alone."""
    if sys.platform != "linux":
        return "not on this system"
    compiler = f"{sys.executable} -m ziglang cc -target {wanted.target}"
    # auditwheel gives tags to what was built for the machine that it runs on, and to nothing else: `checks.linux` holds
    # the module against the tag that is given here.
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(dist)]
    command += [f"-C--build-option=--plat-name={wanted.tag}", str(tree(work))]
    run(command, CC=compiler, LDSHARED=f"{compiler} -shared -s")
    shutil.rmtree(tree(work) / "build")  # The next one is compiled anew.
    for path in dist.glob("*-linux_*.whl"):
        path.unlink()
    [wheel] = dist.glob(f"*-{wanted.tag}.whl")
    return wheel.name


def macos(dist: Path) -> str:
    """Both wheels, by `python -m tests.release.macos`."""
    run([sys.executable, "-m", "tests.release.macos", "--output", str(dist.absolute())])
    return ", ".join(sorted(path.name for path in dist.glob("*macosx*.whl")))
