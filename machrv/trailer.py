"""Trailers: what the kernel adds behind a received message.

What belongs here: trailers of every kind, taken apart and put together. What must never happen here: a field believed
without the trailer's type and size having been checked; kernels add less than was asked for.
"""

from __future__ import annotations

from struct import Struct, error

from machrv._mach import lib
from machrv.audit import AuditToken
from machrv.errors import MessageFormatError
from machrv.layout import field, layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Self

_FORMAT_0: int = lib.MACH_MSG_TRAILER_FORMAT_0
_plain = Struct("=" + layout("mach_msg_trailer_t"))

#: The kinds by what they hold beyond the one before: how many fields of `Trailer` each has.
_KINDS = {
    0: _plain,
    1: Struct("=" + layout("mach_msg_seqno_trailer_t")),
    2: Struct("=" + layout("mach_msg_security_trailer_t")),
    3: Struct("=" + layout("mach_msg_audit_trailer_t")),
    4: Struct("=" + layout("mach_msg_context_trailer_t")),
    6: Struct("=" + layout("mach_msg_mac_trailer_t")),
}
_BY_SIZE = {kind.size: (count, kind.unpack_from) for count, kind in _KINDS.items()}
_NAMES = ("seqno", "security_token", "audit_token", "context", "filter_id", "label")
_NOTHING = (None,) * len(_NAMES)


def trailer_request(elements: int) -> int:
    """The receive option that asks for a trailer: `elements` is a MACH_RCV_TRAILER_* constant."""
    return _FORMAT_0 << 28 | (elements & 0xF) << 24


class Trailer(tuple[object, ...]):
    """What a kernel says of a message, as far as the receiver asked for it: a value. What was not said is None.

    Each kind holds what the one before it holds, and more: plain (nothing), seqno, security (security_token), audit
    (audit_token), context, mac (filter_id and label). Leaving a field out that another one needs is a
    MessageFormatError.
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
        trailer = tuple.__new__(cls, (seqno, security_token, audit_token, context, filter_id, label))
        count = trailer._count()
        if count not in _KINDS or trailer[count:] != _NOTHING[count:]:
            raise MessageFormatError(
                f"there is no trailer with {trailer._said()} and not {_NAMES[trailer.index(None)]}"
            )
        return trailer

    seqno: int | None = field(0, "The place of the message among those received from its port.")
    security_token: tuple[int, int] | None = field(1, "The sender's effective user id and group id.")
    audit_token: AuditToken | None = field(2, "Who sent the message: the sender's token at that moment.")
    context: int | None = field(3, "The context of the receiving port, as its owner set it.")
    filter_id: int | None = field(4, "The message filter's id (msgh_ad).")
    label: int | None = field(5, "The label of the sender (msgh_labels.sender).")

    @property
    def size(self) -> int:
        """The size of the trailer in bytes."""
        return _KINDS[self._count()].size

    def _count(self) -> int:
        return self.index(None) if None in self else len(self)

    def _said(self) -> str:
        return ", ".join(name for name, value in zip(_NAMES, self) if value is not None)

    @classmethod
    def decode(cls, buffer: bytes, offset: int = 0) -> Self:
        """The trailer that fills `buffer` from `offset` to its end. Raises MessageFormatError."""
        room = len(buffer) - offset
        if room not in _BY_SIZE:
            sizes = ", ".join(map(str, _BY_SIZE))
            raise MessageFormatError(f"expected a trailer of {sizes} bytes, or the end: {room} bytes are left", offset)
        count, unpack = _BY_SIZE[room]
        # type, size, seqno, two words, eight words, context, filter id, label
        words = unpack(buffer, offset)
        if words[0] != _FORMAT_0:
            raise MessageFormatError(f"expected a trailer of type {_FORMAT_0}: found type {words[0]}", offset)
        if words[1] != room:
            raise MessageFormatError(f"expected a trailer size of {room}, what is left: found {words[1]}", offset + 4)
        if count == 3:
            audit = tuple.__new__(AuditToken, words[5:])
            return tuple.__new__(cls, (words[2], words[3:5], audit, None, None, None))
        values = words[2:3], (words[3:5],), (tuple.__new__(AuditToken, words[5:13]),), words[13:14], words[14:]
        fields: tuple[object, ...] = sum(values, ())[:count]
        return tuple.__new__(cls, fields + _NOTHING[count:])

    def encode(self) -> bytes:
        """The bytes of the trailer. Raises MessageFormatError if a field does not fit."""
        count = self._count()
        words = [_FORMAT_0, _KINDS[count].size]
        for value in self[:count]:
            if isinstance(value, tuple):
                words += value
            else:
                words.append(value)  # type: ignore[arg-type]  # judged by struct, below
        try:
            return _KINDS[count].pack(*words)
        except error as problem:
            raise MessageFormatError(f"{self!r} does not fit into {_KINDS[count].size} bytes: {problem}") from None

    def __getnewargs__(self) -> tuple[object, ...]:  # In place of tuple's: __new__ takes the fields
        return tuple(self)

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={value!r}" for name, value in zip(_NAMES, self) if value is not None)
        return f"Trailer({said})"
