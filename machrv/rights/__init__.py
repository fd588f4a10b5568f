"""Owned rights: receive, send and send-once rights and port sets as objects, and what travels with messages.

right       Right: what owning a right means
transfer    into messages and out of them
kinds       SendRight, SendOnceRight, ReceiveRight; sets: PortSet
no_senders  hearing that nobody is left who could send
incoming    a received message, which owns what it brought
received    the same for messages that were decoded by hand
handover    rights for processes that multiprocessing starts
files       an open file as a right; memory: shared memory as one
sender      who sent a message; pinned: that process while it is looked at; cgroup: its control group
awaiting    the same from an event loop; loops: what a loop is told
"""

from machrv.rights.incoming import ReceivedMessage as ReceivedMessage
from machrv.rights.kinds import (
    ReceiveRight as ReceiveRight,
    SendOnceRight as SendOnceRight,
    SendRight as SendRight,
    take_right as take_right,
)
from machrv.rights.right import Right as Right
from machrv.rights.transfer import destroy_message as destroy_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.rights.files import fileport as fileport, fileport_fd as fileport_fd
    from machrv.rights.sets import PortSet as PortSet
    from machrv.rights.received import take_reply_right as take_reply_right, take_rights as take_rights

else:  # A checker is to know what there is, and that there is nothing else.
    #: What a child that only takes its rights does not pay for, and where it is.
    _HOMES = {"fileport": "files", "fileport_fd": "files", "PortSet": "sets"}
    _HOMES |= {"take_reply_right": "received", "take_rights": "received"}

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(__import__(f"{__name__}.{_HOMES[name]}", fromlist=(name,)), name)
