"""What compilers and analyzers say of the C, without running it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted(ROOT.glob("machrv/native/linux/*.c"))
#: as build_ffi.py compiles them
FLAGS = ["-std=gnu11", "-O2", "-fvisibility=hidden", "-pthread", f"-I{ROOT / 'include'}"]
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Werror"]
TARGETS = ("x86_64-linux-musl", "aarch64-linux-gnu", "aarch64-linux-musl")


def compiler() -> str:
    """The C compiler."""
    return os.environ.get("CC", "cc")


def has_ziglang() -> bool:
    """Whether there are compilers for other systems."""
    return find_spec("ziglang") is not None


def warnings(_: Path, __: list[str]) -> int:
    """Every compiler that is here, every warning that the project asks for."""
    return sum(_each(name, [name, *FLAGS, *WARNINGS, "-c", "-o", os.devnull]) for name in _found("gcc", "clang"))


def cross(folder: Path, _: list[str]) -> int:
    """The same for other C libraries and processors."""
    if not has_ziglang():
        print("ziglang is not installed (pip install 'machrv[release]'): nothing is compiled for other systems")
        return 0
    zig = [sys.executable, "-m", "ziglang", "cc", *FLAGS, *WARNINGS, "-c"]
    return sum(_each(target, [*zig, "-target", target, "-o"], folder) for target in TARGETS)


def analyze(_: Path, __: list[str]) -> int:
    """Both analyzers."""
    options = {
        "gcc": ["-fanalyzer", "-Werror", "-c", "-o", os.devnull],
        "clang": ["--analyze", "--analyzer-output", "text", "-Xclang", "-analyzer-werror"],
    }
    return sum(_each(f"{name}'s analyzer", [name, *FLAGS, *options[name]]) for name in _found("gcc", "clang"))


def _found(*names: str) -> list[str]:
    for name in names:
        if shutil.which(name) is None:
            print(f"{name} is not installed (apt install {name}): not looked at by it")
    return [name for name in names if shutil.which(name)]


def _each(what: str, command: list[str], folder: Path | None = None) -> int:
    """Run the command for each file (with a place for what it makes, if one is given): how many it does not like."""

    def once(source: Path) -> str:
        made = [str(folder / f"{source.stem}.o")] if folder else []
        done = subprocess.run(
            [*command, *made, str(source)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return (done.stdout or f"exit status {done.returncode}") if done.returncode else ""

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        said = list(filter(None, pool.map(once, SOURCES)))
    print("\n".join(said), end="")
    print(f"{what}: {len(SOURCES)} files, {len(said)} of them with findings", flush=True)
    return len(said)
