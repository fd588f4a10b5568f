"""Claims that a signal handler interrupts by raising, at every moment: what is lost is counted. `python interrupted.py SERVICE SECONDS`."""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import warnings
from time import monotonic
from types import FrameType

from machrv import RendezvousClient
from machrv._mach import lib
from machrv.kernel import current


class Interrupted(Exception):
    """What the handler raises."""


def interrupt(number: int, frame: FrameType | None) -> None:
    """In whatever is being done; not between claims, where this program itself would lose what it has."""
    if armed:
        raise Interrupted


armed = False


def owned() -> tuple[int, int]:
    """Descriptors and names, once all that was dropped is gone."""
    gc.collect()
    lib.machrv_settle(5000)
    return len(os.listdir("/proc/self/fd")), len(current().mach_port_names())


def main() -> int:
    """Claims from a server that has four rights for everybody, for so long."""
    global armed
    warnings.simplefilter("ignore", ResourceWarning)
    sys.unraisablehook = lambda _: None  # The handler may raise in a finaliser, too.
    signal.signal(signal.SIGALRM, interrupt)
    source, claims, interrupted = random.Random(1), 0, 0
    RendezvousClient.connect(sys.argv[1]).close()
    current().event_queue().close()
    before = owned()
    until = monotonic() + float(sys.argv[2])
    while monotonic() < until:
        client = None
        signal.setitimer(signal.ITIMER_REAL, source.random() * 0.0006 + 0.00001)
        try:
            armed = True
            client = RendezvousClient.connect(sys.argv[1], timeout=5)
            armed = False
        except Interrupted:
            armed = False
            interrupted += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        if client is not None:
            client.close()
        claims += 1
    after = owned()
    print(f"{interrupted} of {claims} claims interrupted; descriptors and names {before} before, {after} after")
    # Python runs handlers between any two steps: one that raises while a right is being closed, or in a finaliser, can lose it.
    lost = max(after[0] - before[0], after[1] - before[1])
    return int(lost > claims // 200 or interrupted < claims / 20)


if __name__ == "__main__":
    sys.exit(main())
