"""Plant faults in a copy of the tree, one at a time, and say which of them the tests do not notice.

Exit status 0 if all were noticed, 1 if one was missed, 2 if a fault no longer applies, or if the tests fail without any.
A fault is noticed if the tests that ought to notice it fail, or crash. A test that does nothing but hang has missed it.
"""

from __future__ import annotations

import argparse
import datetime
import random
import sys
import tempfile
from pathlib import Path
from time import monotonic

from . import FAULTS
from .fault import Fault, NoLongerApplies, planted
from .stage import FAILED, PASSED, ROOT, Outcome, Stage

QUICK = 12

EXAMPLES = """\
examples:
  python -m tests.mutants                    all of them: some five minutes
  python -m tests.mutants --quick            twelve, which ones depends on the day
  python -m tests.mutants --only CLOEXEC -v  those whose description holds this, and what the tests said
"""


def drawn(day: datetime.date) -> list[Fault]:
    """The faults of a day."""
    return random.Random(day.isoformat()).sample(FAULTS, QUICK)


def judged(fault: Fault, outcome: Outcome) -> str:
    """ "" if the fault was noticed, else what is wrong."""
    if outcome.status is None:
        return "MISSED: the tests hang, and never fail"
    if outcome.status == PASSED:
        return "MISSED"
    return "" if outcome.status == FAILED or outcome.status < 0 else f"pytest could not run {' '.join(fault.tests)}"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} of them, drawn by the date")
    parser.add_argument("--only", metavar="TEXT", default="", help="those whose description or file holds this")
    parser.add_argument("--list", action="store_true", help="say which there are, and plant none")
    parser.add_argument("-v", "--verbose", action="store_true", help="say what the tests said")
    told = parser.parse_args()
    faults = [fault for fault in FAULTS if told.only in fault.what or told.only in fault.file]
    if told.quick:
        faults = [fault for fault in drawn(datetime.date.today()) if fault in faults]
    if told.list:
        for fault in faults:
            print(f"{fault.file}: {fault.what}: {' '.join(fault.tests)}")
        return 0
    try:
        for fault in faults:
            planted(fault, ROOT)
        with tempfile.TemporaryDirectory(prefix="machrv-mutants-") as folder:
            return play(Stage(Path(folder)), faults, told.verbose)
    except NoLongerApplies as error:
        print(error, file=sys.stderr)
        return 2


def play(stage: Stage, faults: list[Fault], verbose: bool) -> int:
    """The tests without a fault, and then each."""
    began = monotonic()
    tests = tuple(dict.fromkeys(test for fault in faults for test in fault.tests))
    outcome = stage.run(tests)
    if outcome.status != PASSED:
        print(f"the tests fail without a fault:\n{outcome.said}")
        return 2
    wrong = []
    for number, fault in enumerate(faults, 1):
        outcome = stage.play(fault)
        problem = judged(fault, outcome)
        if problem:
            wrong.append(f"{problem}: {fault.file}: {fault.what}: {' '.join(fault.tests)}")
        print(f"{number:3}/{len(faults)} {outcome.seconds:4.0f} s  {problem or 'noticed'}  {fault.what}", flush=True)
        if verbose or problem:
            print(outcome.said)
    print(f"{len(faults)} faults, {len(wrong)} missed, {monotonic() - began:.0f} s", *wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
