"""`python -m tests.conformance FILE...`: replay vectors over a kernel.

Exit status: 0 if nothing differs, 1 if anything does, 2 if the command or a file cannot be understood.
"""

from __future__ import annotations

import argparse
import sys
from fnmatch import fnmatchcase
from pathlib import Path

from machrv.cli.progress import Progress

from .batch import replay_all
from .kernels import KERNELS, private_bootstrap_directory
from .report import describe
from .vectors import VectorError, read

EXAMPLES = """\
examples:
  python -m tests.conformance tests/conformance/vectors/*.jsonl.gz
  python -m tests.conformance tests/conformance/vectors/rights.jsonl.gz --id 'rights/*' --jobs 2
"""


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        work = [
            (str(path), vector)
            for path in options.files
            for vector in read(path)
            if options.id is None or fnmatchcase(vector["id"], options.id)
        ]
    except VectorError as error:
        print(f"python -m tests.conformance: {error}", file=sys.stderr)
        return 2
    if not work:
        print("python -m tests.conformance: there is no vector to replay", file=sys.stderr)
        return 2
    steps, differences, played = 0, [], 0
    with (
        private_bootstrap_directory(),
        Progress("conformance", lambda: f"{played} of {len(work)} vectors, {steps} steps"),
    ):
        for source, ran, difference in replay_all(work, options.kernel, options.jobs):
            played += 1
            steps += ran
            if difference is not None:
                differences.append((source, difference))
    print(f"{len(work)} vectors, {steps} steps, {len(differences)} differ")
    for source, difference in differences[: options.first]:
        print()
        print(describe(source, difference))
    if len(differences) > options.first:
        print(f"\n{len(differences) - options.first} more differ (--first N prints more of them)")
    return 1 if differences else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance",
        description="Replay recorded vectors over a kernel and compare everything after every step.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="vectors, .jsonl or .jsonl.gz")
    parser.add_argument("--kernel", choices=sorted(KERNELS), default="linux", help="over which kernel (default: linux)")
    parser.add_argument("--first", type=_natural, default=5, metavar="N", help="print the first N differences (5)")
    parser.add_argument("--id", metavar="PATTERN", help="only the vectors whose id matches, such as 'rights/*'")
    parser.add_argument("--jobs", type=_positive, default=1, metavar="N", help="in N processes (1)")
    return parser


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    sys.exit(main())
