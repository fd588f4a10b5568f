"""The build for macOS, without a Mac: it compiles, it links with what there is, and it does not lie about layouts."""

from __future__ import annotations

import ctypes
import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.macho import DYLIB, FLAT_LOOKUP, PLATFORM_MACOS, MachO
from tests.standin.signatures import SIGNATURES

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = ["arm64", "x86_64"]
LIBSYSTEM = "/usr/lib/libSystem.B.dylib"

pytest.importorskip("ziglang", reason="ziglang, the compiler for macOS, is not installed: pip install ziglang")
pytest.importorskip("setuptools", "77")
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    pytest.skip("a free-threaded interpreter has no headers of the stable ABI", allow_module_level=True)


def build(tree: Path, output: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run `python -m tests.release.macos` as a person would: (exit status, all that it printed)."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.release.macos", "--output", str(output), *arguments],
        env={**os.environ, **environment},
        cwd=tree,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels that the one command makes."""
    output = tmp_path_factory.mktemp("macos") / "dist"
    status, printed = build(ROOT, output)
    assert status == 0, printed
    found = {path.name.rpartition("-")[2][len("macosx_11_0_") : -len(".whl")]: path for path in output.iterdir()}
    assert sorted(found) == ARCHITECTURES
    for path in found.values():
        assert str(path) in printed
    return found


@pytest.fixture(scope="module", params=ARCHITECTURES)
def wheel(wheels: dict[str, Path], request: pytest.FixtureRequest) -> Path:
    return wheels[request.param]


def module(wheel: Path) -> MachO:
    """The compiled module in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return MachO(archive.read("machrv/_mach.abi3.so"))


def libsystem() -> set[str]:
    """Every symbol of libSystem, from the list that the linker has of it."""
    spec = find_spec("ziglang")
    assert spec is not None and spec.origin is not None
    text = (Path(spec.origin).parent / "lib" / "libc" / "darwin" / "libSystem.tbd").read_text()
    return set(re.findall(r"(?<=[\s\[,'])_\w[\w$]*", text))


def test_the_docs_have_the_command_and_the_limit() -> None:
    """docs/macos.md builds the wheels in one line, and says what a Chromium client does with a seventh port."""
    text = (ROOT / "docs" / "macos.md").read_text()
    (block,) = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert block.count("\n") == 1 and block.endswith(
        "pip install -q -e '.[dev]' && .venv/bin/python -m tests.release.macos\n"
    )
    assert "room for six ports" in text and "MACH_RCV_TOO_LARGE" in text


# -- the wheels -------------------------------------------------------------------------------------------------------


def test_the_tags_say_what_the_wheels_run_on(wheel: Path) -> None:
    """Any CPython from 3.10, macOS 11 or later, one architecture; in the file's name and in its WHEEL."""
    architecture = "arm64" if "arm64" in wheel.name else "x86_64"
    tag = f"cp310-abi3-macosx_11_0_{architecture}"
    assert wheel.name.endswith(f"-{tag}.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/WHEEL")]
        fields = email.message_from_bytes(archive.read(name))
    assert fields.get_all("Tag") == [tag] and fields["Root-Is-Purelib"] == "false"


def test_the_wheels_hold_the_library_and_nothing_else(wheel: Path) -> None:
    """Every module and stub, one compiled module, the licence; no source of C, no test, no path of the machine."""
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        names = set(archive.namelist())
        contents = b"".join(map(archive.read, names))
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "machrv").rglob("*.py*") if path.suffix != ".pyc"}
    packaged = {name for name in names if ".dist-info/" not in name}
    assert packaged == ours | {
        f"machrv/{name}" for name in ("_mach.abi3.so", "py.typed", "trace/page.css", "trace/page.js")
    }
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert str(ROOT).encode() not in contents


def test_the_module_is_for_macos_11_on_that_architecture(wheel: Path) -> None:
    """A dynamic library for macOS from 11.0, linked with libSystem alone, signed where the system insists (arm64)."""
    found = module(wheel)
    assert found.architecture in wheel.name
    assert (found.file_type, found.platform, found.oldest_system) == (DYLIB, PLATFORM_MACOS, "11.0")
    assert found.libraries == [LIBSYSTEM] and found.name == "@rpath/_mach.abi3.so"
    assert found.is_signed or found.architecture == "x86_64"
    assert "_PyInit__mach" in found.exported


def test_every_symbol_is_python_s_or_libsystem_s(wheel: Path) -> None:
    """What is CPython's, this CPython has; everything else is in libSystem's list, and bound to libSystem."""
    known = libsystem()
    assert len(known) > 9_000 and "_mach_msg" in known
    found = module(wheel)
    assert found.bound.keys() == found.undefined
    for symbol, library in found.bound.items():
        if re.match(r"__?Py", symbol):
            assert hasattr(ctypes.pythonapi, symbol[1:]), symbol
            assert library == FLAT_LOOKUP, symbol
        else:
            assert symbol in known or symbol == "dyld_stub_binder", f"{symbol} is neither CPython's nor libSystem's"
            assert found.libraries[library - 1] == LIBSYSTEM, symbol


