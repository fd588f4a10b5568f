"""Where the Linux port space differs from XNU: each difference that docs/linux.md lists, shown as it is written there.

A test here that fails because the space has become more like Mach is good news: change the page with it.
"""

from __future__ import annotations

import os
import signal
import socket

import pytest

from machrv._mach import lib
from machrv.kernel.linux import LinuxKernel
from machrv.message import Disposition, GuardedPortDescriptor, Message, PortDescriptor

from .linux_tasks import bootstrap, nursery, other, peer, task  # noqa: F401 (fixtures)
from .linux_tasks import (
    DEAD_NAME,
    DEAD_NAME_NOTIFICATION,
    NO_SENDERS,
    PORT_DESTROYED,
    SEND_ONCE_NOTIFICATION,
    Peer,
    allocate,
    code_of,
    end,
    give,
    introduce,
    names,
    nothing_waits,
    receive,
    refs,
    request,
    send,
)

MAKE_SEND, MAKE_SEND_ONCE, COPY_SEND = Disposition.MAKE_SEND, Disposition.MAKE_SEND_ONCE, Disposition.COPY_SEND
MOVE_SEND, MOVE_SEND_ONCE, MOVE_RECEIVE = Disposition.MOVE_SEND, Disposition.MOVE_SEND_ONCE, Disposition.MOVE_RECEIVE


def test_queue_limits_are_kept_and_not_enforced(task: LinuxKernel, peer: Peer) -> None:
    """A limit of one is stored and reported; many more messages are sent without waiting. What does limit a sender is
    the buffer of its own right's socket: another right has its own."""
    port, to = introduce(task, peer)
    once = give(task, peer, port, MAKE_SEND_ONCE)
    task.mach_port_set_attributes(port, lib.MACH_PORT_LIMITS_INFO, 1)
    assert task.mach_port_get_attributes(port, lib.MACH_PORT_LIMITS_INFO) == 1
    sent = peer.flood(to, 100_000)
    assert 100 < sent < 1000
    assert code_of(send, peer, to, timeout=0) == lib.MACH_SEND_TIMED_OUT
    send(peer, once, 5, how=MOVE_SEND_ONCE, timeout=0)
    status = task.mach_port_get_attributes(port, lib.MACH_PORT_RECEIVE_STATUS)
    assert status.msgcount == 1  # type: ignore[union-attr]  # something waits: the kernel does not tell how much
    for number in range(sent):
        assert receive(task, port).id == number
    assert receive(task, port).id == 5
    peer.mach_port_deallocate(to)
    end(task, port)


