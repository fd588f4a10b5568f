"""What is wrong with a message that cannot be encoded, or a buffer that cannot be decoded."""

# What belongs here: finding the fault, once there is one, and naming it. What must never happen here: anything for a
# message that fits.

from __future__ import annotations

from struct import Struct, calcsize, error

from machrv.message.descriptor import KINDS, TYPE_OFFSET
from machrv.errors import MessageFormatError
from machrv.message.layout import layout, members

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_BASE = calcsize("=" + layout("mach_msg_base_t"))
#: A port descriptor is the smallest.
_SMALLEST = min(width for _, width, _ in KINDS.values())


def blame(header: tuple[int, ...], descriptors: Iterable[Any]) -> None:
    """Raise MessageFormatError for the field that does not fit, if one can be found."""
    _blame_members("mach_msg_header_t", header, 0)
    offset = _BASE
    for descriptor in descriptors:
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


def misfit(image: bytes, size: int, offset: int, index: int, count: int) -> MessageFormatError:
    """What is wrong with the descriptor at an offset, in a message of this size."""
    if offset + _SMALLEST > size:
        return MessageFormatError(f"expected descriptor {index} of {count}: the message ends at {size}", offset)
    number = image[offset + TYPE_OFFSET]
    if number not in KINDS:
        known = ", ".join(map(str, KINDS))
        return MessageFormatError(f"expected a descriptor of type {known}: found {number}", offset + TYPE_OFFSET)
    expected = f"expected the {KINDS[number][1]} bytes of descriptor {index} ({KINDS[number][0].__name__})"
    return MessageFormatError(f"{expected}: the message ends at {size}", offset)
