"""Fileports: an open file as a send right, and back."""

# The two calls of <sys/fileport.h> over owned rights. What must never happen here: a descriptor that is closed for its
# owner, or an inheritable one.

from __future__ import annotations

import os
from errno import EBADF

from machrv.constants import KERN_INVALID_RIGHT
from machrv.errors import MachError, RightError
from machrv.kernel import current
from machrv.rights.kinds import SendRight

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol, TypeVar, Union

    from machrv.kernel import Kernel

    class HasFileno(Protocol):
        """An open file, a socket, an end of a pipe: what has a descriptor."""

        def fileno(self) -> int: ...

    T = TypeVar("T")
    FileLike = Union[int, HasFileno]


def fileport(file: FileLike, kernel: Kernel | None = None) -> SendRight:
    """A send right that stands for an open file or socket, sharing its offset and flags as `dup` would.

    `file` is a descriptor, or what has a `fileno()`. It stays the caller's, and may be closed at once; what Python has
    written into its buffer and not flushed is not in the file yet. Raises OSError (EBADF) for what is not open, and
    MachError for what cannot be sent (on macOS, a kqueue).
    """
    kernel = kernel if kernel is not None else current()
    if isinstance(file, (str, bytes, os.PathLike)):
        raise TypeError(f"fileport takes an open file, not a path: fileport(open({file!r}))")
    fd = file if isinstance(file, int) else file.fileno()
    try:
        return SendRight(kernel.fileport_makeport(fd), kernel)
    except OverflowError:
        raise OSError(EBADF, f"{fd} is no descriptor") from None
    except MachError as error:
        failure = error
    os.fstat(fd)  # Raises what is the matter, if the descriptor is.
    raise failure


def fileport_fd(right: SendRight) -> int:
    """A new descriptor, close-on-exec and the caller's to close, for the file that `right` stands for.

    The right stays held. Raises MachError if it is no fileport.
    """
    return right.kernel.fileport_makefd(right.name)


def opened(right: SendRight, make: Callable[[int], T], where: str) -> T:
    """What `make` makes of a new descriptor for the file that `right` stands for. The right is spent; if this raises, held.

    Raises RightError, which says `where` the right is, if it is no fileport; and what `make` raises.
    """
    try:
        fd = right.kernel.fileport_makefd(right.name)
    except MachError as error:
        if error.code != KERN_INVALID_RIGHT:
            raise
        raise RightError(f"what is {where} is a right to a port, not an open file: use take_send_right()") from error
    try:
        made = make(fd)
    except BaseException:
        os.close(fd)
        raise
    right.close()
    return made
