"""Mach messages: bytes in, objects out, and back.

The rules of the codec:

- Every bit counts. decode(encode(m)) == m for every message that encodes, encode(decode(b)) == b for every buffer that
  decodes. A bit that no field holds must be zero, or the buffer is refused.
- A buffer is a message and nothing else: header, if complex a descriptor count and descriptors, a body up to
  msgh_size; then either the end, or a trailer at the next multiple of four that reaches to the end.
- What is read has been checked first, sizes before contents: a lie costs no more time than the truth.
- Whether a disposition makes sense, and who owns what it names, is for the kernel to judge, and not judged here.
"""

# What belongs here: the layout of a message in memory. What must never happen here: I/O, the owning of a right, a look
# at the platform, or an exception that a peer's bytes can cause other than MessageFormatError.

from __future__ import annotations

from _struct import Struct, error  # type: ignore[attr-defined]

from machrv._mach import lib
from machrv.message.audit import AuditToken
from machrv.constants import disposition_name
from machrv.message.descriptor import (
    KINDS,
    TYPE_OFFSET,
    Descriptor,
    PortDescriptor,
    misfit,
    port_from_members,
)
from machrv.errors import MessageFormatError
from machrv.message.layout import layout
from machrv.message.trailer import TRAILER_HEADS, Trailer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, ClassVar

    from typing_extensions import Buffer, Self

_COMPLEX: int = lib.MACH_MSGH_BITS_COMPLEX
_REMOTE: int = lib.MACH_MSGH_BITS_REMOTE_MASK
_LOCAL: int = lib.MACH_MSGH_BITS_LOCAL_MASK
_VOUCHER: int = lib.MACH_MSGH_BITS_VOUCHER_MASK
_MAKE_SEND_ONCE: int = lib.MACH_MSG_TYPE_MAKE_SEND_ONCE

_header = Struct("=" + layout("mach_msg_header_t"))
_base = Struct("=" + layout("mach_msg_base_t"))  # A header and a descriptor count.
_HEADER, _BASE = _header.size, _base.size
_unpack_header, _pack_header = _header.unpack_from, _header.pack
#: A header, and the two words behind it: a descriptor count, or the type and size of the trailer of an empty message.
_more = Struct(_base.format + "I")
_MORE, _unpack_more, _unpack_count = _more.size, _more.unpack_from, Struct("=I").unpack_from
_AUDIT = Struct("=" + layout("mach_msg_audit_trailer_t")).size
_AUDITED = _HEADER + _AUDIT
_unpack_token, _TOKEN_AT = Struct("=" + layout("audit_token_t")).unpack_from, _AUDIT - len(bytes(AuditToken()))

# Nearly every complex message has port descriptors and no others: they are taken apart all at once.
_PORT = KINDS[PortDescriptor.type][1]
_unpack_ports = Struct("=" + PortDescriptor.FORMAT).iter_unpack
_FIRST_TYPE = _BASE + TYPE_OFFSET
#: The type bytes of so many port descriptors. More of them at once are taken apart one by one.
_ALL_PORTS = bytes([PortDescriptor.type]) * 1024
#: Up to so many bytes, memory is copied as it is, and taken apart then.
_SHORT = 4096
_new: Any = object.__new__
_new_tuple: Any = tuple.__new__

#: A base and some descriptors, by their kinds, or by their number where all are ports: what was seen is packed in one call.
_runs: dict[int | tuple[type, ...], Struct] = {}
_MAX_RUN, _MAX_RUNS = 64, 256


