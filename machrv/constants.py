"""The numbers that Mach has names for: the constants of include/machrv, and dispositions, what is done with a right.

What is in them can be imported: `from machrv.constants import MACH_PORT_RIGHT_RECEIVE, Disposition`.
"""

# What belongs here: names. What must never happen here: a number that somebody typed.

from __future__ import annotations

from machrv._mach import lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import ClassVar

_FAMILIES = ("MACH_", "MACHRV_", "KERN_", "BOOTSTRAP_", "MAX_", "VM_")


def constant(name: str, module: str) -> int:
    """A constant of <mach/message.h>, <mach/port.h> and the like, for whoever asks `module` for it."""
    if name.startswith(_FAMILIES):
        try:
            return getattr(lib, name)  # type: ignore[no-any-return]
        except AttributeError:
            pass
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


def __getattr__(name: str) -> int:
    return constant(name, __name__)


def names() -> list[str]:
    """What the constants are called."""
    return [name for name in dir(lib) if name.startswith(_FAMILIES)]


class _Members(type):
    """Lets a class be iterated over: its members, in the order of their values."""

    def __iter__(cls) -> Iterator[Disposition]:
        return iter(_dispositions.values())


class Disposition(int, metaclass=_Members):
    """What the kernel is to do with the right that a name stands for: an `int` with a name.

    MOVE_* take the right from the sender, COPY_SEND leaves it with him, MAKE_* make it from his receive right. In a
    received message only PORT_RECEIVE, PORT_SEND and PORT_SEND_ONCE occur: the MOVE_* under their other names, they
    say what the receiver holds now. (Not an `enum.IntEnum`: importing that costs a child more than all of the codec.)
    """

    name: str

    MOVE_RECEIVE: ClassVar[Disposition]
    MOVE_SEND: ClassVar[Disposition]
    MOVE_SEND_ONCE: ClassVar[Disposition]
    COPY_SEND: ClassVar[Disposition]
    MAKE_SEND: ClassVar[Disposition]
    MAKE_SEND_ONCE: ClassVar[Disposition]
    PORT_RECEIVE: ClassVar[Disposition]
    PORT_SEND: ClassVar[Disposition]
    PORT_SEND_ONCE: ClassVar[Disposition]

    def __new__(cls, value: int) -> Disposition:
        """The member with this value. Raises ValueError if there is none."""
        try:
            return _dispositions[value]
        except KeyError:
            raise ValueError(
                f"{value!r} is no disposition: they are {int(cls.MOVE_RECEIVE)} (MOVE_RECEIVE) to {int(cls.MAKE_SEND_ONCE)} (MAKE_SEND_ONCE)"
            ) from None

    @property
    def value(self) -> int:
        """The number, as a plain `int`."""
        return int(self)

    def __repr__(self) -> str:
        return f"Disposition.{self.name}"


_dispositions: dict[int, Disposition] = {}


def _name_dispositions() -> None:
    for name in ("MOVE_RECEIVE", "MOVE_SEND", "MOVE_SEND_ONCE", "COPY_SEND", "MAKE_SEND", "MAKE_SEND_ONCE"):
        member = int.__new__(Disposition, getattr(lib, f"MACH_MSG_TYPE_{name}"))
        member.name = name
        _dispositions[member] = member
        setattr(Disposition, name, member)
    for name in ("PORT_RECEIVE", "PORT_SEND", "PORT_SEND_ONCE"):
        setattr(Disposition, name, _dispositions[getattr(lib, f"MACH_MSG_TYPE_{name}")])


_name_dispositions()


def disposition_name(value: int) -> str:
    """How a disposition reads: its name, or its number where it has none."""
    return _dispositions[value].name if value in _dispositions else str(value)
