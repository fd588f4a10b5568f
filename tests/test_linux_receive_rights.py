"""Receive rights that move between processes, with what is queued on them, and rights that come home."""

from __future__ import annotations

import pytest

from machrv._mach import lib
from machrv.kernel.linux import LinuxKernel
from machrv.message import Disposition, PortDescriptor

from .linux_features import needs
from .linux_tasks import bootstrap, nursery, other, peer, task  # noqa: F401 (fixtures)
from .linux_tasks import (
    DEAD_NAME,
    NO_SENDERS,
    PORT_DESTROYED,
    RECEIVE,
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
    names,
    nothing_waits,
    receive,
    refs,
    request,
    send,
    wait_until_they_wait,
)

MOVE_RECEIVE = Disposition.MOVE_RECEIVE
MOVE_SEND = Disposition.MOVE_SEND
MOVE_SEND_ONCE = Disposition.MOVE_SEND_ONCE
COPY_SEND = Disposition.COPY_SEND
MAKE_SEND = Disposition.MAKE_SEND
MAKE_SEND_ONCE = Disposition.MAKE_SEND_ONCE


@pytest.mark.parametrize("count", [0, 1, 3, 300])
def test_a_receive_right_moves_with_its_ends_and_its_queue(task: LinuxKernel, peer: Peer, count: int) -> None:
    """With so many rights made, a message sent over each: the new owner receives all, in the order of their sending."""
    port = allocate(task)
    rights = [task.mach_port_extract_right(port, MAKE_SEND_ONCE)[0] for _ in range(count)]
    for number, right in enumerate(rights):
        send(task, right, number, f"from {number:3}".encode(), how=MOVE_SEND_ONCE)
    theirs = give(task, peer, port, MOVE_RECEIVE)
    assert peer.mach_port_type(theirs) == RECEIVE
    received = [receive(peer, theirs, 0) for _ in range(count)]
    assert [(message.id, message.body) for message in received] == [
        (number, f"from {number:3}".encode()) for number in range(count)
    ]
    assert all(message.audit_token == task.audit_token() for message in received)
    assert nothing_waits(peer, theirs)
    end(peer, theirs)


@pytest.mark.parametrize("count", [1, 3, 300])
def test_send_rights_outlive_the_move(task: LinuxKernel, peer: Peer, other: Peer, count: int) -> None:
    """Senders of every process notice nothing: what they send before, during and after the move arrives, in order."""
    port = allocate(task)
    task.mach_port_insert_right(port, port, MAKE_SEND)
    theirs = give(task, other, port, MAKE_SEND)
    more = [task.mach_port_extract_right(port, MAKE_SEND_ONCE)[0] for _ in range(count - 1)]
    door, way = introduce(peer, task)
    send(other, theirs, 1)
    send(task, port, 2)
    send(task, way, descriptors=[PortDescriptor(port, MOVE_RECEIVE)])
    assert task.mach_port_type(port) == SEND
    send(task, port, 3)
    send(other, theirs, 4)
    (there,) = names(receive(peer, door))
    send(other, theirs, 5)
    send(task, port, 6)
    for right in more:
        send(task, right, 7, how=MOVE_SEND_ONCE)
    assert [receive(peer, there).id for _ in range(5 + count)] == [1, 2, 3, 4, 5, 6] + [7] * (count - 1)
    other.mach_port_deallocate(theirs)
    task.mach_port_deallocate(port)
    task.mach_port_deallocate(way)
    end(peer, door)
    end(peer, there)


