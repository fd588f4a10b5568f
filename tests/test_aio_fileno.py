"""`fileno()`: whenever a receive would give something, the descriptor is readable, and only then.

Each test watches the descriptor before the event, so that it is the event that makes it readable.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

import pytest

from machrv import Message, NoSenders, PortSet, ReceiveRight, ReceiveTimeout
from machrv._mach import lib
from machrv.kernel.linux import LinuxKernel
from machrv.message import Disposition
from machrv.rights.transfer import receive_message

from .conftest import PATIENCE, idles
from .linux_tasks import bootstrap, nursery, other, peer, task  # noqa: F401 (fixtures)
from .linux_tasks import (
    DEAD_NAME_NOTIFICATION,
    NO_SENDERS,
    PORT_DESTROYED,
    SEND_ONCE_NOTIFICATION,
    Peer,
    allocate,
    code_of,
    give,
    introduce,
    request,
    send,
    started,
)
from .sockets import socket_of
from .watching import PATIENCE, SecondKernel, comes, is_quiet, readable

MAKE_SEND, MAKE_SEND_ONCE = Disposition.MAKE_SEND, Disposition.MAKE_SEND_ONCE
MOVE_RECEIVE = Disposition.MOVE_RECEIVE
RECEIVE = lib.MACH_PORT_RIGHT_RECEIVE


@pytest.fixture
def port(task: LinuxKernel) -> Iterator[ReceiveRight]:
    """A port that is watched."""
    with ReceiveRight.allocate(kernel=task) as port:
        assert not readable(port)
        yield port
        if readable(port):  # Nothing is left but the word that nobody is who could send, which stays: an end-of-file.
            with pytest.raises(NoSenders):
                port.receive(timeout=0)


# -- messages ---------------------------------------------------------------------------------------------------------


def test_readable_as_long_as_a_message_waits(port: ReceiveRight) -> None:
    """The same descriptor all the time; from this task's own right, which is made after it was asked for."""
    fd = port.fileno()
    with port.make_send() as right:
        right.send(Message(1))
        right.send(Message(2))
        for number in (1, 2):
            assert comes(port)
            assert port.receive(timeout=0).id == number
        assert not readable(port)
        assert port.fileno() == fd


def test_a_message_that_waited_before(task: LinuxKernel) -> None:
    """Asked for late, after a message came over the only right, whose socket is all that such a port has."""
    with ReceiveRight.allocate(kernel=task) as port, port.make_send() as right:
        right.send(Message(1))
        assert comes(port)
        assert port.receive(timeout=0).id == 1
        assert not readable(port)


def test_rights_made_later_in_other_processes(task: LinuxKernel, peer: Peer, other: Peer, port: ReceiveRight) -> None:
    """Each right is a socket of its own: each that comes is watched."""
    rights = [(peer, give(task, peer, port.name, MAKE_SEND)), (other, give(task, other, port.name, MAKE_SEND))]
    assert not readable(port)
    for sender, to in rights:
        send(sender, to, 1)
        assert comes(port)
        port.receive(timeout=0)
        assert not readable(port)
        sender.mach_port_deallocate(to)
        if sender is peer:
            assert is_quiet(port)  # The end of a right is an end-of-file, which is nothing unless it is the last.


def test_a_message_whose_head_was_looked_at(task: LinuxKernel, peer: Peer, other: Peer, port: ReceiveRight) -> None:
    """With several rights ready, heads are peeked at and kept in order: they wait in their sockets all the same."""
    rights = [(peer, give(task, peer, port.name, MAKE_SEND)), (other, give(task, other, port.name, MAKE_SEND))]
    for number, (sender, to) in enumerate(rights * 2):
        send(sender, to, number)
    assert task.mach_port_get_attributes(port.name, lib.MACH_PORT_RECEIVE_STATUS).msgcount  # type: ignore[union-attr]
    for number in range(4):
        assert comes(port)
        assert port.receive(timeout=0).id == number
    assert not readable(port)
    for sender, to in rights:
        sender.mach_port_deallocate(to)
    with pytest.raises(NoSenders):
        port.receive(timeout=0)


def test_what_was_sent_before_there_were_time_stamps(task: LinuxKernel, peer: Peer) -> None:
    """Order begins to matter when a second right is made, or when the port joins a set."""
    name, to = introduce(task, peer)
    with ReceiveRight.adopt(name, task) as port, PortSet.allocate(task) as ports:
        for number in range(3):
            send(peer, to, number)
        with port.make_send() as own:
            own.send(Message(3))
            ports.insert(port)
            for number in range(4):
                assert comes(port) and comes(ports)
                assert (port if number % 2 else ports).receive(timeout=0).id == number
            assert not readable(port) and not readable(ports)
        peer.mach_port_deallocate(to)


