"""Mach messages: bytes in, objects out, and back.

What belongs here: the layout of a message in memory. What must never happen here: I/O, the owning of a right, a look at
the platform, or an exception that a peer's bytes can cause other than MessageFormatError.

The rules of the codec:

- Every bit counts. decode(encode(m)) == m for every message that encodes, encode(decode(b)) == b for every buffer that
  decodes. A bit that no field holds must be zero, or the buffer is refused.
- A buffer is a message and nothing else: header, if complex a descriptor count and descriptors, a body up to
  msgh_size; then either the end, or a trailer at the next multiple of four that reaches to the end.
- What is read has been checked first, sizes before contents: a lie costs no more time than the truth.
- Whether a disposition makes sense, and who owns what it names, is for the kernel to judge, and not judged here.

The constants of <mach/message.h>, <mach/port.h> and the like (MACH_MSG_TYPE_*, MACH_RCV_*, ...) can be imported from
here too, for modules that have no business with the compiled one.
"""

from __future__ import annotations

from itertools import chain, repeat
from struct import Struct, calcsize, error

from machrv._mach import lib
from machrv.audit import AuditToken
from machrv.descriptor import (
    KINDS,
    TYPE_OFFSET,
    Descriptor,
    Disposition,
    GuardedPortDescriptor,
    OutOfLineDescriptor,
    OutOfLinePortsDescriptor,
    PortDescriptor,
    disposition_name,
)
from machrv.errors import MessageFormatError
from machrv.layout import layout, members
from machrv.trailer import Trailer, trailer_request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from typing_extensions import Buffer

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

_COMPLEX: int = lib.MACH_MSGH_BITS_COMPLEX
_REMOTE: int = lib.MACH_MSGH_BITS_REMOTE_MASK
_LOCAL: int = lib.MACH_MSGH_BITS_LOCAL_MASK
_VOUCHER: int = lib.MACH_MSGH_BITS_VOUCHER_MASK

_header = Struct("=" + layout("mach_msg_header_t"))
_base = Struct("=" + layout("mach_msg_base_t"))  # A header and a descriptor count.
_count = Struct("=" + layout("mach_msg_body_t"))
_port = KINDS[PortDescriptor.TYPES[0]][1]
_HEADER, _BASE, _PORT = _header.size, _base.size, _port.size
_unpack_header, _pack_header, _unpack_count = _header.unpack_from, _header.pack, _count.unpack_from

#: A base and n port descriptors, by n: nearly every complex message is one of these, so it is packed in one call.
_port_runs: dict[int, Struct] = {}
_MAX_RUN = 64


