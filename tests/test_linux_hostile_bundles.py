"""A peer that moves receive rights that are none: bundles written by hand, ends that are no ends.

As for packets: nothing but a MachError comes out of mach_msg, nothing is left, nothing spins, and nobody waits for ever.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from machrv._mach import lib
from machrv.errors import MachError
from machrv.kernel.linux import LinuxKernel
from machrv.message import Disposition, Message
from machrv import destroy_message

from . import linux_hostile as h
from .conftest import PATIENCE, SLACK, open_descriptors
from .linux_tasks import bootstrap, nursery, other, peer, task  # noqa: F401 (fixtures)
from .linux_tasks import (
    NO_SENDERS,
    RECEIVE,
    Peer,
    Task,
    code_of,
    descriptors,
    end,
    give,
    introduce,
    names,
    nothing_waits,
    receive,
    receive_raw,
    request,
    send,
    started,
)

FILE, PIPE, PAIR, LISTENER = ("file",), ("pipe",), ("pair",), ("listener",)
STREAM, DGRAM = (("pair", int(kind)) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM))
UNCONNECTED = ("socket", int(socket.AF_UNIX), int(socket.SOCK_SEQPACKET))
THINGS = [FILE, PIPE, ("epoll",), ("eventfd",), ("pidfd",), ("directory",), STREAM, DGRAM, ("memory", b"", 4, h.SEALS)]
HEAD = h.bundle_head


def moved(*packets: h.Packet) -> h.Packet:
    """A message with a receive right whose bundle holds these packets."""
    return h.complex([h.port(1, h.RECEIVE)], [h.bundle(*packets)])


ONE = bytes([h.SEND])
BUNDLES: dict[str, h.Packet] = {
    "nothing in it": moved(),
    "no bytes": moved((b"", [])),
    "no bytes, with descriptors": moved((b"", [FILE] * 253)),
    "a byte": moved((b"x", [FILE])),
    "another magic": moved((HEAD(ONE, magic=b"mrvB"), [PAIR])),
    "unknown flags": moved((HEAD(ONE, flags=8), [PAIR])),
    "a queue limit that is none": moved((HEAD(ONE, qlimit=1 << 31), [PAIR])),
    "an end more than descriptors": moved((HEAD(ONE * 2), [PAIR])),
    "a descriptor more than ends": moved((HEAD(ONE), [PAIR, PAIR])),
    "descriptors and no ends": moved((HEAD(b""), [PAIR] * 100)),
    "fewer ends than kinds": moved((HEAD(ONE * 3, ends=1), [PAIR] * 3)),
    "more ends than it brings": moved((HEAD(ONE, ends=2), [PAIR])),
    "four billion ends": moved((HEAD(ONE, ends=0xFFFFFFFF), [PAIR])),
    "65536 ends, one after the other": moved((HEAD(ONE, ends=65536), [PAIR]), *[(ONE, [PAIR])] * 60),
    "ends without descriptors": moved((HEAD(b"", ends=65536), []), *[(ONE * 250, [])] * 100),
    "a second packet of no bytes": moved((HEAD(ONE, ends=2), [PAIR]), (b"", [FILE] * 9)),
    "a packet larger than any": moved((HEAD(ONE * 2) + bytes(100_000), [PAIR, PAIR])),
    "a kind that is none": moved((HEAD(b"\x63"), [PAIR])),
    "a receive right as an end": moved((HEAD(bytes([h.RECEIVE])), [PAIR])),
    "a request without its right": moved((HEAD(ONE, flags=1), [PAIR])),
    "two requests, one right": moved((HEAD(b"", flags=3), [PAIR])),
    "a request to a socket, another to a file": moved((HEAD(b"", flags=3), [PAIR, FILE])),
    "two requests to sockets, an end that is none": moved((HEAD(ONE, flags=3), [PAIR, PAIR, FILE])),
    "an end that is connected to nothing": moved((HEAD(ONE), [UNCONNECTED])),
    "a listener as an end": moved((HEAD(ONE), [LISTENER])),
    "an end as a listener": moved((HEAD(bytes([h.LISTENER])), [PAIR])),
    "an end with a message as a listener": moved((HEAD(bytes([h.LISTENER])), [("pair", 5, [(b"x", [])])])),
    "a dead end as a listener": moved((HEAD(bytes([h.LISTENER])), [("orphan",)])),
    "a bundle in a bundle": moved((HEAD(ONE), [h.bundle((HEAD(b""), []))])),
    "itself, more or less": h.complex([h.port(1, h.RECEIVE), h.port(2, h.RECEIVE)], [PAIR, PAIR]),
    "no bundle but a stream": h.complex([h.port(1, h.RECEIVE)], [STREAM]),
    "a thousand ends": moved(
        (HEAD(ONE * 250, ends=1000), [PAIR] * 250), *[(ONE * 250, [PAIR] * 250)] * 2, (ONE * 250, [FILE] * 250)
    ),
}
for thing in THINGS:
    BUNDLES[f"an end that is a {thing[0]} {thing[1:2]}"] = moved((HEAD(ONE * 2), [PAIR, thing]))
    BUNDLES[f"a listener that is a {thing[0]} {thing[1:2]}"] = moved((HEAD(bytes([h.LISTENER])), [thing]))
    BUNDLES[f"a request to a {thing[0]} {thing[1:2]}"] = moved((HEAD(b"", flags=3), [thing, thing]))


@pytest.fixture
def victim(task: LinuxKernel) -> Iterator[Peer]:
    """Who receives, in a process of its own: where it blocks and lets no signal in, the test fails, and goes on."""
    with started() as peer:
        yield peer


def take(task: Task, port: int) -> list[int]:
    """The ports of the next message; none if it is refused."""
    try:
        return names(Message.decode(receive_raw(task, port)))
    except MachError:
        return []


def drain(victim: Peer, port: int) -> list[int]:
    """Receive every message, and give up what they bring; their ids."""
    ids: list[int] = victim.run(DRAIN, port=port, MachError=MachError, destroy_message=destroy_message)
    return ids


DRAIN = """
result = []
while True:
    try:
        message = served.receive_message(port, 0)
    except MachError as error:
        if error.code == lib.MACH_RCV_TIMED_OUT:
            break
        continue
    destroy_message(message, kernel)
    result.append(message.id)
