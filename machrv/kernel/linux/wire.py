"""The in-flight form: a Mach message, and a moved receive right, as packets between processes.

A packet is a header (`machrv_wire_header`: the Mach header without names), the rest of the message with every port name
replaced by a slot, then the slots of out-of-line port arrays. A slot says which descriptor of the packet it is:
`SLOT_NULL`, `SLOT_DEAD`, or index + 1, with `SLOT_FILE` where the descriptor is a fileport's file.

What belongs here: writing that form, and reading it without believing any of it. What must never happen here: names,
ports, system calls.
"""

from __future__ import annotations

from struct import Struct

from machrv._mach import ffi, lib

from machrv.kernel.linux.buffer import BODY as BODY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SLOT_NULL = 0
SLOT_DEAD = 0xFFFFFFFF
SLOT_FILE = 0x40000000

PORT_RECEIVE = lib.MACH_MSG_TYPE_PORT_RECEIVE
PORT_SEND = lib.MACH_MSG_TYPE_PORT_SEND
PORT_SEND_ONCE = lib.MACH_MSG_TYPE_PORT_SEND_ONCE
_KINDS = (PORT_RECEIVE, PORT_SEND, PORT_SEND_ONCE)

PORT_DESCRIPTOR = lib.MACH_MSG_PORT_DESCRIPTOR
OOL_DESCRIPTOR = lib.MACH_MSG_OOL_DESCRIPTOR
OOL_PORTS_DESCRIPTOR = lib.MACH_MSG_OOL_PORTS_DESCRIPTOR
OOL_VOLATILE_DESCRIPTOR = lib.MACH_MSG_OOL_VOLATILE_DESCRIPTOR
GUARDED_PORT_DESCRIPTOR = lib.MACH_MSG_GUARDED_PORT_DESCRIPTOR

U32 = Struct("=I")
#: name, pad, disposition and type of a port descriptor
PORT = Struct("=IIHBB")
#: address, deallocate, copy, disposition, type, size or count of an out-of-line descriptor
OOL = Struct("=QBBBBI")
#: context, flags, disposition, type, name of a guarded port descriptor
GUARDED = Struct("=QHBBI")

DESCRIPTORS = BODY + ffi.sizeof("mach_msg_body_t")


class Carried:
    """One descriptor of a received packet: where it stands in the message, its type, the disposition of its rights,
    their slots (for memory, the one of its memfd), and the size in bytes of memory."""

    __slots__ = ("offset", "type", "disposition", "slots", "size")

    def __init__(self, offset: int, type: int, disposition: int, slots: Sequence[int], size: int) -> None:
        self.offset: int = offset
        self.type: int = type
        self.disposition: int = disposition
        self.slots: Sequence[int] = slots
        self.size: int = size


class BundleHead:
    """What the first packet of a bundle says of the port, and the kinds of the ends that it brings."""

    __slots__ = ("flags", "qlimit", "ends", "id", "kinds")

    def __init__(self, flags: int, qlimit: int, ends: int, id: bytes, kinds: bytes) -> None:
        self.flags: int = flags
        self.qlimit: int = qlimit
        self.ends: int = ends
        self.id: bytes = id
        self.kinds: bytes = kinds


class Malformed(Exception):
    """A packet that no kernel of ours sends: its sender is hostile or broken."""


def descriptor_size(type: int) -> int:
    """The bytes of a descriptor in a 64-bit task; unknown types count as port descriptors (ipc_kmsg_copyin_body)."""
    return (
        12
        if type not in (OOL_DESCRIPTOR, OOL_PORTS_DESCRIPTOR, OOL_VOLATILE_DESCRIPTOR, GUARDED_PORT_DESCRIPTOR)
        else 16
    )


