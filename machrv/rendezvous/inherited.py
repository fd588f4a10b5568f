"""A server that is not looked up: the right to it as a descriptor that the child inherits.

`launch(..., nameless=True)` says in MACHRV_SERVER_FD which descriptor that is, and the inode of its socket: a process that
has the variable and not the descriptor, because it was started by the child, is not misled.
"""

# What must never happen here: a descriptor taken for a right that is something else, or one that a further program inherits.

from __future__ import annotations

import os

from machrv.rendezvous.names import SERVER_FD_VARIABLE
from machrv.rights.kinds import SendRight

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.kernel import Kernel


def descriptor_of(right: SendRight) -> tuple[int, str]:
    """A descriptor for a child to inherit, the caller's to close, and what to tell the child of it. The right stays held."""
    fd = right.kernel.right_makefd(right.name)
    return fd, f"{fd}:{os.fstat(fd).st_ino}"


def inherited_right(kernel: Kernel) -> SendRight | None:
    """A new right to the server, from the descriptor that this process has inherited; None if it has none.

    The descriptor stays open for the next rendezvous, and no program that this process starts inherits it any more.
    """
    number, _, inode = os.environ.get(SERVER_FD_VARIABLE, "").partition(":")
    if not (number.isdecimal() and inode.isdecimal() and len(number) < 10):
        return None
    fd = int(number)
    try:
        if os.fstat(fd).st_ino != int(inode):
            return None
        os.set_inheritable(fd, False)
    except OSError:
        return None  # It was not inherited.
    return SendRight(kernel.right_makeport(fd), kernel)
