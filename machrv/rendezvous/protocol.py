"""The rendezvous on the wire: requests and replies, byte for byte as Chromium sends them.

What belongs here: what a request and a reply look like, and whether a message is one. What must never happen here: I/O,
rights given up or taken, or a field of a peer's that is used before it was checked.

    request     a bare header: id 'mrzv' ('mrzV': with the server's Info.plist data); remote MOVE_SEND of the service
                right, local MAKE_SEND_ONCE of a reply port
    reply       id 'MRZV', remote MOVE_SEND_ONCE; the descriptor count n; n port descriptors; then the body:
                n uint32 keys, ascending | uint64 length | so many bytes of additional data | zeros up to 4 bytes

The layout of the reply was read in Chromium, base/apple/mach_port_rendezvous.cc (CreateReplyMessage), of 2025. The
uint64 is not aligned.
"""

from __future__ import annotations

from collections import namedtuple
from struct import Struct

from machrv.audit import AuditToken
from machrv.errors import MessageFormatError
from machrv.message import (
    MACH_MSGH_BITS_COMPLEX,
    MACH_NOTIFY_SEND_ONCE,
    MACHRV_REPLY_ID,
    MACHRV_REQUEST_ID,
    MACHRV_REQUEST_WITH_INFO_PLIST_ID,
    Disposition,
    Message,
    PortDescriptor,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NamedTuple

REQUEST_ID: int = MACHRV_REQUEST_ID
REQUEST_WITH_INFO_PLIST_ID: int = MACHRV_REQUEST_WITH_INFO_PLIST_ID
REPLY_ID: int = MACHRV_REPLY_ID

#: The most ports that one reply carries. On Linux every right is a descriptor, and one packet has room for 253
#: (SCM_MAX_FD, Linux 6.18, include/net/scm.h). macOS would take more; one limit for both is simpler to live with.
MAX_PORTS = 253

#: msgh_size of a request: a header and nothing else.
REQUEST_SIZE = len(Message().encode())

#: What is the same in all replies, and what each port adds: a descriptor and a key.
_REPLY_SIZE, _EACH = 36, 16
AUDIT_TRAILER_SIZE = 52
#: Of the bits of a request: whether it is complex, and what the right to answer it is.
_ANSWERABLE = MACH_MSGH_BITS_COMPLEX | 0x1F
#: A header, and the trailer: type, size, seqno and two words of a security token; the words of the audit token.
_REQUEST = Struct("=5Ii2I12x8I")

#: The 32-bit words before the descriptors, of each port (its descriptor and its key), and behind: a length of 64 bits,
#: and the trailer: type, size, seqno and two words of a security token; the words of the audit token.
_HEAD, _EACH_PORT, _TAIL = 7, 4, 15
_TOKEN_SIZE = 32
#: no additional data, and the trailer that was asked for
_BEHIND = [0, 0, 0, AUDIT_TRAILER_SIZE]
_BITS = MACH_MSGH_BITS_COMPLEX | Disposition.PORT_SEND_ONCE << 8
#: What of the last word of a descriptor is its disposition; the rest is the type, 0 for a port, and padding.
_DISPOSITION = 0x00FF0000

_COUNT = Struct("=I")
_LENGTH = Struct("=Q")

if TYPE_CHECKING:

    class Reply(NamedTuple):
        """A reply taken apart: each key's descriptor, and the data behind them."""

        descriptors: dict[int, PortDescriptor]
        additional_data: bytes

else:  # The same without `typing`, which a child would pay for.
    Reply = namedtuple("Reply", "descriptors additional_data")


def request(reply_port: int, request_id: int = REQUEST_ID) -> Message:
    """A request to be answered on the receive right `reply_port`; send it as MOVE_SEND to the service right."""
    return Message(request_id, local_port=reply_port, local_disposition=Disposition.MAKE_SEND_ONCE)


def read_request(data: bytes) -> tuple[int, int, AuditToken] | None:
    """The right to answer a received request, its id, and who sent it; None if the message has not the form of one.

    Whether the id is one that is served is not looked at. The kernel's own messages (notifications) are no requests,
    whatever their id.
    """
    if len(data) != REQUEST_SIZE + AUDIT_TRAILER_SIZE:
        return None
    bits, size, remote, _, voucher, id, kind, trailer_size, *words = _REQUEST.unpack(data)
    if size != REQUEST_SIZE or kind or trailer_size != AUDIT_TRAILER_SIZE:
        return None
    # The remote right is the reply port's, and nothing comes with it.
    if bits & _ANSWERABLE != Disposition.PORT_SEND_ONCE or not remote or voucher or not words[5]:
        return None
    return remote, id, tuple.__new__(AuditToken, words)


def read_reply(data: bytes) -> tuple[Mapping[int, tuple[int, int]], bytes] | None:
    """What `parse_reply(Message.decode(data))` finds, where the reply is as nearly all are: a (name, disposition) by key, and
    the audit token of who sent it, as bytes. None for whatever looks otherwise in the least; it may be a reply all the same.
    """
    count = (len(data) // 4 - _HEAD - _TAIL) // _EACH_PORT
    if not 0 < count <= MAX_PORTS or len(data) != 4 * (_HEAD + _EACH_PORT * count + _TAIL):
        return None
    words = memoryview(data).cast("I").tolist()
    bits, size, remote, _, voucher, id, descriptors = words[:_HEAD]
    if (
        bits != _BITS
        or size != len(data) - AUDIT_TRAILER_SIZE
        or remote
        or voucher
        or id != MACHRV_REPLY_ID
        or descriptors != count
    ):
        return None
    keys_at, end = _HEAD + 3 * count, _HEAD + 4 * count
    if words[end : end + 4] != _BEHIND or not words[-3]:
        return None  # additional data, another trailer, or the kernel's own message
    names, types, keys = words[_HEAD:keys_at:3], words[_HEAD + 2 : keys_at : 3], words[keys_at:end]
    if any(words[_HEAD + 1 : keys_at : 3]) or (count > 1 and keys != sorted(set(keys))):
        return None
    dispositions = [word >> 16 for word in types if not word & ~_DISPOSITION]
    if len(dispositions) != count:
        return None
    return dict(zip(keys, zip(names, dispositions))), data[-_TOKEN_SIZE:]


def reply_image(remote: int, ports: Sequence[tuple[int, int, int]], additional_data: bytes = b"") -> bytes:
    """What `reply(...).encode_to(remote, MOVE_SEND_ONCE)` gives: `ports` are (key, name, disposition), the keys ascending."""
    count, padding = len(ports), -len(additional_data) % 4
    size = _REPLY_SIZE + _EACH * count + len(additional_data) + padding
    bits = MACH_MSGH_BITS_COMPLEX | Disposition.MOVE_SEND_ONCE
    words = [0] * (3 * count)
    words[0::3] = [name for _, name, _ in ports]
    words[2::3] = [disposition << 16 for _, _, disposition in ports]
    words += [key for key, _, _ in ports]
    head = _image_struct(count).pack(bits, size, remote, 0, 0, REPLY_ID, count, *words, len(additional_data))
    return head + additional_data + bytes(padding)


def reply(ports: Mapping[int, Any], additional_data: bytes = b"") -> Message:
    """The reply that carries `ports`: descriptors, or owned rights for the layer above to move, by uint32 key."""
    keys = sorted(ports)
    body = Struct(f"={len(keys)}I").pack(*keys) + _LENGTH.pack(len(additional_data)) + additional_data
    body += bytes(-len(body) % 4)
    return Message(REPLY_ID, body, [ports[key] for key in keys], bits=MACH_MSGH_BITS_COMPLEX)


def is_refusal(message: Message) -> bool:
    """Whether this is the kernel's word that the reply right is gone unused. Anybody else's is a forgery."""
    return message.id == MACH_NOTIFY_SEND_ONCE and message.audit_token is not None and message.audit_token.is_kernel


def parse_reply(message: Message) -> Reply:
    """The ports and the additional data of a reply. Raises MessageFormatError, saying where, for anything else."""
    if message.id != REPLY_ID:
        raise MessageFormatError(f"the id of a reply is {REPLY_ID:#x}: found {message.id:#x}")
    if message.audit_token is None or message.audit_token.is_kernel:
        raise MessageFormatError("a reply comes from a process: this one bears the kernel's token, or none")
    if message.remote_port or message.voucher_port:
        raise MessageFormatError("a reply wants no answer: this one brings a right besides its ports", 8)
    descriptors = message.descriptors
    body = message.body
    if not message.is_complex:
        # Some kernels take the complex bit from a message without descriptors: then the count stands in the body.
        if len(body) < _COUNT.size or _COUNT.unpack_from(body)[0]:
            raise MessageFormatError(
                "a reply has a descriptor count, and without the complex bit it is 0", REQUEST_SIZE
            )
        body = body[_COUNT.size :]
    for descriptor in descriptors:
        if type(descriptor) is not PortDescriptor:
            raise MessageFormatError(f"a reply carries port descriptors only: found {descriptor!r}")
    keys, rest = _split(body, 4 * len(descriptors), "keys")
    length, rest = _split(rest, _LENGTH.size, "the length of the additional data")
    size = _LENGTH.unpack(length)[0]
    additional_data, padding = _split(rest, size, "additional data")
    # The padding rounds the whole message up, and everything before the body is a multiple of four.
    if any(padding) or len(padding) != -size % 4:
        raise MessageFormatError(f"a reply ends with {-size % 4} zero bytes: found {padding[:8]!r}")
    numbers = Struct(f"={len(descriptors)}I").unpack(keys)
    if any(first >= second for first, second in zip(numbers, numbers[1:])):
        raise MessageFormatError("the keys of a reply ascend, each once")
    return Reply(dict(zip(numbers, descriptors)), additional_data)


_IMAGES: dict[int, Struct] = {}


def _image_struct(count: int) -> Struct:
    """A reply of so many ports, up to the additional data: header and count, descriptors, keys, length."""
    found = _IMAGES.get(count)
    if found is None:
        found = _IMAGES[count] = Struct(f"=5IiI{4 * count}IQ")
    return found


def _split(body: bytes, size: int, what: str) -> tuple[bytes, bytes]:
    if size > len(body):
        raise MessageFormatError(f"a reply has {size} bytes of {what} here: {len(body)} are left")
    return body[:size], body[size:]