"""


def waits_idly(victim: Peer, name: int) -> bool:
    """Whether a wait in vain takes less of the processor than half its time: the first, or a longer one."""
    for wait in (0.02, 0.1, 0.5):
        code, used = victim.run(WAIT, name=name, wait=wait, MachError=MachError)
        assert code in (lib.MACH_RCV_TIMED_OUT, lib.MACH_RCV_BODY_ERROR | (1 << 11))
        if used < wait / 2:
            return True
    return False


WAIT = """
import time
began = time.process_time()
try:
    result = (served.receive_message(name, wait), 0)
except MachError as error:
    result = (error.code, time.process_time() - began)
"""


@pytest.mark.parametrize("packet", BUNDLES.values(), ids=BUNDLES.keys())
def test_a_receive_right_that_is_none(victim: Peer, peer: Peer, other: Peer, packet: h.Packet) -> None:
    """Refused, or a port of which nothing comes but timeouts and errors; waiting for it costs no time of the processor."""
    port, to = introduce(victim, peer)
    way = give(victim, other, port, Disposition.MAKE_SEND)
    once, _ = victim.mach_port_extract_right(port, Disposition.MAKE_SEND_ONCE)
    send(
        victim, once, how=Disposition.MOVE_SEND_ONCE
    )  # What the port keeps for the task's own messages is there from now on.
    receive(victim, port)
    before = victim.state()["descriptors"]
    peer.raw(to, packet)
    got = take(victim, port)
    send(other, way, 7)
    for name in got:
        assert victim.mach_port_type(name) == RECEIVE
        assert waits_idly(victim, name)
        request(victim, name, NO_SENDERS, port)
        victim.mach_port_get_attributes(name, lib.MACH_PORT_RECEIVE_STATUS)
        victim.mach_port_insert_right(name, name, Disposition.MAKE_SEND)
        send(victim, name, 8)
        assert receive(victim, name, PATIENCE).id == 8
        victim.mach_port_destroy(name)
    peer.free()
    assert 7 in drain(victim, port)
    state = victim.state()
    assert state["descriptors"] <= before
    assert [name for name, _ in state["names"]] == [port]
    peer.mach_port_deallocate(to)
    other.mach_port_deallocate(way)
    end(victim, port)


def test_a_listener_that_blocks(victim: Peer, peer: Peer) -> None:
    """A listening socket without O_NONBLOCK, or one whose giver takes O_NONBLOCK away later: nobody waits in accept()."""
    task = victim
    port, to = introduce(task, peer)
    path = os.environ["MACHRV_BOOTSTRAP_DIR"] + "/trap"
    peer.run(LISTEN, path=path)
    peer.raw(to, moved((HEAD(bytes([h.LISTENER])), [("hoard", 0)])))
    got = take(task, port)
    for blocking in (True, False, True):
        peer.run("served.blocking(0, blocking)", blocking=blocking)
        for name in got:
            assert nothing_waits(task, name)
            task.mach_port_get_attributes(name, lib.MACH_PORT_RECEIVE_STATUS)
            assert code_of(receive, task, name, 0.01) == lib.MACH_RCV_TIMED_OUT
    for name in got:
        end(task, name)
    os.unlink(path)
    peer.free()
    peer.mach_port_deallocate(to)
    end(task, port)


LISTEN = """
import socket
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(path)
listener.listen()
served.hoard.append(listener.detach())
"""


def test_a_listener_does_not_come_from_another_process(victim: Peer, peer: Peer) -> None:
    """Not even one that is a name of the victim's own directory, and does not block: nobody is let in there."""
    port, to = introduce(victim, peer)
    path = os.environ["MACHRV_BOOTSTRAP_DIR"] + "/." + "3" * 32
    peer.run(LISTEN, path=path)
    peer.run("served.blocking(0, False)")
    peer.raw(to, moved((HEAD(bytes([h.LISTENER])), [("hoard", 0)])))
    for name in (got := take(victim, port)):
        peer.run(CONNECT, path=path, packet=h.packet(id=5)[0])
        assert nothing_waits(victim, name)
    for name in got:
        end(victim, name)
    os.unlink(path)
    peer.free()
    peer.mach_port_deallocate(to)
    end(victim, port)