class Message:
    """A Mach message, as it stands in one task's memory: names are that task's, and nothing is owned.

    `id` is msgh_id, a signed 32-bit integer. `body` is the inline data behind the descriptors. `bits` is msgh_bits
    whole; the three dispositions in it can be given and read by themselves. A message with descriptors is complex, one
    without may be (`bits=MACH_MSGH_BITS_COMPLEX`). `trailer` is what the kernel added to a received message, or None.
    """

    __slots__ = ("id", "body", "descriptors", "bits", "remote_port", "local_port", "voucher_port", "_trailer")

    id: int  #: msgh_id, signed, 32 bits.
    body: bytes  #: The inline data behind the descriptors.
    descriptors: tuple[Any, ...]  #: Descriptors; to be sent, owned rights too.
    bits: int  #: msgh_bits whole: dispositions and flags.
    remote_port: int  #: Sent: the destination. Received: the right to answer with, if it brought one.
    local_port: int  #: Sent: the port that the answer is to come to. Received: the port that it came to.
    voucher_port: int  #: The voucher, or 0.
    _trailer: Trailer | bytes | None

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
        Raises MessageFormatError if a disposition does not fit into its five bits, and for an id that is no number.
        """
        if type(id) is not int and not isinstance(id, int):
            raise MessageFormatError(
                f"{id!r} cannot be the id of a message. Bytes go into its body: Message(body={id!r})"
            )
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
        self._trailer = trailer

    @property
    def trailer(self) -> Trailer | None:
        """What the kernel added to a received message, or None."""
        trailer = self._trailer
        if isinstance(
            trailer, bytes
        ):  # Its type and size are checked already. Many a receiver never looks at the rest.
            trailer = self._trailer = Trailer.decode(trailer)
        return trailer

    @trailer.setter
    def trailer(self, trailer: Trailer | None) -> None:
        self._trailer = trailer

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
        trailer = self._trailer
        if type(trailer) is bytes:  # As in `trailer`, of which many a receiver looks at nothing else.
            return _new_tuple(AuditToken, _unpack_token(trailer, _TOKEN_AT)) if len(trailer) >= _AUDIT else None
        return trailer.audit_token if isinstance(trailer, Trailer) else None

    # -- out --------------------------------------------------------------------------------------------------------

    def encode(self) -> bytes:
        """The bytes of the message; with its trailer behind it where it has one.

        Raises MessageFormatError if a field does not fit, or a descriptor is none.
        """
        encoded = _encode(self, self.bits, self.remote_port, self.local_port, self.body, self.descriptors)
        trailer = self._trailer
        if trailer is None:
            return encoded
        if len(encoded) % 4:
            encoded += bytes(-len(encoded) % 4)
        return encoded + (trailer if isinstance(trailer, bytes) else trailer.encode())

    def encode_to(
        self,
        remote_port: int,
        disposition: int,
        descriptors: tuple[Any, ...] | None = None,
        reply_port: int = 0,
    ) -> bytes:
        """The bytes to send to `remote_port`, whose right is used as `disposition` says, as mach_msg() takes them.

        The destination stands in place of the message's own; `descriptors` in place of its descriptors, and `reply_port`, of
        which a send-once right is made, in place of its local port, where they are given. There is no trailer; and since a
        kernel takes only multiples of four bytes, the body is filled up with zeros.
        """
        body, bits, local = self.body, self.bits & ~_REMOTE | disposition, self.local_port
        if not 0 <= disposition <= _REMOTE:
            _five_bits(disposition)
        if reply_port:
            bits, local = bits & ~_LOCAL | _MAKE_SEND_ONCE << 8, reply_port
        if descriptors is None:
            descriptors = self.descriptors
        if descriptors:
            bits |= _COMPLEX
        size = len(body)
        if size & 3:
            body += bytes(-size & 3)
            size = len(body)
        if not bits & _COMPLEX:  # Most messages: what _encode would do.
            try:
                header = _pack_header(bits, _HEADER + size, remote_port, local, self.voucher_port, self.id)
                return header + body if size else header
            except error:
                pass
        return _encode(self, bits, remote_port, local, body, descriptors)

    # -- in ---------------------------------------------------------------------------------------------------------

    @classmethod
    def decode(cls, buffer: Buffer) -> Self:
        """The message in `buffer`: the whole buffer is one message, with or without a trailer.

        Raises MessageFormatError, with the offset and what was expected there, for anything else.
        """
        image: Any = buffer
        if type(image) is not bytes:  # A long one is not copied before it is taken apart, what is taken out of it is.
            image = memoryview(buffer)
            if len(image) <= _SHORT or image.format != "B":
                image = bytes(image)
        length = len(image)
        message: Self = _new(cls)
        # What stands where a count would is read in any case, which is cheaper than to look first and read twice.
        if length >= _MORE:
            bits, size, remote, message.local_port, message.voucher_port, message.id, count, told = _unpack_more(image)
            message.bits, message.remote_port = bits, remote
            if told == _AUDIT and size == _HEADER and length == _AUDITED and not count and bits < _COMPLEX:
                # A bare header with an audit trailer: what many a receiver gets most of the time.
                message.descriptors, message.body, message._trailer = (), b"", image[_HEADER:]
                return message
        elif length >= _HEADER:
            bits, size, remote, message.local_port, message.voucher_port, message.id = _unpack_header(image)
            message.bits, message.remote_port = bits, remote
            count = _unpack_count(image, _HEADER)[0] if length >= _BASE else 0
        else:
            raise MessageFormatError(f"expected a header of {_HEADER} bytes: the buffer has {length}", 0)
        if not _HEADER <= size <= length:
            raise MessageFormatError(f"expected a msgh_size from {_HEADER} to {length}, the buffer's: found {size}", 4)
        if bits & _COMPLEX:
            end = _BASE + count * _PORT
            # A smaller string: as many of them, or fewer.
            if end <= size and bytes(image[_FIRST_TYPE:end:_PORT]) <= _ALL_PORTS:
                message.descriptors = tuple(map(port_from_members, _unpack_ports(image[_BASE:end])))
            else:
                message.descriptors, end = _decode_descriptors(image, size, count)
        else:
            message.descriptors, end = (), _HEADER
        message.body = bytes(image[end:size])
        if size == length:
            message._trailer = None
        elif image[size : size + 8] == TRAILER_HEADS.get(length - size) and not size & 3:
            message._trailer = bytes(image[size:])
        else:
            message._trailer = _decode_trailer(image, size)
        return message

    # -- values -----------------------------------------------------------------------------------------------------

    def _fields(self) -> tuple[object, ...]:
        return (*(getattr(self, name) for name in Message.__slots__[:-1]), self.trailer)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return self._fields() == other._fields()

    __hash__: ClassVar[None]  # type: ignore[assignment]  # A message can be changed: it has __eq__ alone.

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


def _encode(
    message: Message, bits: int, remote_port: int, local_port: int, body: bytes, descriptors: tuple[Any, ...]
) -> bytes:
    """The header with these bits and these ports, these descriptors, this body."""
    voucher, id = message.voucher_port, message.id
    try:
        if not bits & _COMPLEX:
            if descriptors:
                raise MessageFormatError("a message with descriptors must have MACH_MSGH_BITS_COMPLEX in its bits")
            return _pack_header(bits, _HEADER + len(body), remote_port, local_port, voucher, id) + body
        count = len(descriptors)
        run = _runs.get(count)
        for descriptor in descriptors:
            if type(descriptor) is not PortDescriptor:
                run = _runs.get(tuple(map(type, descriptors)))
                break
        if run is None:
            run = _run(descriptors)
        # Two ways to one flat tuple: sum() is the faster one for a few, but it copies.
        values = sum(descriptors, ()) if count < 8 else [member for descriptor in descriptors for member in descriptor]
        return run.pack(bits, run.size + len(body), remote_port, local_port, voucher, id, count, *values) + body
    except (error, TypeError) as problem:
        from machrv.message.misfit import blame  # Late: nearly every message fits.

        blame((bits, 0, remote_port, local_port, voucher, id), descriptors)
        raise MessageFormatError(f"{message!r} cannot be encoded: {problem}") from problem


def _run(descriptors: tuple[Any, ...]) -> Struct:
    """The `struct` of a base and these descriptors."""
    for index, descriptor in enumerate(descriptors):
        if not isinstance(descriptor, Descriptor):
            raise MessageFormatError(f"descriptor {index} is a {type(descriptor).__name__}: expected a descriptor")
    run = Struct(_base.format + "".join(descriptor.FORMAT for descriptor in descriptors))
    kinds = tuple(map(type, descriptors))
    if len(kinds) <= _MAX_RUN and len(_runs) < _MAX_RUNS:
        _runs[kinds if any(kind is not PortDescriptor for kind in kinds) else len(kinds)] = run
    return run


def _decode_descriptors(image: bytes, size: int, count: int) -> tuple[tuple[Descriptor, ...], int]:
    """The descriptors of a complex message of this size, and where they end."""
    if size < _BASE:
        raise MessageFormatError(f"expected a descriptor count: the message ends after {size} bytes", _HEADER)
    if _BASE + count * _PORT > size:  # A port descriptor is the smallest.
        most = (size - _BASE) // _PORT
        raise MessageFormatError(f"expected at most {most} descriptors in {size} bytes: found {count}", _HEADER)
    descriptors = []
    offset = _BASE
    for index in range(count):
        found = KINDS.get(image[offset + TYPE_OFFSET]) if offset + _PORT <= size else None
        if found is None or offset + found[1] > size:
            raise misfit(image, size, offset, index, count)
        kind, width, unpack_from = found
        descriptors.append(_new_tuple(kind, unpack_from(image, offset)))
        offset += width
    return tuple(descriptors), offset


def _decode_trailer(image: bytes, size: int) -> Trailer:
    """The trailer behind a message of this size."""
    start = size + -size % 4
    if any(image[size:start]):
        raise MessageFormatError("expected zeros between the message and its trailer", size)
    return Trailer.decode(image, min(start, len(image)))
