"""Holders of rights that misuse their sockets: shut them down, flood them, never read, connect for ever.

Whoever holds a right of its own is served as if they were not there; whoever waits with a deadline is back in time.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from machrv._mach import lib
from machrv.kernel.linux import LinuxKernel
from machrv.message import Disposition, PortDescriptor
from machrv import destroy_message

from .conftest import SLACK
from . import linux_hostile as h
from .linux_tasks import bootstrap, nursery, other, peer, task  # noqa: F401 (fixtures)
from .linux_tasks import (
    DEAD_NAME,
    NO_SENDERS,
    SEND,
    SEND_ONCE_NOTIFICATION,
    Peer,
    allocate,
    code_of,
    descriptors,
    end,
    give,
    in_thread,
    introduce,
    nothing_waits,
    receive,
    request,
    send,
)

MAKE_SEND, MAKE_SEND_ONCE, COPY_SEND = Disposition.MAKE_SEND, Disposition.MAKE_SEND_ONCE, Disposition.COPY_SEND

SHUTDOWN = """
import socket
with socket.socket(fileno=os.dup(socket_of(kernel, right))) as one:
    one.shutdown(how)
"""


@contextmanager
def flood(peer: Peer, program: str, **values: object) -> Iterator[None]:
    """A program that runs in the peer until the block is left: `on()` says whether it is to go on."""
    start = """
import threading
served.stop = False
def on():
    return not served.stop
def run():
    exec(program, {"on": on, "os": os, **values})
served.threads.append(threading.Thread(target=run))
served.threads[-1].start()
"""
    peer.run(start, program=program, values=values)
    try:
        yield
    finally:
        peer.run("served.stop = True; served.threads.pop().join()")


@pytest.mark.parametrize("how", [socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR])
def test_a_holder_that_shuts_its_right_down(task: LinuxKernel, peer: Peer, other: Peer, how: int) -> None:
    """It can send no more; what it sent before arrives; the port and everybody else's rights are as before."""
    port, evil = introduce(task, peer)
    good = give(task, other, port, MAKE_SEND)
    send(peer, evil, 1)
    peer.run(SHUTDOWN, right=evil, how=int(how))
    send(other, good, 2)
    assert [receive(task, port).id for _ in range(2)] == [1, 2]
    assert nothing_waits(task, port)
    send(other, good, 3)
    assert receive(task, port).id == 3
    request(task, port, NO_SENDERS, port)
    other.mach_port_deallocate(good)
    peer.mach_port_deallocate(evil)
    assert receive(task, port).id == NO_SENDERS
    end(task, port)


@pytest.mark.parametrize("how", [socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR])
def test_a_holder_that_shuts_a_send_once_right_down(task: LinuxKernel, peer: Peer, how: int) -> None:
    """Given up in a strange way: one SEND_ONCE notification, at the latest when the holder closes it."""
    port = allocate(task)
    once = give(task, peer, port, MAKE_SEND_ONCE)
    peer.run(SHUTDOWN, right=once, how=int(how))
    peer.mach_port_deallocate(once)
    assert receive(task, port).id == SEND_ONCE_NOTIFICATION
    assert nothing_waits(task, port)
    end(task, port)


def test_options_that_a_holder_sets_are_its_own(task: LinuxKernel, peer: Peer) -> None:
    """Buffer sizes, credentials, time-outs, peek offsets: nothing of it reaches the receiving end."""
    port, evil = introduce(task, peer)
    peer.run(
        """
import socket
with socket.socket(fileno=os.dup(socket_of(kernel, right))) as one:
    for option, value in ((socket.SO_SNDBUF, 4608), (socket.SO_RCVBUF, 1), (socket.SO_PASSCRED, 0), (76, 0), (35, 0)):
        one.setsockopt(socket.SOL_SOCKET, option, value)
    one.setblocking(True)
""",
        right=evil,
    )
    send(peer, evil, 1, b"small")
    message = receive(task, port)
    assert message.audit_token is not None and message.audit_token.pid == peer.pid
    peer.mach_port_deallocate(evil)
    end(task, port)


