"""C programs that call the Mach API without Python: a scenario with failures, and threads."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from .static import FLAGS, SOURCES, compiler

HERE = Path(__file__).parent
DEBUG = ["-g", "-O1", "-fno-omit-frame-pointer"]
ADDRESS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", *DEBUG]
THREAD = ["-fsanitize=thread", *DEBUG]


def supports(*options: str) -> bool:
    """Whether a program that is compiled and linked with these options runs here."""
    command = [compiler(), "-x", "c", "-", *options, "-o", "/dev/null"]
    try:
        return subprocess.run(command, input=b"int main(void) { return 0; }", capture_output=True).returncode == 0
    except OSError:
        return False


def wrapped() -> list[str]:
    """For the linker: what faults.c stands in front of."""
    listed = re.search(r"fault_calls\[\] = \{(.*?)\}", (HERE / "faults.c").read_text(), re.DOTALL)
    assert listed is not None
    names = set(re.findall(r'"(\w+)"', listed[1])) - {"memory"} | {"malloc", "calloc", "realloc", "free"}
    return [f"-Wl,--wrap={name}" for name in sorted(names)]


def build(folder: Path, options: list[str], *sources: str) -> str:
    """Compile a program with all of the C."""
    built = folder / Path(sources[0]).stem
    files = [*(str(HERE / source) for source in sources), *map(str, SOURCES)]
    done = subprocess.run([compiler(), *FLAGS, *options, "-Wall", "-Wextra", "-o", str(built), *files])
    if done.returncode:
        raise SystemExit(f"{sources[0]} does not compile")
    return str(built)


def run(folder: Path, command: list[str], **environment: str) -> int:
    """Run a program, with bootstrap names of its own: its exit status."""
    names = folder / "names"
    names.mkdir(mode=0o700)
    return subprocess.run(command, env={**os.environ, **environment, "MACHRV_BOOTSTRAP_DIR": str(names)}).returncode


def faults(folder: Path, calls: list[str]) -> int:
    """Everything fails in turn."""
    if not supports(*ADDRESS):
        print("the compiler has no AddressSanitizer (apt install gcc): it is done without")
    options = ADDRESS if supports(*ADDRESS) else DEBUG
    program = build(folder, [*options, *wrapped()], "scenario.c", "faults.c")
    # Memory that is left is counted by the program itself, after each failure.
    return run(folder, [program, *(calls or ["all"])], ASAN_OPTIONS="detect_leaks=0")


def valgrind(folder: Path, _: list[str]) -> int:
    """No leak, and nothing is read that was never written."""
    if shutil.which("valgrind") is None:
        print("valgrind is not installed (apt install valgrind)")
        return 0
    watch = ["valgrind", "--quiet", "--leak-check=full", "--errors-for-leak-kinds=definite", "--error-exitcode=66"]
    program = build(folder, [*DEBUG, *wrapped()], "scenario.c", "faults.c")
    return run(folder, [*watch, f"--suppressions={HERE / 'valgrind.supp'}", program])


def threads(folder: Path, seconds: list[str]) -> int:
    """Nothing is touched by two threads at once."""
    if not supports(*THREAD):
        print("the compiler has no ThreadSanitizer (apt install gcc)")
        return 0
    return run(
        folder,
        [build(folder, THREAD, "threads.c"), *(seconds or ["3"])],
        TSAN_OPTIONS="halt_on_error=0:exitcode=66:die_after_fork=0",
    )
