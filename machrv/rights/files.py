"""Fileports: an open file as a send right, and back."""

# The two calls of <sys/fileport.h> over owned rights. What must never happen here: a descriptor that is closed for its
# owner, or an inheritable one.

from __future__ import annotations

from machrv.kernel import current
from machrv.rights.kinds import SendRight

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.kernel import Kernel


def fileport(fd: int, kernel: Kernel | None = None) -> SendRight:
    """A send right that stands for the open file behind `fd`, sharing its offset and flags as `dup` would.

    The descriptor stays the caller's and may be closed at once. Raises MachError for what cannot be sent (on macOS, a
    kqueue) or is not open.
    """
    kernel = kernel if kernel is not None else current()
    return SendRight(kernel.fileport_makeport(fd), kernel)


def fileport_fd(right: SendRight) -> int:
    """A new descriptor, close-on-exec and the caller's to close, for the file that `right` stands for.

    The right stays held. Raises MachError if it is no fileport.
    """
    return right.kernel.fileport_makefd(right.name)
