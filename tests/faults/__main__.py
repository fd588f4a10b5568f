"""`python -m tests.faults`: break every system call of a claim in turn, and say what came of it.

Exit status 0 if nothing was wrong, 1 if something was, 2 if strace cannot be used here.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

from machrv.cli.progress import Progress

from .actors import warm_up
from .cases import LASTING, Case, faults_of
from .judge import Row, Stage
from .strace import why_not

WHERE = {
    "client": "the child, from `connect` to the last use of a right",
    "register": "the parent's thread that registers",
    "dispatch": "the parent's dispatch thread, as it serves a claim",
    "exit": "the parent's dispatch thread, as a child exits without asking",
}


EXAMPLES = """\
examples:
  python -m tests.faults --quick                   every fourth case
  python -m tests.faults --only "client: connect"   one call of one process
  python -m tests.faults --table docs/faults.md    all of it, and the table in the documentation
"""


def main() -> int:
    """Play the cases."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="every fourth case")
    parser.add_argument("--only", metavar="TEXT", default="", help="the cases whose description holds this")
    parser.add_argument("--table", metavar="FILE", type=Path, help="write what happened as a table in Markdown")
    arguments = parser.parse_args()
    if why := why_not():
        print(why, file=sys.stderr)
        return 2
    began = monotonic()
    with tempfile.TemporaryDirectory(prefix="machrv-") as folder:
        os.environ["MACHRV_BOOTSTRAP_DIR"] = folder
        warm_up()
        stage = Stage()
        rows: list[Row] = []
        try:
            with Progress("faults", lambda: f"{len(rows)} faults so far, {monotonic() - began:.0f} s"):
                for case in _chosen(stage, arguments.quick):
                    if arguments.only in str(case):
                        rows.append(stage.play(case))
        finally:
            stage.close()
    wrong = [row for row in rows if row.problems]
    for row in wrong:
        print(f"{row.case}: {row.registered}, {row.outcome}, {row.log}\n    " + "\n    ".join(row.problems))
    missed = [str(row.case) for row in rows if not row.hit]
    print(f"{len(rows)} faults, {len(missed)} not reached, {len(wrong)} wrong, {monotonic() - began:.0f} s")
    print("not reached:", *missed, sep="\n    ") if missed else None
    if arguments.table:
        arguments.table.write_text(table(rows))
    return 1 if wrong or len(missed) > len(rows) // 10 else 0


def _chosen(stage: Stage, quick: bool) -> Iterator[Case]:
    for where in WHERE:
        once, lasting = [], []
        for call in stage.list_calls(where):
            faults = faults_of(call.name, call.line)
            once += [Case(where, call.name, call.nth, fault) for fault in faults]
            if call.nth == 1 and where != "exit":  # There, the count of what is left would fail as well.
                lasting += [Case(where, call.name, 1, fault, True) for fault in faults if fault in LASTING]
        yield from once[::4] if quick else once
        yield from lasting[::12] if quick else lasting


def table(rows: list[Row]) -> str:
    """What happened, one line for each call and fault, in Markdown."""
    text = "# Every system call of a claim, broken in turn\n\nMade by `python -m tests.faults --table docs/faults.md`"
    text += f" on {os.uname().sysname} {os.uname().release.split('-')[0]}: {len(rows)} faults, "
    text += f"{sum(bool(row.problems) for row in rows)} of them with a consequence that must not be.\n"
    for where, what in WHERE.items():
        text += f"\n## In {what}\n\n| call | fault | times | registered | the child | logged by the parent |\n"
        text += "|---|---|---|---|---|---|\n"
        groups: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in rows:
            if row.case.where == where and row.hit:
                groups[row.case.call, row.case.label].append(row)
        for (call, fault), group in sorted(groups.items()):
            told = [Counter(), Counter(), Counter()]  # type: list[Counter[str]]
            for row in group:
                told[0][row.registered or "killed"] += 1
                told[1][row.outcome] += 1
                told[2].update(line.partition(":")[0].partition(" process ")[0] for line in row.log)
            cells = [", ".join(f"{key} ({n})" if len(all) > 1 else key for key, n in all.most_common()) for all in told]
            text += f"| `{call}` | {fault} | {len(group)} | {' | '.join(cells)} |\n"
    return text


if __name__ == "__main__":
    sys.exit(main())
