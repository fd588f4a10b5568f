"""The codec, in every way: a request and replies to bytes and back, with the values that their users would hold.

What belongs here: for each way, encode and decode of the same messages; `check` holds them against each other. What must
never happen here: a way that leaves a field out. machrv's objects are `Message`s; hand-tuned `struct` takes and returns
tuples, one call per message where that is possible, without the fields that mean nothing, and checks sizes only.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

from machrv import AuditToken, Disposition, Message, OutOfLineDescriptor, PortDescriptor, Trailer, four_char_code

REPLY = four_char_code("MRZV")
_COMPLEX = 1 << 31
_AUDIT = 52


class Case(NamedTuple):
    """What is encoded and decoded: so many port descriptors and keys, so many out-of-line ones, an audit trailer or not."""

    ports: int
    memory: int = 0
    trailer: bool = False

    @property
    def body(self) -> bytes:
        """The keys and the length of the additional data; nothing in a request."""
        return struct.pack(f"={self.ports}IQ", *range(self.ports), 0) if self.ports else b""


def message_of(case: Case) -> Message:
    """The message of a case."""
    descriptors: list[Any] = [PortDescriptor(0x103 + 256 * key, Disposition.MOVE_SEND) for key in range(case.ports)]
    descriptors += [OutOfLineDescriptor(address=0x7F0000000000 + n, size=4096) for n in range(case.memory)]
    trailer = Trailer(0, (1000, 1000), AuditToken(1, 2, 3, 4, 5, 6, 7, 8)) if case.trailer else None
    return Message(REPLY, case.body, descriptors, local_port=0x103, local_disposition=18, trailer=trailer)


#: makes a call that encodes a case once, and one that decodes an image of it once
Codec = Callable[[Case, bytes], tuple[Callable[[], Any], Callable[[], Any]]]


def by_machrv(case: Case, image: bytes) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """From and to `Message` objects."""
    message = message_of(case)
    return message.encode, lambda: Message.decode(image)


def by_struct(case: Case, image: bytes) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """From and to tuples: header, descriptors, body, trailer."""
    header = struct.Struct("=IIIIIi")
    base = struct.Struct("=IIIIIiI")
    port = struct.Struct("=I6xBB")
    memory = struct.Struct("=QBBBBI")
    trailer = struct.Struct("=3I2I8I")
    run = struct.Struct("=IIIIIiI" + "I6xBx" * case.ports + "QBBBBI" * case.memory)
    of = message_of(case)
    ports = tuple((descriptor.name, descriptor.disposition) for descriptor in of.descriptors[: case.ports])
    regions = tuple(tuple(descriptor) for descriptor in of.descriptors[case.ports :])
    body = case.body
    words = tuple(of.trailer) if of.trailer else ()
    bits, local, id = of.bits, of.local_port, of.id

    def encode() -> bytes:
        if not ports and not regions:
            encoded = header.pack(bits, 24 + len(body), 0, local, 0, id) + body
        else:
            flat = sum(ports, ()) if len(ports) < 8 else tuple(chain.from_iterable(ports))
            if regions:
                flat += sum(regions, ())
            count = len(ports) + len(regions)
            encoded = run.pack(bits, run.size + len(body), 0, local, 0, id, count, *flat) + body
        return encoded + trailer.pack(*words) if words else encoded

    def decode() -> Any:
        head = header.unpack_from(image)
        size = head[1]
        if size > len(image):
            raise ValueError("truncated")
        tail = trailer.unpack_from(image, size) if size < len(image) else None
        if not head[0] & _COMPLEX:
            return head, (), image[24:size], tail
        ports = base.unpack_from(image)[6] - case.memory
        middle = 28 + 12 * ports
        end = middle + 16 * case.memory
        if end > size:
            raise ValueError("truncated")
        found = list(port.iter_unpack(image[28:middle]))
        if case.memory:
            found += memory.iter_unpack(image[middle:end])
        return head, found, image[end:size], tail

    return encode, decode


def by_ctypes(case: Case, image: bytes) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """From and to a `ctypes.Structure` of the whole message, filled and read field by field."""
    word, byte = ctypes.c_uint32, ctypes.c_uint8

    class Header(ctypes.Structure):
        _pack_ = 4
        _fields_ = [(name, word) for name in ("bits", "size", "remote", "local", "voucher")] + [("id", ctypes.c_int32)]

    class Port(ctypes.Structure):
        _pack_ = 4
        _fields_ = [("name", word), ("pad1", word), ("pad2", ctypes.c_uint16), ("disposition", byte), ("type", byte)]

    class Memory(ctypes.Structure):
        _pack_ = 4
        _fields_ = [
            ("address", ctypes.c_uint64), ("deallocate", byte), ("copy", byte), ("pad", byte), ("type", byte), ("size", word),
        ]  # fmt: skip

    class Audit(ctypes.Structure):
        _pack_ = 4
        _fields_ = [("type", word), ("size", word), ("seqno", word), ("security", word * 2), ("token", word * 8)]

    fields: list[tuple[str, Any]] = [("header", Header)]
    if case.ports or case.memory:
        fields += [("count", word), ("ports", Port * case.ports), ("memory", Memory * case.memory)]
    fields += [("body", ctypes.c_char * len(case.body))] if case.body else []
    fields += [("trailer", Audit)] if case.trailer else []
    kind = type("Whole", (ctypes.Structure,), {"_pack_": 4, "_fields_": fields})
    of = message_of(case)
    ports = [(one.name, one.pad1, one.pad2, one.disposition, one.type) for one in of.descriptors[: case.ports]]
    regions = [tuple(descriptor) for descriptor in of.descriptors[case.ports :]]
    body, complex = case.body, bool(ports or regions)
    size = 24 + (4 + 12 * len(ports) + 16 * len(regions) if complex else 0) + len(body)

    def encode() -> bytes:
        whole: Any = kind()
        whole.header = Header(of.bits, size, 0, of.local_port, 0, of.id)
        if complex:
            whole.count = len(ports) + len(regions)
            for index, values in enumerate(ports):
                whole.ports[index] = Port(*values)
            for index, values in enumerate(regions):
                whole.memory[index] = Memory(*values)
        if body:
            ctypes.memmove(ctypes.byref(whole, size - len(body)), body, len(body))
        if of.trailer:
            whole.trailer = Audit(0, _AUDIT, 0, (word * 2)(1000, 1000), (word * 8)(*(of.trailer.audit_token or ())))
        return bytes(whole)

    def decode() -> Any:
        whole: Any = kind.from_buffer_copy(image)  # type: ignore[attr-defined]  # It is a Structure.
        header = whole.header
        head = header.bits, header.size, header.remote, header.local, header.voucher, header.id
        found: list[Any] = []
        if complex:
            found = [(one.name, one.pad1, one.pad2, one.disposition, one.type) for one in whole.ports]
            found += [(m.address, m.deallocate, m.copy, m.pad, m.type, m.size) for m in whole.memory]
        tail = None
        if case.trailer:
            audit = whole.trailer
            tail = audit.type, audit.size, audit.seqno, *audit.security, *audit.token
        return head, found, image[size - len(body) : size], tail

    return encode, decode


def by_construct(case: Case, image: bytes) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The format as construct describes it; from dicts, to its containers."""
    from construct import Array, Bytes, Int8ul, Int16ul, Int32sl, Int32ul, Int64ul, Optional, Struct, this

    header = Struct(
        "bits" / Int32ul, "size" / Int32ul, "remote" / Int32ul, "local" / Int32ul, "voucher" / Int32ul, "id" / Int32sl
    )
    port = Struct("name" / Int32ul, "pad1" / Int32ul, "pad2" / Int16ul, "disposition" / Int8ul, "type" / Int8ul)
    memory = Struct(
        "address" / Int64ul, "deallocate" / Int8ul, "copy" / Int8ul, "pad" / Int8ul, "type" / Int8ul, "size" / Int32ul
    )
    audit = Struct(
        "type" / Int32ul,
        "size" / Int32ul,
        "seqno" / Int32ul,
        "security" / Array(2, Int32ul),
        "token" / Array(8, Int32ul),
    )
    parts: list[Any] = ["header" / header]
    if case.ports or case.memory:
        parts += [
            "count" / Int32ul, "ports" / Array(this.count - case.memory, port), "memory" / Array(case.memory, memory)
        ]  # fmt: skip
    before: Any = 24
    if case.ports or case.memory:
        before = 28 + 12 * (this.count - case.memory) + 16 * case.memory
    parts += ["body" / Bytes(this.header.size - before), "trailer" / Optional(audit)]
    whole = Struct(*parts)
    value = whole.parse(image)
    return lambda: whole.build(value), lambda: whole.parse(image)


