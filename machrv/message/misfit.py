"""What is wrong with a message that cannot be encoded."""

# What belongs here: finding the fault, once there is one, and naming it. What must never happen here: anything for a
# message that fits.

from __future__ import annotations

from _struct import Struct, calcsize, error  # type: ignore[attr-defined]

from machrv.errors import MessageFormatError
from machrv.message.layout import layout, members

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_BASE = calcsize("=" + layout("mach_msg_base_t"))


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
