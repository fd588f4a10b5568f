"""Build machrv._mach, the compiled module, from the C declarations in include/machrv/.

What belongs here: turning headers into cdefs, and compiling them. What must never happen here: a struct, constant or
prototype that is not read from a header.

    python build_ffi.py          compile machrv/_mach in place, and bring its type stub up to date
    python build_ffi.py --cdef   print the cdefs that CFFI is given
    python build_ffi.py --stub   print the type stub

The rules for a header in include/machrv/, so that this file can stay simple: one declaration after the other, no
conditionals but the guard and `#ifdef __APPLE__`, every struct a `typedef struct`, one member a line. Where CFFI cannot
express something (packing, bit-fields inside it), the compiler is asked instead: see `_struct`.

The prototypes of mach.h are libSystem's on macOS, where one that differs from Apple's does not compile. On Linux they are
those of machrv/native/linux, which is compiled into the module.
"""

from __future__ import annotations

import argparse
import os
import re
import runpy
import sys
import tempfile
from pathlib import Path
from struct import calcsize
from typing import Any

from cffi import FFI
from setuptools.command.build_ext import build_ext as _build_ext
from setuptools.errors import CompileError

ROOT = Path(__file__).resolve().parent
INCLUDE = ROOT / "include"
NATIVE = ROOT / "machrv" / "native"

#: For the C of machrv/native/linux. Nothing of it is seen from outside the module.
FLAGS = ("-std=gnu11", "-O2", "-fvisibility=hidden", "-pthread")

#: What Python's `struct` calls the integers that packed structs are made of, and bit-fields of so many bits.
CODES = {"int": "i", "unsigned int": "I", "unsigned long": "Q", "void *": "Q"}
BITS = {"8": "B", "16": "H", "24": "3s"}

#: In the order of their dependencies. A platform adds its own: see `header_names`.
PORTABLE = ("kern_return", "port", "message", "notify", "bootstrap", "rendezvous", "libsystem", "mach")

_DEFINE = re.compile(r"#\s*define\s+(\w+)[ \t]+(\S.*)")
_STRUCT = re.compile(r"typedef struct(?: \w+)? \{\n(?P<members>[^}]*)\} (?P<name>\w+);")
_BIT_FIELD = re.compile(r"^\s*[\w ]+?\b(\w+) : (\d+);\n", re.MULTILINE)
_MEMBER = re.compile(r"\b(\w+)(?:\[\w+\])?;")
_INTEGER = re.compile(r"^typedef ([\w ]+?) (\w+);", re.MULTILINE)
_VARIABLE = re.compile(r"^extern [\w ]+?(\w+);", re.MULTILINE)
_TYPED = re.compile(r"^\s*([\w ]+?[ *]+)(\w+)(?:\[(\d+)\]| : (\d+))?;", re.MULTILINE)
_PROTOTYPE = re.compile(r"^(\w[\w ]*?[ *]+)(\w+)\([^()]*\);", re.MULTILINE)


def platform_name(platform: str = sys.platform) -> str:
    """The name of the header and of the folder of C files that only this platform has."""
    return "linux" if platform.startswith("linux") else platform


def header_names(platform: str = sys.platform) -> list[str]:
    """The headers to declare, without their suffix."""
    own = platform_name(platform)
    return [*PORTABLE, own] if (INCLUDE / "machrv" / f"{own}.h").exists() else list(PORTABLE)


def _read(name: str) -> str:
    """A header without comments, its continued lines joined."""
    text = (INCLUDE / "machrv" / f"{name}.h").read_text()
    text = text.replace("\\\n", " ")
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)


def constants(text: str) -> list[tuple[str, str]]:
    """The object-like macros with a value: (name, value)."""
    return [(match[1], match[2].strip()) for match in map(_DEFINE.match, text.splitlines()) if match]


def _packed(text: str) -> list[re.Match[str]]:
    """The structs between #pragma pack(push, 4) and pop."""
    structs = []
    for region in re.finditer(r"#pragma pack\(push, 4\)\n(.*?)#pragma pack\(pop\)\n", text, re.DOTALL):
        structs += list(_STRUCT.finditer(text, region.start(), region.end()))
    return structs


def bit_fields(text: str) -> list[tuple[str, str]]:
    """Every bit-field of a packed struct: (struct, member)."""
    return [(struct["name"], field[1]) for struct in _packed(text) for field in _BIT_FIELD.finditer(struct["members"])]


def _struct(struct: re.Match[str]) -> str:
    """The cdef of a packed struct.

    In API mode CFFI knows neither pack(4) nor bit-fields in a struct whose layout the compiler decides. So the layout is
    the compiler's ("...;") and a bit-field becomes a constant of the struct's type in which only that field is all ones:
    `machrv_bits_<struct>_<member>`. `_checks` holds it against Apple's.
    """
    members = _BIT_FIELD.sub("", struct["members"])
    cdef = f"typedef struct {{\n{members}    ...;\n}} {struct['name']};\n"
    for field in _BIT_FIELD.finditer(struct["members"]):
        cdef += f"static const {struct['name']} machrv_bits_{struct['name']}_{field[1]};\n"
    return cdef