def by_cstruct(case: Case, image: bytes) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The format as dissect.cstruct reads it from C, compiled; its objects are written and read."""
    from dissect.cstruct import cstruct

    source = """
    typedef struct { uint32 name; uint32 pad1; uint16 pad2; uint8 disposition; uint8 type; } port_t;
    typedef struct { uint64 address; uint8 deallocate; uint8 copy; uint8 pad; uint8 type; uint32 size; } memory_t;
    typedef struct { uint32 type; uint32 size; uint32 seqno; uint32 security[2]; uint32 token[8]; } audit_t;
    """
    parts = ["uint32 bits; uint32 size; uint32 remote; uint32 local; uint32 voucher; int32 id;"]
    before = 24  # Written out for what is there only: dissect.cstruct pays for every term.
    if case.memory:
        parts += [f"uint32 count; port_t ports[{case.ports}]; memory_t memory[{case.memory}];"]
        before = 28 + 12 * case.ports + 16 * case.memory
    elif case.ports:
        parts += ["uint32 count; port_t ports[count];"]
    parts += [
        "char body[size - 28 - 12 * count];" if case.ports and not case.memory else f"char body[size - {before}];"
    ]
    parts += ["audit_t trailer;"] if case.trailer else []
    parser = cstruct()
    parser.load(source + "typedef struct { " + " ".join(parts) + " } whole_t;")
    kind: Any = parser.whole_t
    value = kind(image)
    return value.dumps, lambda: kind(image)


CODECS: dict[str, Codec] = {
    "machrv": by_machrv,
    "struct": by_struct,
    "ctypes": by_ctypes,
    "construct": by_construct,
    "dissect.cstruct": by_cstruct,
}
