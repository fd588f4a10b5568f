"""What must hold of the tree and of a folder with an sdist and wheels. Each check raises Failure, or says what it found."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.distribution import ROOT


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


def manylinux(dist: Path) -> str:
    """A Linux wheel needs nothing but a glibc; which one, and not one that is newer than its name says."""
    found = []
    for wheel in sorted(dist.glob("*linux*.whl")):
        report = " ".join(run(["auditwheel", "show", str(wheel)]).split())
        tag = re.search(r'consistent with the following platform tag: "(manylinux_(\d+)_(\d+)_\w+)"', report)
        if tag is None:
            raise Failure(f"  {wheel.name} needs more than a glibc: {report}")
        said = re.search(r"manylinux_(\d+)_(\d+)_", wheel.name)
        if said and (int(tag[2]), int(tag[3])) > (int(said[1]), int(said[2])):
            raise Failure(f"  {wheel.name} needs {tag[1]}")
        found.append(f"{wheel.name} needs {tag[1]}")
    return "; ".join(found)
