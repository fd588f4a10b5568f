"""Build machrv's wheels for macOS, on any machine: no Mac, no SDK from Apple.

    python -m tests.release.macos                          both wheels, into dist/
    python -m tests.release.macos --arch arm64 --output .  one of them

The package `ziglang` brings the compiler, Apple's headers and the list of libSystem's symbols. The declarations of
include/machrv are held against Apple's by build_ffi.py: where a size, an offset, a value or a prototype differs, this
fails. CPython's headers are those of the interpreter that runs this; what they ask of the target is `PYCONFIG`.
"""

# What differs from the build on a Mac. What must never happen here: a declaration, or a list of files: build_ffi.py knows
# the one, pyproject.toml the other.

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from cffi import FFI
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext as _build_ext
from setuptools.errors import CompileError, PlatformError

import build_ffi

#: The oldest macOS that the wheels run on, which is the first that there is for arm64.
OLDEST = "11.0"
#: The name of each architecture in a wheel's tag, and the compiler's.
ARCHITECTURES = {"arm64": "aarch64", "x86_64": "x86_64"}
PYTHON = "cp310"
LIMITED_API = "0x030A0000"

#: What CPython's headers want to know of macOS on either architecture. The compiler says whether it is so.
PYCONFIG = {
    "SIZEOF_SHORT": ("short", 2),
    "SIZEOF_INT": ("int", 4),
    "SIZEOF_LONG": ("long", 8),
    "SIZEOF_LONG_LONG": ("long long", 8),
    "SIZEOF_VOID_P": ("void *", 8),
    "SIZEOF_SIZE_T": ("__SIZE_TYPE__", 8),
    "SIZEOF_WCHAR_T": ("__WCHAR_TYPE__", 4),
}


def pyconfig() -> str:
    """pyconfig.h for macOS: the interpreter's own describes the machine that builds."""
    lines = []
    for name, (kind, size) in PYCONFIG.items():
        lines += [f"#define {name} {size}", f'_Static_assert(sizeof({kind}) == {name}, "{name}");']
    return "\n".join(lines) + "\n"


def python_headers(into: Path) -> Path:
    """CPython's headers, with a pyconfig.h for macOS among them."""
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").exists():
        raise CompileError(
            f"the C headers of Python {sys.version_info.major}.{sys.version_info.minor} are missing. Install them: "
            "'apt install python3-dev' (Debian, Ubuntu), 'dnf install python3-devel' (Fedora)."
        )
    into.mkdir()
    for path in headers.iterdir():
        if path.name != "pyconfig.h":
            (into / path.name).symlink_to(path)
    (into / "pyconfig.h").write_text(pyconfig())
    return into


def compiler() -> list[str]:
    """The command that compiles C for other systems."""
    if importlib.util.find_spec("ziglang") is None:
        raise PlatformError("the compiler is missing. Install it: 'pip install ziglang'.")
    return [sys.executable, "-m", "ziglang", "cc"]


def compile_module(architecture: str, output: Path) -> None:
    """Compile and link machrv._mach for macOS."""
    command = compiler()
    ffi = FFI()
    ffi.cdef(build_ffi.cdef("darwin"))
    ffi.set_source("machrv._mach", build_ffi.source("darwin"))
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        source = work / "_mach.c"
        ffi.emit_c_code(str(source))
        command += ["-target", f"{ARCHITECTURES[architecture]}-macos.{OLDEST}", "-O2", "-g0", "-Wall"]
        command += ["-Werror=incompatible-pointer-types", "-Werror=int-conversion"]
        command += [f"-DPy_LIMITED_API={LIMITED_API}", "-DMACHRV_CHECK_BITS"]
        command += [f"-I{build_ffi.INCLUDE}", f"-I{python_headers(work / 'python')}"]
        # What the interpreter has is found when the module is loaded into it.
        command += ["-shared", "-undefined", "dynamic_lookup", f"-Wl,-install_name,@rpath/{output.name}"]
        native = sorted((build_ffi.NATIVE / "darwin").glob("*.c"))
        command += ["-o", str(output), str(source), *map(str, native)]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True)
    if done.returncode:
        raise CompileError(f"machrv._mach does not compile for macOS on {architecture}:\n{done.stderr}")


class build_ext(_build_ext):  # type: ignore[misc]  # setuptools' own is untyped
    """Compile for macOS in place of this machine."""

    architecture: str

    def build_extension(self, ext: Any) -> None:
        output = Path(self.get_ext_fullpath(ext.name))
        output.parent.mkdir(parents=True, exist_ok=True)
        compile_module(self.architecture, output.absolute())

    def get_ext_filename(self, fullname: str) -> str:
        return os.path.join(*fullname.split(".")) + ".abi3.so"


def build_wheel(architecture: str, output: Path) -> None:
    """Build one wheel into `output`."""
    tag = f"macosx-{OLDEST}-{architecture}"
    with tempfile.TemporaryDirectory() as work:
        setup(
            script_args=["--quiet", "bdist_wheel"],
            ext_modules=[Extension("machrv._mach", sources=[], py_limited_api=True)],
            cmdclass={"build_ext": type("build_ext", (build_ext,), {"architecture": architecture})},
            options={
                "build": {"build_base": os.path.join(work, "build")},
                "egg_info": {"egg_base": work},
                "bdist_wheel": {
                    "plat_name": tag,
                    "py_limited_api": PYTHON,
                    "bdist_dir": os.path.join(work, "wheel"),
                    "dist_dir": str(output),
                },
            },
        )


def main() -> None:
    """The command: see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.release.macos",
        description="Build machrv's wheels for macOS.",
        epilog="examples:\n  python -m tests.release.macos\n  python -m tests.release.macos --arch arm64 --output .",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--arch", choices=ARCHITECTURES, help="one architecture (default: all)")
    parser.add_argument("--output", type=Path, default=Path("dist"), metavar="DIR", help="where to (default: dist)")
    options = parser.parse_args()
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        parser.error("a free-threaded interpreter has no headers of the stable ABI: run this with another one")
    output = options.output.absolute()
    os.chdir(build_ffi.ROOT)
    for architecture in [options.arch] if options.arch else ARCHITECTURES:
        print(f"compiling for {architecture} ...", file=sys.stderr, flush=True)
        build_wheel(architecture, output)
    print(*sorted(map(str, output.glob("*-macosx_*.whl"))), sep="\n")


if __name__ == "__main__":
    main()
