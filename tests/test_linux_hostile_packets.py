"""A peer that writes packets by hand: whatever it puts on the socket of its right harms nobody but itself.

For each packet: nothing but a MachError comes out of mach_msg, no name and no descriptor is left, and a well-behaved process
that sends to the same port is served.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from ctypes import string_at
from typing import Any

import pytest

from machrv._mach import lib
from machrv.errors import MachError
from machrv.kernel.linux import LinuxKernel
from machrv.message import Disposition, Message, OutOfLineDescriptor
from machrv import destroy_message

from . import linux_hostile as h
from .linux_tasks import bootstrap, nursery, other, peer, task  # noqa: F401 (fixtures)
from .linux_tasks import (
    DEAD_NAME,
    NO_SENDERS,
    PORT_DESTROYED,
    SEND,
    SEND_ONCE,
    SEND_ONCE_NOTIFICATION,
    Peer,
    allocate,
    descriptors,
    end,
    give,
    introduce,
    names,
    nothing_waits,
    receive,
    receive_raw,
    send,
)

GOOD = 0x676F6F64
FILE, PIPE, EPOLL, EVENTFD, PIDFD, DIRECTORY = (
    ("file",),
    ("pipe",),
    ("epoll",),
    ("eventfd",),
    ("pidfd",),
    ("directory",),
)
STREAM, DGRAM, PAIR = (("pair", int(kind)) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET))
TCP, UDP = (("socket", int(socket.AF_INET), int(kind)) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM))
SEALED = ("memory", b"abcd", 4, h.SEALS)
OPEN = ("memory", b"abcd", 4, 0)
SHRINKABLE = ("memory", b"abcd", 4, 0x0008)  # F_SEAL_WRITE alone
WRITABLE = ("memory", b"abcd", 4, 0x0006)  # F_SEAL_SHRINK and F_SEAL_GROW
HUGE = ("memory", b"", 81 * 1024 * 1024, h.SEALS)
NO_RIGHTS = [FILE, PIPE, EPOLL, EVENTFD, PIDFD, DIRECTORY, STREAM, DGRAM, TCP, UDP, SEALED]

# -- packets that are none: the right that they came over is taken away -------------------------------------------------

WHOLE = h.packet(b"body")[0]
LIES: dict[str, h.Packet] = {
    "nothing": (b"", []),
    "nothing, with descriptors": (b"", [FILE] * 10),
    "one byte": (b"x", []),
    "a header less a byte": (WHOLE[:31], []),
    "zeros": (bytes(32), []),
    "ones": (b"\xff" * 200, []),
    "wrong magic": h.packet(magic=h.MAGIC ^ 1),
    "wrong magic, with descriptors": h.packet(b"", [FILE] * 253, magic=0),
    "size 0": h.packet(size=0),
    "size 23": h.packet(size=23),
    "size no multiple of four": h.packet(b"abc"),
    "size larger than the packet": h.packet(b"body", size=32),
    "size smaller than the packet": h.packet(b"bodybody", size=28),
    "size of four gigabytes": h.packet(size=0xFFFFFFFC),
    "a send-once message over a send right": h.packet(bits=h.SEND_ONCE),
    "a receive message": h.packet(bits=h.RECEIVE),
    "no kind": h.packet(bits=0),
    "a reply kind that is none": h.packet(bits=h.SEND | 19 << 8),
    "a reply that is a receive right": h.packet(b"", [PAIR], bits=h.SEND | h.RECEIVE << 8, reply=1),
    "complex without a count": h.packet(bits=h.SEND | h.COMPLEX),
    "four billion descriptors": h.complex([], [], count=0xFFFFFFFF),
    "one descriptor more than bytes": h.complex([h.port(0)], [], count=2),
    "half a descriptor": h.complex([h.port(0)[:8]], [], count=1),
    "a descriptor that ends early": h.complex([h.memory(0, 0)[:12]], [], count=1),
    "an unknown descriptor type": h.complex([h.port(0, kind=5)], []),
    "type 255": h.complex([h.port(0, kind=255)], []),
    "a disposition that is none": h.complex([h.port(1, 0)], [PAIR]),
    "a disposition of the sender's": h.complex([h.port(1, 20)], [PAIR]),
    "a slot without a descriptor": h.complex([h.port(1)], []),
    "slot 2 of 1": h.complex([h.port(2)], [PAIR]),
    "slot 2 of 2, not 1": h.complex([h.port(2)], [PAIR, PAIR]),
    "a slot of all bits but one": h.complex([h.port(0xFFFFFFFE)], [PAIR]),
    "a file in no slot": h.complex([h.port(h.FILE)], [FILE]),
    "a descriptor that nobody uses": h.packet(b"body", [FILE]),
    "253 descriptors that nobody uses": h.packet(b"body", [FILE] * 253),
    "one descriptor used, one not": h.complex([h.port(1)], [PAIR, PAIR]),
    "one descriptor used twice": h.complex([h.port(1), h.port(1)], [PAIR]),
    "one used twice, one never": h.complex([h.port(1), h.port(1)], [PAIR, PAIR]),
    "a reply right without a descriptor": h.packet(bits=h.SEND | h.SEND << 8, reply=1),
    "a reply right without a kind": h.packet(b"", [PAIR], reply=1),
    "a reply in slot 2 of 1": h.packet(b"", [PAIR], bits=h.SEND | h.SEND << 8, reply=2),
    "a reply in no slot": h.packet(b"", [PAIR], bits=h.SEND | h.SEND << 8, reply=h.FILE),
    "the reply right used as another": h.complex([h.port(1)], [PAIR], bits=h.SEND | h.SEND << 8, reply=1),
    "a file as a send-once right": h.complex([h.port(1 | h.FILE, h.SEND_ONCE)], [FILE]),
    "a file as a receive right": h.complex([h.port(1 | h.FILE, h.RECEIVE)], [FILE]),
    "ports without their slots": h.complex([h.ports(2)], [PAIR, PAIR]),
    "a billion ports": h.complex([h.ports(1 << 30)], [], tail=h.slots(0, 0)),
    "more slots than ports": h.complex([h.ports(1)], [], tail=h.slots(0, 0)),
    "ports of no disposition": h.complex([h.ports(1, 0)], [PAIR], tail=h.slots(1)),
    "one descriptor for two ports": h.complex([h.ports(2)], [PAIR], tail=h.slots(1, 1)),
    "memory without a descriptor": h.complex([h.memory(1, 4)], []),
    "memory of a size in no slot": h.complex([h.memory(0, 4)], []),
    "memory of no size in a slot": h.complex([h.memory(1, 0)], [SEALED]),
    "memory that is a file": h.complex([h.memory(1 | h.FILE, 4)], [SEALED]),
    "large without memory": h.packet(size=28, flags=h.LARGE),
    "large in a file": h.packet(b"", [FILE], size=28, flags=h.LARGE),
    "large in a socket": h.packet(b"", [PAIR], size=28, flags=h.LARGE),
    "large in memory that is not sealed": h.packet(b"", [OPEN], size=28, flags=h.LARGE),
    "large in memory that may shrink": h.packet(b"", [SHRINKABLE], size=28, flags=h.LARGE),
    "large in memory that may change": h.packet(b"", [WRITABLE], size=28, flags=h.LARGE),
    "large in memory of no size": h.packet(b"", [("memory", b"", 0, h.SEALS)], size=24, flags=h.LARGE),
    "large in memory that is too large": h.packet(b"", [HUGE], size=81 * 1024 * 1024 + 24, flags=h.LARGE),
    "large, and another size": h.packet(b"", [SEALED], size=32, flags=h.LARGE),
    "large, and a descriptor too many": h.packet(b"", [FILE, SEALED], size=28, flags=h.LARGE),
    "large with four billion descriptors": h.packet(
        b"", [("memory", b"\xff" * 64, 64, h.SEALS)], bits=h.SEND | h.COMPLEX, size=88, flags=h.LARGE
    ),
    "given up": h.packet(flags=h.DESTROYED),
    "given up, with descriptors": h.packet(b"", [FILE] * 5, flags=h.DESTROYED),
    "every flag": h.packet(flags=0xFFFF),
}
for thing in NO_RIGHTS:
    for kind, name in ((h.SEND, "send"), (h.SEND_ONCE, "send-once"), (h.RECEIVE, "receive")):
        LIES[f"a {thing[0]} {thing[1:2]} as a {name} right"] = h.complex([h.port(1, kind)], [thing])
    LIES[f"a {thing[0]} {thing[1:2]} to reply to"] = h.packet(b"", [thing], bits=h.SEND | h.SEND << 8, reply=1)
    LIES[f"a {thing[0]} {thing[1:2]} behind a good right"] = h.complex([h.port(1), h.port(2)], [PAIR, thing])

# -- packets that mean little, but do mean something ---------------------------------------------------------------------

#: What such a packet is as a message: its body, its rights by what they are, its memory (size, the first four bytes).
Told = tuple[bytes, list[int], list[tuple[int, bytes]]] | None
PLAIN: Told = (b"", [], [])
#: Memory that cannot be trusted, or is not what the packet says, arrives as none.
NO_MEMORY: Told = (b"", [], [(0, b"")])
ODDITIES: dict[str, tuple[h.Packet, Told]] = {
    "an empty message": (h.packet(), PLAIN),
    "a body": (h.packet(b"body"), (b"body", [], [])),
    "unknown bits": (h.packet(bits=h.SEND | 0x7FFF0000), PLAIN),
    "a right that is null": (h.complex([h.port(h.NULL)], []), (b"", [0], [])),
    "a right that is dead": (h.complex([h.port(h.DEAD)], []), (b"", [DEAD_NAME], [])),
    "a dead right to reply to": (h.packet(bits=h.SEND | h.SEND_ONCE << 8, reply=h.DEAD), (b"", [DEAD_NAME], [])),
    "a null of no disposition": (h.complex([h.port(h.NULL, 99)], []), (b"", [0], [])),
    "a right": (h.complex([h.port(1)], [PAIR]), (b"", [SEND], [])),
    "two send-once rights": (
        h.complex([h.port(1, h.SEND_ONCE), h.port(2, h.SEND_ONCE)], [PAIR, PAIR]),
        (b"", [SEND_ONCE] * 2, []),
    ),
    "slots in reverse": (h.complex([h.port(3), h.port(2), h.port(1)], [PAIR] * 3), (b"", [SEND] * 3, [])),
    "a right whose port died": (h.complex([h.port(1)], [("orphan",)]), (b"", [DEAD_NAME], [])),
    "a socket that is connected to nothing": (
        h.complex([h.port(1)], [("socket", int(socket.AF_UNIX), int(socket.SOCK_SEQPACKET))]),
        (b"", [DEAD_NAME], []),
    ),
    "a listener as a right": (h.complex([h.port(1)], [("listener",)]), None),
    "a guarded send right": (h.complex([h.guarded(1, h.SEND)], [PAIR]), None),
    "memory": (h.complex([h.memory(1, 4)], [SEALED]), (b"", [], [(4, b"abcd")])),
    "memory that is not sealed": (h.complex([h.memory(1, 4)], [OPEN]), NO_MEMORY),
    "memory that may shrink": (h.complex([h.memory(1, 4)], [SHRINKABLE]), NO_MEMORY),
    "memory that may change": (h.complex([h.memory(1, 4)], [WRITABLE]), NO_MEMORY),
    "memory smaller than said": (h.complex([h.memory(1, 5)], [SEALED]), NO_MEMORY),
    "memory smaller than said by pages": (h.complex([h.memory(1, 8192)], [SEALED]), NO_MEMORY),
    "memory larger than said": (h.complex([h.memory(1, 3)], [SEALED]), NO_MEMORY),
    "four gigabytes of memory": (h.complex([h.memory(1, 0xFFFFFFFF)], [SEALED]), NO_MEMORY),
    "memory in a pipe": (h.complex([h.memory(1, 4)], [PIPE]), NO_MEMORY),
    "memory in a socket": (h.complex([h.memory(1, 4)], [PAIR]), NO_MEMORY),
    "memory in a directory": (h.complex([h.memory(1, 4)], [DIRECTORY]), NO_MEMORY),
    "memory in a pidfd": (h.complex([h.memory(1, 4)], [PIDFD]), NO_MEMORY),
    "253 rights": (h.complex([h.port(slot + 1) for slot in range(253)], [PAIR] * 253), (b"", [SEND] * 253, [])),
    "253 files": (
        h.complex([h.port(slot + 1 | h.FILE) for slot in range(253)], [FILE] * 253),
        (b"", [SEND] * 253, []),
    ),
    "every kind of file": (
        h.complex([h.port(slot + 1 | h.FILE) for slot in range(len(NO_RIGHTS))], [*NO_RIGHTS]),
        (b"", [SEND] * len(NO_RIGHTS), []),
    ),
    "a file to reply to": (h.packet(b"", [FILE], bits=h.SEND | h.SEND << 8, reply=1 | h.FILE), (b"", [SEND], [])),
    "253 pieces of memory": (
        h.complex([h.memory(slot + 1, 4) for slot in range(253)], [SEALED] * 253),
        (b"", [], [(4, b"abcd")] * 253),
    ),
}


class Scene:
    """A port of the victim's, a hostile process with a right to it, and a good one."""

    def __init__(self, task: LinuxKernel, evil: Peer, good: Peer) -> None:
        self.task, self.evil, self.good = task, evil, good
        self.port, self.to = introduce(task, evil)
        self.way = give(task, good, self.port, Disposition.MAKE_SEND)

    def run(self, packet: h.Packet) -> list[Any]:
        """Have one process write a packet and the other one send a message; what comes out before the good message.

        What is received is given back; whatever happens, nothing may be left.
        """
        task = self.task
        before = task.mach_port_names(), descriptors()
        assert self.evil.raw(self.to, packet) == [0]
        send(self.good, self.way, GOOD)
        outcome: list[Any] = []
        while True:
            try:
                message = Message.decode(receive_raw(task, self.port))
            except MachError as error:
                assert error.code != lib.MACH_RCV_TIMED_OUT, "the good message is lost"
                outcome.append(error.code)
                continue
            if message.id == GOOD:
                break
            outcome.append(self.told(message))
            assert message.audit_token is not None and message.audit_token.pid == self.evil.pid
            destroy_message(message, task)
        assert nothing_waits(task, self.port)
        assert task.mach_port_names() == before[0]
        assert descriptors() in (before[1], before[1] - 1)  # less the right that the packet came over
        self.evil.free()
        return outcome

    def told(self, message: Message) -> tuple[Any, ...]:
        """What a message says: its body, the rights that it brought by what they are, memory by what it holds."""
        rights = [self.kind(message.remote_port)] * (message.remote_disposition != 0)
        rights += [self.kind(name) for name in names(message)]
        memory = [one for one in message.descriptors if isinstance(one, OutOfLineDescriptor)]
        return message.body, rights, [(one.size, string_at(one.address, min(one.size, 4))) for one in memory]

    def kind(self, name: int) -> int:
        return self.task.mach_port_type(name) if name else 0

    def close(self) -> None:
        self.evil.mach_port_deallocate(self.to)
        self.good.mach_port_deallocate(self.way)
        end(self.task, self.port)