def __getattr__(name: str) -> int:
    if name.startswith(("MACH_", "MACHRV_", "KERN_", "BOOTSTRAP_", "MAX_")) and hasattr(lib, name):
        return getattr(lib, name)  # type: ignore[no-any-return]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Message:
    """A Mach message, as it stands in one task's memory: names are that task's, and nothing is owned.

    `id` is msgh_id, a signed 32-bit integer. `body` is the inline data behind the descriptors. `bits` is msgh_bits
    whole; the three dispositions in it can be given and read by themselves. A message with descriptors is complex, one
    without may be (`bits=MACH_MSGH_BITS_COMPLEX`). `trailer` is what the kernel added to a received message, or None.
    """

    __slots__ = ("id", "body", "descriptors", "bits", "remote_port", "local_port", "voucher_port", "trailer")

    id: int
    body: bytes
    descriptors: tuple[Any, ...]
    bits: int
    remote_port: int
    local_port: int
    voucher_port: int
    trailer: Trailer | None

    def __init__(
        self,
        id: int = 0,
        body: Buffer = b"",
        descriptors: Iterable[Any] = (),
        *,
        bits: int = 0,
        remote_port: int = 0,
        local_port: int = 0,
        voucher_port: int = 0,
        remote_disposition: int = 0,
        local_disposition: int = 0,
        voucher_disposition: int = 0,
        trailer: Trailer | None = None,
    ) -> None:
        """A disposition that is given stands in `bits` in place of the one there.

        `descriptors` is not looked at before the message is encoded: the layer above may put owned rights there.
        Raises MessageFormatError if a disposition does not fit into its five bits.
        """
        self.id = id
        self.body = body if type(body) is bytes else bytes(memoryview(body))
        self.descriptors = descriptors = tuple(descriptors)
        if remote_disposition:
            bits = bits & ~_REMOTE | _five_bits(remote_disposition)
        if local_disposition:
            bits = bits & ~_LOCAL | _five_bits(local_disposition) << 8
        if voucher_disposition:
            bits = bits & ~_VOUCHER | _five_bits(voucher_disposition) << 16
        self.bits = bits | _COMPLEX if descriptors else bits
        self.remote_port = remote_port
        self.local_port = local_port
        self.voucher_port = voucher_port
        self.trailer = trailer

    @property
    def is_complex(self) -> bool:
        """Whether a descriptor count follows the header."""
        return bool(self.bits & _COMPLEX)

    @property
    def remote_disposition(self) -> int:
        """What is done with the right in `remote_port`: 0, or an `int` of `Disposition`."""
        return self.bits & _REMOTE

    @property
    def local_disposition(self) -> int:
        """What is done with the right in `local_port`: 0, or an `int` of `Disposition`."""
        return (self.bits & _LOCAL) >> 8

    @property
    def voucher_disposition(self) -> int:
        """What is done with the right in `voucher_port`: 0, or an `int` of `Disposition`."""
        return (self.bits & _VOUCHER) >> 16

    @property
    def audit_token(self) -> AuditToken | None:
        """Who sent the message, in the kernel's words; None if the trailer does not say."""
        return None if self.trailer is None else self.trailer.audit_token

    # -- out --------------------------------------------------------------------------------------------------------

    def encode(self) -> bytes:
        """The bytes of the message; with its trailer behind it where it has one.

        Raises MessageFormatError if a field does not fit, or a descriptor is none.
        """
        encoded = _encode(self, self.bits, self.remote_port, self.body)
        if self.trailer is None:
            return encoded
        return encoded + bytes(-len(encoded) % 4) + self.trailer.encode()

    def encode_to(self, remote_port: int, disposition: int) -> bytes:
        """The bytes to send to `remote_port`, whose right is used as `disposition` says, as mach_msg() takes them.

        The destination stands in place of the message's own; there is no trailer; and since a kernel takes only
        multiples of four bytes, the body is filled up with zeros.
        """
        body = self.body
        if len(body) % 4:
            body += bytes(-len(body) % 4)
        return _encode(self, self.bits & ~_REMOTE | _five_bits(disposition), remote_port, body)

    # -- in ---------------------------------------------------------------------------------------------------------

    @classmethod
    def decode(cls, buffer: Buffer) -> Message:
        """The message in `buffer`: the whole buffer is one message, with or without a trailer.

        Raises MessageFormatError, with the offset and what was expected there, for anything else.
        """
        image = buffer if type(buffer) is bytes else bytes(memoryview(buffer))
        length = len(image)
        if length < _HEADER:
            raise MessageFormatError(f"expected a header of {_HEADER} bytes: the buffer has {length}", 0)
        message = cls.__new__(cls)
        bits, size, message.remote_port, message.local_port, message.voucher_port, message.id = _unpack_header(image)
        message.bits = bits
        if not _HEADER <= size <= length:
            raise MessageFormatError(f"expected a msgh_size from {_HEADER} to {length}, the buffer's: found {size}", 4)
        if bits & _COMPLEX:
            message.descriptors, start = _decode_descriptors(image, size)
        else:
            message.descriptors, start = (), _HEADER
        message.body = image[start:size]
        message.trailer = None if size == length else _decode_trailer(image, size)
        return message

    # -- values -----------------------------------------------------------------------------------------------------

    def _fields(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return self._fields() == other._fields()

    __hash__ = None  # type: ignore[assignment]  # A message can be changed.

    def __repr__(self) -> str:
        parts = [f"id={_readable_id(self.id)}"]
        for place, port, disposition in (
            ("remote", self.remote_port, self.remote_disposition),
            ("local", self.local_port, self.local_disposition),
            ("voucher", self.voucher_port, self.voucher_disposition),
        ):
            if port or disposition:
                parts.append(f"{place}={port:#x} {disposition_name(disposition)}")
        flags = self.bits & ~(_REMOTE | _LOCAL | _VOUCHER)
        if flags:
            parts.append("complex" if flags == _COMPLEX else f"bits={self.bits:#x}")
        if self.descriptors:
            parts.append(f"descriptors={list(self.descriptors)!r}")
        if self.body:
            shown = f"{self.body[:32]!r}{'...' if len(self.body) > 32 else ''}"
            parts.append(f"body={len(self.body)} bytes {shown}")
        if self.trailer is not None:
            parts.append(repr(self.trailer))
        return f"<Message {', '.join(parts)}>"


def _readable_id(id: int) -> str:
    """An id as people write it: most are small numbers, some are four characters."""
    if 0x20202020 <= id <= 0x7E7E7E7E:
        characters = id.to_bytes(4, "big")
        if all(0x20 <= character <= 0x7E for character in characters):
            return f"{id:#x} {characters.decode()!r}"
    return str(id)


def _five_bits(disposition: int) -> int:
    if not 0 <= disposition <= _REMOTE:
        raise MessageFormatError(f"disposition {disposition!r} does not fit into the header: expected 0 to {_REMOTE}")
    return disposition


def _encode(message: Message, bits: int, remote_port: int, body: bytes) -> bytes:
    """The header with these bits and this destination, the descriptors, this body."""
    local, voucher, id, descriptors = message.local_port, message.voucher_port, message.id, message.descriptors
    try:
        if not bits & _COMPLEX:
            if descriptors:
                raise MessageFormatError("a message with descriptors must have MACH_MSGH_BITS_COMPLEX in its bits")
            return _pack_header(bits, _HEADER + len(body), remote_port, local, voucher, id) + body
        count = len(descriptors)
        run = _port_runs.get(count)
        for descriptor in descriptors:
            if type(descriptor) is not PortDescriptor:
                run = None
                break
        if run is None:
            run = _run(descriptors)
        # sum() is the fastest way to one flat tuple, up to some length: it copies.
        values = sum(descriptors, ()) if count <= _MAX_RUN else chain.from_iterable(descriptors)
        return run.pack(bits, run.size + len(body), remote_port, local, voucher, id, count, *values) + body
    except (error, TypeError) as problem:
        _blame(message, bits, remote_port)
        raise MessageFormatError(f"{message!r} cannot be encoded: {problem}") from problem


def _run(descriptors: tuple[Any, ...]) -> Struct:
    """The `struct` of a base and these descriptors."""
    for index, descriptor in enumerate(descriptors):
        if not isinstance(descriptor, Descriptor):
            raise MessageFormatError(f"descriptor {index} is a {type(descriptor).__name__}: expected a descriptor")
    run = Struct(_base.format + "".join(descriptor.FORMAT for descriptor in descriptors))
    if len(descriptors) <= _MAX_RUN and all(type(descriptor) is PortDescriptor for descriptor in descriptors):
        _port_runs[len(descriptors)] = run
    return run


def _blame(message: Message, bits: int, remote_port: int) -> None:
    """Raise MessageFormatError for the field that does not fit, if one can be found."""
    header = (bits, 0, remote_port, message.local_port, message.voucher_port, message.id)
    _blame_members("mach_msg_header_t", header, 0)
    offset = _BASE
    for descriptor in message.descriptors:
        _blame_members(descriptor.STRUCT, descriptor, offset)
        offset += calcsize("=" + descriptor.FORMAT)


def _blame_members(struct: str, values: Iterable[Any], start: int) -> None:
    for (offset, name, code), value in zip(members(struct), values):
        try:
            Struct("=" + code).pack(value)
        except error as problem:
            expected = (
                f"expected {'a signed' if code.islower() else 'an unsigned'} {calcsize('=' + code) * 8}-bit integer"
            )
            raise MessageFormatError(f"{struct}.{name} is {value!r}: {expected}", start + offset) from problem


def _decode_descriptors(image: bytes, size: int) -> tuple[tuple[Descriptor, ...], int]:
    """The descriptors of a complex message of this size, and where they end."""
    if size < _BASE:
        raise MessageFormatError(f"expected a descriptor count: the message ends after {size} bytes", _HEADER)
    (count,) = _unpack_count(image, _HEADER)
    end = _BASE + count * _PORT
    if end > size:  # A port descriptor is the smallest.
        most = (size - _BASE) // _PORT
        raise MessageFormatError(f"expected at most {most} descriptors in {size} bytes: found {count}", _HEADER)
    if not any(image[_BASE + TYPE_OFFSET : end : _PORT]):
        ports = map(tuple.__new__, repeat(PortDescriptor), _port.iter_unpack(image[_BASE:end]))
        return tuple(ports), end
    descriptors = []
    offset = _BASE
    for index in range(count):
        if offset + _PORT > size:
            raise MessageFormatError(f"expected descriptor {index} of {count}: the message ends at {size}", offset)
        number = image[offset + TYPE_OFFSET]
        if number not in KINDS:
            known = ", ".join(map(str, KINDS))
            raise MessageFormatError(f"expected a descriptor of type {known}: found {number}", offset + TYPE_OFFSET)
        kind, struct = KINDS[number]
        if offset + struct.size > size:
            problem = (
                f"expected the {struct.size} bytes of descriptor {index} ({kind.__name__}): the message ends at {size}"
            )
            raise MessageFormatError(problem, offset)
        descriptors.append(kind.from_members(struct.unpack_from(image, offset)))
        offset += struct.size
    return tuple(descriptors), offset


def _decode_trailer(image: bytes, size: int) -> Trailer:
    """The trailer behind a message of this size."""
    start = size + -size % 4
    if any(image[size:start]):
        raise MessageFormatError("expected zeros between the message and its trailer", size)
    return Trailer.decode(image, min(start, len(image)))