def layouts() -> dict[str, str]:
    """The `struct` format of every struct that a message is made of. The compiler holds its size against the struct's."""
    codes, found = dict(CODES), {}
    for header in PORTABLE[: PORTABLE.index("message") + 1]:
        for ours, name in _INTEGER.findall(_read(header)):
            if ours in codes:
                codes[name] = codes[ours]
    for struct in _packed(_read("message")):
        # What has no code is a byte here: if it is a mistake of the header's, the compiler says which.
        members = [
            BITS.get(bits, "x") if bits else count + codes.get(kind.strip(), "x")
            for kind, _, count, bits in _TYPED.findall(struct["members"])
        ]
        codes[struct["name"]] = found[struct["name"]] = "".join(members)
    return found


def _cdef(text: str) -> str:
    for struct in _packed(text):
        text = text.replace(struct[0] + "\n", _struct(struct))
    lines = []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            lines += [f"#define {match[1]} ..." for match in [_DEFINE.match(line)] if match]
        elif line.strip():
            lines.append(line)
    return "\n".join(lines) + "\n"


def cdef(platform: str = sys.platform) -> str:
    """What CFFI is told: every declaration of the headers, every constant's value left to the compiler."""
    return "".join(_cdef(_read(name)) for name in header_names(platform)) + "extern const char machrv_layouts[];\n"


def _checks(text: str) -> str:
    """C that refuses to compile where Apple's headers and ours differ in a value, a size or an offset."""
    asserts = []
    for name, value in constants(text):
        asserts.append(f'_Static_assert(({name}) == ({value}), "{name}");')
    for ours, name in _INTEGER.findall(text):
        asserts.append(f'_Static_assert(sizeof({name}) == sizeof({ours}), "{name}");')
    packed = {struct["name"] for struct in _packed(text)}
    for struct in _STRUCT.finditer(text):
        name, ours = struct["name"], f"machrv_our_{struct['name']}"
        declared = f"typedef struct {{\n{struct['members']}}} {ours};"
        asserts.append(f"#pragma pack(push, 4)\n{declared}\n#pragma pack(pop)" if name in packed else declared)
        for what in ("sizeof", "_Alignof"):  # CFFI compares both, but only when the module is imported
            asserts.append(f'_Static_assert({what}({name}) == {what}({ours}), "{name}");')
        for member in _MEMBER.findall(_BIT_FIELD.sub("", struct["members"])):
            same = f"offsetof({name}, {member}) == offsetof({ours}, {member})"
            asserts.append(f'_Static_assert({same}, "{name}.{member}");')
    asserts += _bit_checks(text)
    return "\n".join(asserts) + "\n"


def _bit_checks(text: str) -> list[str]:
    """The same for the places of bit-fields, where tests/release/macos.py asks for it. No constant expression can tell them,
    only the optimiser: a call that it does not find to be dead is an error."""
    declared, calls = [], []
    for struct, member in bit_fields(text):
        differs = f"machrv_differs_{struct}_{member}"
        declared.append(f'void {differs}(void) __attribute__((error("{struct}.{member}")));')
        calls.append(f"    MACHRV_SAME_BITS({struct}, machrv_our_{struct}, {member}, {differs})")
    return [_SAME_BITS, *declared, "MACHRV_USED void machrv_check_bits(void) {", *calls, "}", "#endif"] if calls else []


_SAME_BITS = """\
#ifdef MACHRV_CHECK_BITS
#define MACHRV_USED __attribute__((used)) static
#define MACHRV_SAME_BITS(apples, ours, member, differs) { \\
    union { unsigned words[sizeof(apples) / 4]; apples fields; } one = {.words = {0}}; \\
    union { unsigned words[sizeof(ours) / 4]; ours fields; } two = {.words = {0}}; \\
    one.fields.member = ~0, two.fields.member = ~0; \\
    for (unsigned word = 0; word < sizeof(ours) / 4; word++) if (one.words[word] != two.words[word]) differs(); }"""


def source(platform: str = sys.platform) -> str:
    """The C that stands before what CFFI generates."""
    names = header_names(platform)
    texts = {name: _read(name) for name in names}
    lines = ["#include <stddef.h>", *(f"#include <machrv/{name}.h>" for name in names)]
    for text in texts.values():
        lines += [f"static const {s} machrv_bits_{s}_{m} = {{.{m} = ~0}};" for s, m in bit_fields(text)]
    found = layouts()
    lines += [f"_Static_assert(sizeof({name}) == {calcsize('=' + code)}, \"{name}\");" for name, code in found.items()]
    lines.append(f'const char machrv_layouts[] = "{" ".join(f"{name} {code}" for name, code in found.items())}";')
    lines.append("#ifdef __APPLE__")
    lines += [_checks(text) for text in texts.values()]
    lines.append("#endif\n")
    return "\n".join(lines)


