"""Fields: what was found at an offset, and how to walk from one to the next."""

# What belongs here: taking bytes off, and what is missing where they end. What must never happen here: what a Mach
# message looks like.

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

#: A meaning, and what is wrong with the value.
Reading = tuple[str, "list[Remark]"]


class Remark(NamedTuple):
    """Something about a value: `wrong` if it makes the message invalid, otherwise only unusual."""

    wrong: bool
    text: str


class Problem(NamedTuple):
    """A remark at its offset in the input."""

    offset: int
    wrong: bool
    text: str


class Field(NamedTuple):
    """One field of a message. `data` is shorter than `size` where it is cut short; `value` is None then, and for bytes."""

    section: str
    name: str
    offset: int
    size: int
    data: memoryview
    value: int | None
    meaning: str
    problems: tuple[Problem, ...]

    @property
    def missing(self) -> int:
        """How many of its bytes are not there."""
        return self.size - len(self.data)


def wrong(text: str) -> list[Remark]:
    """A remark that makes the message invalid."""
    return [Remark(True, text)]


def odd(text: str) -> list[Remark]:
    """A remark on what is unusual."""
    return [Remark(False, text)]


_CODES = {code: Struct(f"={code}") for code in "BHIiQ"}


class Walk:
    """Goes through the bytes of one message. `at` and `end` count within them, `base` is where they begin in the input.

    `end` is where the bytes end that the next fields may take, `why` what ends there. Of fields that are cut short the
    first gets a fault, unless `told` says that it has been reported before.
    """

    def __init__(self, image: memoryview, base: int) -> None:
        self.image = image
        self.base = base
        self.at: int = 0
        self.end: int = len(image)
        self.why = "the input ends"
        self.told: bool = False
        self.section = ""

    @property
    def left(self) -> int:
        """How many bytes are left before the end."""
        return max(0, self.end - self.at)

    def number(self, name: str, code: str, read: Callable[[int], Reading] | str = "") -> Field:
        """A number: `code` is its format; `read` says what a value means."""
        struct = _CODES[code]
        if self.left < struct.size:
            return self._cut(name, struct.size)
        (value,) = struct.unpack_from(self.image, self.at)
        meaning, remarks = (read, []) if isinstance(read, str) else read(value)
        return self._take(name, struct.size, value, meaning or str(value), remarks)

    def bytes(self, name: str, size: int, read: Callable[[memoryview], Reading] | str = "") -> Field:
        """Bytes that are no number."""
        if self.left < size:
            return self._cut(name, size)
        meaning, remarks = (read, []) if isinstance(read, str) else read(self.image[self.at : self.at + size])
        return self._take(name, size, None, meaning, remarks)

    def peek(self, offset: int) -> int:
        """The byte so far behind; it must be there."""
        return self.image[self.at + offset]

    def _take(self, name: str, size: int, value: int | None, meaning: str, remarks: list[Remark]) -> Field:
        offset = self.base + self.at
        data = self.image[self.at : self.at + size]
        self.at += size
        problems = tuple(Problem(offset, *remark) for remark in remarks)
        return Field(self.section, name, offset, size, data, value, meaning, problems)

    def _cut(self, name: str, size: int) -> Field:
        there = self.left
        field = self._take(name, there, None, "missing", [])
        self.at += size - there
        if there:
            field = field._replace(meaning=f"cut short: {there} of {size} bytes")
        problems: tuple[Problem, ...] = ()
        if not self.told:
            self.told = True
            what = f"{name} is missing" if not there else f"{there} of the {size} bytes of {name} are there"
            problems = (Problem(field.offset, True, f"{what}: {self.why} at {self.base + self.end}"),)
        return field._replace(size=size, problems=problems)