@pytest.fixture
def scene(task: LinuxKernel, peer: Peer, other: Peer) -> Iterator[Scene]:
    """See there."""
    scene = Scene(task, peer, other)
    yield scene
    scene.close()


@pytest.mark.parametrize("packet", LIES.values(), ids=LIES.keys())
def test_a_packet_that_lies_costs_its_sender_the_right(scene: Scene, packet: h.Packet) -> None:
    """No message, no error at the receiver; the sender finds its right dead."""
    assert scene.run(packet) == []
    assert scene.evil.mach_port_type(scene.to) == DEAD_NAME


@pytest.mark.parametrize(("packet", "told"), ODDITIES.values(), ids=ODDITIES.keys())
def test_an_odd_packet_is_one_message_or_one_error(scene: Scene, packet: h.Packet, told: Told) -> None:
    """It is well-formed: it is received, and means what it can mean; or refused, and the sender loses its right, alone."""
    assert scene.run(packet) == ([] if told is None else [told])
    assert scene.evil.mach_port_type(scene.to) == (DEAD_NAME if told is None else SEND)


@pytest.mark.parametrize("seed", range(4))
def test_random_packets(scene: Scene, seed: int) -> None:
    """Bytes and descriptors at random, whole packets with some bytes changed: as above, five hundred times."""
    choose = random.Random(seed)
    samples = [*LIES.values(), *(packet for packet, _ in ODDITIES.values())]
    things = [*NO_RIGHTS, PAIR, OPEN, ("orphan",)]
    for number in range(100):  # From some number on who sends is known for good, which takes a descriptor.
        send(scene.good, scene.way, number)
        assert receive(scene.task, scene.port).id == number
    for _ in range(125):
        data, attached = choose.choice(samples)
        mutated = bytearray(data if choose.random() < 0.9 else choose.randbytes(choose.randrange(300)))
        for _ in range(choose.randrange(4)):
            if mutated:
                mutated[choose.randrange(len(mutated))] = choose.choice([0, 1, 2, 255, choose.randrange(256)])
        if choose.random() < 0.3:
            attached = [choose.choice(things) for _ in range(choose.randrange(8))]
        assert len(scene.run((bytes(mutated), attached))) <= 1
        if scene.evil.mach_port_type(scene.to) == DEAD_NAME:
            scene.evil.mach_port_deallocate(scene.to)
            scene.to = give(scene.task, scene.evil, scene.port, Disposition.MAKE_SEND)