def test_a_receiver_that_never_reads(task: LinuxKernel, peer: Peer) -> None:
    """A sender's deadline holds, and nothing is held while it waits: the space's other threads go on."""
    stuck, to = introduce(peer, task)
    port, way = introduce(task, peer)
    while True:
        try:
            send(task, to, 0, bytes(50000), timeout=0)
        except Exception:
            break
    took: list[float] = []

    def wait() -> None:
        started = time.monotonic()
        right = [PortDescriptor(port, MAKE_SEND)]
        assert code_of(send, task, to, 0, bytes(50000), right, timeout=0.5) == lib.MACH_SEND_TIMED_OUT
        took.append(time.monotonic() - started)

    waiter = in_thread(wait)
    rounds = 0
    while waiter.is_alive():
        send(peer, way, rounds)
        assert receive(task, port).id == rounds
        rounds += 1
    waiter.join()
    assert 0.5 <= took[0] < 0.5 + SLACK and rounds > 3
    end(peer, stuck)
    task.mach_port_deallocate(to)
    peer.mach_port_deallocate(way)
    end(task, port)


GARBAGE = """
import socket
while on():
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as one:
        one.setblocking(False)  # not to wait for room in the backlog when all is over
        try:
            one.connect(path)
            one.send(b"garbage")
        except OSError:
            pass
"""


