"""The in-flight form, written by hand: what a peer can put on the socket of a right without going through a port space.

What belongs here: the bytes of packets and bundles, true and false. What must never happen here: a use of the library's
own writer, whose mistakes would go unnoticed, or a descriptor (those are made in the peer, see programs/linux_task.py).
"""

from __future__ import annotations

import fcntl
from struct import Struct
from typing import Any

#: bits, size, flags, space, reply slot, id, magic, sent
HEADER = Struct("=IIHHIiIq")
MAGIC = 0x6D727678
BUNDLE = Struct("=4sIIIII32s")
BUNDLE_MAGIC = b"mrvb"

NOTIFICATION, LARGE, DESTROYED = 1, 2, 4
COMPLEX = 0x80000000
RECEIVE, SEND, SEND_ONCE, LISTENER = 16, 17, 18, 0
NULL, DEAD, FILE = 0, 0xFFFFFFFF, 0x40000000

#: every descriptor kind that a message can hold
PORT, OOL, OOL_PORTS, OOL_VOLATILE, GUARDED = range(5)

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

Packet = tuple[bytes, list[Any]]


def packet(
    body: bytes = b"",
    things: list[Any] | None = None,
    *,
    bits: int = SEND,
    size: int | None = None,
    flags: int = 0,
    space: int = 0,
    reply: int = 0,
    id: int = 0,
    magic: int = MAGIC,
    sent: int = 0,
    tail: bytes = b"",
) -> Packet:
    """A packet with its descriptors. Unless a lie is given, it is what the library writes."""
    size = 24 + len(body) if size is None else size
    return HEADER.pack(bits, size, flags, space, reply, id, magic, sent) + body + tail, things or []


def complex(descriptors: list[bytes], things: list[Any], *, count: int | None = None, **fields: Any) -> Packet:
    """A packet with descriptors."""
    count = len(descriptors) if count is None else count
    fields["bits"] = fields.get("bits", SEND) | COMPLEX
    return packet(count.to_bytes(4, "little") + b"".join(descriptors), things, **fields)


def port(slot: int, disposition: int = SEND, kind: int = PORT) -> bytes:
    return Struct("=IIHBB").pack(slot, 0, 0, disposition, kind)


def memory(slot: int, size: int, kind: int = OOL) -> bytes:
    return Struct("=QBBBBI").pack(slot, 1, 1, 0, kind, size)


def ports(count: int, disposition: int = SEND) -> bytes:
    """Of out-of-line ports; the slots come in the packet's tail."""
    return Struct("=QBBBBI").pack(0, 1, 1, disposition, OOL_PORTS, count)


def guarded(slot: int, disposition: int = RECEIVE, flags: int = 1) -> bytes:
    return Struct("=QHBBI").pack(0, flags, disposition, GUARDED, slot)


def slots(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "little") for number in numbers)


def bundle_head(
    kinds: bytes,
    ends: int | None = None,
    *,
    id: bytes = b"0" * 32,
    flags: int = 0,
    qlimit: int = 5,
    magic: bytes = BUNDLE_MAGIC,
) -> bytes:
    """The first packet of a moved receive right."""
    return BUNDLE.pack(magic, flags, qlimit, len(kinds) if ends is None else ends, 0, 0, id) + kinds


def bundle(*packets: Packet) -> tuple[Any, ...]:
    """The descriptor of a moved receive right: the end of a pair in which these packets wait."""
    return ("orphan", list(packets))
