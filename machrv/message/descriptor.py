"""Descriptors: the rights and the memory that a complex message carries."""

# What belongs here: descriptors of every kind as values, and what each looks like in memory. What must never happen
# here: the following of an address, or the owning of a right: a descriptor is what stands in the message, not what it
# means.

from __future__ import annotations

from _struct import Struct, calcsize

from machrv._mach import lib
from machrv.constants import disposition_name
from machrv.errors import MessageFormatError
from machrv.message.layout import field, layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, ClassVar

    from typing_extensions import Self


class Descriptor(tuple[int, ...]):
    """What the kinds of descriptors have in common: a tuple of the members of a C struct, in the order of memory.

    Descriptors are values: they compare by every bit that stands in the message. Read them by the names of their
    fields; the order of the tuple is the layout's.
    """

    STRUCT: ClassVar[str]
    FORMAT: ClassVar[str]
    TYPES: ClassVar[tuple[int, ...]]

    @classmethod
    def from_members(cls, members: tuple[int, ...]) -> Self:
        """The descriptor whose C struct has these members; they are not looked at."""
        return tuple.__new__(cls, members)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self).from_members, (tuple(self),), getattr(self, "__dict__", None) or None


class _FromFields(type):
    """Lets PortDescriptor be called with its fields and still have the `__new__` of a tuple, to which
    `port_from_members` goes with no Python function in between: an eighth of the time of decoding a port."""

    def __call__(cls: Any, name: int, disposition: int, *, pad1: int = 0, pad2: int = 0) -> PortDescriptor:
        return tuple.__new__(cls, (name, pad1, pad2, disposition))  # type: ignore[no-any-return]


class PortDescriptor(Descriptor, metaclass=_FromFields):
    """One right: `name` in the sender's or receiver's port space, `disposition` as an `int` of `Disposition`."""

    __slots__ = ()
    STRUCT: ClassVar[str] = "mach_msg_port_descriptor_t"
    # The type, which comes last, is no item of the tuple: it is 0 for a port, which is what "x" writes. This kind is
    # nearly all that a rendezvous sends, and one item less is an eighth of the time.
    FORMAT: ClassVar[str] = layout(STRUCT)[:-1] + "x"
    TYPES: ClassVar[tuple[int, ...]] = (lib.MACH_MSG_PORT_DESCRIPTOR,)

    if TYPE_CHECKING:

        def __new__(cls, name: int, disposition: int, *, pad1: int = 0, pad2: int = 0) -> Self: ...

    name: int = field(0, "The port name.")
    pad1: int = field(1, "32 bits that mean nothing.")
    pad2: int = field(2, "16 bits that mean nothing.")
    disposition: int = field(3, "What is done with the right: see `Disposition`.")
    type: int = TYPES[0]

    def __repr__(self) -> str:
        pads = f", pad1={self.pad1:#x}, pad2={self.pad2:#x}" if self.pad1 or self.pad2 else ""
        return f"PortDescriptor({self.name:#x}, {disposition_name(self.disposition)}{pads})"


#: `PortDescriptor.from_members`, quick: the call that the metaclass puts its own in place of.
port_from_members: Callable[[tuple[int, ...]], PortDescriptor] = type.__call__.__get__(PortDescriptor)


class OutOfLineDescriptor(Descriptor):
    """Memory beside the message: an address and a size, valid in the process at hand.

    `data` is the memory's contents, where the layer above the kernel put it: on receiving it copies the memory in and
    gives it back; on sending it lays `data` out and fills `address` and `size` in. It is not part of the message's
    bytes, and two descriptors that differ in `data` alone are equal.
    """

    STRUCT: ClassVar[str] = "mach_msg_ool_descriptor_t"
    FORMAT: ClassVar[str] = layout(STRUCT)
    TYPES: ClassVar[tuple[int, ...]] = (lib.MACH_MSG_OOL_DESCRIPTOR, lib.MACH_MSG_OOL_VOLATILE_DESCRIPTOR)

    data: bytes | None = None

    def __new__(
        cls,
        data: bytes | None = None,
        *,
        address: int = 0,
        size: int | None = None,
        deallocate: int = 0,
        copy: int = lib.MACH_MSG_VIRTUAL_COPY,
        type: int = lib.MACH_MSG_OOL_DESCRIPTOR,
        pad1: int = 0,
    ) -> Self:
        """`size` is that of `data` unless given. Raises MessageFormatError for a type that is not out-of-line."""
        if type not in cls.TYPES:
            raise MessageFormatError(
                f"type {type!r} is not that of out-of-line memory: expected MACH_MSG_OOL_DESCRIPTOR (1) or "
                "MACH_MSG_OOL_VOLATILE_DESCRIPTOR (3)"
            )
        if size is None:
            size = len(data) if data is not None else 0
        descriptor = tuple.__new__(cls, (address, deallocate, copy, pad1, type, size))
        if data is not None:
            descriptor.data = data
        return descriptor

    address: int = field(0, "Where the memory begins.")
    deallocate: int = field(1, "Whether the sender gives the memory up.")
    copy: int = field(2, "MACH_MSG_PHYSICAL_COPY, _VIRTUAL_COPY or _ALLOCATE.")
    pad1: int = field(3, "8 bits that mean nothing.")
    type: int = field(4, "MACH_MSG_OOL_DESCRIPTOR or MACH_MSG_OOL_VOLATILE_DESCRIPTOR.")
    size: int = field(5, "The size of the memory in bytes.")

    def __repr__(self) -> str:
        data = f"{self.data!r:.40}, " if self.data is not None else ""
        return (
            f"OutOfLineDescriptor({data}address={self.address:#x}, size={self.size}, deallocate={self.deallocate:d}, "
            f"copy={self.copy}, type={self.type}{f', pad1={self.pad1:#x}' if self.pad1 else ''})"
        )