def test_every_declared_function_is_bound(wheel: Path) -> None:
    """All that include/machrv/darwin.h declares is called by the module: nothing was compiled away."""
    undefined = module(wheel).undefined
    for name in (*SIGNATURES, "bootstrap_port"):
        assert f"_{name}" in undefined, name


# -- what must not compile --------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the build reads."""
    tree = tmp_path / "source"
    tree.mkdir()
    for name in (
        "build_ffi.py",
        "pyproject.toml",
        "LICENSE",
        "tests/__init__.py",
        "tests/release/__init__.py",
        "tests/release/macos.py",
    ):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    (tree / "README.md").touch()
    shutil.copytree(ROOT / "include", tree / "include")
    shutil.copytree(ROOT / "machrv", tree / "machrv", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return tree


#: What each lie is about, the header, what it says, what it is made to say, and what the compiler says of it.
LIES = [
    ("a constant", "message", r"MACH_SEND_TIMED_OUT 0x10000004", "MACH_SEND_TIMED_OUT 0x10000005", "MACH_SEND_TIMED"),
    ("a missing constant", "port", r"(#define MPO_REPLY_PORT)", r"#define MPO_MADE_UP 1\n\1", "MPO_MADE_UP"),
    ("the size of a message", "message", r"(mach_msg_id_t msgh_id;)", r"\1\n    int more;", "mach_msg_header_t"),
    ("the order of members", "message", r"(    mach_port_t name;\n)(    mach_msg_size_t pad1;\n)", r"\2\1", "name"),
    (
        "the width of a bit-field",
        "message",
        r"disposition : 8;\n(.*)type : 8",
        r"disposition : 4;\n\1type : 4",
        "mach_msg_port_descriptor_t.type",
    ),
    ("a status", "port", r"    boolean_t mps_srights;\n", "", "mach_port_status_t"),
    ("a struct of kqueue's", "libsystem", r"int16_t filter;", "int32_t filter;", "kevent_t"),
    ("a type's size", "port", r"typedef natural_t mach_port_seqno_t", "typedef long mach_port_seqno_t", "seqno_t"),
    ("a packing", "message", r"#pragma pack\(push, 4\)", "#pragma pack(push, 8)", "ool_descriptor"),
    ("a prototype", "mach", r"(mach_port_deallocate\(mach_port_t task, )mach_port_name_t", r"\1long", "conflicting"),
    ("a result", "darwin", r"int kqueue", "long kqueue", "conflicting types for 'kqueue'"),
]


@pytest.mark.parametrize(("what", "header", "pattern", "lie", "said"), LIES, ids=[lie[0] for lie in LIES])
def test_a_header_that_lies_does_not_compile(
    tree: Path, what: str, header: str, pattern: str, lie: str, said: str
) -> None:
    """Each is found by the compiler, against Apple's own headers, and the error names it."""
    path = tree / "include" / "machrv" / f"{header}.h"
    text, count = re.subn(pattern, lie, path.read_text())
    assert count, what
    path.write_text(text)
    status, printed = build(tree, tree.parent / "dist", "--arch", "arm64")
    assert status != 0
    assert "does not compile for macOS on arm64" in printed and "error:" in printed
    assert said in printed
    assert not list((tree.parent / "dist").glob("*.whl"))


def test_a_function_that_libsystem_lacks_is_found(tree: Path) -> None:
    """It compiles and links, since the interpreter might have it; the check of symbols tells that nobody does."""
    path = tree / "include" / "machrv" / "darwin.h"
    path.write_text(path.read_text().replace("int kqueue(void);", "int kqueue(void);\nint machrv_nobody(int fd);"))
    status, printed = build(tree, tree.parent / "dist", "--arch", "arm64")
    assert status == 0, printed
    (wheel,) = (tree.parent / "dist").iterdir()
    with pytest.raises(AssertionError, match="_machrv_nobody is neither CPython's nor libSystem's"):
        test_every_symbol_is_python_s_or_libsystem_s(wheel)


# -- what it says when it cannot build --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "advice"),
    [("find_spec", "pip install ziglang"), ("get_path", "apt install python3-dev")],
    ids=["compiler", "headers of Python"],
)
def test_what_is_missing_is_named(
    tree: Path, monkeypatch: pytest.MonkeyPatch, missing: str, advice: str, tmp_path: Path
) -> None:
    """Without the compiler, or without Python's headers, the error says what to install."""
    module = {"find_spec": "importlib.util", "get_path": "sysconfig"}[missing]
    result = "None" if missing == "find_spec" else repr(str(tmp_path / "nowhere"))
    script = (
        f"import sys, {module}; {module}.{missing} = lambda *_: {result}\n"
        f"sys.path.insert(0, {str(tree)!r}); sys.argv = ['macos.py', '--output', {str(tmp_path / 'dist')!r}]\n"
        "import tests.release.macos; tests.release.macos.main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode != 0
    assert advice in done.stderr and "Traceback" not in done.stderr


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    """There are two."""
    status, printed = build(ROOT, tmp_path / "dist", "--arch", "ppc")
    assert status == 2 and "arm64" in printed and "x86_64" in printed
