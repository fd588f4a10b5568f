"""What is shipped: the sdist, the wheel that is made from it, and what runs when that wheel is installed."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

pytest.importorskip("build")
pytest.importorskip("setuptools", "77")


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of a copy of this checkout, and the wheel of that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    source = folder / "source"
    source.mkdir()
    for path in ROOT.iterdir():
        if path.name in ("include", "machrv", "tests"):
            shutil.copytree(path, source / path.name, ignore=shutil.ignore_patterns(".*"))
        elif path.is_file():
            shutil.copy(path, source)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert 0 == done.returncode, done.stdout + done.stderr
    return folder


def files_in_sdist(dist: Path) -> set[str]:
    [path] = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


def files_in_wheel(dist: Path) -> set[str]:
    [path] = dist.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def test_the_sdist_has_all_that_a_build_needs(dist: Path) -> None:
    """Headers, C, the build script and the tests are in it; nothing compiled is."""
    files = files_in_sdist(dist)
    needed = {"build_ffi.py", "setup.py", "pyproject.toml", "LICENSE", "CHANGELOG.md", "tests/test_packaging.py"}
    needed |= {f"include/machrv/{path.name}" for path in (ROOT / "include" / "machrv").glob("*.h")}
    needed |= {str(path.relative_to(ROOT)) for path in (ROOT / "machrv" / "native").rglob("*.[ch]")}
    needed |= {str(path.relative_to(ROOT)) for path in (ROOT / "machrv").rglob("*.py")}
    assert set() == needed - files
    assert set() == {name for name in files if name.endswith((".so", ".o", ".pyc"))}


def test_the_wheel_has_the_library_and_nothing_else(dist: Path) -> None:
    """Every module, the compiled one, its stub and py.typed, the parts of the trace's page; no C, no tests, no build script."""
    files = {name for name in files_in_wheel(dist) if ".dist-info/" not in name}
    assert set() == {name for name in files if not name.startswith("machrv/")}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "machrv").rglob("*.py")}
    page = {"machrv/trace/page.css", "machrv/trace/page.js"}
    [compiled] = [name for name in files if name.endswith(".so")]
    assert modules | page | {compiled, "machrv/_mach.pyi", "machrv/py.typed"} == files


def test_the_wheel_is_for_the_stable_abi(dist: Path) -> None:
    """One wheel serves Python 3.10 and all that follow, where the GIL is on."""
    [wheel] = dist.glob("*.whl")
    if FREE_THREADED:
        assert "abi3" not in wheel.name
    else:
        assert wheel.name.split("-")[2:4] == ["cp310", "abi3"]
        assert "machrv/_mach.abi3.so" in files_in_wheel(dist)


def test_the_wheel_says_what_it_is(dist: Path) -> None:
    """Licence, the one dependency, the oldest Python, and the console script."""
    [path] = dist.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        info = path.name.partition("-cp")[0] + ".dist-info"
        metadata = archive.read(f"{info}/METADATA").decode().splitlines()
        scripts = configparser.ConfigParser()
        scripts.read_string(archive.read(f"{info}/entry_points.txt").decode())
        assert b"The machrv authors" in archive.read(f"{info}/licenses/LICENSE")
    assert "License-Expression: BSD-3-Clause" in metadata
    assert "Requires-Python: >=3.10" in metadata
    required = [line for line in metadata if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert ["cffi"] == [line.split()[1].split(">")[0] for line in required]
    assert {"bench", "test", "dev"} == {line.split()[1] for line in metadata if line.startswith("Provides-Extra:")}
    assert "machrv.cli:main" == scripts["console_scripts"]["machrv"]


def test_the_installed_wheel_works_without_the_checkout(dist: Path, tmp_path: Path) -> None:
    """Installed somewhere else, it is imported from there, and the codec runs."""
    [wheel] = dist.glob("*.whl")
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    done = subprocess.run([*command, str(wheel)], capture_output=True, text=True)
    assert 0 == done.returncode, done.stderr
    script = (
        f"import sys; sys.path.insert(0, {str(target)!r})\n"
        "import machrv.message\n"
        "print(machrv.message.__file__)\n"
        "print(machrv.message.Message.decode(machrv.message.Message(7, b'good').encode()).body.decode())"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert f"{target / 'machrv' / 'message.py'}\ngood\n" == done.stdout, done.stderr