# -- things that nobody but the kernel may say -----------------------------------------------------------------------------


@pytest.mark.parametrize("id", [NO_SENDERS, SEND_ONCE_NOTIFICATION, PORT_DESTROYED, lib.MACH_NOTIFY_DEAD_NAME])
@pytest.mark.parametrize("flags", [0, h.NOTIFICATION])
def test_a_forged_notification_bears_its_senders_token(task: LinuxKernel, peer: Peer, id: int, flags: int) -> None:
    """Whatever a process says of a packet, the kernel's all-zero token is not on it."""
    port, to = introduce(task, peer)
    peer.raw(to, h.packet(bytes(12), id=id, flags=flags))
    message = receive(task, port)
    assert message.id == id and message.audit_token is not None
    assert not message.audit_token.is_kernel and message.audit_token.pid == peer.pid
    peer.mach_port_deallocate(to)
    end(task, port)


def test_a_process_cannot_claim_anothers_space_beyond_its_own(task: LinuxKernel, peer: Peer) -> None:
    """The number of the space is the sender's word about itself: it changes asid and nothing else."""
    port, to = introduce(task, peer)
    peer.raw(to, h.packet(space=0xFFFF))
    token = receive(task, port).audit_token
    assert token is not None and (token.pid, token.asid) == (peer.pid, 0xFFFF)
    assert token.pidversion == peer.token()[7]
    peer.mach_port_deallocate(to)
    end(task, port)


