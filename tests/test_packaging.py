"""What is shipped: the sdist, the wheel that is made from it, and what runs when that wheel is installed."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import machrv
from tests.distribution import ROOT, files_in_sdist, files_in_wheel, installed, sdist, wheel
from tests.release.checks import Failure, declared_version, version

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

pytest.importorskip("build")
pytest.importorskip("setuptools", "77")


def test_the_sdist_has_all_that_a_build_needs() -> None:
    """Headers, C, the build script, the tests and what they read are in it; nothing compiled is."""
    files = files_in_sdist()
    needed = {"README.md", "CONTRIBUTING.md", "docs/linux.md", "bench/measure.py"}
    needed |= {"build_ffi.py", "setup.py", "pyproject.toml", "LICENSE", "CHANGELOG.md", "tests/test_packaging.py"}
    needed |= {f"include/machrv/{path.name}" for path in (ROOT / "include" / "machrv").glob("*.h")}
    needed |= {str(path.relative_to(ROOT)) for path in (ROOT / "machrv" / "native").rglob("*.[ch]")}
    needed |= {str(path.relative_to(ROOT)) for path in (ROOT / "machrv").rglob("*.py")}
    assert set() == needed - files
    assert set() == {name for name in files if name.endswith((".so", ".o", ".pyc"))}


def test_the_wheel_has_the_library_and_nothing_else() -> None:
    """Every module, the compiled one, the stubs and py.typed, the parts of the trace's page; no C, no tests, no build script."""
    files = {name for name in files_in_wheel() if ".dist-info/" not in name}
    assert set() == {name for name in files if not name.startswith("machrv/")}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "machrv").rglob("*.py")}
    page = {"machrv/trace/page.css", "machrv/trace/page.js"}
    [compiled] = [name for name in files if name.endswith(".so")]
    assert modules | page | {compiled, "machrv/__init__.pyi", "machrv/_mach.pyi", "machrv/py.typed"} == files


def test_the_wheel_is_for_the_stable_abi() -> None:
    """One wheel serves Python 3.10 and all that follow, where the GIL is on."""
    if FREE_THREADED:
        assert "abi3" not in wheel().name
    else:
        assert wheel().name.split("-")[2:4] == ["cp310", "abi3"]
        assert "machrv/_mach.abi3.so" in files_in_wheel()


def test_the_wheel_says_what_it_is() -> None:
    """Licence, the one dependency, the oldest Python, and the console script."""
    path = wheel()
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
    extras = {line.split()[1] for line in metadata if line.startswith("Provides-Extra:")}
    assert {"bench", "dev", "docs", "release", "test"} == extras
    assert "machrv.cli:main" == scripts["console_scripts"]["machrv"]


def test_the_installed_wheel_works_without_the_checkout(tmp_path: Path) -> None:
    """Installed somewhere else, with no checkout and no compiler in sight, it is imported from there and the codec runs."""
    python = installed(tmp_path / "environment")
    script = (
        "import sys; sys.path += sys.argv[1:]\n"  # CFFI's: behind what is installed.
        "import machrv.message\n"
        "print(machrv.message.__file__)\n"
        "print(machrv.__version__)\n"
        "print(machrv.message.Message.decode(machrv.message.Message(7, b'good').encode()).body.decode())"
    )
    command = [str(python), "-I", "-c", script, sysconfig.get_path("platlib")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    file, said, body = done.stdout.splitlines()
    assert file.startswith(str(tmp_path))
    assert (declared_version(), "good") == (said, body), done.stderr


def test_the_version_is_written_down_once() -> None:
    """`machrv.__version__`, `machrv --version`, the sdist and the wheel say what pyproject.toml says; nothing else says one."""
    declared = declared_version()
    assert declared == machrv.__version__, "install again what is here: pip install -e ."
    command = [sys.executable, "-m", "machrv", "--version"]
    assert f"machrv {declared}\n" == subprocess.check_output(command, text=True)
    assert wheel().name.startswith(f"machrv-{declared}-")
    assert sdist().name == f"machrv-{declared}.tar.gz"
    number = re.compile(rf"\b{re.escape(declared.partition('.dev')[0])}\b")
    sources = [path for name in ("machrv", "docs", "include") for path in (ROOT / name).rglob("*.[phcm]*")]
    sources += [ROOT / "setup.py", ROOT / "build_ffi.py", ROOT / "README.md"]
    text = [
        path for path in sources if path.suffix in (".py", ".pyi", ".h", ".c", ".md") and "_build" not in path.parts
    ]
    assert [str(path) for path in text if number.search(path.read_text())] == []


def test_a_tag_is_checked_against_the_version_and_the_changelog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tag of another version, or a changelog whose first section is not that version's, dated, is refused."""
    monkeypatch.setattr("tests.release.checks.ROOT", tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n## 1.2.2 (2026-01-01)\n")
    assert "1.2.3" in version(None)
    with pytest.raises(Failure, match="begins with 'Unreleased'"):
        version("v1.2.3")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.3 (2026-02-01)\n\n## 1.2.2 (2026-01-01)\n")
    assert "1.2.3" in version("v1.2.3")
    with pytest.raises(Failure, match="the tag is v1.2.4"):
        version("v1.2.4")


def test_what_the_tools_know_of_is_held_where_it_is() -> None:
    """A formatter or type checker that is released next year changes nothing here: each has an upper bound."""
    [tools] = re.findall(r"^dev = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    for tool in ("black", "mypy", "pyright"):
        [requirement] = re.findall(rf'"({tool}[^"]*)"', tools)
        assert re.search(r"~=|==|<", requirement), requirement