def test_queued_rights_travel_with_the_port(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """A message with rights of every kind waits in the port that moves: its receiver is the new owner."""
    port, to = introduce(task, other)
    inner, far = allocate(other), allocate(other)
    other.mach_port_insert_right(far, far, MAKE_SEND)
    content = [
        PortDescriptor(inner, MOVE_RECEIVE),
        PortDescriptor(far, COPY_SEND),
        PortDescriptor(far, MAKE_SEND_ONCE),
    ]
    send(other, to, 1, descriptors=content)
    theirs = give(task, peer, port, MOVE_RECEIVE)
    got = names(receive(peer, theirs))
    assert peer.mach_port_type(got[0]) == RECEIVE and peer.mach_port_type(got[1]) == SEND
    send(peer, got[1], 2)
    send(peer, got[2], 3, how=MOVE_SEND_ONCE)
    assert [receive(other, far).id for _ in range(2)] == [2, 3]
    end(peer, got[0])
    end(peer, theirs)
    assert other.mach_port_type(to) == DEAD_NAME
    peer.mach_port_deallocate(got[1])
    other.mach_port_deallocate(to)
    other.mach_port_destroy(far)


@needs("SO_NETNS_COOKIE")
def test_a_receive_right_meets_the_send_right_that_its_taker_has(task: LinuxKernel, peer: Peer) -> None:
    """Receiver and sender of one port become one name, and sending to it is sending to oneself."""
    port, theirs = introduce(task, peer)
    send(peer, theirs, 1)
    assert give(task, peer, port, MOVE_RECEIVE) == theirs
    assert peer.mach_port_type(theirs) == RECEIVE | SEND and refs(peer, theirs) == 1
    send(peer, theirs, 2)
    assert [receive(peer, theirs).id for _ in range(2)] == [1, 2]
    peer.mach_port_mod_refs(theirs, lib.MACH_PORT_RIGHT_SEND, -1)
    end(peer, theirs)
    assert task.mach_port_names() == []


def test_a_receive_right_comes_home_to_its_send_right(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """Away to one process, on to another, and back to the first, which kept a send right: one name again."""
    port = allocate(task)
    task.mach_port_insert_right(port, port, MAKE_SEND)
    there = give(task, peer, port, MOVE_RECEIVE)
    assert task.mach_port_type(port) == SEND
    send(task, port, 1)
    far = give(peer, other, there, MOVE_RECEIVE)
    send(task, port, 2)
    assert give(other, task, far, MOVE_RECEIVE) == port
    assert task.mach_port_type(port) == RECEIVE | SEND
    send(task, port, 3)
    assert [receive(task, port).id for _ in range(3)] == [1, 2, 3]
    task.mach_port_mod_refs(port, lib.MACH_PORT_RIGHT_SEND, -1)
    end(task, port)


def test_a_moved_port_begins_to_count_anew(task: LinuxKernel, peer: Peer) -> None:
    """Make-send count, sequence number, context and set membership are the receiver's own; the queue limit is kept."""
    port = allocate(task)
    pset = task.mach_port_allocate(lib.MACH_PORT_RIGHT_PORT_SET)
    task.mach_port_insert_member(port, pset)
    task.mach_port_set_attributes(port, lib.MACH_PORT_LIMITS_INFO, 77)
    task.mach_port_set_context(port, 99)
    task.mach_port_insert_right(port, port, MAKE_SEND)
    send(task, port, 1)
    send(task, port, 2)
    assert receive(task, pset).id == 1
    theirs = give(task, peer, port, MOVE_RECEIVE)
    status = peer.mach_port_get_attributes(theirs, lib.MACH_PORT_RECEIVE_STATUS)
    assert (status.mscount, status.seqno, status.pset, status.qlimit) == (0, 0, 0, 77)
    assert (status.msgcount, status.srights, peer.mach_port_get_context(theirs)) == (1, 1, 0)
    message = receive(peer, theirs)
    assert message.id == 2 and message.trailer is not None and message.trailer.seqno == 0
    assert nothing_waits(task, pset)
    task.mach_port_deallocate(port)
    task.mach_port_destroy(pset)
    end(peer, theirs)


def test_requests_move_with_the_port(task: LinuxKernel, peer: Peer) -> None:
    """NO_SENDERS and PORT_DESTROYED that were asked for here come here, though the port has gone away."""
    inbox, port = allocate(task), allocate(task)
    task.mach_port_insert_right(port, port, MAKE_SEND)
    request(task, port, NO_SENDERS, inbox)
    request(task, port, PORT_DESTROYED, inbox)
    theirs = give(task, peer, port, MOVE_RECEIVE)
    status = peer.mach_port_get_attributes(theirs, lib.MACH_PORT_RECEIVE_STATUS)
    assert (status.nsrequest, status.pdrequest) == (1, 1)
    assert nothing_waits(task, inbox)
    task.mach_port_deallocate(port)
    assert nothing_waits(peer, theirs)
    assert receive(task, inbox).id == NO_SENDERS
    end(peer, theirs)
    message = receive(task, inbox)
    assert message.id == PORT_DESTROYED
    (home,) = names(message)
    assert task.mach_port_type(home) == RECEIVE
    end(task, home)
    end(task, inbox)


def test_a_port_whose_requests_are_dead_moves_on(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """Whoever asked about the port has died: it can be moved as often as before, and its end tells nobody."""
    port, inbox = allocate(task), allocate(other)
    for notification in (NO_SENDERS, PORT_DESTROYED):
        to = give(other, task, inbox, MAKE_SEND_ONCE)
        task.mach_port_request_notification(port, notification, 0, to, MOVE_SEND_ONCE)
    end(other, inbox)
    there = give(task, peer, port, MOVE_RECEIVE)
    back = give(peer, task, there, MOVE_RECEIVE)
    there = give(task, peer, back, MOVE_RECEIVE)
    peer.mach_port_insert_right(there, there, MAKE_SEND)
    peer.mach_port_deallocate(there)
    end(peer, there)


def test_a_set_loses_a_member_that_moves_away(task: LinuxKernel, peer: Peer) -> None:
    """Who waits on the set goes on waiting for the others."""
    pset = task.mach_port_allocate(lib.MACH_PORT_RIGHT_PORT_SET)
    stays, to = introduce(task, peer)
    leaves = allocate(task)
    for member in (stays, leaves):
        task.mach_port_insert_member(member, pset)
    found: list[int] = []
    waiter = in_thread(lambda: found.append(receive(task, pset).id))
    theirs = give(task, peer, leaves, MOVE_RECEIVE)
    send(peer, to, 5)
    waiter.join(30)
    assert found == [5]
    end(peer, theirs)
    peer.mach_port_deallocate(to)
    end(task, stays)
    task.mach_port_destroy(pset)


def test_a_receive_right_in_a_message_to_a_dying_port_dies_with_it(task: LinuxKernel, peer: Peer) -> None:
    """Its holders see dead names, what was queued on it is destroyed, its send-once rights are given up."""
    door, way = introduce(task, peer)
    port = allocate(peer)
    peer.mach_port_insert_right(port, port, MAKE_SEND)
    inbox = allocate(peer)
    send(peer, port, descriptors=[PortDescriptor(inbox, MAKE_SEND_ONCE)])
    send(peer, way, descriptors=[PortDescriptor(port, MOVE_RECEIVE)])
    assert nothing_waits(peer, inbox)
    end(task, door)
    assert receive(peer, inbox).id == SEND_ONCE_NOTIFICATION
    assert peer.mach_port_type(port) == DEAD_NAME
    for name in (port, way):
        peer.mach_port_deallocate(name)
    end(peer, inbox)


@pytest.mark.parametrize("depth", [2, 40, 400])
def test_ports_within_ports_within_ports(task: LinuxKernel, peer: Peer, depth: int) -> None:
    """A receive right in a message in the queue of a port in a message in the queue...: all are destroyed together."""
    before = descriptors()
    innermost = allocate(task)
    watch = allocate(task)
    held = []
    task.mach_port_insert_right(innermost, innermost, MAKE_SEND)
    send(task, innermost, descriptors=[PortDescriptor(watch, MAKE_SEND_ONCE)])
    inner = innermost
    for _ in range(depth):
        outer = allocate(task)
        task.mach_port_insert_right(outer, outer, MAKE_SEND)
        send(task, outer, descriptors=[PortDescriptor(inner, MOVE_RECEIVE)])
        held.append(inner)
        inner = outer
    assert descriptors() == before, "what waits within a task takes no descriptor"
    end(task, inner)
    assert receive(task, watch).id == SEND_ONCE_NOTIFICATION
    assert [task.mach_port_type(name) for name in (*held, inner)] == [DEAD_NAME] * (depth + 1)
    assert descriptors() == before
    for name in (*held, inner):
        task.mach_port_deallocate(name)
    end(task, watch)


def test_a_chain_of_ports_is_unpacked_in_another_process(task: LinuxKernel, peer: Peer) -> None:
    """Matryoshka: each port holds the next one; the taker receives one after the other."""
    inner = allocate(task)
    for _ in range(10):
        outer = allocate(task)
        right, _ = task.mach_port_extract_right(outer, MAKE_SEND_ONCE)
        send(task, right, descriptors=[PortDescriptor(inner, MOVE_RECEIVE)], how=MOVE_SEND_ONCE)
        inner = outer
    there = give(task, peer, inner, MOVE_RECEIVE)
    for _ in range(10):
        (inside,) = names(receive(peer, there))
        end(peer, there)
        there = inside
    assert nothing_waits(peer, there)
    end(peer, there)


def test_a_port_sent_to_itself_is_destroyed(task: LinuxKernel) -> None:
    """A receive right in its own queue could never be received again: the send succeeds and everything dies."""
    port, inbox = allocate(task), allocate(task)
    task.mach_port_insert_right(port, port, MAKE_SEND)
    send(
        task, port, descriptors=[PortDescriptor(inbox, Disposition.MAKE_SEND_ONCE)]
    )  # what waits there is destroyed too
    send(task, port, descriptors=[PortDescriptor(port, MOVE_RECEIVE)])
    assert task.mach_port_type(port) == DEAD_NAME
    assert receive(task, inbox, 0).id == lib.MACH_NOTIFY_SEND_ONCE
    task.mach_port_deallocate(port)
    end(task, inbox)


def test_two_ports_in_each_others_queue_are_destroyed(task: LinuxKernel) -> None:
    """The second move would close the circle."""
    first, second = allocate(task), allocate(task)
    for port in (first, second):
        task.mach_port_insert_right(port, port, MAKE_SEND)
    send(task, second, descriptors=[PortDescriptor(first, MOVE_RECEIVE)])
    send(task, first, descriptors=[PortDescriptor(second, MOVE_RECEIVE)])
    for port in (first, second):
        assert task.mach_port_type(port) == DEAD_NAME
        task.mach_port_deallocate(port)


def test_a_move_that_only_looks_circular_goes_through(task: LinuxKernel, peer: Peer) -> None:
    """X was once in D's queue, but another process has received it since: D may be sent to it."""
    x, d = allocate(task), allocate(task)
    for port in (x, d):
        task.mach_port_insert_right(port, port, MAKE_SEND)
    send(task, d, descriptors=[PortDescriptor(x, MOVE_RECEIVE)])
    there = give(task, peer, d, MOVE_RECEIVE)
    (x_there,) = names(receive(peer, there))
    assert give(peer, task, there, MOVE_RECEIVE) == d
    send(task, x, 7, descriptors=[PortDescriptor(d, MOVE_RECEIVE)])
    message = receive(peer, x_there)
    assert message.id == 7
    for name in (*names(message), x_there):
        end(peer, name)
    for port in (x, d):
        assert task.mach_port_type(port) == DEAD_NAME
        task.mach_port_deallocate(port)


def test_a_bootstrap_name_does_not_move(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """Rights that were looked up reach the new owner; the name itself ends with the move, and may be taken again."""
    door = task.bootstrap_check_in("wandering")
    before = other.bootstrap_look_up("wandering")
    pending = other.bootstrap_look_up("wandering")
    assert before == pending
    there = give(task, peer, door, MOVE_RECEIVE)
    assert code_of(other.bootstrap_look_up, "wandering") == lib.BOOTSTRAP_UNKNOWN_SERVICE
    send(other, before, 3)
    assert receive(peer, there).id == 3
    again = task.bootstrap_check_in("wandering")
    fresh = other.bootstrap_look_up("wandering")
    assert fresh != before
    end(task, again)
    end(peer, there)
    assert dict(other.mach_port_names()) == {before: DEAD_NAME, fresh: DEAD_NAME}
    other.mach_port_mod_refs(before, lib.MACH_PORT_RIGHT_DEAD_NAME, -2)
    other.mach_port_deallocate(fresh)


def test_a_blocked_receiver_is_told_that_its_port_moved_away(task: LinuxKernel, peer: Peer) -> None:
    """MACH_RCV_PORT_CHANGED, at once, and nothing of the port is left here."""
    port = allocate(task)
    codes: list[int] = []
    waiter = in_thread(lambda: codes.append(code_of(receive, task, port)))
    wait_until_they_wait(waiter)
    theirs = give(task, peer, port, MOVE_RECEIVE)
    waiter.join(30)
    assert codes == [lib.MACH_RCV_PORT_CHANGED]
    end(peer, theirs)


@pytest.mark.parametrize("watched", [False, True])
def test_a_failed_move_leaves_the_port_as_it_was(task: LinuxKernel, peer: Peer, watched: bool) -> None:
    """The destination is full: the receive right, its queue, its set and its requests are still here."""
    door, to = introduce(peer, task)
    inbox, port = allocate(task), allocate(task)
    pset = task.mach_port_allocate(lib.MACH_PORT_RIGHT_PORT_SET)
    task.mach_port_insert_member(port, pset)
    task.mach_port_insert_right(port, port, MAKE_SEND)
    if watched:
        request(task, port, lib.MACH_NOTIFY_DEAD_NAME, inbox)
    request(task, port, PORT_DESTROYED, inbox)
    send(task, port, 1)
    filling = 0
    while True:
        try:
            send(task, to, 0, bytes(60000), timeout=0)
        except Exception:
            break
        filling += 1
    names_before = task.mach_port_names()
    move = [PortDescriptor(port, MOVE_RECEIVE)]
    assert code_of(send, task, to, 0, bytes(60000), move, timeout=0) == lib.MACH_SEND_TIMED_OUT
    before = descriptors()  # the port's own name has a socket by now, in case its send right leaves
    assert code_of(send, task, to, 0, bytes(60000), move, timeout=0) == lib.MACH_SEND_TIMED_OUT
    assert task.mach_port_names() == names_before and descriptors() == before
    send(task, port, 2)
    assert [receive(task, pset).id for _ in range(2)] == [1, 2]
    for _ in range(filling):
        receive(peer, door)
    task.mach_port_destroy(port)
    messages = {message.id: message for message in [receive(task, inbox) for _ in range(1 + watched)]}
    assert messages.keys() == {PORT_DESTROYED, lib.MACH_NOTIFY_PORT_DELETED} if watched else {PORT_DESTROYED}
    (home,) = names(messages[PORT_DESTROYED])
    task.mach_port_destroy(pset)
    task.mach_port_deallocate(to)
    end(task, home)
    end(task, inbox)
    end(peer, door)
