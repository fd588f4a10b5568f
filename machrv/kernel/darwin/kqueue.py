"""A kqueue: kevent() with Python arguments.

What belongs here: the descriptor, time, EINTR. What must never happen here: closing a descriptor in the child of a
fork, where the kqueue does not exist and its number may be another file's (kqueue(2): it is not inherited).
"""

from __future__ import annotations

import os
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: How many events one call takes at most; the rest comes with the next.
_AT_ONCE = 64
_EINTR = 4
#: Seconds that the kernel takes for a timeout at most.
_LONGEST = 10**8


class Kqueue:
    """One kqueue, owned. Errors are OSError."""

    __slots__ = ("_lib", "_ffi", "_fd", "_owner", "_events")

    def __init__(self, lib: Any, ffi: Any) -> None:
        self._lib = lib
        self._ffi = ffi
        self._owner = os.getpid()
        self._events = ffi.new("kevent_t[]", _AT_ONCE)
        self._fd: int = -1
        self._fd = self._checked(lib.kqueue())

    def _checked(self, result: int) -> int:
        if result < 0:
            number = self._ffi.errno
            raise OSError(number, os.strerror(number))
        return int(result)

    def fileno(self) -> int:
        """The descriptor, readable when an event waits; -1 once closed."""
        return self._fd

    def change(self, ident: int, kind: int, flags: int, fflags: int = 0, mark: int = 0) -> None:
        """Add or delete (EV_*) the filter `kind` (EVFILT_*) on `ident`. Its events bear `mark`."""
        change = self._ffi.new("kevent_t *", [ident, kind, flags, fflags, 0, self._ffi.cast("void *", mark)])
        # With no room for events, what is wrong with the change is the call's own error.
        self._checked(self._lib.kevent(self._fd, change, 1, self._ffi.NULL, 0, self._ffi.NULL))

    def wait(self, timeout: float | None) -> list[tuple[int, int, int]]:
        """What happened, as (ident, EVFILT_*, mark), after at most `timeout` seconds. Signals are let in.

        One thread at a time.
        """
        deadline = None if timeout is None else monotonic() + timeout
        left = self._ffi.new("timespec_t *")
        while True:
            until = self._ffi.NULL
            if deadline is not None:
                seconds = min(max(0.0, deadline - monotonic()), _LONGEST)
                left.tv_sec = int(seconds)
                left.tv_nsec = int((seconds - left.tv_sec) * 1e9)
                until = left
            count = self._lib.kevent(self._fd, self._ffi.NULL, 0, self._events, _AT_ONCE, until)
            if count >= 0 or self._ffi.errno != _EINTR:
                break
        self._checked(count)
        cast = self._ffi.cast
        return [(event.ident, event.filter, int(cast("uintptr_t", event.udata))) for event in self._events[0:count]]

    def close(self) -> None:
        """Close the descriptor, unless this is the child of a fork. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0 and os.getpid() == self._owner:
            self._lib.close(fd)

    def __del__(self) -> None:
        self.close()
