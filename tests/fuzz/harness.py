"""What every target with a live kernel has: a hostile process, and the count of what may not be left behind.

What belongs here: the set-up, and the invariant. What must never happen here: an attack.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import tempfile
from collections.abc import Callable
from time import monotonic

from .hostile import Hostile

#: seconds that one input may take: a handful of packets, whatever is in them
SLOW = 5.0


class Harness:
    """A process with a port space, and one that attacks it."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="machrv-fuzz-")
        self._before = os.environ.get("MACHRV_BOOTSTRAP_DIR")
        os.environ["MACHRV_BOOTSTRAP_DIR"] = self.folder.name
        self.hostile = Hostile()
        from machrv.kernel import current

        self.kernel = current()
        self.kernel.event_queue().close()
        #: lets whatever goes on in other threads come to its end
        self.settle: Callable[[], None] = lambda: None
        self.failures: list[logging.LogRecord] = []
        self._handler = _Handler(self.failures)
        logging.getLogger("machrv").addHandler(self._handler)
        atexit.register(self.hostile.close)

    def close(self) -> None:
        """End the hostile process."""
        atexit.unregister(self.hostile.close)
        self.hostile.close()
        logging.getLogger("machrv").removeHandler(self._handler)
        os.environ.pop("MACHRV_BOOTSTRAP_DIR")
        if self._before is not None:
            os.environ["MACHRV_BOOTSTRAP_DIR"] = self._before
        self.folder.cleanup()

    def start(self) -> None:
        """All is set up: from here on nothing may be left behind."""
        self._names = dict(self.kernel.mach_port_names())
        self._descriptors = len(os.listdir("/proc/self/fd"))
        self._mappings = _mappings()
        self._calls = 0

    def began(self) -> float:
        """Before an input."""
        self.failures.clear()
        return monotonic()

    def ended(self, began: float) -> None:
        """After an input: nothing is left, nothing took long, nothing was logged as a failure."""
        seconds = monotonic() - began
        assert seconds < SLOW, f"took {seconds:.1f} s"
        assert not self.failures, [record.getMessage() for record in self.failures]
        for _ in range(20):
            if len(os.listdir("/proc/self/fd")) == self._descriptors:
                break
            gc.collect()
            self.settle()  # Others have been answered before it was their turn to close what has hung up.
        names = dict(self.kernel.mach_port_names())
        assert names == self._names, {hex(name): hex(kind) for name, kind in (names.items() ^ self._names.items())}
        found = os.listdir("/proc/self/fd")
        assert len(found) == self._descriptors, [f"{fd}: {_what(fd)}" for fd in found]
        self._calls += 1
        if self._calls % 5000 == 0:
            mappings = _mappings()
            assert mappings < self._mappings + 200, f"{mappings} mappings, {self._mappings} at first: memory is left"


class _Handler(logging.Handler):
    def __init__(self, into: list[logging.LogRecord]) -> None:
        super().__init__(logging.ERROR)
        self.into = into

    def emit(self, record: logging.LogRecord) -> None:
        self.into.append(record)


def _what(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return "the listing itself"


def _mappings() -> int:
    with open("/proc/self/maps") as maps:
        return sum(1 for _ in maps)