def test_a_message_larger_than_it_says_is_not_reported_as_that_large(task: LinuxKernel, peer: Peer) -> None:
    """A receiver with a small buffer asks for the size: a lie must not make it wait for gigabytes, or for ever."""
    port, to = introduce(task, peer)
    peer.raw(to, h.packet(size=0xFFFFFFFC))
    option = int(lib.MACH_RCV_MSG | lib.MACH_RCV_LARGE) | 3 << 24
    with pytest.raises(MachError) as caught:
        receive_raw(task, port, option=option, size=1000)
    assert caught.value.code == lib.MACH_RCV_TIMED_OUT
    assert peer.mach_port_type(to) == DEAD_NAME
    peer.mach_port_deallocate(to)
    end(task, port)


@pytest.mark.parametrize("what", ["nothing", "garbage", "a lie"])
def test_garbage_over_a_send_once_right_is_its_end(task: LinuxKernel, peer: Peer, what: str) -> None:
    """Whoever waits for a reply must not wait for ever: the right is used up, and that is told."""
    port = allocate(task)
    once = give(task, peer, port, Disposition.MAKE_SEND_ONCE)
    data = {"nothing": b"", "garbage": b"garbage", "a lie": h.packet(bits=h.SEND_ONCE, size=99)[0]}[what]
    peer.raw(once, (data, [FILE]))
    assert receive(task, port, 5).id == SEND_ONCE_NOTIFICATION
    assert nothing_waits(task, port)
    assert peer.mach_port_type(once) == DEAD_NAME
    peer.mach_port_deallocate(once)
    end(task, port)


def test_a_send_once_right_sends_once(task: LinuxKernel, peer: Peer) -> None:
    """A holder that writes a second message finds that there is no one to read it."""
    port = allocate(task)
    once = give(task, peer, port, Disposition.MAKE_SEND_ONCE)
    packet = h.packet(bits=h.SEND_ONCE, id=5)
    assert peer.raw(once, packet, packet, packet) == [0, 0, 0]
    assert receive(task, port).id == 5
    assert nothing_waits(task, port)
    assert peer.mach_port_type(once) == DEAD_NAME
    peer.mach_port_deallocate(once)
    end(task, port)


def test_names_of_rights_that_a_stranger_made_do_not_merge(task: LinuxKernel, peer: Peer) -> None:
    """Sockets without a port's address have a name each, whatever they are connected to."""
    port, to = introduce(task, peer)
    peer.raw(to, h.complex([h.port(1), h.port(2)], [PAIR, PAIR]))
    first, second = names(receive(task, port))
    assert first != second
    for name in (first, second):
        task.mach_port_deallocate(name)
    peer.free()
    peer.mach_port_deallocate(to)
    end(task, port)
