"""One port, one queue: the order among rights, processes and sets, and who is served when somebody floods."""

from __future__ import annotations

import random
import time

import pytest

from machrv._mach import lib
from machrv.kernel.linux import LinuxKernel
from machrv.message import Disposition, PortDescriptor

from .conftest import SLACK
from .linux_tasks import bootstrap, nursery, other, peer, task  # noqa: F401 (fixtures)
from .linux_tasks import (
    SEND_ONCE_NOTIFICATION,
    Peer,
    Task,
    allocate,
    end,
    give,
    in_thread,
    introduce,
    names,
    nothing_waits,
    receive,
    refs,
    send,
    started,
    wait_until_they_wait,
)

MAKE_SEND, MAKE_SEND_ONCE = Disposition.MAKE_SEND, Disposition.MAKE_SEND_ONCE
MOVE_SEND_ONCE, MOVE_RECEIVE, COPY_SEND = Disposition.MOVE_SEND_ONCE, Disposition.MOVE_RECEIVE, Disposition.COPY_SEND


@pytest.mark.parametrize("seed", range(4))
def test_what_is_sent_one_after_the_other_is_received_so(task: LinuxKernel, peer: Peer, other: Peer, seed: int) -> None:
    """Over rights of every kind, made and looked up, of three processes: the order of sending is that of receiving."""
    port = task.bootstrap_check_in("door")
    task.mach_port_insert_right(port, port, MAKE_SEND)
    senders: list[tuple[Task, int]] = [(task, port)]
    for who in (peer, other):
        senders.append((who, who.bootstrap_look_up("door")))
        senders.append((who, give(task, who, port, MAKE_SEND)))
    assert senders[1][1] == senders[2][1]
    choose = random.Random(seed)
    once = [(who, give(task, who, port, MAKE_SEND_ONCE)) for who in (peer, other) for _ in range(5)]
    sent = 0
    for _ in range(6):
        burst = choose.randrange(1, 40)
        for _ in range(burst):
            if once and choose.random() < 0.1:
                who, to = once.pop()
                send(who, to, sent, how=MOVE_SEND_ONCE)
            else:
                who, to = choose.choice(senders)
                send(who, to, sent)
            sent += 1
        received = [receive(task, port) for _ in range(choose.randrange(burst + 1))]
        assert [message.id for message in received] == list(range(sent - burst, sent - burst + len(received)))
        rest = [receive(task, port).id for _ in range(burst - len(received))]
        assert rest == list(range(sent - burst + len(received), sent))
    for who, to in once:
        who.mach_port_deallocate(to)
        assert receive(task, port).id == SEND_ONCE_NOTIFICATION
    for who in (peer, other):
        ((name, _),) = who.mach_port_names()
        who.mach_port_mod_refs(name, lib.MACH_PORT_RIGHT_SEND, -refs(who, name))
    task.mach_port_destroy(port)