def parse(message: bytes | bytearray, size: int, nfds: int, reply: int) -> list[Carried]:
    """The descriptors of a complex packet: `message` is laid out as the Mach message, `size` bytes, then the tail.

    Refuses whatever does not use each of the `nfds` descriptors exactly once.
    """
    carried: list[Carried] = []
    if size < DESCRIPTORS:
        raise Malformed("complex, but too short for a descriptor count")
    (count,) = U32.unpack_from(message, BODY)
    offset, tail = DESCRIPTORS, size
    for _ in range(count):
        if offset + 12 > size or offset + descriptor_size(message[offset + 11]) > size:
            raise Malformed("more descriptors than bytes")
        kind = message[offset + 11]
        slots: tuple[int, ...]
        length, disposition = 0, 0
        if kind == PORT_DESCRIPTOR:
            slot, _, _, disposition, _ = PORT.unpack_from(message, offset)
            slots = (slot,)
        elif kind == GUARDED_PORT_DESCRIPTOR:
            _, _, disposition, _, slot = GUARDED.unpack_from(message, offset)
            slots = (slot,)
        elif kind == OOL_PORTS_DESCRIPTOR:
            _, _, _, disposition, _, number = OOL.unpack_from(message, offset)
            if tail + 4 * number > len(message):
                raise Malformed("fewer out-of-line slots than said")
            slots = Struct(f"={number}I").unpack_from(message, tail)
            tail += 4 * number
        elif kind in (OOL_DESCRIPTOR, OOL_VOLATILE_DESCRIPTOR):
            slot, _, _, _, _, length = OOL.unpack_from(message, offset)
            if (slot == SLOT_NULL) != (length == 0) or slot > 0xFFFF:
                raise Malformed("memory without a descriptor")
            slots = (slot,)
        else:
            raise Malformed("unknown descriptor type")
        if kind not in (OOL_DESCRIPTOR, OOL_VOLATILE_DESCRIPTOR) and disposition not in _KINDS:
            if any(slot not in (SLOT_NULL, SLOT_DEAD) for slot in slots):
                raise Malformed("unknown disposition")
        carried.append(Carried(offset, kind, disposition, slots, length))
        offset += descriptor_size(kind)
    if tail != len(message):
        raise Malformed("bytes behind the message")
    used = [(slot & ~SLOT_FILE) - 1 for c in carried for slot in c.slots if slot not in (SLOT_NULL, SLOT_DEAD)]
    if reply not in (SLOT_NULL, SLOT_DEAD):
        used.append((reply & ~SLOT_FILE) - 1)
    if sorted(used) != list(range(nfds)):
        raise Malformed("descriptors not used exactly once")
    return carried


# -- a moved receive right: packets in a socketpair of their own, so that it is one descriptor in its message ---

_BUNDLE = Struct("=4sIIIII32s")
_MAGIC = b"mrvb"
HAS_NSREQUEST, HAS_PDREQUEST, NS_DUE = 1, 2, 4
PER_PACKET = 250


def bundle_packets(flags: int, qlimit: int, id: bytes, kinds: list[int]) -> list[bytes]:
    """The packets that announce the ends of a port: the first with its state, each with the kinds of up to PER_PACKET
    ends whose descriptors it carries (the first, before them, those of the requests)."""
    first = _BUNDLE.pack(_MAGIC, flags, qlimit, len(kinds), 0, 0, id)
    rest = [bytes(kinds[at : at + PER_PACKET]) for at in range(0, len(kinds), PER_PACKET)] or [b""]
    return [first + rest[0], *rest[1:]]


def parse_bundle_head(packet: bytes) -> BundleHead:
    """The first packet of a bundle."""
    if len(packet) < _BUNDLE.size:
        raise Malformed("bundle too short")
    magic, flags, qlimit, ends, _, _, id = _BUNDLE.unpack_from(packet)
    if magic != _MAGIC or flags > 7 or qlimit > lib.MACH_PORT_QLIMIT_MAX or ends > 65536:
        raise Malformed("not a bundle")
    return BundleHead(flags, qlimit, ends, id, packet[_BUNDLE.size :])
