"""Looks for mistakes in the C of machrv/native/linux. Exit status 0 if nothing was found; what a tool that is missing would have
looked at is said.

  warnings             gcc and clang, every warning that the project asks for, as errors
  cross                the same for musl and for aarch64, with ziglang's compilers
  analyze              gcc -fanalyzer, and clang's analyzer
  faults [CALL...]     a scenario in two tasks, in which every allocation and every system call fails in turn (or these alone), under
                       AddressSanitizer and UndefinedBehaviorSanitizer: nothing crashes, no descriptor and no memory is left
  valgrind             the scenario without failures, under valgrind: no leak, no read of what was never written
  threads [SECONDS]    threads that use and destroy the same rights, beside forks, under ThreadSanitizer
  asan [PYTEST...]     the recorded sequences of calls and tests/test_linux_*.py (or what pytest is told instead), with the compiled
                       module under AddressSanitizer and UndefinedBehaviorSanitizer
  tsan [PYTEST...]     tests/test_linux_threads.py (or what pytest is told instead) under ThreadSanitizer
  quick                all but asan and tsan: two minutes. What CI runs, as tests/test_sanitize.py
  all                  everything, one after the other
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from . import programs, static, suite

Check = Callable[[Path, list[str]], int]

CHECKS: dict[str, Check] = {
    "warnings": static.warnings,
    "cross": static.cross,
    "analyze": static.analyze,
    "faults": programs.faults,
    "valgrind": programs.valgrind,
    "threads": programs.threads,
    "asan": suite.asan,
    "tsan": suite.tsan,
}
QUICK = ("warnings", "cross", "analyze", "faults", "valgrind", "threads")

EXAMPLES = """\
examples:
  python -m tests.sanitize quick
  python -m tests.sanitize faults memory sendmsg
  python -m tests.sanitize asan tests/test_linux_memory.py -x
"""


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.sanitize",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("check", choices=[*CHECKS, "quick", "all"], metavar="CHECK", help="one of the above")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="for the check")
    told = parser.parse_args()
    wanted = {"quick": list(QUICK), "all": list(CHECKS)}.get(told.check, [told.check])
    status = 0
    for name in wanted:
        print(f"== {name}", flush=True)
        with tempfile.TemporaryDirectory(prefix="machrv-sanitize-") as folder:
            status |= CHECKS[name](Path(folder), told.arguments) != 0
    return status


if __name__ == "__main__":
    sys.exit(main())
