"""One of a vector's two tasks: its kernel, what its variables stand for, and what its port space ought to be.

What belongs here: the translation between a vector's variables and a kernel's numbers, in both directions, and the
comparison of a port space. What must never happen here: guessing. A variable is bound once, by the call that gave the
name out, and stands for that one number ever after.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import pack
from typing import Any

from machrv._mach import lib
from machrv.errors import MachError
from machrv.kernel import Kernel

from .vectors import RIGHTS, VectorError
from .wire import constant

#: A name that no kernel has given out: an index that no port space of a vector reaches.
BOGUS = 0x00FFFFF3
CONSTANTS = {"NULL": 0, "DEAD": 0xFFFFFFFF, "BOGUS": BOGUS}
RENDERED = {number: text for text, number in CONSTANTS.items()}

RIGHT_NUMBERS = [constant("MACH_PORT_RIGHT_", right) for right in RIGHTS]
TYPE_BITS = {right: constant("MACH_PORT_TYPE_", right) for right in RIGHTS}
#: Which requests wait on a name (DNREQUEST, SPREQUEST, SPREQUEST_DELAYED): reported with the types, not recorded.
REQUEST_BITS = 0xE0000000

#: Name -> (type bits, user references per right in the order of RIGHTS).
Space = dict[int, tuple[int, tuple[int, ...]]]


class Task:
    """A task named `A` or `B` of one vector."""

    def __init__(self, label: str, kernel: Kernel) -> None:
        self.label = label
        self.kernel = kernel
        self.numbers: dict[str, int] = {}
        self.expected: Space = {}
        self.living: dict[int, str] = {}
        token = kernel.audit_token()
        self.token = pack("=8I", *token)

    # -- variables to numbers ----------------------------------------------------------------------------------------

    def number(self, variable: str) -> int:
        """What a call is given for a variable."""
        number = CONSTANTS.get(variable)
        if number is None:
            number = self.numbers.get(variable)
        if number is None:
            raise VectorError(f"nothing has bound {variable} in task {self.label}")
        return number

    # -- numbers to variables ----------------------------------------------------------------------------------------

    def name(self, expected: Any, number: int) -> str:
        """What a number that came out reads: `expected` if that is what it stands for or, where it is a new variable,
        from now on stands for; otherwise what it is."""
        if expected in self.numbers:
            return str(expected) if self.numbers[expected] == number else self.render(number)
        if isinstance(expected, str) and expected not in CONSTANTS and number not in RENDERED:
            if number not in self.living:
                self.numbers[expected] = number
                self.living[number] = expected
                return expected
        return self.render(number)

    def render(self, number: int) -> str:
        return RENDERED.get(number) or self.living.get(number) or hex(number)

    # -- the port space ----------------------------------------------------------------------------------------------

    def space(self) -> Space:
        """The port space as the kernel tells it. Raises `ValueError` where a name is told twice."""
        get_refs = self.kernel.mach_port_get_refs
        names = self.kernel.mach_port_names()
        space = {
            name: (bits & ~REQUEST_BITS, tuple([get_refs(name, right) for right in RIGHT_NUMBERS]))
            for name, bits in names
        }
        if len(space) != len(names):
            raise ValueError(f"mach_port_names tells a name twice: {sorted(name for name, _ in names)}")
        return space

    def expect(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """From now on the space holds exactly this."""
        expected: Space = {}
        living: dict[int, str] = {}
        for variable, entry in state.items():
            number = self.number(variable)
            if number in living or number in RENDERED:
                raise VectorError(f"{variable} is {living.get(number) or hex(number)}")
            rights = entry["type"]
            if entry.keys() != {"type", *(right.lower() for right in rights)} or not TYPE_BITS.keys() >= set(rights):
                raise VectorError(f"a name is not {rights} and has references {sorted(entry.keys() - {'type'})}")
            bits = sum({TYPE_BITS[right] for right in rights})
            expected[number] = bits, tuple([entry.get(right.lower(), 0) for right in RIGHTS])
            living[number] = variable
        self.expected, self.living = expected, living

    def empty(self) -> None:
        """Destroy every name. Raises `MachError` if one cannot be, `ValueError` if one is left."""
        for name, _ in self.kernel.mach_port_names():
            try:
                self.kernel.mach_port_destroy(name)
            except MachError as error:
                raise ValueError(f"cannot destroy {self.render(name)} in the end: {error.symbol}") from error
        left = self.kernel.mach_port_names()
        if left:
            raise ValueError(f"left after every name was destroyed: {[(hex(name), hex(bits)) for name, bits in left]}")


def render_entry(entry: tuple[int, tuple[int, ...]] | None) -> str:
    """A name of a port space in words: `RECEIVE 1 + SEND 2`."""
    if entry is None:
        return "no such name"
    bits, refs = entry
    parts = []
    for right, count in zip(RIGHTS, refs):
        if bits & TYPE_BITS[right]:
            parts.append(f"{right} {count}")
            bits &= ~TYPE_BITS[right]
        elif count:
            parts.append(f"{count} references of {right}, which is not among the types")
    if bits or not parts:
        parts.append(f"type {bits:#x}")
    return " + ".join(parts)
