"""The rendezvous on the wire: requests and replies, byte for byte as Chromium sends them.

    request     a bare header: id 'mrzv' ('mrzV': with the server's Info.plist data); remote MOVE_SEND of the service
                right, local MAKE_SEND_ONCE of a reply port
    reply       id 'MRZV', remote MOVE_SEND_ONCE; the descriptor count n; n port descriptors; then the body:
                n uint32 keys, ascending | uint64 length | so many bytes of additional data | zeros up to 4 bytes

The layout of the reply was read in Chromium, base/apple/mach_port_rendezvous.cc (CreateReplyMessage), of 2025. The
uint64 is not aligned.
"""

# What a request and a reply look like, and whether a message is one. What must never happen here: I/O, rights given up or
# taken, or a field of a peer's that is used before it was checked.

from __future__ import annotations

from _struct import Struct, calcsize

from machrv.errors import MessageFormatError
from machrv.message import (
    MACH_MSGH_BITS_COMPLEX,
    MACH_NOTIFY_SEND_ONCE,
    MACHRV_REPLY_ID,
    MACHRV_REQUEST_ID,
    MACHRV_REQUEST_WITH_INFO_PLIST_ID,
    AuditToken,
    Disposition,
    Message,
    PortDescriptor,
)
from machrv.message.layout import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

REQUEST_ID: int = MACHRV_REQUEST_ID
REQUEST_WITH_INFO_PLIST_ID: int = MACHRV_REQUEST_WITH_INFO_PLIST_ID
REPLY_ID: int = MACHRV_REPLY_ID

#: The most ports that one reply carries. On Linux every right is a descriptor, and one packet has room for 253
#: (SCM_MAX_FD, Linux 6.18, include/net/scm.h). macOS would take more; one limit for both is simpler to live with.
MAX_PORTS = 253
#: So many every system carries: with musl before 1.2.6, Linux has room for one less.
SURE_PORTS = 252

#: msgh_size of a request: a header and nothing else.
REQUEST_SIZE = len(Message().encode())
#: What a server receives with: a request and its trailer. Anything larger the kernel destroys unread.
RECEIVE_SIZE = REQUEST_SIZE + calcsize("=" + layout("mach_msg_audit_trailer_t"))

_COMPLEX = int(MACH_MSGH_BITS_COMPLEX)
_COUNT = Struct("=I")
_LENGTH = Struct("=Q")


def request(reply_port: int, request_id: int = REQUEST_ID) -> Message:
    """A request to be answered on the receive right `reply_port`; send it as MOVE_SEND to the service right."""
    return Message(request_id, local_port=reply_port, local_disposition=Disposition.MAKE_SEND_ONCE)


def parse_request(message: Message) -> AuditToken:
    """Who sent a request. Raises MessageFormatError for anything else.

    Whether the id is one that is served is not looked at. The kernel's own messages (notifications) are no requests,
    whatever their id.
    """
    token = message.audit_token
    if token is None or token.pid == 0:
        raise MessageFormatError("a request comes from a process: this one bears the kernel's token, or none")
    if message.bits & _COMPLEX or message.body or message.descriptors or message.voucher_port:
        raise MessageFormatError("a request is a header, and nothing comes with it")
    if not message.remote_port or message.remote_disposition != Disposition.PORT_SEND_ONCE:
        raise MessageFormatError("a request brings a send-once right to be answered on", 8)
    return token


def reply(ports: Mapping[int, Any], additional_data: bytes = b"") -> Message:
    """The reply that carries `ports`: descriptors, or owned rights for the layer above to move, by uint32 key."""
    keys = sorted(ports)
    body = Struct(f"={len(keys)}I").pack(*keys) + _LENGTH.pack(len(additional_data)) + additional_data
    body += bytes(-len(body) % 4)
    return Message(REPLY_ID, body, [ports[key] for key in keys], bits=MACH_MSGH_BITS_COMPLEX)


def is_refusal(message: Message) -> bool:
    """Whether this is the kernel's word that the reply right is gone unused. Anybody else's is a forgery."""
    return message.id == MACH_NOTIFY_SEND_ONCE and message.audit_token is not None and message.audit_token.is_kernel


def parse_reply(message: Message) -> tuple[dict[int, PortDescriptor], bytes]:
    """The ports by key, and the additional data, of a reply. Raises MessageFormatError, saying where, for anything else."""
    if message.id != REPLY_ID:
        raise MessageFormatError(f"the id of a reply is {REPLY_ID:#x}: found {message.id:#x}")
    sender = message.audit_token
    if sender is None or sender.is_kernel:
        raise MessageFormatError("a reply comes from a process: this one bears the kernel's token, or none")
    if message.remote_port or message.voucher_port:
        raise MessageFormatError("a reply wants no answer: this one brings a right besides its ports", 8)
    descriptors = message.descriptors
    body = message.body
    if not message.bits & _COMPLEX:
        # Some kernels take the complex bit from a message without descriptors: then the count stands in the body.
        if len(body) < _COUNT.size or _COUNT.unpack_from(body)[0]:
            raise MessageFormatError(
                "a reply has a descriptor count, and without the complex bit it is 0", REQUEST_SIZE
            )
        body = body[_COUNT.size :]
    for descriptor in descriptors:
        if type(descriptor) is not PortDescriptor:
            raise MessageFormatError(f"a reply carries port descriptors only: found {descriptor!r}")
    count = len(descriptors)
    if 4 * count > len(body):
        raise MessageFormatError(f"a reply has {4 * count} bytes of keys here: {len(body)} are left")
    numbers = Struct(f"={count}I").unpack_from(body)
    if list(numbers) != sorted(set(numbers)):
        raise MessageFormatError("the keys of a reply ascend, each once")
    # Chromium before 2025 sends no length.
    additional_data = _additional_data(body[4 * count :]) if len(body) > 4 * count else b""
    return dict(zip(numbers, descriptors)), additional_data


def _additional_data(rest: bytes) -> bytes:
    if len(rest) < _LENGTH.size:
        raise MessageFormatError(f"a reply has the length of its additional data here: {len(rest)} bytes are left")
    end = _LENGTH.size + _LENGTH.unpack_from(rest)[0]
    if end > len(rest):
        raise MessageFormatError(
            f"a reply has {end - _LENGTH.size} bytes of additional data here: {len(rest)} are left"
        )
    # The padding rounds the whole message up, and everything before the body is a multiple of four.
    padding = rest[end:]
    if padding != bytes(-end % 4):
        raise MessageFormatError(f"a reply ends with {-end % 4} zero bytes: found {padding[:8]!r}")
    return rest[_LENGTH.size : end]
