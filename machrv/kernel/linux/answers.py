"""What the answers of system calls mean: which error is a lack of room, which the end of a right.

What belongs here: turning results into exceptions, and the few calls that every room makes. What must never happen here:
state.
"""

from __future__ import annotations

import os
from errno import EBADF, ECONNREFUSED, ECONNRESET, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOTCONN, EPIPE

from machrv._mach import ffi, lib

from machrv.errors import MachError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: what a socket says whose other end has gone
GONE = (-EPIPE, -ECONNRESET, -ENOTCONN, -ECONNREFUSED)
#: what the system lacks for a moment
OUT_OF_ROOM = (-EMFILE, -ENFILE, -ENOMEM, -ENOBUFS)


def hangups(fds: list[int]) -> Iterable[int]:
    """For each socket, whether its other end is gone."""
    return _flags(lib.machrv_hangups, fds)


def spent(fds: list[int]) -> Iterable[int]:
    """For each socket, whether its other end is gone and nothing waits."""
    return _flags(lib.machrv_spent, fds)


def _flags(primitive: Callable[..., int], fds: list[int]) -> Iterable[int]:
    if not fds:
        return ()
    into = ffi.new("char[]", len(fds))
    check(primitive(fds, len(fds), into))
    return bytes(ffi.buffer(into))


def check(result: int) -> int:
    """The result of a primitive, or the OSError that it stands for."""
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


class shortage:
    """Turns an OSError into what Mach says: KERN_RESOURCE_SHORTAGE, or KERN_INVALID_ARGUMENT for a bad descriptor."""

    __slots__ = ("_operation",)

    def __init__(self, operation: str) -> None:
        self._operation = operation

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        # Only what a system call said: a signal handler may raise a TimeoutError, which is an OSError too.
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, (MachError, TimeoutError)):
            bad = error.errno in (EBADF, EINVAL)
            code = lib.KERN_INVALID_ARGUMENT if bad else lib.KERN_RESOURCE_SHORTAGE
            raise MachError(code, f"{self._operation} ({error.strerror})") from error


def close(fd: int) -> None:
    """Close a descriptor that we own; there is nothing to be done about an error."""
    lib.machrv_close(fd)
