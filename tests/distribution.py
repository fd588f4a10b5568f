"""The sdist and the wheel of this tree, built once in a run of the tests, and environments to install them into.

What belongs here: what more than one test needs of a distribution. What must never happen here: a build in the tree
itself, or from what git does not know of.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: What a copy of the tree leaves behind.
IGNORED = shutil.ignore_patterns(".*", "__pycache__", "*.so", "*.egg-info", "build", "dist", "_build")


def copy_of_the_tree(into: Path) -> Path:
    """A copy of what is shipped, and nothing that a build here has left."""
    shutil.copytree(ROOT, into, ignore=IGNORED)
    return into


@cache
def built() -> tempfile.TemporaryDirectory[str]:
    """A folder with the sdist of a copy of this tree, and the wheel of that sdist. Gone when Python ends."""
    folder = tempfile.TemporaryDirectory(prefix="machrv-dist-")
    source = copy_of_the_tree(Path(folder.name) / "source")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder.name, str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert 0 == done.returncode, done.stdout + done.stderr
    return folder


def wheel() -> Path:
    """The wheel."""
    [path] = Path(built().name).glob("*.whl")
    return path


def sdist() -> Path:
    """The sdist."""
    [path] = Path(built().name).glob("*.tar.gz")
    return path


def files_in_sdist() -> set[str]:
    """The files in the sdist, without its one folder."""
    with tarfile.open(sdist()) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


def files_in_wheel() -> set[str]:
    """The files in the wheel."""
    with zipfile.ZipFile(wheel()) as archive:
        return set(archive.namelist())


def installed(folder: Path) -> Path:
    """A fresh environment with nothing in it but the wheel, as `pip install` lays it out; its interpreter."""
    venv.EnvBuilder(symlinks=True).create(folder)
    [site] = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel()) as archive:
        archive.extractall(site)
    return folder / "bin" / "python"
