"""`python -m tests.soak`: a soak, then the neighbours. Exit status 0 if all was as it must be.

Memory and descriptors are flat: what the process has at the end it had after the first tenth.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import tempfile

from machrv import ENFORCE_PEER_REQUIREMENTS, VALIDATE_PEER_REQUIREMENTS, RendezvousServer
from machrv.cli.progress import Progress
from machrv.kernel import current

from .crew import Nursery
from .long import Soak, resident
from .neighbours import NEIGHBOURS, beside

#: KiB that the process may have grown by after the first tenth
GROWTH = 4096


EXAMPLES = """\
examples:
  python -m tests.soak                  100,000 claims: about a quarter of an hour
  python -m tests.soak --claims 2000    what the tests do: half a minute
"""


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--claims", type=int, default=100_000, help="how many in all (default: %(default)s)")
    parser.add_argument("--children", type=int, default=16, help="how many live at a time (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of what each of them does")
    parser.add_argument("--tries", type=int, default=5, help="with each neighbour, until a claim is fast enough")
    arguments = parser.parse_args()
    logging.getLogger("machrv").setLevel(logging.ERROR)  # Of each refusal and each killed child there is a warning.
    with tempfile.TemporaryDirectory(prefix="machrv-") as folder:
        os.environ["MACHRV_BOOTSTRAP_DIR"] = folder
        nursery = Nursery()
        current().event_queue().close()
        before = _count()
        with VALIDATE_PEER_REQUIREMENTS.override(True), ENFORCE_PEER_REQUIREMENTS.override(True):
            with RendezvousServer.get_instance() as server:
                soak = Soak(nursery, arguments.children, arguments.seed)
                with Progress("soak", lambda: f"{sum(soak.counts.values())} of {arguments.claims} claims so far"):
                    soak.run(max(100, arguments.claims // 10))
                    first = resident()
                    seconds = soak.run(arguments.claims - arguments.claims // 10)
                    last = resident()
                left = server.registration_count
                wrong = 0
                for what in NEIGHBOURS:
                    print(f"a claim beside one that {what} ...", file=sys.stderr, flush=True)
                    for _ in range(arguments.tries):
                        alone, taken, done = beside(nursery, server, what)
                        if taken <= 2 * alone:
                            break  # Where the machine has other work, one comparison says little.
                    wrong += taken > 2 * alone
                    print(f"beside one that {what} ({done}): {taken * 1e3:.2f} ms, alone {alone * 1e3:.2f} ms")
        gc.collect()
        after = _count()
        nursery.close()
    for what, count in soak.counts.most_common():
        print(f"{count:8} {what}")
    print(f"{sum(soak.counts.values())} rounds, {seconds:.0f} s for the last nine tenths; {left} registrations left")
    print(f"memory {first} KiB after the first tenth, {last} KiB at the end; {before} before, {after} after")
    return int(bool(wrong or left or before != after or last - first > GROWTH))


def _count() -> str:
    return f"{len(os.listdir('/proc/self/fd'))} descriptors, {len(current().mach_port_names())} names"


if __name__ == "__main__":
    sys.exit(main())