def stub() -> str:
    """The type stub of machrv._mach: the constants and functions of every platform's headers."""
    names = [*PORTABLE, *sorted({path.stem for path in INCLUDE.glob("machrv/*.h")}.difference(PORTABLE, ["apple"]))]
    lines = [
        '"""The compiled module: what include/machrv/*.h declare. Made by `python build_ffi.py`; do not edit."""',
        "",
        "from typing import Any",
        "",
        "class _Lib:",
    ]
    for name in names:
        text = _read(name)
        lines += [f"    {constant}: int" for constant, _ in constants(text)]
        lines += [f"    {variable}: int" for variable in _VARIABLE.findall(text)]
        for returned, function in _PROTOTYPE.findall(text):
            result = "None" if returned.strip() == "void" else "Any" if "*" in returned else "int"
            lines.append(f"    def {function}(self, *arguments: Any) -> {result}: ...")
    lines += ["    machrv_layouts: Any", "", "ffi: Any", "lib: _Lib", ""]
    return "\n".join(lines)


def _ffibuilder() -> FFI:
    ffi = FFI()
    ffi.cdef(cdef())
    native = sorted((NATIVE / platform_name()).glob("*.[ch]"))
    ffi.set_source(
        "machrv._mach",
        source(),
        include_dirs=["include"],
        extra_compile_args=list(FLAGS) if platform_name() == "linux" else [],
        extra_link_args=["-pthread"] if platform_name() == "linux" else [],
        sources=[str(path.relative_to(ROOT)) for path in native if path.suffix == ".c"],
        depends=[str(path.relative_to(ROOT)) for path in [*sorted(INCLUDE.glob("machrv/*.h")), *native]],
    )
    return ffi


ffibuilder = _ffibuilder()


class build_ext(_build_ext):  # type: ignore[misc]  # setuptools' own is untyped
    """Compile, and where that fails say what to install."""

    def get_ext_filename(self, fullname: str) -> str:
        """As every Python finds it: 3.15 would have the platform in the name of a module of the stable ABI, which those
        before it do not look for."""
        return re.sub(r"\.abi3-[^.]+\.so$", ".abi3.so", str(super().get_ext_filename(fullname)))

    def build_extension(self, ext: Any) -> None:
        try:
            super().build_extension(ext)
        except Exception as error:
            missing = self._missing()
            if missing is None:
                raise
            raise CompileError(f"{error}\n\nmachrv cannot be compiled: {missing}\n") from error

    def _missing(self) -> str | None:
        """What the system lacks, found by trying; None where the cause is another one."""
        if not self._compiles("#include <stdio.h>\n"):
            return (
                "there is no working C compiler. Install one: 'apt install gcc libc6-dev' (Debian, Ubuntu), 'dnf install gcc' "
                "(Fedora), 'xcode-select --install' (macOS); or name yours in the environment variable CC."
            )
        if not self._compiles("#include <Python.h>\n"):
            return (
                f"the C headers of Python {sys.version_info.major}.{sys.version_info.minor} are missing. Install them: "
                "'apt install python3-dev' (Debian, Ubuntu), 'dnf install python3-devel' (Fedora)."
            )
        return None

    def _compiles(self, text: str) -> bool:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "probe.c"
            path.write_text(text)
            try:
                self.compiler.compile([str(path)], output_dir=directory, include_dirs=self.include_dirs)
            except Exception:  # whatever the compiler's driver raises, it did not compile
                return False
        return True


def main(arguments: list[str]) -> None:
    """The command: see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="build_ffi.py",
        description="Compile machrv/_mach in place from the declarations in include/machrv, and renew its type stub.",
        epilog="examples:\n  python build_ffi.py\n  python build_ffi.py --cdef | less",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--cdef", action="store_true", help="print the cdefs that CFFI is given, and compile nothing")
    instead.add_argument("--stub", action="store_true", help="print the type stub, and compile nothing")
    options = parser.parse_args(arguments)
    if options.cdef:
        print(cdef(), end="")
    elif options.stub:
        print(stub(), end="")
    else:
        print("build_ffi.py: compiling machrv/_mach ...", file=sys.stderr, flush=True)
        os.chdir(ROOT)
        (ROOT / "machrv" / "_mach.pyi").write_text(stub())
        sys.argv = ["setup.py", "--quiet", "build_ext", "--inplace"]
        runpy.run_path("setup.py", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
