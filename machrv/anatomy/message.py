"""One message taken apart: header, descriptors, body, trailer."""

# What belongs here: the order of things in a message, read off the layouts of include/, and what a kernel would say to
# each. What must never happen here: bodies of particular protocols (bodies.py), or where one message ends and the next
# begins (stream.py).

from __future__ import annotations

from struct import calcsize
from sys import byteorder
from typing import TYPE_CHECKING

import machrv.constants as constants
from machrv.anatomy.bodies import Outline, body_fields, id_name
from machrv.anatomy.fields import Field, Reading, Walk, odd, wrong
from machrv.anatomy.meanings import GUARD_FLAGS, bits, copy_option, counted, disposition, port_name
from machrv.anatomy.trailers import trailer_fields, trailer_is_from_kernel
from machrv.message.descriptor import KINDS, TYPE_OFFSET, PortDescriptor
from machrv.message.layout import layout, members

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

__all__ = ["HEADER", "LARGEST", "dissect", "id_name"]

_HEADER_MEMBERS = members("mach_msg_header_t")
HEADER = calcsize("=" + layout("mach_msg_header_t"))
#: The largest body that any of the kernels carries: 64 MiB on Linux (machrv.kernel.linux), less on macOS.
LARGEST = HEADER + (64 << 20)
_PORT = calcsize("=" + layout(PortDescriptor.STRUCT))
_COMPLEX: int = constants.MACH_MSGH_BITS_COMPLEX

_KIND_NAMES = {
    constants.MACH_MSG_PORT_DESCRIPTOR: "port",
    constants.MACH_MSG_OOL_DESCRIPTOR: "out-of-line memory",
    constants.MACH_MSG_OOL_PORTS_DESCRIPTOR: "out-of-line ports",
    constants.MACH_MSG_OOL_VOLATILE_DESCRIPTOR: "volatile out-of-line memory",
    constants.MACH_MSG_GUARDED_PORT_DESCRIPTOR: "guarded port",
}


def dissect(image: memoryview, size: int | None = None, padding: int = 0, base: int = 0) -> Iterator[Field]:
    """The fields of one message, in the order of their offsets; what is missing comes too, without bytes.

    `image` is what there is of the message, `size` how much of it stands before the padding and the trailer (None: all).
    `base` is added to each offset. Never raises for what is in `image`.
    """
    size = len(image) if size is None else min(size, len(image))
    walk = Walk(image, base)
    walk.end = size
    outline = Outline()
    outline.received = len(image) > size + padding
    outline.from_kernel = trailer_is_from_kernel(image[size + padding :])
    yield from _header(walk, outline)
    if outline.size is not None and outline.size >= HEADER:
        if outline.size <= len(image):
            walk.end, walk.why = outline.size, "the message ends"
        known = True
        if outline.bits & _COMPLEX:
            known = yield from _descriptors(walk, outline)
        if known:
            yield from body_fields(walk, outline, outline.size)
        walk.section = "body"
        gone = outline.size - walk.at
        if walk.left or (gone > 0 and walk.told and known):
            yield walk.bytes("data", max(gone, walk.left))
    elif walk.left:
        walk.section = "the rest"
        yield walk.bytes("data", walk.left, lambda _: ("not decoded: where this message ends is not known", []))
    if outline.received or padding:
        yield from _behind(walk, size, padding)


def _header(walk: Walk, outline: Outline) -> Iterator[Field]:
    walk.section = "header"
    image = walk.image
    if walk.left >= 4:
        outline.bits = int.from_bytes(image[:4], byteorder)
    if walk.left >= HEADER:
        outline.id = int.from_bytes(image[20:24], byteorder, signed=True)
    meanings: dict[str, Callable[[int], Reading]] = {
        "msgh_bits": lambda value: bits(value, outline.received),
        "msgh_size": lambda value: _size(value, walk),
        "msgh_remote_port": lambda value: _port_of_header("remote", value, outline),
        "msgh_local_port": lambda value: _port_of_header("local", value, outline),
        "msgh_voucher_port": lambda value: _port_of_header("voucher", value, outline),
        "msgh_id": lambda value: _id(value, outline),
    }
    for _, name, code in _HEADER_MEMBERS:
        field = walk.number(name, code, meanings[name])
        if name == "msgh_size" and field.value is not None:
            outline.size = field.value
            if field.problems and field.value > len(image):
                walk.told = True
        yield field


def _size(value: int, walk: Walk) -> Reading:
    there = len(walk.image)
    meaning = counted(value, "byte")
    swapped = int.from_bytes(value.to_bytes(4, "little"), "big")
    hint = f" (in the other byte order: {swapped})" if HEADER <= swapped <= LARGEST < value else ""
    if value < HEADER:
        return meaning, wrong(f"a message has at least the {HEADER} bytes of its header{hint}")
    if value > there:
        beyond = ", and no kernel carries more than 64 MiB" if value > LARGEST else ""
        end = walk.base + there
        return meaning, wrong(f"cut short: the input ends at {end}, {value - there} bytes are missing{beyond}{hint}")
    if value % 4:
        return meaning, odd("kernels take and give multiples of 4 only")
    return meaning, []