CONNECT = """
import socket
one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
one.connect(path)
one.send(packet)
served.hoard.append(one.detach())
"""


def test_an_endless_bundle(task: LinuxKernel, peer: Peer) -> None:
    """The peer goes on writing while it is read: the reader comes to an end all the same, and closes everything."""
    port, to = introduce(task, peer)
    before = descriptors()
    peer.run(ENDLESS, to=to, head=HEAD(ONE, ends=65536), packet=moved()[0])
    started = time.monotonic()
    assert take(task, port) == []
    assert time.monotonic() - started < SLACK
    assert descriptors() <= before
    peer.run("served.stop = True; served.threads.pop().join()")
    peer.free()
    peer.mach_port_deallocate(to)
    end(task, port)


ENDLESS = """
import socket, threading
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
ours.send(head)
served.stop = False
def feed():
    try:
        while not served.stop:
            ours.send(b"\\x11")
    except OSError:
        pass
    ours.close()
served.threads.append(threading.Thread(target=feed))
served.threads[-1].start()
served.write(socket_of(kernel, to), [])
right = socket.socket(fileno=os.dup(socket_of(kernel, to)))
socket.send_fds(right, [packet], [theirs.fileno()])
right.close()
theirs.close()
"""


# -- ends that a previous holder has kept ---


