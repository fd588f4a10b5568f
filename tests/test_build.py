"""build_ffi.py: what it makes of the headers, and what it says when it cannot compile."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from machrv._mach import lib

ROOT = Path(__file__).resolve().parent.parent

pytest.importorskip("setuptools", "77")


@pytest.fixture
def source_tree(tmp_path: Path) -> Path:
    """A copy of what a build needs, so that a failing build cannot touch the one in use."""
    tree = tmp_path / "source"
    tree.mkdir()
    for name in ("build_ffi.py", "setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    (tree / "README.md").touch()
    shutil.copytree(ROOT / "include", tree / "include")
    shutil.copytree(ROOT / "machrv", tree / "machrv", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return tree


def build_ffi(*arguments: str, tree: Path = ROOT, cwd: Path | None = None, **environment: str) -> tuple[int, str, str]:
    """Run build_ffi.py as a person would: (exit status, stdout, stderr)."""
    done = subprocess.run(
        [sys.executable, str(tree / "build_ffi.py"), *arguments],
        cwd=cwd or tree,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_cdefs_can_be_printed_from_anywhere(tmp_path: Path) -> None:
    """--cdef prints declarations without a value, a guard, an include or a comment in them, wherever it is run."""
    status, cdef, _ = build_ffi("--cdef", cwd=tmp_path)
    assert 0 == status
    assert "#define MACH_SEND_MSG ...\n" in cdef
    assert "} mach_msg_header_t;\n" in cdef
    assert "/*" not in cdef
    for line in cdef.splitlines():
        assert not line.startswith("#") or re.fullmatch(r"#define \w+ \.\.\.", line), line


def test_the_cdefs_are_all_that_is_in_the_headers() -> None:
    """Every constant of a header that this platform builds is in the compiled module."""
    skipped = {"linux": "darwin.h", "darwin": "linux.h"}[sys.platform]
    count = 0
    for header in (ROOT / "include" / "machrv").glob("*.h"):
        if header.name != skipped:
            for name in re.findall(r"^#define (\w+)[ \t]+\S", header.read_text(), re.MULTILINE):
                assert isinstance(getattr(lib, name), int), name
                count += 1
    assert count > 250


def test_the_stub_is_up_to_date() -> None:
    """machrv/_mach.pyi knows what the headers declare: `python build_ffi.py` rewrites it."""
    status, stub, _ = build_ffi("--stub")
    assert 0 == status
    assert stub == (ROOT / "machrv" / "_mach.pyi").read_text()


def test_an_unknown_argument_is_refused() -> None:
    """A misspelt option does not start a build."""
    status, _, error = build_ffi("--cdefs")
    assert 0 != status
    assert "usage" in error


def test_it_compiles_in_place(source_tree: Path) -> None:
    """Without an argument the module is compiled beside the library, for the stable ABI, and can be imported there."""
    status, _, error = build_ffi(tree=source_tree, cwd=source_tree.parent)
    assert 0 == status, error
    built = [path.name for path in (source_tree / "machrv").glob("_mach*.so")]
    assert 1 == len(built)
    assert "abi3" in built[0] or not getattr(sys, "_is_gil_enabled", lambda: True)()
    script = "from machrv._mach import lib; print(lib.MACH_SEND_MSG)"
    done = subprocess.run([sys.executable, "-c", script], cwd=source_tree, capture_output=True, text=True)
    assert ("1\n", "") == (done.stdout, done.stderr)


def test_a_missing_compiler_is_named(source_tree: Path) -> None:
    """Without a compiler the error says which package has one, on Debian and on Fedora, and is no traceback."""
    status, _, error = build_ffi(tree=source_tree, CC="/nonexistent/cc")
    assert 0 != status
    assert "apt install gcc libc6-dev" in error
    assert "dnf install gcc" in error
    assert "python3-dev" not in error
    assert "Traceback" not in error


def test_missing_python_headers_are_named(source_tree: Path) -> None:
    """With a compiler that finds no Python.h the error says which package has it, on Debian and on Fedora."""
    compiler = source_tree.parent / "cc"
    compiler.write_text("""#!/bin/sh
for argument do
    shift
    case "$argument" in -I/*) ;; *) set -- "$@" "$argument" ;; esac
done
exec cc "$@"
""")
    compiler.chmod(0o755)
    status, _, error = build_ffi(tree=source_tree, CC=str(compiler))
    assert 0 != status
    assert "apt install python3-dev" in error
    assert "dnf install python3-devel" in error
    assert "install gcc" not in error
    assert "Traceback" not in error


def test_an_error_of_our_own_is_not_blamed_on_the_system(source_tree: Path) -> None:
    """A header that does not compile is reported as what it is."""
    with (source_tree / "include" / "machrv" / "notify.h").open("a") as header:
        header.write("#error our own mistake\n")
    status, _, error = build_ffi(tree=source_tree)
    assert 0 != status
    assert "our own mistake" in error
    assert "apt install" not in error


def test_another_python_than_cpython_is_refused_before_anything_is_built(source_tree: Path) -> None:
    """As by `pip install` with PyPy: it says what to do, and compiles nothing."""
    program = "import runpy, sys\nsys.implementation.name = 'pypy'\nsys.argv[1:] = ['build']\nrunpy.run_path('setup.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", program], cwd=source_tree, capture_output=True, text=True)
    assert done.returncode == 1
    assert "machrv cannot be installed for" in done.stderr and "it needs CPython 3.10 or newer" in done.stderr
    assert "Traceback" not in done.stderr and not (source_tree / "build").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C of Linux")
@pytest.mark.skipif(find_spec("ziglang") is None, reason="ziglang is not installed (pip install 'machrv[release]')")
@pytest.mark.parametrize(
    "target, why",
    [("s390x-linux-musl", "machrv needs a little-endian machine"), ("x86-linux-musl", "build it for a 64-bit target")],
)
def test_a_machine_that_it_is_not_for_is_refused_by_the_compiler(target: str, why: str) -> None:
    """Big-endian, 32 bits: the first error says so."""
    source = ROOT / "machrv" / "native" / "linux" / "vm.c"
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-target",
        target,
        f"-I{ROOT / 'include'}",
        "-fsyntax-only",
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert why in re.findall(r"error: (.*)", done.stderr)[0]
