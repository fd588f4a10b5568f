"""Lays messages out in memory as a task would, and takes received ones apart.

What belongs here: bytes and numbers. What must never happen here: the library's own codec, which is under test as much
as the kernel (a mistake made on both sides would cancel out), and any judgement of what was received.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Any

from machrv._mach import ffi, lib
from machrv.kernel import Kernel

from .vectors import VectorError

HEADER = Struct("=IIIIIi")  # bits, size, remote, local, voucher, id
COUNT = Struct("=I")
PORT_DESCRIPTOR = Struct("=IIHBB")  # name, pad, pad, disposition, type
MEMORY_DESCRIPTOR = Struct("=QBBBBI")  # address, deallocate, copy, (pad or disposition), type, size or count
TRAILER = Struct("=II")  # type, size
NDR_RECORD = bytes.fromhex("0000000001000000")

COMPLEX = 0x80000000
PORTS_MASK = 0x00001F1F
PORT, OUT_OF_LINE, OUT_OF_LINE_PORTS = 0, 1, 2
TYPE_AT, DESCRIPTOR_SIZE = 11, {PORT: 12, OUT_OF_LINE: 16, OUT_OF_LINE_PORTS: 16}

#: A trailer's size says which elements it has: those that end within it.
SEQNO_AT, TOKEN_AT, TOKEN_END = 8, 20, 52


def constant(prefix: str, value: Any) -> int:
    """The number behind a symbol of a vector; a number stands for itself."""
    if type(value) is int:
        return value
    number = getattr(lib, f"{prefix}{value}", None)
    if type(number) is not int:
        raise VectorError(f"there is no {prefix}{value}")
    return number


def disposition(value: Any) -> int:
    return constant("MACH_MSG_TYPE_", value)


class Outgoing:
    """A message to send. Keeps the memory that its out-of-line descriptors point to."""

    __slots__ = ("data", "_memory")

    def __init__(self, arguments: Mapping[str, Any], number: Callable[[str], int]) -> None:
        self._memory: list[Any] = []
        descriptors = arguments.get("descriptors", [])
        body = bytes.fromhex(arguments.get("body", ""))
        rest = b"".join(self._descriptor(descriptor, number) for descriptor in descriptors)
        rest += body + bytes(-len(body) % 4)
        bits = disposition(arguments.get("remote_disposition", "COPY_SEND"))
        local = 0
        if "local" in arguments:
            local = number(arguments["local"])
            bits |= disposition(arguments.get("local_disposition", 0)) << 8
        if descriptors:
            bits |= COMPLEX
            rest = COUNT.pack(arguments.get("descriptor_count", len(descriptors))) + rest
        elif "descriptor_count" in arguments:
            raise VectorError("a descriptor_count where there are no descriptors")
        size = HEADER.size + len(rest)
        header = HEADER.pack(
            arguments.get("msgh_bits", bits),
            arguments.get("msgh_size", size),
            number(arguments["remote"]),
            local,
            0,
            arguments["id"],
        )
        sent = arguments.get("send_size", size)
        self.data = (header + rest)[:sent].ljust(sent, b"\0")

    def _descriptor(self, descriptor: Mapping[str, Any], number: Callable[[str], int]) -> bytes:
        kind = descriptor["type"]
        if kind == "raw":
            return bytes.fromhex(descriptor["bytes"])
        if kind == "port":
            name = number(descriptor["name"])
            return PORT_DESCRIPTOR.pack(name, 0, 0, disposition(descriptor["disposition"]), PORT)
        if kind == "ool":
            data = bytes.fromhex(descriptor["data"])
            copy = lib.MACH_MSG_VIRTUAL_COPY
            return MEMORY_DESCRIPTOR.pack(self._place(data), 0, copy, 0, OUT_OF_LINE, len(data))
        names = [number(name) for name in descriptor["names"]]
        address = self._place(b"".join(map(COUNT.pack, names)))
        how = disposition(descriptor["disposition"])
        return MEMORY_DESCRIPTOR.pack(address, 0, lib.MACH_MSG_VIRTUAL_COPY, how, OUT_OF_LINE_PORTS, len(names))

    def _place(self, data: bytes) -> int:
        if not data:
            return 0
        memory = ffi.from_buffer(data)
        self._memory.append(memory)
        return int(ffi.cast("uintptr_t", memory))


class Incoming:
    """A received message in its parts, names and dispositions as the numbers that they are.

    Out-of-line memory is copied and given back. Raises `ValueError` where the bytes are not a message.
    """

    __slots__ = ("bits", "size", "remote", "local", "voucher", "id", "descriptors", "body", "trailer", "token")

    def __init__(self, data: bytes, kernel: Kernel) -> None:
        if len(data) < HEADER.size:
            raise ValueError(f"{len(data)} bytes are not a message: {data.hex()}")
        self.bits, self.size, self.remote, self.local, self.voucher, self.id = HEADER.unpack_from(data)
        end = self.size + -self.size % 4
        if self.size < HEADER.size or len(data) < end + TRAILER.size:
            raise ValueError(f"msgh_size is {self.size}, but {len(data)} bytes were received, trailer included")
        kind, size = TRAILER.unpack_from(data, end)
        if len(data) != end + size:
            raise ValueError(f"{len(data)} bytes received, {end} of message and a trailer of {size}")
        self.trailer = {"type": kind, "size": size}
        if size >= SEQNO_AT + COUNT.size:
            (self.trailer["seqno"],) = COUNT.unpack_from(data, end + SEQNO_AT)
        self.token = data[end + TOKEN_AT : end + TOKEN_END] if size >= TOKEN_END else None
        at = HEADER.size
        self.descriptors: list[tuple[Any, ...]] = []
        if self.bits & COMPLEX:
            (count,) = COUNT.unpack_from(data, at)
            at += COUNT.size
            for _ in range(count):
                at = self._descriptor(data[: self.size], at, kernel)
        self.body = data[at : self.size]

    def _descriptor(self, data: bytes, at: int, kernel: Kernel) -> int:
        kind = data[at + TYPE_AT] if at + TYPE_AT < len(data) else None
        size = DESCRIPTOR_SIZE.get(kind, 0) if kind is not None else 0
        if not size or at + size > len(data):
            raise ValueError(f"no descriptor at offset {at} (type {kind}) of {len(data)} bytes")
        if kind == PORT:
            name, _, _, how, _ = PORT_DESCRIPTOR.unpack_from(data, at)
            self.descriptors.append(("port", name, how))
            return at + size
        address, _, _, how, _, count = MEMORY_DESCRIPTOR.unpack_from(data, at)
        length = count if kind == OUT_OF_LINE else count * COUNT.size
        memory = b""
        if length:
            memory = kernel.vm_read(address, length)
            kernel.vm_deallocate(address, length)
        if kind == OUT_OF_LINE:
            self.descriptors.append(("ool", memory))
        else:
            self.descriptors.append(("ool_ports", [name for (name,) in COUNT.iter_unpack(memory)], how))
        return at + size
