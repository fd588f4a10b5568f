"""What must hold of the tree and of a folder with an sdist and wheels. Each check raises Failure, or says what it found."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.distribution import ROOT
from tests.elf import ELF

_TAG = re.compile(r"[-.]((?:many|musl)?linux(?:_\d+_\d+)?)_(x86_64|aarch64)")


class Failure(Exception):
    """Something is not as it must be; the text says what, as far as it is known."""


def run(command: list[str], cwd: Path | None = None, **environment: str) -> str:
    """Run a tool of this environment; its output. Raises Failure with it where the tool is not content."""
    folder = Path(sys.executable).parent
    path = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"
    if shutil.which(command[0], path=path) is None:
        raise Failure(f"  {command[0]} is not installed: pip install -e '.[release]'")
    surroundings = {**os.environ, "PATH": path, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "NO_COLOR": "1", **environment}
    done = subprocess.run(command, cwd=cwd or ROOT, env=surroundings, capture_output=True, text=True)
    if done.returncode:
        raise Failure(f"  {' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def declared_version() -> str:
    """The version, from the one place where it is written down. (tomllib came with Python 3.11.)"""
    found = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    if found is None:
        raise Failure("  pyproject.toml says no version")
    return found[1]


def version(tag: str | None) -> str:
    """The changelog has a section for what is given out; with a tag, it and the version are those of the tag."""
    declared = declared_version()
    sections = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    if not sections:
        raise Failure("  CHANGELOG.md has no section")
    if tag is not None:
        if tag != f"v{declared}":
            raise Failure(f"  the tag is {tag}, and pyproject.toml says {declared}")
        if not re.fullmatch(rf"{re.escape(declared)} \(\d{{4}}-\d\d-\d\d\)", sections[0]):
            raise Failure(f"  CHANGELOG.md begins with {sections[0]!r}: it must be '{declared} (YYYY-MM-DD)'")
    elif sections[0] != "Unreleased" and not sections[0].startswith(f"{declared} ("):
        raise Failure(f"  CHANGELOG.md begins with {sections[0]!r}: it must be 'Unreleased', or {declared}")
    return f"{declared}; the changelog begins with {sections[0]!r}"


def workflows() -> str:
    """Nothing in the workflows that lets a stranger in."""
    folder = ROOT / ".github" / "workflows"
    if not folder.exists():
        return "there are none in an sdist"
    run(["zizmor", "--offline", "--no-progress", "--quiet", str(folder)])
    return ""


def names(dist: Path) -> str:
    """One sdist, at least one wheel, each of the declared version."""
    files = sorted(path.name for path in dist.iterdir())
    declared = declared_version()
    strangers = [
        name for name in files if not name.startswith(f"machrv-{declared}") or name[-4:] not in (".whl", "r.gz")
    ]
    sdists = [name for name in files if name.endswith(".tar.gz")]
    if strangers or len(sdists) != 1 or len(files) < 2:
        raise Failure(f"  expected one sdist and some wheels of version {declared}, found {', '.join(files)}")
    return ", ".join(files)


def metadata(dist: Path) -> str:
    """What the index shows can be shown."""
    run(["twine", "check", "--strict", *sorted(map(str, dist.iterdir()))])
    return ""


def contents(dist: Path) -> str:
    """The wheels hold the library, all of it once, and nothing else."""
    run(["check-wheel-contents", *sorted(map(str, dist.glob("*.whl")))])
    return ""


def stable_abi(dist: Path) -> str:
    """What a wheel's tag says of the stable ABI is so."""
    wheels = sorted(map(str, dist.glob("*-abi3-*.whl")))
    if wheels:
        run(["abi3audit", "--strict", "--assume-minimum-abi3", "3.10", *wheels])
    return f"{len(wheels)} wheels"


def linux(dist: Path) -> str:
    """A Linux wheel needs nothing but the C library that its name says, no newer one, and is for the machine it says."""
    found = []
    for wheel in sorted(dist.glob("*linux*.whl")):
        library, architecture = _TAG.findall(wheel.name)[-1]
        with zipfile.ZipFile(wheel) as archive:
            [name] = [name for name in archive.namelist() if name.endswith(".so")]
            module = ELF(archive.read(name))
        if module.machine != architecture:
            raise Failure(f"  {wheel.name} is for {module.machine}")
        # A wheel that is no more than this machine's may look where its interpreter does.
        if module.paths and "-linux_" not in wheel.name:
            raise Failure(f"  {wheel.name} looks for libraries in {module.paths}")
        if library.startswith("musl"):
            # musl's loader answers to this name itself, whatever its own file is called.
            if module.needed != ["libc.so"] or module.versions:
                raise Failure(f"  {wheel.name} needs more than musl: {module.needed}, {module.versions}")
            found.append(f"{wheel.name} needs musl")
            continue
        if not set(module.needed) <= {"libc.so.6", "libpthread.so.0", "ld-linux-aarch64.so.1", "ld-linux-x86-64.so.2"}:
            raise Failure(f"  {wheel.name} needs more than glibc: {module.needed}")
        versions = {tuple(map(int, said[6:].split("."))) for names in module.versions.values() for said in names}
        newest = max(versions)
        said = re.search(r"manylinux_(\d+)_(\d+)_", wheel.name)
        if said and newest > (int(said[1]), int(said[2])):
            raise Failure(f"  {wheel.name} needs glibc {'.'.join(map(str, newest))}")
        found.append(f"{wheel.name} needs glibc {'.'.join(map(str, newest))}")
    return "; ".join(found)
