"""Keys: what a right is registered and taken under, a uint32 or the four characters that stand for one."""

from __future__ import annotations

from machrv.errors import KeyFormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    #: A uint32, or the four characters that stand for it.
    Key = Union[int, str]


def four_char_code(text: str) -> int:
    """The uint32 that four Latin-1 characters stand for, the first in the highest byte, as C reads 'port'."""
    try:
        encoded = text.encode("latin-1")
    except UnicodeEncodeError:
        encoded = b""
    if len(encoded) != 4:
        raise KeyFormatError(f"{text!r} is no key: give four characters, or an integer of 32 bits")
    return int.from_bytes(encoded, "big")


def uint32_key(key: Key) -> int:
    """The key as an integer. Raises KeyFormatError for what is neither a uint32 nor four characters."""
    if type(key) is int and 0 <= key <= 0xFFFFFFFF:
        return key
    if isinstance(key, str):
        return four_char_code(key)
    if not isinstance(key, int) or not 0 <= key <= 0xFFFFFFFF:
        raise KeyFormatError(f"{key!r} is no key: give an integer from 0 to 2**32 - 1, or four characters")
    return int(key)
