"""The codec, and the protocol that stands on it: any bytes are refused with a reason, or read and written bit for bit.

No I/O and no rights: this target runs many thousand times a second.
"""

from __future__ import annotations

from machrv.errors import MessageFormatError
from machrv.message import AuditToken, Message, PortDescriptor, Trailer
from machrv.rendezvous.protocol import (
    REQUEST_ID,
    is_refusal,
    parse_reply,
    parse_request,
    reply,
)

from .choices import Choices

COUNTED = "messages"
COMPLEX = 0x80000000
#: of a message from process 7
_TRAILER = Trailer(1, (0, 0), AuditToken(0, 0, 0, 0, 0, 7, 0, 1))
_TRAILERS = ((0, 8), (1, 12), (2, 20), (3, 52), (4, 60), (6, 68))


class Target:
    """One call: the bytes as they are, and as what they would be with a header that does not lie."""

    def __call__(self, data: bytes) -> int:
        if not data:
            return 0
        kind, rest = data[0], data[1:]
        if kind < 96:
            check(rest)
        elif kind < 128:
            check_reply(Choices(rest))
        else:
            check(_true_header(kind, rest))
        return 1

    def close(self) -> None:
        """Nothing is held."""


def _true_header(kind: int, rest: bytes) -> bytes:
    """A message whose size, and perhaps whose trailer, is what it says, so that the inside is reached."""
    choices = Choices(rest)
    bits = (COMPLEX if kind & 1 else 0) | (choices.integer(4) & 0x7FFFFFFF)
    trailer = b""
    if kind & 2:
        _, size = choices.of(_TRAILERS)
        trailer = bytes(4) + size.to_bytes(4, "little") + choices.bytes(size - 8).ljust(size - 8, b"\0")
    header = choices.bytes(16).ljust(16, b"\0")
    body = choices.bytes(1 << 16)
    size = 24 + len(body)
    message = bits.to_bytes(4, "little") + size.to_bytes(4, "little") + header + body
    return message + bytes(-size % 4) + trailer if trailer else message


def check(image: bytes) -> None:
    """Either refused with an offset that lies inside, or the same bytes come out again."""
    try:
        message = Message.decode(image)
    except MessageFormatError as error:
        assert error.offset is not None and 0 <= error.offset <= len(image), (error, image)
        assert str(error)
        return
    assert message.encode() == image, image
    again = Message.decode(memoryview(bytearray(image)))
    assert again == message and repr(again) == repr(message), image
    sent = Message.decode(message.encode_to(0x903, 19))
    assert sent.remote_port == 0x903 and sent.descriptors == message.descriptors and sent.trailer is None, image
    if message.trailer is not None:
        assert Trailer.decode(message.trailer.encode()) == message.trailer, image
        token = message.audit_token
        assert token is None or AuditToken.from_bytes(bytes(token)) == token, image
    check_protocol(message, image)


def check_protocol(message: Message, image: bytes) -> None:
    """What a server and a client make of it: an answer or a MessageFormatError."""
    try:
        token = parse_request(message)
    except MessageFormatError:
        pass
    else:
        assert not token.is_kernel and not message.descriptors and not message.body and message.remote_port, image
    is_refusal(message)
    try:
        ports, data = parse_reply(message)
    except MessageFormatError:
        return
    assert list(ports) == sorted(ports), image
    written = reply(ports, data)
    short = message.body + bytes(8)  # Chromium before 2025 sends no length.
    assert written.body in (message.body, short) or not message.is_complex, image
    assert written.descriptors == message.descriptors, image


def check_reply(choices: Choices) -> None:
    """A reply as a server makes it, once it has arrived."""
    count = choices.below(6)
    ports = {
        choices.number(): PortDescriptor(choices.number(), choices.of((16, 17, 18, 19, 20, 21))) for _ in range(count)
    }
    data = choices.bytes(choices.below(16))
    remote = choices.number()
    image = reply(ports, data).encode_to(remote, 18)
    check(_arrived(image[:8], image[20:24], image[24:]))


def _arrived(front: bytes, id: bytes, rest: bytes) -> bytes:
    """A message as its receiver finds it: from process 7, over a send-once right, on port 0x103."""
    bits = int.from_bytes(front[:4], "little") & COMPLEX | 18 << 8
    trailer = _TRAILER.encode()
    return bits.to_bytes(4, "little") + front[4:] + bytes(4) + b"\x03\1\0\0" + bytes(4) + id + rest + trailer


def seeds() -> list[bytes]:
    """Where to begin."""
    found = [bytes([128 + kind]) + bytes(24) for kind in range(4)]
    port = bytes(12)
    found += [bytes([131]) + bytes(21) + bytes([count, 0, 0, 0]) + port * count for count in (0, 1, 3)]
    answer = reply({1: _port(), 2: _port()}, b"data").encode()
    plain = reply({1: _port(), 2: _port()}).encode()
    found += [b"\0" + _arrived(one[:8], one[20:24], one[24:]) for one in (answer, plain)]
    asked = Message(REQUEST_ID, bits=18 | 17 << 8, remote_port=0x2C0B, local_port=0x103, trailer=_TRAILER)
    found.append(b"\0" + asked.encode())
    found += [bytes([96]) + bytes(count % 7 for count in range(length)) for length in (2, 20, 60)]
    return [*found, b"\0" + answer, b"\0" + Message(trailer=Trailer(1, (0, 0), AuditToken.KERNEL)).encode()]


def _port() -> PortDescriptor:
    return PortDescriptor(0x903, 17)
