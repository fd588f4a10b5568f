"""Lets attackers loose, each of which knows sockets and nothing of machrv, and prints a line for each: exit status 0 if all held.

The numbers are those of the table in docs/security.md. Every attack has a server, a well-behaved child and clocks of its own.
"""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
from time import monotonic

from . import scenes_claims, scenes_closing, scenes_others  # noqa: F401 (they enter their scenes)
from .scenes import ATTACKS
from .stage import Stage

EXAMPLES = """\
examples:
  python -m tests.hostile                    each attack once
  python -m tests.hostile --seconds 3600     over and over, for an hour
  python -m tests.hostile F1 F7              these alone
"""


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.hostile",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help="a number, or part of a name")
    parser.add_argument("--seconds", type=float, default=0.0, help="go on for so long (default: each once)")
    parser.add_argument("--list", action="store_true", help="only print what there is")
    told = parser.parse_args()
    wanted = [
        one
        for one in ATTACKS
        if not told.attacks or any(word == one.number or word.replace(" ", "_") in one.name for word in told.attacks)
    ]
    if not wanted:
        parser.error("there is no such attack: see --list")
    if told.list:
        for one in wanted:
            print(f"{one.number:4} {one.name.replace('_', ' ')}")
        return 0
    logging.getLogger("machrv").setLevel(logging.CRITICAL)
    until, count, failed = monotonic() + told.seconds, 0, 0
    while True:
        for one in wanted:
            missing = one.missing()
            text = f"not tried: {missing}" if missing else ""
            if not missing:
                began = monotonic()
                try:
                    with Stage() as stage:
                        stage.quick(5)  # What is made once is there.
                        text = one.run(stage)
                    count += 1
                except Exception as error:
                    failed += 1
                    traceback.print_exc()
                    text = f"FAILED: {error}"
                text += f" ({monotonic() - began:.1f} s)"
            print(f"{one.number:4} {one.name.replace('_', ' ')}: {text}", flush=True)
        if monotonic() >= until:
            break
    print(f"{count} attacks, {failed} that did not hold")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
