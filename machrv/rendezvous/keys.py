"""Keys: what a right is registered and taken under, a uint32 or one to four characters that stand for one."""

from __future__ import annotations

from machrv.errors import KeyFormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Union

    #: A uint32, or one to four characters that stand for it.
    Key = Union[int, str]

_ADVICE = "give one to four characters, or an integer from 0 to 2**32 - 1"


def four_char_code(text: str) -> int:
    """The uint32 that four Latin-1 characters stand for, the first in the highest byte, as C reads 'port'.

    Fewer are filled up with blanks, as usual for such codes: "log" is "log ".
    """
    try:
        encoded = text.encode("latin-1")
    except UnicodeEncodeError:
        encoded = b""
    if not 1 <= len(encoded) <= 4:
        raise KeyFormatError(f"{text!r} is no key: {_ADVICE}")
    return int.from_bytes(encoded.ljust(4), "big")


def uint32_key(key: Key) -> int:
    """The key as an integer. Raises KeyFormatError for what is neither a uint32 nor one to four characters."""
    if type(key) is int and 0 <= key <= 0xFFFFFFFF:
        return key
    if isinstance(key, str):
        return four_char_code(key)
    if not isinstance(key, int) or not 0 <= key <= 0xFFFFFFFF:
        raise KeyFormatError(f"{key!r} is no key: {_ADVICE}")
    return int(key)


def readable_key(number: int) -> Key:
    """The key as people write it: its characters, without the blanks at their end, or the number where it has none."""
    encoded = number.to_bytes(4, "big")
    text = encoded.decode("latin-1").rstrip(" ")
    if not text or not all(0x20 <= byte <= 0x7E for byte in encoded):
        return number
    return text


def key_text(number: int) -> str:
    """The key in a text: 'file', or 7."""
    return repr(readable_key(number))


def keys_text(numbers: Iterable[int]) -> str:
    """Some keys in a text: 'file', 'sock'."""
    return ", ".join(map(key_text, sorted(numbers)))
