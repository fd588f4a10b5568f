"""Bytes as a source of decisions: every input of a fuzzer is a program for a hostile peer.

What belongs here: reading decisions from bytes, never failing. What must never happen here: a decision that the bytes do
not make: the same bytes are the same attack.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Decisions read off the front of some bytes; zeros when they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def bytes(self, count: int) -> bytes:
        """The next `count` bytes, or what is left."""
        found = self._data[self._at : self._at + count]
        self._at += count
        return found

    def integer(self, size: int) -> int:
        """An unsigned integer of `size` bytes."""
        return int.from_bytes(self.bytes(size), "little")

    def below(self, limit: int) -> int:
        """An integer from 0 to `limit` - 1, of one byte."""
        return self.integer(1) % limit

    def of(self, values: Sequence[T]) -> T:
        """One of some values."""
        return values[self.below(len(values))]

    def rarely(self) -> bool:
        """True about once in eight times; never when the bytes are used up."""
        return self.integer(1) > 223

    def number(self) -> int:
        """A uint32: mostly small, now and then at an edge or anything."""
        kind = self.below(8)
        if kind < 5:
            return self.below(8)
        if kind == 5:
            return self.of((0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x40000001, 0x3FFFFFFF, 0xFFFF, 252, 253, 254))
        return self.integer(2) if kind == 6 else self.integer(4)