def test_whoever_looks_a_name_up(task: LinuxKernel, peer: Peer) -> None:
    """A look-up alone is nothing to be received; the message behind it is, before and after it was taken in."""
    with ReceiveRight.adopt(task.bootstrap_check_in("door"), task) as port:
        assert not readable(port)
        to = peer.bootstrap_look_up("door")
        with pytest.raises(ReceiveTimeout):
            port.receive(timeout=0)
        assert not readable(port)
        second = peer.bootstrap_look_up("door")
        for right, number in ((to, 1), (second, 2)):
            send(peer, right, number)
            assert comes(port)
            assert port.receive(timeout=0).id == number
        assert not readable(port)
        for _ in range(2):
            peer.mach_port_deallocate(to)


def test_a_port_that_came_with_messages_in_it(task: LinuxKernel, peer: Peer) -> None:
    """A receive right that moves brings what waits in it."""
    name = allocate(peer)
    assert peer.mach_port_insert_right(name, name, MAKE_SEND) is None
    send(peer, name, 7)
    with ReceiveRight.adopt(give(peer, task, name, MOVE_RECEIVE), task) as port:
        assert comes(port)
        assert port.receive(timeout=0).id == 7
        assert is_quiet(port)
    peer.mach_port_deallocate(name)


def test_a_packet_that_is_no_message(port: ReceiveRight, task: LinuxKernel) -> None:
    """What is readable and proves to be nothing makes the descriptor quiet, not the loop busy."""
    with SecondKernel() as stranger, port.make_send():  # Somebody is left who could send: there is no end-of-file.
        got = give(task, stranger, port.name, MAKE_SEND)
        os.write(socket_of(stranger, got), b"garbage")
        assert readable(port, PATIENCE)
        with pytest.raises(ReceiveTimeout):
            port.receive(timeout=0)
        assert not readable(port)


# -- notifications ----------------------------------------------------------------------------------------------------


def due(port: ReceiveRight, id: int) -> None:
    """A notification makes the descriptor readable though nobody has called this space since it became due."""
    assert comes(port)
    message = receive_message(port.kernel, port.name, 0)  # As it comes.
    assert message.id == id and message.audit_token is not None and message.audit_token.is_kernel


def test_no_senders_of_another_port(task: LinuxKernel, peer: Peer, port: ReceiveRight) -> None:
    """The last sender of one port goes, in another process; the notification comes to the port that is watched."""
    watched, to = introduce(task, peer)
    request(task, watched, NO_SENDERS, port.name)
    with pytest.raises(ReceiveTimeout):
        port.receive(timeout=0)
    assert not readable(port)
    peer.mach_port_deallocate(to)
    due(port, NO_SENDERS)
    task.mach_port_destroy(watched)


def test_no_senders_of_the_port_itself_that_has_a_message_too(
    task: LinuxKernel, peer: Peer, port: ReceiveRight
) -> None:
    """The message first, since it still counts as a sender's; then the notification."""
    to = give(task, peer, port.name, MAKE_SEND)
    send(peer, to, 1)
    peer.mach_port_deallocate(to)
    assert comes(port)
    assert port.receive(timeout=0, wait_for_senders=True).id == 1
    due(port, NO_SENDERS)


def test_a_dead_name(task: LinuxKernel, peer: Peer, port: ReceiveRight) -> None:
    """A port in another process dies, and the process with it."""
    with started() as doomed:
        _, to = introduce(doomed, task)
        request(task, to, DEAD_NAME_NOTIFICATION, port.name)
        with pytest.raises(ReceiveTimeout):
            port.receive(timeout=0)
        assert not readable(port)
        doomed.kill()
        due(port, DEAD_NAME_NOTIFICATION)
    task.mach_port_destroy(to)


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_a_send_once_right_that_was_not_used(task: LinuxKernel, port: ReceiveRight, how: str) -> None:
    """Given up by its holder, or by the end of the holder's process."""
    with started() as holder:
        to = give(task, holder, port.name, MAKE_SEND_ONCE)
        assert not readable(port)
        if how == "closed":
            holder.mach_port_deallocate(to)
        else:
            holder.kill()
        due(port, SEND_ONCE_NOTIFICATION)


