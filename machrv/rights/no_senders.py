"""The kernel's word that nobody is left who could send to a port: asking for it, and knowing it again."""

# What must never happen here: a message of a peer's that is believed. The kernel tells once, for each time that it was asked.

from __future__ import annotations

import os
from _thread import RLock

from machrv.constants import (
    KERN_RESOURCE_SHORTAGE,
    MACH_NOTIFY_NO_SENDERS,
    MACH_PORT_RECEIVE_STATUS,
    Disposition,
)
from machrv.errors import MachError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.rights.incoming import ReceivedMessage
    from machrv.rights.kinds import ReceiveRight

#: Two threads that ask at once would have the kernel give one of them the other's right to be told with.
_asking = RLock()


def _renew_lock() -> None:
    """In the child of a fork: whoever held it is not there."""
    global _asking
    _asking = RLock()


os.register_at_fork(after_in_child=_renew_lock)


def is_word(right: ReceiveRight, message: ReceivedMessage) -> bool:
    """Whether this is what the kernel tells because of `ask_for_word`, and nobody else's message of that id."""
    if not right._asked or not message.audit_token.is_kernel:
        return False
    status = right.kernel.mach_port_get_attributes(right.name, MACH_PORT_RECEIVE_STATUS)
    if status.nsrequest:  # type: ignore[union-attr]  # This flavor is a PortStatus.
        return False  # It is still to come: this one is about another port.
    right._listens = False
    return True


def ask_for_word(right: ReceiveRight) -> None:
    """Have the kernel tell when the last sender has gone; at once, if it has. Unless there never was one."""
    right._asked = True
    with _asking:
        _ask(right)


def _ask(right: ReceiveRight) -> None:
    kernel, name, came = right.kernel, right.name, right._came
    status = kernel.mach_port_get_attributes(name, MACH_PORT_RECEIVE_STATUS)
    if status.nsrequest:  # type: ignore[union-attr]
        # Of a right that came, its previous holder has asked, and the request came along. Else the caller has: by hand.
        right._listens = came or right._listens
        return
    # The count of rights made says whether there was ever a sender; it is not what it was once the port has moved.
    sync, once = 0 if came else 1, Disposition.MAKE_SEND_ONCE
    right._listens = True  # First: it may be told, and received in another thread, before the call returns.
    try:
        kernel.mach_port_request_notification(name, MACH_NOTIFY_NO_SENDERS, sync, name, once)
    except MachError as error:
        right._listens = False
        if error.code != KERN_RESOURCE_SHORTAGE:  # Without a descriptor to listen with there are still messages:
            raise  # the next receive asks again.
