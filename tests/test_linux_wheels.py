"""The wheels for other Linuxes, built here: each is for the machine and the C library that its name says, and needs nothing else."""

from __future__ import annotations

import ctypes
import re
import sys
import sysconfig
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from .distribution import ROOT
from .elf import ELF
from .release import build, checks

if sys.platform != "linux":
    pytest.skip("built on Linux", allow_module_level=True)
if find_spec("ziglang") is None or find_spec("build") is None:
    pytest.skip("ziglang or build is not installed (pip install 'machrv[release]')", allow_module_level=True)
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    pytest.skip("a free-threaded interpreter has no headers of the stable ABI", allow_module_level=True)

pytestmark = pytest.mark.slow

#: Another processor and another C library; the rest is `python -m tests.release`'s.
WANTED = [build.Linux("aarch64", build.GLIBC_TAG), build.Linux("x86_64", build.MUSL)]
#: glibc's own parts, on either processor.
GLIBC = {"libc.so.6", "libpthread.so.0", "ld-linux-aarch64.so.1", "ld-linux-x86-64.so.2"}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheels."""
    work = tmp_path_factory.mktemp("linux")
    (work / "dist").mkdir()
    for wanted in WANTED:
        build.linux(work / "dist", work, wanted)
    return work / "dist"


@pytest.fixture(scope="module", params=WANTED, ids=lambda wanted: wanted.tag)
def wanted(request: pytest.FixtureRequest) -> build.Linux:
    assert isinstance(request.param, build.Linux)
    return request.param


@pytest.fixture(scope="module")
def wheel(dist: Path, wanted: build.Linux) -> Path:
    [path] = dist.glob(f"*-{wanted.tag}.whl")
    return path


@pytest.fixture(scope="module")
def module(wheel: Path) -> ELF:
    """The compiled module in it."""
    with zipfile.ZipFile(wheel) as archive:
        return ELF(archive.read("machrv/_mach.abi3.so"))


def test_the_wheel_says_what_it_is_for(wheel: Path, wanted: build.Linux) -> None:
    """Any CPython from 3.10, one C library, one processor; in the file's name and in its WHEEL."""
    assert wheel.name.endswith(f"-cp310-abi3-{wanted.tag}.whl")
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/WHEEL")]
        assert f"Tag: cp310-abi3-{wanted.tag}\n" in archive.read(name).decode()


def test_the_module_is_for_that_machine_and_needs_the_c_library_alone(module: ELF, wanted: build.Linux) -> None:
    """No other library, none from a folder of this machine; no symbol of a newer glibc than the name says."""
    assert (module.machine, module.paths) == (wanted.architecture, [])
    if wanted.library == build.MUSL:
        assert (module.needed, module.versions) == (["libc.so"], {})
    else:
        assert set(module.needed) <= GLIBC
        versions = {name for names in module.versions.values() for name in names}
        assert {"GLIBC_2.17"} <= versions and all(re.fullmatch(r"GLIBC_2\.(\d+)", name) for name in versions)
        assert max(int(name.rpartition(".")[2]) for name in versions) <= int(build.GLIBC.rpartition(".")[2])


def test_nothing_of_the_c_is_seen_from_outside(module: ELF) -> None:
    """The module's one entry; what CFFI binds is found through it."""
    assert {name for name in module.defined if not name.startswith("_")} == {"PyInit__mach"}
    assert not [name for name in module.undefined if name.startswith(("mach_", "machrv_", "bootstrap_"))]


def test_the_release_looks_at_them(dist: Path, tmp_path: Path) -> None:
    """Its check passes these, and no wheel that says another machine or an older C library than it needs."""
    said = checks.linux(dist)
    assert "aarch64.whl needs glibc 2." in said and "x86_64.whl needs musl" in said
    for wheel in dist.glob("*.whl"):
        for tag in ("manylinux_2_28_x86_64", "musllinux_1_2_aarch64", "manylinux_2_17_aarch64"):
            (tmp_path / tag).mkdir(exist_ok=True)
            lie = tmp_path / tag / re.sub(r"abi3-.*\.whl", f"abi3-{tag}.whl", wheel.name)
            lie.write_bytes(wheel.read_bytes())
            with pytest.raises(checks.Failure):
                checks.linux(tmp_path / tag)
            lie.unlink()


def test_the_wheels_hold_the_library_and_nothing_else(wheel: Path) -> None:
    """Every module and stub, one compiled module, the licence; no source of C, no test, no path of the machine."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        contents = b"".join(map(archive.read, names))
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "machrv").rglob("*.py*") if path.suffix != ".pyc"}
    others = {f"machrv/{name}" for name in ("_mach.abi3.so", "py.typed", "trace/page.css", "trace/page.js")}
    assert {name for name in names if ".dist-info/" not in name} == ours | others
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert str(ROOT).encode() not in contents and str(Path(sys.prefix)).encode() not in contents


def test_every_symbol_is_pythons_or_the_c_librarys(module: ELF) -> None:
    """What is CPython's, this CPython has; what is not, this machine's C library has too, whichever it is."""
    own = {"__tls_get_addr", "atexit", "pthread_atfork"}  # of the loader; and those that glibc has in each program
    missing = [name for name in module.undefined - own if not hasattr(ctypes.pythonapi, name)]
    assert missing == []
