"""A descriptor for event loops: a kqueue over one port or set.

What belongs here: the kqueue. What must never happen here: taking an event, which would make the descriptor unreadable.
"""

from __future__ import annotations

from machrv._mach import lib as constants

from machrv.kernel.interface import Readiness
from machrv.kernel.darwin.kqueue import Kqueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class DarwinReadiness(Readiness):
    """Readable while a message waits: EVFILT_MACHPORT without MACH_RCV_MSG tells, and leaves it there (kqueue(2))."""

    __slots__ = ("_kqueue",)

    def __init__(self, lib: Any, ffi: Any, name: int) -> None:
        """Raises OSError."""
        self._kqueue = Kqueue(lib, ffi)
        try:
            self._kqueue.change(name, constants.EVFILT_MACHPORT, constants.EV_ADD)
        except BaseException:
            self._kqueue.close()
            raise

    def fileno(self) -> int:
        """See `Readiness.fileno`."""
        return self._kqueue.fileno()

    def close(self) -> None:
        """See `Readiness.close`."""
        self._kqueue.close()
