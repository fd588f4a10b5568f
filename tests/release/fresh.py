"""A user's machine: an environment with nothing in it, and the sdist."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig
import venv
from pathlib import Path

from .checks import Failure, run

#: What the tests of an unpacked sdist are to show: that it is whole, its documents too, and that the build works.
TESTS = (
    "test_audit.py",
    "test_errors.py",
    "test_launch.py",
    "test_message.py",
    "test_public_surface.py",
    "test_readme.py",
    "test_rights.py",
    "test_validation_docs.py",
)


def tested(dist: Path, work: Path, offline: bool) -> str:
    """Build the sdist into a fresh environment, and run tests of the unpacked one against what was installed.

    `offline`: with the tools and libraries of the environment that this runs in; otherwise with those of the index.
    """
    [sdist] = dist.glob("*.tar.gz")
    shutil.unpack_archive(sdist, work / "unpacked")
    [source] = (work / "unpacked").iterdir()
    environment = work / "environment"
    venv.EnvBuilder(symlinks=True, with_pip=not offline).create(environment)
    python = str(environment / "bin" / "python")
    [site] = environment.glob("lib/python*/site-packages")
    if offline:
        own = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
        # Behind what is installed there; the editable install's own path is in a .pth file, which is not read from here.
        (site / "surroundings.pth").write_text("\n".join(dict.fromkeys(own)) + "\n")
        command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
        run([*command, "--no-build-isolation", "--no-index", str(sdist)])
    else:
        run([python, "-m", "pip", "install", "--quiet", f"machrv[test] @ {sdist.as_uri()}"])
    shutil.rmtree(source / "machrv")  # What is imported from now on is what was installed.
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:warnings"]
    said = run([*command, *(f"tests/{name}" for name in TESTS)], cwd=source, PYTHONPATH="")
    where = run([python, "-c", "import machrv; print(machrv.__file__)"], cwd=source, PYTHONPATH="").strip()
    if not where.startswith(str(site)):
        raise Failure(f"  the tests were run against {where}, not against what was installed")
    version = ".".join(map(str, sys.version_info[:2]))
    return f"{said.strip().splitlines()[-1]}, Python {version}, {platform.system()}, {os.cpu_count()} processors"
