"""Mach messages as bytes and as objects: `Message.decode(buffer)`, `message.encode()`. On any platform, without I/O.

    message         Message: the whole of one, with its trailer
    descriptor      the rights and the memory that a complex message carries
    trailer         what a kernel adds to a message that it delivers
    audit           AuditToken: who sent it
    layout          the C structs, as `struct` formats; misfit: what is wrong with bytes that are no message

The constants of <mach/message.h>, <mach/port.h> and the like (MACH_MSG_TYPE_*, MACH_RCV_*, ...) can be imported from here.
"""

from machrv.constants import Disposition as Disposition, constant
from machrv.message.audit import AuditToken as AuditToken
from machrv.message.descriptor import (
    Descriptor as Descriptor,
    GuardedPortDescriptor as GuardedPortDescriptor,
    OutOfLineDescriptor as OutOfLineDescriptor,
    OutOfLinePortsDescriptor as OutOfLinePortsDescriptor,
    PortDescriptor as PortDescriptor,
)
from machrv.message.message import Message as Message
from machrv.message.trailer import Trailer as Trailer, trailer_request as trailer_request

__all__ = [
    "AuditToken",
    "Descriptor",
    "Disposition",
    "GuardedPortDescriptor",
    "Message",
    "OutOfLineDescriptor",
    "OutOfLinePortsDescriptor",
    "PortDescriptor",
    "Trailer",
    "trailer_request",
]


def __getattr__(name: str) -> int:
    return constant(name, __name__)