def test_what_was_sent_before_the_server_looked_keeps_its_order(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """Rights are looked up and used before the server has accepted anybody: the senders' own order is kept, and a
    message sent after another one was received comes after it."""
    door = task.bootstrap_check_in("door")
    first, second = peer.bootstrap_look_up("door"), other.bootstrap_look_up("door")
    for number in range(50):
        send(peer, first, 2 * number)
        send(other, second, 2 * number + 1)
    got = [receive(task, door) for _ in range(100)]
    assert [message.id for message in got] == list(range(100))
    assert [message.audit_token.pid for message in got[:2]] == [peer.pid, other.pid]  # type: ignore[union-attr]
    peer.mach_port_deallocate(first)
    other.mach_port_deallocate(second)
    end(task, door)


def test_a_right_that_was_used_and_given_up_before_the_server_looked(task: LinuxKernel, peer: Peer) -> None:
    """The message is there though nobody holds the right any more, even its sender is gone."""
    door = task.bootstrap_check_in("door")
    to = peer.bootstrap_look_up("door")
    send(peer, to, 1, b"word", [PortDescriptor(to, COPY_SEND)])
    peer.kill()
    message = receive(task, door)
    assert (message.id, message.body, names(message)) == (1, b"word", [door])
    assert message.audit_token is not None and message.audit_token.pid == peer.pid
    task.mach_port_deallocate(door)
    end(task, door)


def test_a_flood_over_one_right_starves_no_other(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """One sender keeps its socket full; another's messages are received after those that were sent before them."""
    port, flooder = introduce(task, peer)
    modest = give(task, other, port, MAKE_SEND)
    before = peer.flood(flooder, 10**6)
    send(other, modest, 10**7)
    taken = 0
    while receive(task, port).id != 10**7:
        taken += 1
        assert taken <= before
        peer.begin("flood", flooder, 1)  # and there is always more behind
    assert taken == before
    more = sum(peer.end() for _ in range(before))
    for _ in range(more):
        receive(task, port)
    assert nothing_waits(task, port)
    peer.mach_port_deallocate(flooder)
    other.mach_port_deallocate(modest)
    end(task, port)


def test_a_sender_waits_for_room_and_loses_nothing(task: LinuxKernel, peer: Peer) -> None:
    """A sender that waits is let in as the receiver takes messages; each arrives once, in order."""
    port, to = introduce(task, peer)
    full = peer.flood(to, 10**6)
    began = time.monotonic()
    peer.begin("run", SEND_MANY, to=to, first=full, count=500)
    assert [receive(task, port).id for _ in range(full + 500)] == list(range(full + 500))
    peer.end()
    assert time.monotonic() - began < 2 * SLACK  # and not at the end of its time, with a last look
    peer.mach_port_deallocate(to)
    end(task, port)


def test_each_of_many_senders_keeps_its_own_order(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """Several processes send at the same time: whatever the mixture, each one's messages come in its order."""
    port, first = introduce(task, peer)
    second = give(task, other, port, MAKE_SEND)
    third = give(task, other, port, MAKE_SEND)
    assert second == third
    for who, to in ((peer, first), (other, second)):
        who.begin("run", SEND_MANY, to=to, first=0, count=3000)
    seen: dict[int, list[int]] = {peer.pid: [], other.pid: []}
    for _ in range(6000):
        message = receive(task, port)
        assert message.audit_token is not None
        seen[message.audit_token.pid].append(message.id)
    assert seen == {peer.pid: list(range(3000)), other.pid: list(range(3000))}
    for who in (peer, other):
        who.end()
    peer.mach_port_deallocate(first)
    other.mach_port_mod_refs(second, lib.MACH_PORT_RIGHT_SEND, -2)
    end(task, port)


SEND_MANY = """
from machrv.message import Message
for number in range(first, first + count):
    served.send_message(Message(number), to, 19, 30)
"""


def test_a_set_serves_its_members_one_after_the_other(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """As on Mach: the member that had a message first is received from until it has none, then the next one."""
    pset = task.mach_port_allocate(lib.MACH_PORT_RIGHT_PORT_SET)
    ways: list[tuple[Peer, int, int]] = []
    for who in (peer, other, peer):
        port, to = introduce(task, who)
        task.mach_port_insert_member(port, pset)
        ways.append((who, port, to))
    choose = random.Random(5)
    sent: dict[int, list[int]] = {}
    for number in range(60):
        who, port, to = choose.choice(ways)
        send(who, to, number)
        sent.setdefault(port, []).append(number)
    got = [receive(task, pset) for _ in range(60)]
    assert [(message.local_port, message.id) for message in got] == [(port, id) for port in sent for id in sent[port]]
    for who, port, to in ways:
        who.mach_port_deallocate(to)
        end(task, port)
    task.mach_port_destroy(pset)


def test_what_is_sent_while_others_wait_on_several_rights_comes_behind_them(
    task: LinuxKernel, peer: Peer, other: Peer
) -> None:
    """However many are received in between: each message has its place when it is sent."""
    port, to = introduce(task, peer)
    ways = [(peer, to), (other, give(task, other, port, MAKE_SEND))]
    sent, got = 0, []
    for _ in range(40):
        for who, way in ways:
            send(who, way, sent)
            sent += 1
        got.append(receive(task, port).id)
        send(*ways[sent // 2 % 2], sent)
        sent += 1
    got += [receive(task, port).id for _ in range(sent - len(got))]
    assert got == list(range(sent))
    for who, way in ways:
        who.mach_port_deallocate(way)
    end(task, port)


def test_what_is_sent_while_a_lost_right_waits_to_be_told_comes_behind_it(task: LinuxKernel, peer: Peer) -> None:
    """The holder of a send-once right was killed: SEND_ONCE has its place as soon as it was seen, as a message has."""
    port, to = introduce(task, peer)
    with started() as killed:
        give(task, killed, port, MAKE_SEND_ONCE)
        send(peer, to, 1)
        killed.kill()
    assert receive(task, port).id == 1
    send(peer, to, 2)
    assert [receive(task, port).id for _ in range(2)] == [SEND_ONCE_NOTIFICATION, 2]
    peer.mach_port_deallocate(to)
    end(task, port)


@pytest.mark.parametrize("count", [5, 70])
def test_every_member_of_a_large_set_is_seen(task: LinuxKernel, peer: Peer, count: int) -> None:
    """What is sent to each comes out of the set, in the order in which they began to have something."""
    pset = task.mach_port_allocate(lib.MACH_PORT_RIGHT_PORT_SET)
    members = [introduce(task, peer) for _ in range(count)]
    for port, _ in members:
        task.mach_port_insert_member(port, pset)
    random.Random(count).shuffle(members)
    for number, (_, to) in enumerate(members):
        send(peer, to, number)
    got = [receive(task, pset, 0) for _ in members]
    assert [(message.local_port, message.id) for message in got] == [
        (port, number) for number, (port, _) in enumerate(members)
    ]
    assert nothing_waits(task, pset)
    for port, to in members:
        peer.mach_port_deallocate(to)
        end(task, port)
    task.mach_port_destroy(pset)


def test_processes_take_turns_where_that_is_asked_for(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """Whoever has sent ten messages by then, one after the other, is not in front of who comes behind."""
    door = task.bootstrap_check_in("door")
    task.take_turns(door)
    for who in (peer, other):
        for number in range(10):
            way = who.bootstrap_look_up("door")
            send(who, way, number)
            who.mach_port_deallocate(way)
    got = [receive(task, door) for _ in range(20)]
    for one, two in zip(got[0::2], got[1::2]):
        assert {message.audit_token.pid for message in (one, two)} == {peer.pid, other.pid}  # type: ignore[union-attr]
    assert sorted(message.id for message in got) == sorted(2 * list(range(10)))
    end(task, door)


def test_a_port_in_two_sets_is_received_from_either(task: LinuxKernel, peer: Peer) -> None:
    """Each message comes out once, through the set or the port that is asked first."""
    port, to = introduce(task, peer)
    sets = [task.mach_port_allocate(lib.MACH_PORT_RIGHT_PORT_SET) for _ in range(2)]
    for pset in sets:
        task.mach_port_insert_member(port, pset)
    for number in range(3):
        send(peer, to, number)
    assert [receive(task, name).id for name in (*sets, port)] == [0, 1, 2]
    assert all(nothing_waits(task, name) for name in (*sets, port))
    peer.mach_port_deallocate(to)
    for name in (*sets, port):
        task.mach_port_destroy(name)


def test_a_receiver_that_waits_sees_every_new_right(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """While a thread is blocked on a port with one right, more are made and looked up: what comes over them wakes it."""
    door = task.bootstrap_check_in("door")
    first = give(task, peer, door, MAKE_SEND)
    for number in range(4):
        found: list[int] = []
        waiter = in_thread(lambda: found.append(receive(task, door).id))
        wait_until_they_wait(waiter)
        if number == 0:
            task.mach_port_insert_right(door, door, MAKE_SEND)
            send(task, door, 0)
        elif number == 1:
            once, _ = task.mach_port_extract_right(door, MAKE_SEND_ONCE)
            send(task, once, 1, how=MOVE_SEND_ONCE)
        elif number == 2:
            far = other.bootstrap_look_up("door")
            send(other, far, 2)
        else:
            send(peer, first, 3)
        waiter.join(10)
        assert found == [number]
    other.mach_port_deallocate(far)
    peer.mach_port_deallocate(first)
    task.mach_port_destroy(door)


@pytest.mark.parametrize("given_up", [False, True])
def test_a_receiver_that_waits_on_the_only_right_sees_a_second_one(
    task: LinuxKernel, peer: Peer, given_up: bool
) -> None:
    """No bootstrap name, one right: the second is made while a thread waits, whatever becomes of the first."""
    port, to = introduce(task, peer)
    found: list[int] = []
    waiter = in_thread(lambda: found.append(receive(task, port).id))
    wait_until_they_wait(waiter)
    once, _ = task.mach_port_extract_right(port, MAKE_SEND_ONCE)
    if given_up:
        peer.mach_port_deallocate(to)
    send(task, once, 4, how=MOVE_SEND_ONCE)
    waiter.join(10)
    if not given_up:
        peer.mach_port_deallocate(to)
    assert found == [4]
    end(task, port)


def test_two_receivers_share_the_messages(task: LinuxKernel, peer: Peer) -> None:
    """Threads that receive from one port get each message once."""
    port, to = introduce(task, peer)
    found: list[list[int]] = [[], []]

    def take(into: list[int]) -> None:
        while True:
            number = receive(task, port).id
            if number < 0:
                return
            into.append(number)

    threads = [in_thread(take, into) for into in found]
    peer.begin("run", SEND_MANY, to=to, first=0, count=2000)
    peer.end()
    for _ in threads:
        send(peer, to, -1)
    for thread in threads:
        thread.join(30)
    assert sorted(found[0] + found[1]) == list(range(2000))
    assert all(part == sorted(part) for part in found)
    peer.mach_port_deallocate(to)
    end(task, port)


def test_sequence_numbers_count_what_is_received(task: LinuxKernel, peer: Peer) -> None:
    """Each received message has the next number, whatever right it came over; a destroyed one counts too."""
    port, to = introduce(task, peer)
    task.mach_port_insert_right(port, port, MAKE_SEND)
    for number in range(6):
        send(*((peer, to) if number % 2 else (task, port)), number)
    for expected in range(6):
        message = receive(task, port)
        assert message.trailer is not None and (message.id, message.trailer.seqno) == (expected, expected)
    assert task.mach_port_get_attributes(port, lib.MACH_PORT_RECEIVE_STATUS).seqno == 6  # type: ignore[union-attr]
    peer.mach_port_deallocate(to)
    task.mach_port_destroy(port)


def test_a_port_of_many_rights_is_drained_in_order(task: LinuxKernel) -> None:
    """A thousand send-once rights, used in a random order: received in that order."""
    port = allocate(task)
    rights = [task.mach_port_extract_right(port, MAKE_SEND_ONCE)[0] for _ in range(1000)]
    random.Random(1).shuffle(rights)
    for number, right in enumerate(rights):
        send(task, right, number, how=MOVE_SEND_ONCE)
    assert [receive(task, port, 0).id for _ in range(1000)] == list(range(1000))
    end(task, port)
