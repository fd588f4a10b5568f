"""Trailers: what the kernel adds behind a received message."""

# What belongs here: trailers of every kind, taken apart and put together. What must never happen here: a field believed
# without the trailer's type and size having been checked; kernels add less than was asked for.

from __future__ import annotations

from _struct import Struct, error  # type: ignore[attr-defined]

from machrv._mach import lib
from machrv.errors import MessageFormatError
from machrv.message.audit import AuditToken
from machrv.message.layout import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Self

_FORMAT_0: int = lib.MACH_MSG_TRAILER_FORMAT_0

#: The kinds by what they hold beyond the one before: how many fields of `Trailer` each has.
_KINDS = {
    count: Struct("=" + layout(f"mach_msg_{name}trailer_t"))
    for count, name in {0: "", 1: "seqno_", 2: "security_", 3: "audit_", 4: "context_", 6: "mac_"}.items()
}
_BY_SIZE = {kind.size: kind.unpack_from for kind in _KINDS.values()}
_BY_LENGTH = {len(kind.unpack(bytes(kind.size))): kind for kind in _KINDS.values()}
#: How each begins: its type and size.
TRAILER_HEADS = {kind.size: Struct("=II").pack(_FORMAT_0, kind.size) for kind in _KINDS.values()}
#: How many words there are up to the end of each field.
_WIDTHS = (3, 5, 13, 14, 15, 16)
_NAMES = ("seqno", "security_token", "audit_token", "context", "filter_id", "label")


def trailer_request(elements: int) -> int:
    """The receive option that asks for a trailer: `elements` is a MACH_RCV_TRAILER_* constant."""
    return _FORMAT_0 << 28 | (elements & 0xF) << 24


class Trailer(tuple[int, ...]):
    """What a kernel says of a message, as far as the receiver asked for it: a value. What was not said is None.

    Each kind holds what the one before it holds, and more: plain (nothing), seqno, security (security_token), audit
    (audit_token), context, mac (filter_id and label). Leaving a field out that another one needs is a
    MessageFormatError. Read it by the names of its fields; the tuple is that of the C struct's words.
    """

    __slots__ = ()

    def __new__(
        cls,
        seqno: int | None = None,
        security_token: tuple[int, int] | None = None,
        audit_token: AuditToken | None = None,
        context: int | None = None,
        filter_id: int | None = None,
        label: int | None = None,
    ) -> Self:
        fields = (seqno, security_token, audit_token, context, filter_id, label)
        count = fields.index(None) if None in fields else len(fields)
        if count not in _KINDS or any(field is not None for field in fields[count:]):
            said = ", ".join(name for name, field in zip(_NAMES, fields) if field is not None)
            lacking = _NAMES[fields.index(None)]
            raise MessageFormatError(f"there is no trailer with {said} and without {lacking}: give both, or neither")
        words: list[int] = [_FORMAT_0, _KINDS[count].size]
        for value, width in zip(fields[:count], _WIDTHS):
            words += value if isinstance(value, tuple) else (value,)  # type: ignore[arg-type]  # None is none of them
            if len(words) != width:
                raise MessageFormatError(f"{fields[:count]!r} does not fit into {_KINDS[count].size} bytes")
        return tuple.__new__(cls, words)

    @property
    def seqno(self) -> int | None:
        """The place of the message among those received from its port."""
        return self[2] if len(self) > 2 else None

    @property
    def security_token(self) -> tuple[int, int] | None:
        """The sender's effective user id and group id."""
        return (self[3], self[4]) if len(self) > 4 else None

    @property
    def audit_token(self) -> AuditToken | None:
        """Who sent the message: the sender's token at that moment."""
        return tuple.__new__(AuditToken, self[5:13]) if len(self) > 12 else None

    @property
    def context(self) -> int | None:
        """The context of the receiving port, as its owner set it."""
        return self[13] if len(self) > 13 else None

    @property
    def filter_id(self) -> int | None:
        """The message filter's id (msgh_ad)."""
        return self[14] if len(self) > 15 else None

    @property
    def label(self) -> int | None:
        """The label of the sender (msgh_labels.sender)."""
        return self[15] if len(self) > 15 else None

    @property
    def size(self) -> int:
        """The size of the trailer in bytes."""
        return self[1]

    @classmethod
    def decode(cls, buffer: bytes, offset: int = 0) -> Self:
        """The trailer that fills `buffer` from `offset` to its end. Raises MessageFormatError."""
        room = len(buffer) - offset
        unpack = _BY_SIZE.get(room)
        if unpack is None:
            sizes = ", ".join(map(str, _BY_SIZE))
            raise MessageFormatError(f"expected a trailer of {sizes} bytes, or the end: {room} bytes are left", offset)
        words = unpack(buffer, offset)
        if words[0] != _FORMAT_0:
            raise MessageFormatError(f"expected a trailer of type {_FORMAT_0}: found type {words[0]}", offset)
        if words[1] != room:
            raise MessageFormatError(f"expected a trailer size of {room}, what is left: found {words[1]}", offset + 4)
        return tuple.__new__(cls, words)

    def encode(self) -> bytes:
        """The bytes of the trailer. Raises MessageFormatError if a field does not fit."""
        try:
            return _BY_LENGTH[len(self)].pack(*self)
        except error as problem:
            raise MessageFormatError(f"{self!r} does not fit into {self[1]} bytes: {problem}") from None

    def _fields(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in _NAMES)

    def __getnewargs__(self) -> tuple[object, ...]:  # In place of tuple's: __new__ takes the fields
        return self._fields()

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={value!r}" for name, value in zip(_NAMES, self._fields()) if value is not None)
        return f"Trailer({said})"