def test_what_a_previous_holder_switched_off_is_switched_on(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """Ends arrive from a process that took away credentials and time stamps: they are attested here all the same."""
    port, to = introduce(task, peer)
    theirs, right = introduce(peer, task)
    far = give(peer, other, theirs, Disposition.MAKE_SEND)
    peer.run(SWITCH_OFF, name=theirs)
    send(peer, to, descriptors=[h_move(theirs)])
    before = set(open_descriptors().items())
    (got,) = names(receive(task, port))
    assert got == right
    came = [int(fd) for fd, what in open_descriptors().items() if (fd, what) not in before and what[:6] == "socket"]
    assert came
    for fd in came:
        with socket.socket(fileno=os.dup(fd)) as one:
            switched = [one.getsockopt(socket.SOL_SOCKET, option) for option in (socket.SO_PASSCRED, 76, 35, 42)]
            assert switched == [1, 1, 1, -1]  # credentials, pidfd, time stamps; SO_PEEK_OFF
    send(other, far, 3)
    message = receive(task, got)
    assert message.id == 3 and message.audit_token is not None and tuple(message.audit_token) == other.token()
    other.mach_port_deallocate(far)
    once = give(task, peer, got, Disposition.MAKE_SEND_ONCE)
    send(peer, once, 4, how=Disposition.MOVE_SEND_ONCE)
    message = receive(task, got)
    assert message.audit_token is not None and message.audit_token.pid == peer.pid
    send(task, got, 5)
    assert receive(task, got).id == 5
    task.mach_port_destroy(got)
    peer.mach_port_deallocate(to)
    end(task, port)


SWITCH_OFF = """
import socket
for end in sockets_of(kernel, name):
    with socket.socket(fileno=os.dup(end)) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        one.setsockopt(socket.SOL_SOCKET, 76, 0)
        one.setsockopt(socket.SOL_SOCKET, 35, 0)
        one.setsockopt(socket.SOL_SOCKET, 42, 0)
"""


def h_move(name: int) -> Any:
    from machrv.message import PortDescriptor

    return PortDescriptor(name, Disposition.MOVE_RECEIVE)


@pytest.mark.parametrize(
    "packet",
    [(b"", []), (b"", [FILE] * 253), h.packet(b"body"), h.complex([h.port(1 | h.FILE)], [FILE])],
    ids=["empty", "with descriptors", "a message", "a message with a file"],
)
def test_packets_from_nobody(task: LinuxKernel, peer: Peer, packet: h.Packet) -> None:
    """A previous holder of the end keeps it, switches credentials and time stamps off, and writes: nothing comes, nothing leaks."""
    port, to = introduce(task, peer)
    peer.run(KEEP)
    peer.raw(to, moved((HEAD(ONE), [("hoard", 0)])))
    (got,) = take(task, port)
    before = descriptors()
    peer.run(SILENT)
    peer.run("result = served.write(served.hoard[1], [packet] * 3)", packet=packet)
    for _ in range(4):
        assert nothing_waits(task, got)
    assert descriptors() <= before
    end(task, got)
    peer.free()
    peer.mach_port_deallocate(to)
    end(task, port)


KEEP = """
import socket
receiving, sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
served.hoard += [receiving.detach(), sending.detach()]
"""
SILENT = """
import socket
with socket.socket(fileno=os.dup(served.hoard[0])) as one:
    for option in (socket.SO_PASSCRED, 76, 35):
        one.setsockopt(socket.SOL_SOCKET, option, 0)
"""


@pytest.mark.parametrize("missing", [(), ("passpidfd",)], ids=["all", "no pidfds"])
@pytest.mark.parametrize("off", [(16,), (76,), (16, 76)], ids=["credentials", "pidfd", "both"])
@pytest.mark.parametrize("forked", [False, True], ids=["", "forked"])
def test_who_takes_attestation_away_is_not_believed(
    task: LinuxKernel, peer: Peer, missing: tuple[str, ...], off: tuple[int, ...], forked: bool
) -> None:
    """After the move, on the copy that it kept: its messages are nobody's, and so none. The kernel's token is on none of them.

    The victim has received nothing of its own, and asks who it is for the first time; in the child of a fork, too.
    """
    with started(*missing) as victim:
        if forked:
            victim.run(FORK)
            victim.before = victim.call("state")
        port, to = introduce(victim, peer)
        peer.run(KEEP)
        peer.raw(to, moved((HEAD(ONE), [("hoard", 0)])))
        (got,) = names(receive(victim, port))
        peer.run(TAKE_AWAY, options=off)
        forged = h.packet(bytes(12), id=NO_SENDERS, flags=h.NOTIFICATION)
        assert peer.run("result = served.write(served.hoard[1], [packet])", packet=forged) == [0]
        if missing and off == (76,):  # There is none to be had: its pid is all that is known of anybody.
            token = receive(victim, got).audit_token
            assert token is not None and token.pid == peer.pid and not token.is_kernel
        else:
            assert nothing_waits(victim, got)
        end(victim, got)
        end(victim, port)
        peer.free()
        peer.mach_port_deallocate(to)


TAKE_AWAY = """
import socket
with socket.socket(fileno=os.dup(served.hoard[0])) as one:
    for option in options:
        one.setsockopt(socket.SOL_SOCKET, option, 0)
"""
#: The process goes on as its own child; the parent waits for it to end.
FORK = """
pid = os.fork()
if pid:
    for fd in range(3, 64):
        try:
            os.close(fd)
        except OSError:
            pass
    os.waitpid(pid, 0)
    os._exit(0)
"""
