"""The Python tests, with the compiled module under a sanitizer. Every process of a test is watched."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from .programs import ADDRESS, THREAD, supports
from .static import ROOT, compiler

#: what cannot run under AddressSanitizer: tests of what a program has when nothing of a sanitizer is there (mappings, threads,
#: time, little memory to map), and of children that are started without this environment
APART = (
    "test_memory_beside_a_message_arrives_whole",
    "test_memory_in_a_message_that_is_destroyed_is_given_back",
)


def asan(folder: Path, arguments: list[str]) -> int:
    """The vectors and the tests of the Linux port space under AddressSanitizer and UndefinedBehaviorSanitizer."""
    if not supports(*ADDRESS):
        print("the compiler has no AddressSanitizer (apt install gcc)")
        return 0
    reports = folder / "reports"
    # What CPython itself leaves at its end is not ours: see `faults` and `valgrind` for leaks.
    options = {
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": f"detect_leaks=0:handle_sigbus=0:exitcode=66:log_path={reports}/asan",
        "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={reports}/ubsan",
    }
    tree = _tree(folder, ADDRESS)
    environment = _environment(tree, "libasan.so", options)
    commands = [_pytest(arguments, APART)]
    if not arguments:
        vectors = map(str, sorted(tree.glob("tests/conformance/vectors/*.jsonl.gz")))
        tests = map(str, sorted(tree.glob("tests/test_linux_*.py")))
        commands = [[sys.executable, "-m", "tests.conformance", *vectors], _pytest([*tests], APART)]
    return _run(tree, environment, reports, commands)


def tsan(folder: Path, arguments: list[str]) -> int:
    """The tests of threads under ThreadSanitizer."""
    if not supports(*THREAD):
        print("the compiler has no ThreadSanitizer (apt install gcc)")
        return 0
    reports = folder / "reports"
    tree = _tree(folder, THREAD)
    # CPython is not compiled for it, and is not looked at: only what the compiled module does is told.
    environment = _environment(
        tree,
        "libtsan.so",
        {
            "TSAN_OPTIONS": f"halt_on_error=0:report_signal_unsafe=0:ignore_noninstrumented_modules=1:log_path={reports}/tsan",
        },
    )
    command = _pytest(arguments or ["tests/test_linux_threads.py"], ())
    if shutil.which("setarch"):  # it wants to know where everything is mapped
        command = ["setarch", platform.machine(), "-R", *command]
    return _run(tree, environment, reports, [command])


def _tree(folder: Path, flags: list[str]) -> Path:
    """A copy of the work tree whose module is compiled with these flags."""
    tree = folder / "tree"
    (folder / "reports").mkdir()
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    compiling = {**os.environ, "CFLAGS": " ".join(flags), "LDFLAGS": " ".join(flags)}
    subprocess.run([sys.executable, "build_ffi.py"], cwd=tree, check=True, env=compiling)
    return tree


def _environment(tree: Path, library: str, options: dict[str, str]) -> dict[str, str]:
    """The sanitizer's library has to be there before any other."""
    asked = subprocess.run([compiler(), f"-print-file-name={library}"], capture_output=True, text=True, check=True)
    return {**os.environ, **options, "LD_PRELOAD": asked.stdout.strip(), "PYTHONPATH": str(tree)}


def _pytest(arguments: list[str], apart: tuple[str, ...]) -> list[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return [*command, "-k", " and ".join(f"not {name}" for name in apart)] if apart else command


def _run(tree: Path, environment: dict[str, str], reports: Path, commands: list[list[str]]) -> int:
    status = 0
    for command in commands:
        status |= subprocess.run(command, cwd=tree, env=environment).returncode != 0
    found = sorted(reports.iterdir())
    for report in found:
        print(report.read_text())
    print(f"{len(found)} reports of the sanitizer")
    return status or len(found)