def _port_of_header(which: str, value: int, outline: Outline) -> Reading:
    shift = {"remote": 0, "local": 8, "voucher": 16}[which]
    kind = outline.bits >> shift & 0x1F
    meaning = port_name(value)
    if not value and not kind:
        return meaning, []
    if outline.received:
        role = {"remote": "whom to answer", "local": "where it was received", "voucher": "a voucher"}[which]
    else:
        role = {"remote": "where it is to go", "local": "where to answer", "voucher": "a voucher"}[which]
    meaning = f"{meaning}: {role}"
    if value and not kind:
        return meaning, odd("a name that no disposition in msgh_bits goes with")
    return meaning, odd("a disposition in msgh_bits, but no name") if kind and not value else []


def _id(value: int, outline: Outline) -> Reading:
    name = id_name(value)
    characters = value.to_bytes(4, "big", signed=True)
    meaning = f"{value} ({value & 0xFFFFFFFF:#x})"
    if all(0x20 <= character <= 0x7E for character in characters):
        meaning = f"{value & 0xFFFFFFFF:#x} '{characters.decode()}'"
    return f"{meaning}: {name}" if name else meaning, []


def _descriptors(walk: Walk, outline: Outline) -> Generator[Field, None, bool]:
    """The count and the descriptors. Returns whether it is known where they end."""
    walk.section = "descriptors"
    size = outline.size or 0
    most = max(0, size - HEADER - 4) // _PORT

    def count_of(value: int) -> Reading:
        meaning = counted(value, "descriptor")
        return meaning, wrong(f"at most {most} fit into the message") if value > most else []

    count = walk.number("msgh_descriptor_count", "I", count_of)
    yield count
    if count.value is None:
        return False
    walk.told = walk.told or bool(count.problems)
    for index in range(count.value):
        if walk.left <= TYPE_OFFSET:
            yield from _cut_descriptor(walk, index, count.value)
            return False
        number = walk.peek(TYPE_OFFSET)
        walk.section = f"descriptor {index}: {_KIND_NAMES.get(number, 'unknown')}"
        if number not in KINDS:
            yield from _unknown_descriptor(walk, number)
            return False
        outline.kinds.append(number)
        yield from _descriptor(walk, number, outline)
        if walk.told and walk.left == 0 and index + 1 < count.value:
            yield from _cut_descriptor(walk, index + 1, count.value)
            return False
    return True


def _cut_descriptor(walk: Walk, index: int, count: int) -> Iterator[Field]:
    last = f" to {count - 1}" if count - index > 1 else ""
    walk.section = f"descriptor{'s' if last else ''} {index}{last}"
    yield walk.bytes("data", max((count - index) * _PORT, walk.left + 1))


def _unknown_descriptor(walk: Walk, number: int) -> Iterator[Field]:
    yield walk.bytes("data", TYPE_OFFSET)
    known = ", ".join(map(str, sorted(KINDS)))
    yield walk.number(
        "type", "B", lambda _: (str(number), wrong(f"there is no such descriptor: expected one of {known}"))
    )
    if walk.left:
        yield walk.bytes("data", walk.left, "descriptors and body cannot be told apart from here on")


def _descriptor(walk: Walk, number: int, outline: Outline) -> Iterator[Field]:
    kind = KINDS[number][0]
    received = outline.received
    guarded = number == constants.MACH_MSG_GUARDED_PORT_DESCRIPTOR
    meanings: dict[str, Callable[[int], Reading]] = {
        "name": lambda value: (port_name(value), []),
        "disposition": lambda value: disposition(value, received, guarded),
        "type": lambda value: (f"{value}: {_KIND_NAMES[value]}", []),
        "address": lambda value: (f"{value:#x} in the {'receiver' if received else 'sender'}'s memory", []),
        "size": lambda value: (counted(value, "byte"), []),
        "count": lambda value: (counted(value, "port name"), []),
        "copy": copy_option,
        "deallocate": _deallocate,
        "context": lambda value: (f"{value:#x}, the guard", []),
        "flags": _guard_flags,
    }
    for _, name, code in members(kind.STRUCT):
        if code.endswith("s"):
            yield walk.bytes(name, calcsize("=" + code), _padding)
        elif name.startswith("pad"):
            yield walk.number(
                name, code, lambda value: ("unused", odd(f"{value:#x} where zeros are usual") if value else [])
            )
        else:
            yield walk.number(name, code, meanings[name])


def _padding(data: memoryview) -> Reading:
    return "unused", odd("where zeros are usual") if any(data) else []


def _deallocate(value: int) -> Reading:
    if value > 1:
        return str(value), odd("a boolean: 0 or 1")
    return f"{value}: the sender {'gives its memory up' if value else 'keeps its memory'}", []


def _guard_flags(value: int) -> Reading:
    names = [name for bit, name in GUARD_FLAGS.items() if value & bit]
    rest = value & ~sum(GUARD_FLAGS)
    return f"{value:#x} {' | '.join(names)}".rstrip(), odd(f"unknown flags {rest:#x}") if rest else []


def _behind(walk: Walk, size: int, padding: int) -> Iterator[Field]:
    """The padding and the trailer."""
    walk.at, walk.end, walk.why, walk.told = size, len(walk.image), "the input ends", False
    if padding:
        walk.section = "padding"
        trailer = walk.left > padding

        def zeros(data: memoryview) -> Reading:
            return "up to a multiple of 4", wrong("expected zeros") if any(data) else []

        field = walk.bytes("padding", padding, zeros)
        if not trailer:
            field = field._replace(meaning="up to a multiple of 4, though no trailer follows")
        yield field
    if walk.left:
        yield from trailer_fields(walk)
