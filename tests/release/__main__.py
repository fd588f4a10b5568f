"""`python -m tests.release`: build what would be given out, and hold it against everything that is known to go wrong.

Exit status 0 if all is as it must be, 1 if anything is not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic

from . import build, checks, fresh

EXAMPLES = """\
examples:
  python -m tests.release                  all of it: about two minutes, and the network
  python -m tests.release --quick          what is checked on every change: half a minute, nothing from the network
  python -m tests.release --tag v0.1.0     as the workflow does it: the version is the tag's, the changelog is ready
  python -m tests.release --dist dist/     what others have built, such as cibuildwheel
"""

Step = Callable[[], object]


def main() -> int:
    """Each step says what it is about, and goes on to the next one if it fails."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.release",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="build for this system alone, out of what is installed")
    parser.add_argument("--tag", metavar="TAG", help="the tag that is to be given out, such as v0.1.0")
    parser.add_argument(
        "--dist", metavar="DIR", type=Path, help="check the sdist and wheels in DIR instead of building"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="machrv-release-") as work:
        return _run(_steps(options, Path(work)))


def _steps(options: argparse.Namespace, work: Path) -> dict[str, Step]:
    dist: Path = (options.dist or work / "dist").absolute()
    steps: dict[str, Step] = {"the version, and the changelog's": lambda: checks.version(options.tag)}
    steps["the workflows, by zizmor"] = checks.workflows
    if options.dist is None:
        steps["building the sdist, and the wheel from it"] = lambda: build.native(
            dist, work, isolated=not options.quick
        )
        if not options.quick:
            for wanted in build.LINUX:
                steps[f"building the wheel for {wanted.tag}"] = partial(build.linux, dist, work, wanted)
            steps["building the wheels for macOS"] = lambda: build.macos(dist)
    steps["their names say one version"] = lambda: checks.names(dist)
    steps["what the index will say of them, by twine"] = lambda: checks.metadata(dist)
    steps["what is in the wheels, by check-wheel-contents"] = lambda: checks.contents(dist)
    steps["the stable ABI, by abi3audit"] = lambda: checks.stable_abi(dist)
    steps["the systems that the Linux wheels run on"] = lambda: checks.linux(dist)
    tests = "tests from the unpacked sdist, against it as installed in a fresh environment"
    steps[tests] = lambda: fresh.tested(dist, work, offline=options.quick)
    return steps


def _run(steps: dict[str, Step]) -> int:
    failed = []
    for number, (name, step) in enumerate(steps.items(), 1):
        print(f"[{number}/{len(steps)}] {name} ...", flush=True)
        began = monotonic()
        try:
            said = step()
        except checks.Failure as failure:
            failed.append(name)
            print(f"{failure}\n  FAILED, {monotonic() - began:.0f} s", flush=True)
        else:
            print(f"  ok, {monotonic() - began:.0f} s{f': {said}' if said else ''}", flush=True)
    for name in failed:
        print(f"failed: {name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