def test_a_notification_stands_where_it_was_noticed(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """A port died before a message was sent, but nobody looked: the message is received first, then DEAD_NAME."""
    port, right = introduce(peer, task)
    inbox = allocate(task)
    way = give(task, other, inbox, MAKE_SEND)
    request(task, right, DEAD_NAME_NOTIFICATION, inbox)
    end(peer, port)
    send(other, way, 5)
    assert [receive(task, inbox).id for _ in range(2)] == [5, DEAD_NAME_NOTIFICATION]
    task.mach_port_mod_refs(right, lib.MACH_PORT_RIGHT_DEAD_NAME, -2)
    other.mach_port_deallocate(way)
    end(task, inbox)


@pytest.mark.parametrize("id", [DEAD_NAME_NOTIFICATION, NO_SENDERS, PORT_DESTROYED])
def test_a_notification_for_another_process_bears_its_senders_token(task: LinuxKernel, peer: Peer, id: int) -> None:
    """The space that noticed sent it: the receiver sees that process's token; its own space's bear the kernel's."""
    for inbox_owner in (peer, task):
        inbox = allocate(inbox_owner)
        once = give(inbox_owner, task, inbox, MAKE_SEND_ONCE)
        if id == DEAD_NAME_NOTIFICATION:
            port, name = introduce(peer, task)
        else:
            name = port = allocate(task)
        task.mach_port_request_notification(name, id, 0, once, MOVE_SEND_ONCE)
        if id == DEAD_NAME_NOTIFICATION:
            end(peer, port)
            assert task.mach_port_type(name) == DEAD_NAME
            task.mach_port_mod_refs(name, lib.MACH_PORT_RIGHT_DEAD_NAME, -2)
        elif id == NO_SENDERS:
            task.mach_port_insert_right(port, port, MAKE_SEND)
            task.mach_port_deallocate(port)
        else:
            end(task, port)
        message = receive(inbox_owner, inbox)
        assert message.id == id and message.audit_token is not None
        assert message.audit_token.is_kernel is (inbox_owner is task)
        if inbox_owner is peer:
            assert message.audit_token == task.audit_token()
        for moved in names(message):
            end(inbox_owner, moved)
        if id == NO_SENDERS:
            end(task, port)
        end(inbox_owner, inbox)


def test_rights_made_by_different_holders_have_different_names(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """The port moved between two rights being made: who holds both has two names, which reach the same port."""
    port, first = introduce(peer, task)
    there = give(peer, other, port, MOVE_RECEIVE)
    second = give(other, task, there, MAKE_SEND)
    assert first != second
    send(task, first, 1)
    send(task, second, 2)
    assert [receive(other, there).id for _ in range(2)] == [1, 2]
    end(other, there)
    for name in (first, second):
        assert task.mach_port_type(name) == DEAD_NAME
        task.mach_port_deallocate(name)


def test_a_bootstrap_name_stays(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """The receive right moves to another process: the name is given up, what was looked up goes on."""
    door = task.bootstrap_check_in("wandering")
    before = other.bootstrap_look_up("wandering")
    there = give(task, peer, door, MOVE_RECEIVE)
    assert code_of(other.bootstrap_look_up, "wandering") == lib.BOOTSTRAP_UNKNOWN_SERVICE
    send(other, before, 3)
    assert receive(peer, there).id == 3
    end(peer, there)
    other.mach_port_deallocate(before)


def test_fileports_sent_twice_have_two_names(task: LinuxKernel, peer: Peer) -> None:
    """A file is no port: nothing tells that two descriptors are one right."""
    port, to = introduce(task, peer)
    file = peer.fileport_makeport(0)
    send(peer, to, descriptors=[PortDescriptor(file, COPY_SEND)] * 2)
    first, second = names(receive(task, port))
    assert first != second and refs(task, first) == refs(task, second) == 1
    for name in (first, second):
        task.mach_port_deallocate(name)
    peer.mach_port_deallocate(file)
    peer.mach_port_deallocate(to)
    end(task, port)


def test_a_circle_of_ports_across_processes_is_collected(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """Each of two processes moves its port into the other one's: both succeed, and the kernel destroys the circle."""
    first, to_first = introduce(task, peer)
    second, to_second = introduce(peer, task)
    inbox = allocate(other)
    watch = give(other, task, inbox, MAKE_SEND_ONCE)
    task.mach_port_insert_right(first, first, MAKE_SEND)
    send(task, first, descriptors=[PortDescriptor(watch, MOVE_SEND_ONCE)])
    send(task, to_second, descriptors=[PortDescriptor(first, MOVE_RECEIVE)])
    send(peer, to_first, descriptors=[PortDescriptor(second, MOVE_RECEIVE)])
    task.mach_port_deallocate(to_second)
    task.mach_port_deallocate(first)
    peer.mach_port_deallocate(to_first)
    assert task.mach_port_names() == [] and peer.mach_port_names() == []
    peer.kill()  # whatever closes a socket starts the collector
    assert receive(other, inbox).id == SEND_ONCE_NOTIFICATION
    end(other, inbox)


def test_port_destroyed_is_not_sent_for_a_right_whose_taker_died(task: LinuxKernel, peer: Peer) -> None:
    """The right was in a message that nobody will receive: it dies, and the right to tell of it is given up."""
    _, to = introduce(peer, task)
    port, inbox = allocate(task), allocate(task)
    request(task, port, PORT_DESTROYED, inbox)
    send(task, to, descriptors=[PortDescriptor(port, MOVE_RECEIVE)])
    peer.kill()
    assert receive(task, inbox).id == SEND_ONCE_NOTIFICATION
    assert nothing_waits(task, inbox)
    task.mach_port_deallocate(to)
    end(task, inbox)


def test_a_message_carries_253_rights(task: LinuxKernel) -> None:
    """One more, or a body of 64 MiB: MACH_SEND_TOO_LARGE, and nothing is moved."""
    port = allocate(task)
    task.mach_port_insert_right(port, port, MAKE_SEND)
    rights = [PortDescriptor(port, MAKE_SEND_ONCE)] * 254
    assert code_of(send, task, port, descriptors=rights) == lib.MACH_SEND_TOO_LARGE
    assert code_of(send, task, port, body=bytes(64 << 20)) == lib.MACH_SEND_TOO_LARGE
    assert nothing_waits(task, port)
    task.mach_port_destroy(port)


@pytest.mark.parametrize("how", [MOVE_SEND, COPY_SEND])
def test_there_are_no_vouchers(task: LinuxKernel, how: int) -> None:
    """A voucher that is named is refused; MACH_PORT_NULL is none."""
    port = allocate(task)
    task.mach_port_insert_right(port, port, MAKE_SEND)
    for voucher, code in ((port, lib.MACH_SEND_INVALID_VOUCHER), (0, 0)):
        message = Message(1, remote_port=port, remote_disposition=COPY_SEND)
        message.bits |= how << 16
        message.voucher_port = voucher
        if code:
            assert code_of(task.mach_msg, message.encode(), lib.MACH_SEND_MSG) == code
        else:
            task.mach_msg(message.encode(), lib.MACH_SEND_MSG)
            received = receive(task, port)
            assert (received.id, received.voucher_port, received.voucher_disposition) == (1, 0, 0)
    task.mach_port_destroy(port)


def test_guards_are_carried_and_not_enforced(task: LinuxKernel, peer: Peer) -> None:
    """A receive right that arrives guarded can be moved on and destroyed like any other."""
    port, to = introduce(task, peer)
    theirs = allocate(peer)
    send(peer, to, descriptors=[GuardedPortDescriptor(theirs, MOVE_RECEIVE, flags=1)])
    (got,) = names(receive(task, port))
    back = give(task, peer, got, MOVE_RECEIVE)
    end(peer, back)
    peer.mach_port_deallocate(to)
    end(task, port)


def test_a_reply_port_is_a_port(task: LinuxKernel, peer: Peer) -> None:
    """It can be moved, put into a set, sent from with MAKE_SEND: nothing is immovable."""
    reply = task.mach_reply_port()
    pset = task.mach_port_allocate(lib.MACH_PORT_RIGHT_PORT_SET)
    task.mach_port_insert_member(reply, pset)
    task.mach_port_insert_right(reply, reply, MAKE_SEND)
    there = give(task, peer, reply, MOVE_RECEIVE)
    send(task, reply, 2)
    assert receive(peer, there).id == 2
    end(peer, there)
    task.mach_port_deallocate(reply)
    task.mach_port_destroy(pset)


def test_a_signal_handler_calls_whenever_it_comes(task: LinuxKernel) -> None:
    """No call holds anything while Python runs: a handler never comes in the middle of one."""
    port = allocate(task)
    task.mach_port_insert_right(port, port, MAKE_SEND)
    worked = 0

    def handler(number: int, frame: object) -> None:
        nonlocal worked
        assert task.mach_port_type(port)
        worked += 1

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
        number = 0
        while worked < 100:
            send(task, port, number)
            assert receive(task, port, 0).id == number
            number += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    task.mach_port_destroy(port)


def test_copies_of_looked_up_rights_merge(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """Two processes look a name up, and one gives its right to the other: one name, whoever looked."""
    door = peer.bootstrap_check_in("door")
    mine, theirs = task.bootstrap_look_up("door"), other.bootstrap_look_up("door")
    assert give(other, task, theirs, MOVE_SEND) == mine
    assert refs(task, mine) == 2
    task.mach_port_mod_refs(mine, lib.MACH_PORT_RIGHT_SEND, -2)
    end(peer, door)


def test_copies_of_one_right_share_its_socket(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """Who shuts its copy down, shuts all copies of that right down; a right made separately is not touched."""
    port, first = introduce(task, peer)
    copy = give(peer, other, first, COPY_SEND)
    separate = give(task, other, port, MAKE_SEND)
    assert separate == copy  # one name, with the socket of the first
    other.mach_port_deallocate(copy)
    alone = allocate(task)
    separately = give(task, other, alone, MAKE_SEND)
    peer.run(
        "import socket\nwith socket.socket(fileno=os.dup(socket_of(kernel, right))) as one: one.shutdown(how)",
        right=first,
        how=int(socket.SHUT_RDWR),
    )
    assert nothing_waits(task, port)
    assert code_of(send, other, copy) == lib.MACH_SEND_INVALID_DEST
    send(other, separately, 4)
    assert receive(task, alone).id == 4
    other.mach_port_deallocate(copy)
    other.mach_port_deallocate(separately)
    peer.mach_port_deallocate(first)
    end(task, alone)
    end(task, port)


def test_who_moved_a_right_may_have_kept_its_socket(task: LinuxKernel, peer: Peer) -> None:
    """A process that keeps a duplicate behind the library's back still holds what it gave: on Mach it could not."""
    port, to = introduce(task, peer)
    kept = peer.run("result = os.dup(socket_of(kernel, right))", right=to)
    home = give(peer, task, to, MOVE_SEND)
    assert home == port
    task.mach_port_deallocate(home)
    request(task, port, NO_SENDERS, port)
    assert nothing_waits(task, port)
    peer.run("os.close(kept)", kept=kept)
    assert receive(task, port).id == NO_SENDERS
    end(task, port)


def test_the_space_of_a_sender_is_its_asid(task: LinuxKernel, peer: Peer) -> None:
    """Two port spaces of one process have tokens that differ in asid alone; auid is unset."""
    second = LinuxKernel()
    first_token, second_token = task.audit_token(), second.audit_token()
    different = [index for index in range(8) if first_token[index] != second_token[index]]
    assert different == [6] and first_token.auid == 0xFFFFFFFF and first_token.pid == os.getpid()
    door = peer.bootstrap_check_in("door")
    for kernel, token in ((task, first_token), (second, second_token)):
        way = kernel.bootstrap_look_up("door")
        send(kernel, way, 1)
        assert receive(peer, door).audit_token == token
        kernel.mach_port_deallocate(way)
    end(peer, door)
    second.close()
