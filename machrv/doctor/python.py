"""Python: the interpreter, CFFI, and whether the compiled module is right for both."""

# What belongs here: what can be told without the compiled module, and whether it can be loaded. What must never happen
# here: the taking of a module that loads for one that is complete.

from __future__ import annotations

import os
import platform
import re
import sys
import sysconfig
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from typing import TYPE_CHECKING

from machrv.doctor.findings import NOTE, OK, WARNING, WRONG, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

SECTION = "Python"
_OLDEST, _NEWEST = (3, 10), (3, 15)
_CFFI = (1, 17)
_REBUILD = "build it for this interpreter: `pip install --force-reinstall --no-cache-dir machrv`, `python build_ffi.py` in a clone"


def look() -> Iterator[Finding]:
    """The interpreter, CFFI, the compiled module."""
    yield _interpreter()
    yield _threads()
    yield _cffi()
    yield from _module()


def module_loads() -> bool:
    """Whether the rooms that need the compiled module can be looked at."""
    try:
        import machrv.constants  # noqa: F401
    except ImportError:
        return False
    return True


def _interpreter() -> Finding:
    found = f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})"
    if sys.implementation.name != "cpython":
        return Finding(SECTION, "interpreter", WARNING, found, "machrv is tested with CPython only")
    if sys.version_info < _OLDEST:
        return Finding(SECTION, "interpreter", WRONG, found, "machrv needs Python 3.10 or newer")
    if sys.version_info[:2] > _NEWEST:
        newest = ".".join(map(str, _NEWEST))
        return Finding(SECTION, "interpreter", NOTE, found, f"this version of machrv is tested up to {newest}")
    return Finding(SECTION, "interpreter", OK, found)


def _threads() -> Finding:
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        return Finding(SECTION, "threads", OK, "one at a time in Python (GIL); the abi3 module fits")
    running = getattr(sys, "_is_gil_enabled", lambda: True)()
    if running:
        advice = "a module that was loaded does not say that it can do without, or PYTHON_GIL=1 is set"
        return Finding(SECTION, "threads", NOTE, "a free-threaded build that runs with its GIL on", advice)
    return Finding(SECTION, "threads", OK, "free-threaded")


def _cffi() -> Finding:
    try:
        version: str = import_module("_cffi_backend").__version__  # All that is needed of it at run time.
    except ImportError as error:
        return Finding(SECTION, "CFFI", WRONG, f"cannot be loaded: {error}", "`pip install cffi`")
    if tuple(int(digits) for digits in re.findall(r"\d+", version)[:2]) < _CFFI:
        return Finding(SECTION, "CFFI", WARNING, version, "machrv wants 1.17 or newer: `pip install --upgrade cffi`")
    return Finding(SECTION, "CFFI", OK, version)


def _module() -> Iterator[Finding]:
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    built = sorted(
        name for name in os.listdir(folder) if name.startswith("_mach.") and name.endswith((".so", ".pyd", ".dylib"))
    )
    try:
        import machrv.constants  # noqa: F401  # It loads the compiled module, and nothing else does before it.
    except ImportError as error:
        fitting = [name for name in built if name[len("_mach") :] in EXTENSION_SUFFIXES]
        if not built:
            found = f"there is none in {folder}"
        elif not fitting:
            found = f"{', '.join(built)} in {folder} was built for another interpreter or system"
        else:
            found = f"{fitting[0]} cannot be loaded: {error}"
        yield Finding(SECTION, "compiled module", WRONG, found, _REBUILD)
        return
    module = sys.modules["machrv._mach"]
    file = str(module.__file__)
    missing = [name for name in _expected(folder) if not hasattr(getattr(module, "lib"), name)]
    if missing:
        found = (
            f"{file} lacks {', '.join(missing[:3])}{' and more' if len(missing) > 3 else ''}: it is of another version"
        )
        yield Finding(SECTION, "compiled module", WRONG, found, _REBUILD)
        return
    kind = "any CPython from 3.10" if ".abi3." in os.path.basename(file) else "this interpreter alone"
    yield Finding(SECTION, "compiled module", OK, f"{os.path.basename(file)}, for {kind}")
    newer = _newer_sources(folder, os.stat(file).st_mtime)
    if newer:
        advice = "`python build_ffi.py`, unless what changed is a comment"
        yield Finding(SECTION, "its sources", WARNING, f"{newer} is newer than the compiled module", advice)


def _expected(folder: str) -> list[str]:
    """What this version of the package wants to find in the module, as far as every platform has it."""
    try:
        with open(os.path.join(folder, "_mach.pyi"), encoding="utf-8") as file:
            names = re.findall(r"^    (?:def )?(machrv_\w+|MACHRV_\w+)", file.read(), re.MULTILINE)
    except OSError:
        return []
    linux = sys.platform.startswith("linux")
    return [name for name in names if not name.startswith("machrv_bits_") and (linux or name.startswith("MACHRV_RE"))]


def _newer_sources(folder: str, built: float) -> str:
    """A source of the module that was changed after it was compiled; "" where there are no sources."""
    root = os.path.dirname(folder)
    if not os.path.exists(os.path.join(root, "build_ffi.py")):
        return ""
    for top in (os.path.join(root, "include"), os.path.join(folder, "native")):
        for directory, _, files in os.walk(top):
            for name in files:
                path = os.path.join(directory, name)
                if name.endswith((".c", ".h")) and os.stat(path).st_mtime > built:
                    return os.path.relpath(path, root)
    return ""
