"""Packets as a hostile sender would write them: the in-flight form of machrv/native/linux, mostly right, wrong anywhere.

What belongs here: bytes, and descriptors of every kind to go with them. What must never happen here: the library's own
code: a peer may be anything. See machrv/native/linux: packet.h, and ipc_transit.c for bundles.
"""

from __future__ import annotations

import array
import fcntl
import os
import select
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

from .choices import Choices

HEADER = struct.Struct("=IIHHIiIq")
BUNDLE = struct.Struct("=4sIIIII32s")
MAGIC = 0x6D727678
COMPLEX = 0x80000000
NULL, DEAD, FILE = 0, 0xFFFFFFFF, 0x40000000
RECEIVE, SEND, SEND_ONCE = 16, 17, 18
REQUEST, REPLY = 0x6D727A76, 0x4D525A56
IDS = (0, REQUEST, REQUEST - 0x20, REPLY, 69, 70, 71, 72, -1)
SEALS = 0x0001 | 0x0002 | 0x0004 | 0x0008  # F_SEAL_SEAL, _SHRINK, _GROW, _WRITE

_serial = 0


class Packet(NamedTuple):
    """What goes into one sendmsg. The descriptors belong to whoever has it."""

    data: bytes
    fds: list[int]

    def send(self, to: socket.socket) -> None:
        """Send it; whatever is refused, the descriptors are closed here."""
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", self.fds))] if self.fds else []
        try:
            to.sendmsg([self.data], control, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            pass
        finally:
            for fd in self.fds:
                os.close(fd)


def packet(choices: Choices, kind: int = SEND, id: int | None = None, depth: int = 0) -> Packet:
    """A packet for a right of this kind."""
    if choices.rarely():
        return Packet(choices.bytes(choices.integer(1)), [any_descriptor(choices) for _ in range(choices.below(3))])
    maker = _Maker(choices, depth)
    descriptors = [maker.descriptor() for _ in range(choices.below(5))]
    return maker.finish(kind, choices.of(IDS) if id is None else id, descriptors, choices.bytes(choices.below(40)))


def reply_packet(choices: Choices) -> Packet:
    """A reply of a rendezvous server, which the client may take for one, or not quite."""
    maker = _Maker(choices, 0)
    count = choices.below(6)
    descriptors = [maker.descriptor(port=not choices.rarely()) for _ in range(count)]
    keys = [choices.number() if choices.rarely() else number for number in range(count)]
    data = choices.bytes(choices.below(16))
    length = choices.number() if choices.rarely() else len(data)
    body = struct.pack(f"={count}IQ", *keys, length) + data
    body += bytes(-len(body) % 4)
    return maker.finish(SEND_ONCE, choices.of(IDS) if choices.rarely() else REPLY, descriptors, body, complex=True)


class _Maker:
    """One packet in the making."""

    def __init__(self, choices: Choices, depth: int) -> None:
        self.choices = choices
        self.depth = depth
        self.fds: list[int] = []
        self.tail = b""

    def slot(self, kind: int, size: int = 0) -> int:
        """The slot of a new descriptor that fits the kind; or of another one, or of none."""
        choices = self.choices
        if choices.rarely():
            return choices.of((NULL, DEAD, choices.number()))
        if choices.rarely():
            self.fds.append(any_descriptor(choices))
        elif kind == RECEIVE:
            self.fds.append(bundle(choices, self.depth + 1))
        elif kind == 0:
            self.fds.append(memory(size, SEALS))
        else:
            self.fds.append(right(choices, self.depth, kind))
        return len(self.fds) | (FILE if choices.rarely() else 0)

    def descriptor(self, port: bool = False) -> bytes:
        """A descriptor of any type."""
        choices = self.choices
        kind = 0 if port else choices.of((0, 0, 0, 1, 2, 3, 4, choices.integer(1)))
        disposition = choices.of((RECEIVE, SEND, SEND, SEND_ONCE))
        if choices.rarely():
            disposition = choices.integer(1)
        if kind == 0:
            return struct.pack("=IIHBB", self.slot(disposition), choices.number(), 0, disposition, kind)
        if kind == 4:
            return struct.pack("=QHBBI", choices.number(), choices.below(4), disposition, kind, self.slot(disposition))
        if kind == 2:
            count = choices.below(4)
            self.tail += b"".join(struct.pack("=I", self.slot(disposition)) for _ in range(count))
            said = choices.number() if choices.rarely() else count
            return struct.pack("=QBBBBI", choices.number(), 1, 1, disposition, kind, said)
        size = choices.of((0, 1, 4096, 5000))
        slot = self.slot(0, size) if size else NULL
        return struct.pack("=QBBBBI", slot, 1, 1, 0, kind, choices.number() if choices.rarely() else size)

    def finish(self, kind: int, id: int, descriptors: list[bytes], inline: bytes, complex: bool = False) -> Packet:
        """The packet, with a header that mostly tells the truth."""
        choices = self.choices
        bits = kind
        body = inline
        if descriptors or complex or choices.rarely():
            bits |= COMPLEX
            count = choices.number() if choices.rarely() else len(descriptors)
            body = struct.pack("=I", count) + b"".join(descriptors) + inline
        body += bytes(-len(body) % 4)
        size = 24 + len(body)
        reply = NULL
        if choices.below(2) == 1:
            reply_kind = choices.of((SEND_ONCE, SEND_ONCE, SEND, RECEIVE, 0))
            reply = self.slot(reply_kind or SEND)
            bits |= reply_kind << 8
        flags, magic = 0, MAGIC
        rest = body + self.tail
        if choices.rarely():
            flags = choices.of((1, 2, 4, 3, 6, choices.integer(2)))
            if flags & 2 and choices.below(4):
                self.fds.append(memory(len(rest), SEALS, rest))
                rest = b""
        if choices.rarely():
            what = choices.below(5)
            size = choices.number() if what == 0 else size
            magic = choices.number() if what == 1 else magic
            bits = choices.integer(4) if what == 2 else bits
            rest = choices.bytes(choices.integer(1)) if what == 3 else rest
            rest = rest[: choices.below(len(rest) + 1)] if what == 4 else rest
        self._miscount()
        fields = (bits, size, flags, choices.below(3), reply, id, magic, choices.integer(8) >> 1)
        return Packet(HEADER.pack(*fields) + rest, self.fds)

    def _miscount(self) -> None:
        """Rarely: fewer descriptors than said, or more, or as many as there can be."""
        choices = self.choices
        if not choices.rarely():
            return
        what = choices.below(4)
        if what == 0 and self.fds:
            os.close(self.fds.pop(choices.below(len(self.fds))))
        elif what == 1:
            self.fds.append(any_descriptor(choices))
        elif what == 2 and len(self.fds) > 1:
            self.fds.reverse()
        else:
            while len(self.fds) < 253:
                self.fds.append(os.dup(2))


# -- descriptors ------------------------------------------------------------------------------------------------------


def right(choices: Choices, depth: int, kind: int) -> int:
    """A send or send-once right: one end of a pair, whose other end may be named as a port's is, and may be gone."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with mine:
        _name(mine, choices)
        if choices.rarely():
            _keep(mine)
        return theirs.detach()


def _name(end: socket.socket, choices: Choices) -> None:
    """Bind to an address as the receiving end of a right has one."""
    global _serial
    what = choices.below(4)
    if what == 0:
        return
    _serial += 1
    id = b"%032x" % (choices.below(4) if what == 3 else _serial)
    try:
        end.bind(b"\0machrv/" + id + b"/%c%x" % (choices.of(b"so"), _serial))
    except OSError:
        pass


_kept: list[socket.socket] = []


def _keep(end: socket.socket) -> None:
    """Hold on to the other side of what is sent, for a while."""
    _kept.append(socket.socket(fileno=end.detach()))
    if len(_kept) > 32:
        _kept.pop(0).close()


def release() -> None:
    """Let go of everything that is held on to."""
    while _kept:
        _kept.pop().close()


def bundle(choices: Choices, depth: int) -> int:
    """A moved receive right: a pair with packets that announce its ends, some of them with messages in them."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with mine:
        fds, kinds = [], bytearray()
        flags = choices.of((0, 0, 4, 1, 2, 3, choices.number()))
        for flag in (1, 2):
            if flags & flag and not choices.rarely():
                fds.append(right(choices, depth, SEND_ONCE))
        for _ in range(choices.below(4)):
            kinds.append(choices.integer(1) if choices.rarely() else choices.of((SEND, SEND, SEND_ONCE, 0)))
            fds.append(any_descriptor(choices) if choices.rarely() else end(choices, depth, kinds[-1]))
        ends = choices.number() if choices.rarely() else len(kinds)
        limit = choices.number() if choices.rarely() else 5
        id = b"%032x" % choices.below(4) if choices.rarely() else os.urandom(16).hex().encode()
        head = BUNDLE.pack(b"mrvb", flags & 0xFFFFFFFF, limit, ends, 0, 0, id)
        if choices.rarely():
            head = head[: choices.below(len(head) + 1)]
        if choices.rarely() and fds:
            os.close(fds.pop())
        cut = choices.below(len(kinds) + 1) if choices.rarely() else len(kinds)
        Packet(head + bytes(kinds[:cut]), fds).send(mine)
        if cut < len(kinds) or choices.rarely():
            Packet(bytes(kinds[cut:]), [any_descriptor(choices)] if choices.rarely() else []).send(mine)
        if choices.rarely():
            _keep(mine)
        return theirs.detach()


def end(choices: Choices, depth: int, kind: int) -> int:
    """A receiving end, named or not, with what was sent to it."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with mine:
        _name(theirs, choices)
        if choices.below(2) == 1:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        for _ in range(choices.below(3) if depth < 3 else 0):
            packet(choices, kind, depth=depth + 1).send(mine)
        if choices.rarely():
            theirs.setblocking(False)
        if choices.rarely():
            _keep(mine)
        return theirs.detach()


def memory(size: int, seals: int, contents: bytes = b"") -> int:
    """A memfd of this size."""
    fd = os.memfd_create("hostile", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    if contents:
        os.pwrite(fd, contents, 0)
    if seals:
        fcntl.fcntl(fd, 1033, seals)  # F_ADD_SEALS
    return fd


def any_descriptor(choices: Choices) -> int:
    """Anything that can be sent."""
    return ANY[choices.below(len(ANY))](choices)


def _socket(family: int, kind: int, listening: bool = False) -> int:
    made = socket.socket(family, kind)
    if listening:
        made.bind("" if family == socket.AF_UNIX else ("127.0.0.1", 0))
        made.listen(1)
    return made.detach()


def _pair(kind: int) -> int:
    mine, theirs = socket.socketpair(socket.AF_UNIX, kind)
    mine.close()
    return theirs.detach()


def _pipe(which: int) -> int:
    ends = os.pipe()
    os.close(ends[1 - which])
    return ends[which]


def _cycle(choices: Choices) -> int:
    """A socket in whose own queue its other end waits: only the kernel's garbage collection frees it."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with mine:
        Packet(b"cycle", [os.dup(mine.fileno()), os.dup(theirs.fileno())]).send(mine)
        return theirs.detach()


def _epoll(choices: Choices) -> int:
    fd = select.epoll()
    copy = os.dup(fd.fileno())
    fd.close()
    return copy


#: makers of every kind of descriptor
ANY: tuple[Callable[[Choices], int], ...] = (
    lambda choices: _socket(socket.AF_UNIX, socket.SOCK_SEQPACKET),
    lambda choices: _socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, True),
    lambda choices: _socket(socket.AF_UNIX, socket.SOCK_STREAM, True),
    lambda choices: _socket(socket.AF_INET, socket.SOCK_STREAM, True),
    lambda choices: _socket(socket.AF_INET, socket.SOCK_DGRAM),
    lambda choices: _pair(socket.SOCK_STREAM),
    lambda choices: _pair(socket.SOCK_DGRAM),
    lambda choices: _pair(socket.SOCK_SEQPACKET),
    lambda choices: _pipe(0),
    lambda choices: _pipe(1),
    lambda choices: os.open(os.devnull, os.O_RDWR),
    lambda choices: os.open("/", os.O_RDONLY),
    lambda choices: os.open("/", os.O_PATH),
    lambda choices: memory(4096, 0),
    lambda choices: memory(choices.number() & 0xFFFFF, 0x0004),
    lambda choices: memory(0, SEALS),
    lambda choices: os.eventfd(0),
    lambda choices: os.pidfd_open(os.getpid()),
    _epoll,
    _cycle,
    lambda choices: bundle(choices, 3),
    lambda choices: right(choices, 3, SEND),
)