def test_a_port_destroyed_elsewhere(task: LinuxKernel, peer: Peer, port: ReceiveRight) -> None:
    """The right comes home in a notification, from the process that gave it up."""
    name = allocate(task)
    request(task, name, PORT_DESTROYED, port.name)
    got = give(task, peer, name, MOVE_RECEIVE)
    assert not readable(port)
    peer.mach_port_mod_refs(got, RECEIVE, -1)
    assert comes(port)
    with port.receive(timeout=0) as message:
        assert message.id == PORT_DESTROYED and isinstance(message.rights[0], ReceiveRight)


def test_a_hang_up_that_means_nothing(port: ReceiveRight, task: LinuxKernel) -> None:
    """A pipe as a fileport, watched for the death of its port: that its other end goes is no such thing."""
    reading, writing = os.pipe()
    name = task.fileport_makeport(reading)
    os.close(reading)
    request(task, name, DEAD_NAME_NOTIFICATION, port.name)
    os.close(writing)
    with pytest.raises(ReceiveTimeout):
        port.receive(timeout=0)
    assert not readable(port)

    def receives(seconds: float) -> None:
        with pytest.raises(ReceiveTimeout):
            port.receive(timeout=seconds)

    assert idles(receives)
    task.mach_port_destroy(name)
    assert port.receive(timeout=0).id == lib.MACH_NOTIFY_PORT_DELETED
    with open(__file__) as file:  # Not every file can be polled; asking for its death is no error all the same.
        name = task.fileport_makeport(file.fileno())
    request(task, name, DEAD_NAME_NOTIFICATION, port.name)
    task.mach_port_destroy(name)
    assert port.receive(timeout=0).id == lib.MACH_NOTIFY_PORT_DELETED


# -- sets -------------------------------------------------------------------------------------------------------------


def test_a_set_whose_members_come_and_go(task: LinuxKernel) -> None:
    """Members from before and after it is watched, with and without messages in them."""
    with PortSet.allocate(task) as ports:
        members = [ReceiveRight.allocate(kernel=task) for _ in range(8)]
        rights = [member.make_send() for member in members]
        ports.insert(members[0])
        assert not readable(ports)
        for number, (member, right) in enumerate(zip(members, rights)):
            right.send(Message(number))
            if number:
                assert not readable(ports)
                ports.insert(member)
            assert comes(ports)
            assert ports.receive(timeout=0).id == number
            assert not readable(ports)
        rights[3].send(Message(30))
        assert comes(ports) and comes(members[3])
        ports.extract(members[3])
        assert not readable(ports) and comes(members[3])
        assert members[3].receive(timeout=0).id == 30
        rights[4].send(Message(40))
        assert members[4].receive(timeout=0).id == 40  # behind the set's back
        assert not readable(ports)
        for right in (*members, *rights):
            right.close()
        assert not readable(ports)


def test_a_member_in_two_sets(task: LinuxKernel) -> None:
    """Both are readable; one receives, and both are quiet."""
    with PortSet.allocate(task) as one, PortSet.allocate(task) as two, ReceiveRight.allocate(kernel=task) as port:
        one.insert(port)
        assert not readable(one) and not readable(two)
        two.insert(port)
        with port.make_send() as right:
            right.send(Message(5))
            assert comes(one) and comes(two) and comes(port)
            assert two.receive(timeout=0).id == 5
            assert not readable(one) and not readable(two) and not readable(port)


def test_a_notification_for_a_member(task: LinuxKernel, peer: Peer) -> None:
    """What becomes due while nobody calls reaches the set as well."""
    with PortSet.allocate(task) as ports, ReceiveRight.allocate(kernel=task) as port:
        ports.insert(port)
        assert not readable(ports)
        watched, to = introduce(task, peer)
        request(task, watched, NO_SENDERS, port.name)
        peer.mach_port_deallocate(to)
        assert comes(ports)
        assert ports.receive(timeout=0).id == NO_SENDERS
        task.mach_port_destroy(watched)


def test_a_member_that_cannot_be_watched_is_no_member(task: LinuxKernel) -> None:
    """No descriptor is free for it: the call fails, and the set is as it was, rather than deaf to one of its members."""
    with PortSet.allocate(task) as ports, ReceiveRight.allocate(kernel=task) as port, port.make_send() as right:
        assert not readable(ports)
        right.send(Message(1))
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            codes = code_of(ports.insert, port), code_of(port.fileno)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert codes == (lib.KERN_RESOURCE_SHORTAGE, lib.KERN_RESOURCE_SHORTAGE)
        assert task.mach_port_get_attributes(port.name, lib.MACH_PORT_RECEIVE_STATUS).pset == 0  # type: ignore[union-attr]
        ports.insert(port)
        assert comes(ports) and comes(port)
        port.receive(timeout=0)