class OutOfLinePortsDescriptor(Descriptor):
    """An array of rights beside the message: the address of `count` port names, all of one disposition.

    `names` is the array's contents, where the layer above the kernel put it: as `OutOfLineDescriptor.data`.
    """

    STRUCT: ClassVar[str] = "mach_msg_ool_ports_descriptor_t"
    FORMAT: ClassVar[str] = layout(STRUCT)
    TYPES: ClassVar[tuple[int, ...]] = (lib.MACH_MSG_OOL_PORTS_DESCRIPTOR,)

    names: Sequence[int] | None = None

    def __new__(
        cls,
        names: Sequence[int] | None = None,
        disposition: int = 0,
        *,
        address: int = 0,
        count: int | None = None,
        deallocate: int = 0,
        copy: int = lib.MACH_MSG_VIRTUAL_COPY,
    ) -> Self:
        """`count` is that of `names` unless given."""
        if count is None:
            count = len(names) if names is not None else 0
        descriptor = tuple.__new__(cls, (address, deallocate, copy, disposition, _OOL_PORTS, count))
        if names is not None:
            descriptor.names = names
        return descriptor

    address: int = field(0, "Where the array begins.")
    deallocate: int = field(1, "Whether the sender gives the array's memory up.")
    copy: int = field(2, "MACH_MSG_PHYSICAL_COPY, _VIRTUAL_COPY or _ALLOCATE.")
    disposition: int = field(3, "What is done with each right: see `Disposition`.")
    type: int = field(4, "MACH_MSG_OOL_PORTS_DESCRIPTOR.")
    count: int = field(5, "How many names the array holds.")  # type: ignore[assignment]  # hides tuple.count

    def __repr__(self) -> str:
        names = f"[{', '.join(map(hex, self.names))}], " if self.names is not None else ""
        return (
            f"OutOfLinePortsDescriptor({names}{disposition_name(self.disposition)}, address={self.address:#x}, "
            f"count={self.count}, deallocate={self.deallocate:d}, copy={self.copy})"
        )


class GuardedPortDescriptor(Descriptor):
    """A receive right that arrives guarded: `context` is the guard, `flags` are MACH_MSG_GUARD_FLAGS_*."""

    __slots__ = ()
    STRUCT: ClassVar[str] = "mach_msg_guarded_port_descriptor_t"
    FORMAT: ClassVar[str] = layout(STRUCT)
    TYPES: ClassVar[tuple[int, ...]] = (lib.MACH_MSG_GUARDED_PORT_DESCRIPTOR,)

    def __new__(cls, name: int, disposition: int, *, context: int = 0, flags: int = 0) -> Self:
        return tuple.__new__(cls, (context, flags, disposition, _GUARDED, name))

    context: int = field(0, "The guard, 64 bits.")
    flags: int = field(1, "MACH_MSG_GUARD_FLAGS_*.")
    disposition: int = field(2, "What is done with the right: see `Disposition`.")
    type: int = field(3, "MACH_MSG_GUARDED_PORT_DESCRIPTOR.")
    name: int = field(4, "The port name.")

    def __repr__(self) -> str:
        name, disposition = f"{self.name:#x}", disposition_name(self.disposition)
        return f"GuardedPortDescriptor({name}, {disposition}, context={self.context:#x}, flags={self.flags:#x})"


_OOL_PORTS: int = lib.MACH_MSG_OOL_PORTS_DESCRIPTOR
_GUARDED: int = lib.MACH_MSG_GUARDED_PORT_DESCRIPTOR

#: The type byte, and what it announces: the class, its size in bytes, and what takes them apart: (buffer, offset).
KINDS: dict[int, tuple[type[Descriptor], int, Callable[[bytes, int], tuple[int, ...]]]] = {
    number: (kind, calcsize("=" + kind.FORMAT), Struct("=" + kind.FORMAT).unpack_from)
    for kind in (PortDescriptor, OutOfLineDescriptor, OutOfLinePortsDescriptor, GuardedPortDescriptor)
    for number in kind.TYPES
}

#: Where the type byte of a descriptor lies: it has to be read before the kind is known, so it is at one place in all,
#: and the last of those that have nothing else.
TYPE_OFFSET: int = calcsize("=" + layout("mach_msg_type_descriptor_t")) - 1


def misfit(image: bytes, size: int, offset: int, index: int, count: int) -> MessageFormatError:
    """What is wrong with the descriptor at an offset, in a message of this size."""
    if offset + KINDS[PortDescriptor.type][1] > size:
        return MessageFormatError(f"expected descriptor {index} of {count}: the message ends at {size}", offset)
    number = image[offset + TYPE_OFFSET]
    if number not in KINDS:
        known = ", ".join(map(str, KINDS))
        return MessageFormatError(f"expected a descriptor of type {known}: found {number}", offset + TYPE_OFFSET)
    expected = f"expected the {KINDS[number][1]} bytes of descriptor {index} ({KINDS[number][0].__name__})"
    return MessageFormatError(f"{expected}: the message ends at {size}", offset)