def test_somebody_who_connects_and_sends_garbage_for_ever(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """A receive with a deadline ends; a good sender's messages are received between; nothing is left behind."""
    door = task.bootstrap_check_in("door")
    way = other.bootstrap_look_up("door")
    folder = os.environ["MACHRV_BOOTSTRAP_DIR"]
    path = f"{folder}/{os.readlink(f'{folder}/door')}"
    send(other, way, 0)
    receive(task, door)
    before = descriptors()
    with flood(peer, GARBAGE, path=path):
        for timeout in (0, 0.1, 0.3):
            started = time.monotonic()
            assert code_of(receive, task, door, timeout) == lib.MACH_RCV_TIMED_OUT
            assert time.monotonic() - started < timeout + SLACK
        started = time.monotonic()
        for number in range(20):
            send(other, way, number)
            assert receive(task, door).id == number
        assert time.monotonic() - started < 20 * SLACK
        started = time.monotonic()
        for _ in range(20):
            task.mach_port_get_attributes(door, lib.MACH_PORT_RECEIVE_STATUS)
        assert time.monotonic() - started < SLACK
    for _ in range(100):  # each call looks at a good deal of garbage, but not at any amount
        assert nothing_waits(task, door)
    assert descriptors() == before
    other.mach_port_deallocate(way)
    end(task, door)


def test_a_thousand_connections_that_say_nothing(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """Each is a send right that somebody holds: a well-behaved sender is served among them, and they end with their holder."""
    door = task.bootstrap_check_in("door")
    folder = os.environ["MACHRV_BOOTSTRAP_DIR"]
    path = f"{folder}/{os.readlink(f'{folder}/door')}"
    before = descriptors()
    peer.run(
        """
import socket
for _ in range(1000):
    one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one.connect(path)
    served.hoard.append(one.detach())
""",
        path=path,
    )
    way = other.bootstrap_look_up("door")
    started = time.monotonic()
    for number in range(100):
        send(other, way, number)
        assert receive(task, door).id == number
    assert time.monotonic() - started < SLACK
    assert task.mach_port_get_attributes(door, lib.MACH_PORT_RECEIVE_STATUS).mscount == 1001  # type: ignore[union-attr]
    peer.kill()
    assert nothing_waits(task, door)
    assert descriptors() <= before + 3  # the good sender's, and what the port waits on now
    other.mach_port_deallocate(way)
    end(task, door)


PACKETS = """
import socket
one = socket.socket(fileno=right)
one.setblocking(False)
while on():
    try:
        socket.send_fds(one, [packet], files)
    except BlockingIOError:
        pass
    except OSError:
        break
one.close()
"""


@pytest.mark.parametrize("files", [0, 20], ids=["messages", "files"])
def test_a_port_that_is_flooded_can_be_destroyed(task: LinuxKernel, peer: Peer, files: int) -> None:
    """What waits is destroyed, what comes meanwhile is not waited for."""
    port, evil = introduce(task, peer)
    fd = peer.run("result = os.dup(socket_of(kernel, right))", right=evil)
    before = descriptors()
    packet = h.complex([h.port(slot + 1 | h.FILE) for slot in range(files)], [])[0]
    with flood(peer, PACKETS, right=fd, packet=packet, files=[0] * files):
        destroy_message(receive(task, port), task)
        started = time.monotonic()
        end(task, port)
        assert time.monotonic() - started < SLACK
    assert descriptors() < before
    assert peer.mach_port_type(evil) == DEAD_NAME
    peer.mach_port_deallocate(evil)


def test_a_flooded_port_moves_on(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """The receive right leaves in the middle of a flood: its new owner has it, the flooder too floods there."""
    port, evil = introduce(task, peer)
    fd = peer.run("result = os.dup(socket_of(kernel, right))", right=evil)
    with flood(peer, PACKETS, right=fd, packet=h.packet(id=3)[0], files=[]):
        receive(task, port)
        there = give(task, other, port, Disposition.MOVE_RECEIVE)
        assert receive(other, there).id == 3
        end(other, there)
    assert peer.mach_port_type(evil) == DEAD_NAME
    peer.mach_port_deallocate(evil)


def test_a_flood_of_send_rights_meets_under_one_name(task: LinuxKernel, peer: Peer) -> None:
    """Ten thousand rights to one port: one name, one socket, so many references; given up at once."""
    port, evil = introduce(task, peer)
    theirs = allocate(peer)
    before = descriptors()
    for _ in range(40):
        send(peer, evil, descriptors=[PortDescriptor(theirs, MAKE_SEND)] * 250)
        receive(task, port)
    ((got, _),) = [pair for pair in task.mach_port_names() if pair[0] != port]
    assert task.mach_port_get_refs(got, lib.MACH_PORT_RIGHT_SEND) == 10_000
    assert descriptors() <= before + 1
    task.mach_port_destroy(got)
    assert not peer.mach_port_get_attributes(theirs, lib.MACH_PORT_RECEIVE_STATUS).srights
    end(peer, theirs)
    peer.mach_port_deallocate(evil)
    end(task, port)


def test_the_makers_ends_of_rights_that_were_given_up_do_not_pile_up(task: LinuxKernel, peer: Peer) -> None:
    """A port from which nobody ever receives, and whose rights come and go: its owner's descriptors stay bounded."""
    port, way = introduce(peer, task)
    source = allocate(task)
    before = descriptors()
    for _ in range(500):
        send(task, way, descriptors=[PortDescriptor(source, MAKE_SEND)])
        peer.mach_port_destroy(receive(peer, port).descriptors[0].name)
    assert descriptors() < before + 100
    end(task, source)
    task.mach_port_deallocate(way)
    end(peer, port)


def test_threads_are_served_while_one_is_flooded(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """A flooded port in one thread, a quiet conversation in another one."""
    port, evil = introduce(task, peer)
    quiet, way = introduce(task, other)
    fd = peer.run("result = os.dup(socket_of(kernel, right))", right=evil)
    stop = threading.Event()

    def drink() -> None:
        while not stop.is_set():
            receive(task, port)

    with flood(peer, PACKETS, right=fd, packet=h.packet()[0], files=[]):
        drinker = in_thread(drink)
        started = time.monotonic()
        for number in range(50):
            send(other, way, number)
            assert receive(task, quiet).id == number
        took = time.monotonic() - started
        stop.set()
        drinker.join()
    assert took < 3 * SLACK
    for name, who, theirs in ((port, peer, evil), (quiet, other, way)):
        end(task, name)
        assert who.mach_port_type(theirs) in (SEND, DEAD_NAME)
        who.mach_port_deallocate(theirs)
