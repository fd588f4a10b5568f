"""What is built for a release, from a copy of the tree as git has it."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

from tests.distribution import IGNORED, ROOT

from .checks import Failure, run

#: The oldest glibc that the Linux wheels shall run with: that of the image that the workflow builds in.
GLIBC = "2.28"


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


def manylinux(dist: Path, work: Path) -> str:
    """The wheel as the workflow's image makes it: against an old glibc, with auditwheel's tag. It replaces the other."""
    if sys.platform != "linux":
        return "not on this system"
    compiler = f"{sys.executable} -m ziglang cc -target {platform.machine()}-linux-gnu.{GLIBC}"
    built = work / "manylinux"
    run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(built), str(tree(work))],
        CC=compiler,
        LDSHARED=f"{compiler} -shared",
    )
    [wheel] = built.glob("*.whl")
    run(
        ["auditwheel", "repair", "--plat", f"manylinux_2_{GLIBC[2:]}_{platform.machine()}", "-w", str(dist), str(wheel)]
    )
    for path in dist.glob("*-linux_*.whl"):
        path.unlink()
    names = sorted(path.name for path in dist.glob("*manylinux*.whl"))
    if not names:
        raise Failure("auditwheel made no wheel with a manylinux tag")
    return ", ".join(names)


def macos(dist: Path) -> str:
    """Both wheels, by `python -m tests.release.macos`."""
    run([sys.executable, "-m", "tests.release.macos", "--output", str(dist.absolute())])
    return ", ".join(sorted(path.name for path in dist.glob("*macosx*.whl")))
