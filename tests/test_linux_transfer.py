"""Rights that travel between real processes: what each side holds afterwards, and whether it works."""

from __future__ import annotations

import pytest

from machrv._mach import lib
from machrv.kernel.linux import LinuxKernel
from machrv.message import Disposition, GuardedPortDescriptor, OutOfLinePortsDescriptor, PortDescriptor

from .linux_tasks import bootstrap, nursery, other, peer, task  # noqa: F401 (fixtures)
from .linux_tasks import (
    DEAD_NAME,
    RECEIVE,
    SEND,
    SEND_ONCE,
    SEND_ONCE_NOTIFICATION,
    Peer,
    Task,
    allocate,
    code_of,
    descriptors,
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

MOVE_RECEIVE = Disposition.MOVE_RECEIVE
MOVE_SEND = Disposition.MOVE_SEND
MOVE_SEND_ONCE = Disposition.MOVE_SEND_ONCE
COPY_SEND = Disposition.COPY_SEND
MAKE_SEND = Disposition.MAKE_SEND
MAKE_SEND_ONCE = Disposition.MAKE_SEND_ONCE


def carry(sender: Task, receiver: Task, to: int, port: int, name: int, how: int, carrier: str) -> int:
    """Send the right `name` in some place of a message; what the receiver calls it."""
    if carrier == "descriptor":
        send(sender, to, 1, descriptors=[PortDescriptor(name, how)])
    elif carrier == "array":
        send(sender, to, 1, descriptors=[OutOfLinePortsDescriptor([name], how)])
    else:
        send(sender, to, 1, reply=name, reply_how=how)
    message = receive(receiver, port)
    assert message.id == 1 and message.audit_token is not None
    got = message.remote_port if carrier == "reply" else names(message)[0]
    return got


CARRIERS = ["descriptor", "array", "reply"]


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("how", [MAKE_SEND, MAKE_SEND_ONCE])
def test_a_right_that_is_made_arrives_and_the_receive_right_stays(
    task: LinuxKernel, peer: Peer, how: int, carrier: str
) -> None:
    """The maker's name stays as it was; the taker has one reference of a new right, and what it sends comes in."""
    port, to = introduce(task, peer)
    theirs = allocate(peer)
    mine = carry(peer, task, to, port, theirs, how, carrier)
    assert peer.mach_port_type(theirs) == RECEIVE
    assert task.mach_port_type(mine) == (SEND if how == MAKE_SEND else SEND_ONCE)
    assert refs(task, mine, lib.MACH_PORT_RIGHT_SEND if how == MAKE_SEND else lib.MACH_PORT_RIGHT_SEND_ONCE) == 1
    send(task, mine, 7, b"word", how=MOVE_SEND if how == MAKE_SEND else MOVE_SEND_ONCE)
    answer = receive(peer, theirs)
    assert (answer.id, answer.body, answer.local_disposition) == (7, b"word", 17 if how == MAKE_SEND else 18)
    assert task.mach_port_names() == [(port, RECEIVE)]
    peer.mach_port_deallocate(to)
    end(peer, theirs)
    end(task, port)


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("how", [MOVE_SEND, COPY_SEND])
def test_a_send_right_is_moved_or_copied_to_a_third_process(
    task: LinuxKernel, peer: Peer, other: Peer, how: int, carrier: str
) -> None:
    """Moved, it is gone from the giver; copied, it stays; the port receives from whoever has it."""
    port, to = introduce(task, peer)
    far, theirs = introduce(other, peer)
    mine = carry(peer, task, to, port, theirs, how, carrier)
    assert task.mach_port_type(mine) == SEND and refs(task, mine) == 1
    if how == MOVE_SEND:
        assert code_of(peer.mach_port_type, theirs) == lib.KERN_INVALID_NAME
    else:
        assert refs(peer, theirs) == 1
        send(peer, theirs, 8)
        assert receive(other, far).audit_token.pid == peer.pid  # type: ignore[union-attr]
        peer.mach_port_deallocate(theirs)
    send(task, mine, 9)
    assert receive(other, far).audit_token == task.audit_token()
    task.mach_port_deallocate(mine)
    peer.mach_port_deallocate(to)
    end(other, far)
    end(task, port)


def test_of_several_references_a_move_takes_one(task: LinuxKernel, peer: Peer) -> None:
    """The giver keeps the others, and they still work."""
    port, to = introduce(task, peer)
    far, theirs = introduce(task, peer)
    peer.mach_port_mod_refs(theirs, lib.MACH_PORT_RIGHT_SEND, 2)
    send(peer, to, descriptors=[PortDescriptor(theirs, MOVE_SEND), PortDescriptor(theirs, MOVE_SEND)])
    assert names(receive(task, port)) == [far, far]
    assert refs(task, far) == 2 and refs(peer, theirs) == 1
    send(peer, theirs, 3)
    assert receive(task, far).id == 3
    task.mach_port_mod_refs(far, lib.MACH_PORT_RIGHT_SEND, -2)
    end(task, far)
    peer.mach_port_deallocate(theirs)
    peer.mach_port_deallocate(to)
    end(task, port)


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_send_once_right_is_moved_on_and_used_by_the_last(
    task: LinuxKernel, peer: Peer, other: Peer, carrier: str
) -> None:
    """It is one right wherever it goes: used once, by the third process, and gone."""
    port, to = introduce(task, peer)
    far, theirs = introduce(other, peer, MAKE_SEND_ONCE)
    mine = carry(peer, task, to, port, theirs, MOVE_SEND_ONCE, carrier)
    assert task.mach_port_type(mine) == SEND_ONCE
    assert code_of(peer.mach_port_type, theirs) == lib.KERN_INVALID_NAME
    send(task, mine, 4, how=MOVE_SEND_ONCE)
    assert code_of(task.mach_port_type, mine) == lib.KERN_INVALID_NAME
    assert receive(other, far).id == 4
    assert nothing_waits(other, far)
    peer.mach_port_deallocate(to)
    end(other, far)
    end(task, port)


@pytest.mark.parametrize("how", [MAKE_SEND, MAKE_SEND_ONCE, COPY_SEND, MOVE_SEND, MOVE_SEND_ONCE])
def test_a_right_in_a_message_that_nobody_receives_dies_with_the_port(task: LinuxKernel, peer: Peer, how: int) -> None:
    """The port is destroyed with the message in it: the right in it is given up, and its maker is told."""
    port, to = introduce(task, peer)
    theirs = allocate(peer)
    name = theirs
    if how in (COPY_SEND, MOVE_SEND):
        peer.mach_port_insert_right(theirs, theirs, MAKE_SEND)
    elif how == MOVE_SEND_ONCE:
        name, _ = peer.mach_port_extract_right(theirs, MAKE_SEND_ONCE)
    send(peer, to, descriptors=[PortDescriptor(name, how)])
    if how == COPY_SEND:
        peer.mach_port_mod_refs(theirs, lib.MACH_PORT_RIGHT_SEND, -1)
    before = descriptors()
    end(task, port)
    assert descriptors() < before
    if how in (MAKE_SEND_ONCE, MOVE_SEND_ONCE):
        assert receive(peer, theirs).id == SEND_ONCE_NOTIFICATION
    else:
        assert not peer.mach_port_get_attributes(theirs, lib.MACH_PORT_RECEIVE_STATUS).srights
    peer.mach_port_deallocate(to)
    end(peer, theirs)


def test_send_rights_made_one_by_one_meet_under_one_name(task: LinuxKernel, peer: Peer) -> None:
    """However often the port's owner makes a send right, the taker has one name for the port, with so many references."""
    port, to = introduce(task, peer)
    theirs = allocate(peer)
    send(peer, to, descriptors=[PortDescriptor(theirs, MAKE_SEND)] * 3)
    first = names(receive(task, port))
    assert len(set(first)) == 1 and refs(task, first[0]) == 3
    send(peer, to, reply=theirs, reply_how=MAKE_SEND)
    assert receive(task, port).remote_port == first[0]
    send(peer, to, descriptors=[OutOfLinePortsDescriptor([theirs, theirs], MAKE_SEND)])
    assert names(receive(task, port)) == [first[0]] * 2
    assert refs(task, first[0]) == 6
    assert peer.mach_port_get_attributes(theirs, lib.MACH_PORT_RECEIVE_STATUS).mscount == 6
    task.mach_port_mod_refs(first[0], lib.MACH_PORT_RIGHT_SEND, -6)
    peer.mach_port_deallocate(to)
    end(peer, theirs)
    end(task, port)


def test_a_right_that_took_a_detour_meets_the_one_that_came_directly(
    task: LinuxKernel, peer: Peer, other: Peer
) -> None:
    """Made by one process, copied by a second, received by a third which has one already: the same name."""
    far, mine = introduce(other, task)
    theirs = give(other, peer, far, MAKE_SEND)
    again = give(peer, task, theirs, COPY_SEND)
    assert again == mine and refs(task, mine) == 2
    task.mach_port_mod_refs(mine, lib.MACH_PORT_RIGHT_SEND, -2)
    peer.mach_port_deallocate(theirs)
    end(other, far)


def test_a_looked_up_right_and_a_made_one_are_one_port(task: LinuxKernel, peer: Peer) -> None:
    """The bootstrap name is another way to the same port."""
    door = peer.bootstrap_check_in("door")
    mine = give(peer, task, door, MAKE_SEND)
    assert task.bootstrap_look_up("door") == mine
    assert task.bootstrap_look_up("door") == mine
    assert refs(task, mine) == 3
    task.mach_port_mod_refs(mine, lib.MACH_PORT_RIGHT_SEND, -3)
    end(peer, door)


def test_a_send_right_that_comes_home_merges_with_the_receive_right(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """Given to one process, passed on to another, sent back: a send reference of the port's own name."""
    port, theirs = introduce(task, peer)
    far = give(peer, other, theirs, MOVE_SEND)
    assert give(other, task, far, COPY_SEND) == port
    assert task.mach_port_type(port) == RECEIVE | SEND and refs(task, port) == 1
    send(task, port, 1)
    assert receive(task, port).id == 1
    send(other, far, 2)
    assert receive(task, port).id == 2
    task.mach_port_mod_refs(port, lib.MACH_PORT_RIGHT_SEND, -1)
    other.mach_port_deallocate(far)
    end(task, port)


def test_a_send_once_right_that_comes_home_keeps_its_own_name(task: LinuxKernel, peer: Peer) -> None:
    """Send-once rights never merge, not even with the receive right."""
    port, theirs = introduce(task, peer, MAKE_SEND_ONCE)
    home = give(peer, task, theirs, MOVE_SEND_ONCE)
    assert home != port and task.mach_port_type(home) == SEND_ONCE
    send(task, home, 6, how=MOVE_SEND_ONCE)
    assert receive(task, port).id == 6
    end(task, port)


def test_253_descriptors_travel_in_one_message_and_254_do_not(task: LinuxKernel, peer: Peer) -> None:
    """What one packet of the kernel's can carry; one more is refused before anything is moved."""
    port, to = introduce(task, peer)
    theirs = allocate(peer)
    peer.mach_port_insert_right(theirs, theirs, MAKE_SEND)
    rights = [peer.mach_port_extract_right(theirs, MAKE_SEND_ONCE)[0] for _ in range(254)]
    moves = [PortDescriptor(name, MOVE_SEND_ONCE) for name in rights]
    big = bytes(100_000)  # travels in a memfd, which is one more
    owned = []
    for _ in range(2):
        assert code_of(send, peer, to, descriptors=moves) == lib.MACH_SEND_TOO_LARGE
        reply = {"reply": theirs, "reply_how": COPY_SEND}
        assert code_of(send, peer, to, descriptors=moves[:253], **reply) == lib.MACH_SEND_TOO_LARGE
        array = [OutOfLinePortsDescriptor(rights, MOVE_SEND_ONCE)]
        assert code_of(send, peer, to, descriptors=array) == lib.MACH_SEND_TOO_LARGE
        assert code_of(send, peer, to, body=big, descriptors=moves[:253]) == lib.MACH_SEND_TOO_LARGE
        owned.append((set(peer.mach_port_names()), peer.state()["descriptors"]))
    assert owned[0] == owned[1] and {name for name, _ in owned[0][0]} == {theirs, to, *rights}
    assert nothing_waits(task, port)
    send(peer, to, descriptors=moves[:253])
    got = names(receive(task, port))
    assert len(set(got)) == 253
    for name in got:
        send(task, name, how=MOVE_SEND_ONCE)
    assert [receive(peer, theirs).id for _ in range(253)] == [0] * 253
    peer.mach_port_deallocate(rights[253])
    assert receive(peer, theirs).id == SEND_ONCE_NOTIFICATION
    peer.mach_port_deallocate(to)
    peer.mach_port_destroy(theirs)
    end(task, port)


def test_null_and_dead_names_take_no_descriptor(task: LinuxKernel, peer: Peer) -> None:
    """They arrive as what they are; any number of them fits."""
    port, to = introduce(task, peer)
    nothing = [PortDescriptor(0, COPY_SEND), PortDescriptor(0xFFFFFFFF, COPY_SEND)] * 200
    send(peer, to, descriptors=nothing)
    assert names(receive(task, port)) == [0, 0xFFFFFFFF] * 200
    peer.mach_port_deallocate(to)
    end(task, port)


def test_a_right_whose_port_died_on_the_way_arrives_dead(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """The message waits while the port dies: the receiver gets MACH_PORT_DEAD in its place."""
    port, to = introduce(task, peer)
    far, theirs = introduce(other, peer)
    once = give(other, peer, far, MAKE_SEND_ONCE)
    moved = [PortDescriptor(theirs, MOVE_SEND), PortDescriptor(once, MOVE_SEND_ONCE)]
    send(peer, to, descriptors=moved)
    end(other, far)
    message = receive(task, port)
    assert names(message) == [0xFFFFFFFF, 0xFFFFFFFF]
    peer.mach_port_deallocate(to)
    end(task, port)


def test_a_guarded_receive_right_arrives_with_its_flags(task: LinuxKernel, peer: Peer) -> None:
    """A guarded port descriptor carries a receive right like another one."""
    port, to = introduce(task, peer)
    theirs = allocate(peer)
    send(peer, to, descriptors=[GuardedPortDescriptor(theirs, MOVE_RECEIVE, flags=1)])
    message = receive(task, port)
    (descriptor,) = message.descriptors
    assert isinstance(descriptor, GuardedPortDescriptor) and descriptor.flags == 1
    assert task.mach_port_type(descriptor.name) == RECEIVE
    end(task, descriptor.name)
    peer.mach_port_deallocate(to)
    end(task, port)


def test_one_name_as_destination_and_reply_port(task: LinuxKernel, peer: Peer) -> None:
    """A send right moved twice by one message: both the destination and the reply are it."""
    port, to = introduce(task, peer)
    peer.mach_port_mod_refs(to, lib.MACH_PORT_RIGHT_SEND, 1)
    send(peer, to, 5, how=MOVE_SEND, reply=to, reply_how=MOVE_SEND)
    message = receive(task, port)
    assert (message.id, message.remote_port, message.remote_disposition) == (5, port, MOVE_SEND)
    assert peer.mach_port_names() == []
    task.mach_port_deallocate(port)
    end(task, port)


def test_a_dead_name_sent_as_a_right_arrives_as_dead(task: LinuxKernel, peer: Peer) -> None:
    """Whoever sends a right without knowing that its port is gone is not told off; the receiver sees it."""
    port, to = introduce(task, peer)
    far, theirs = introduce(task, peer)
    end(task, far)
    send(peer, to, descriptors=[PortDescriptor(theirs, COPY_SEND), PortDescriptor(theirs, MOVE_SEND)])
    assert names(receive(task, port)) == [0xFFFFFFFF] * 2
    assert peer.mach_port_names() == [(to, SEND)]
    peer.mach_port_deallocate(to)
    end(task, port)


def test_a_watched_right_that_is_moved_away_tells_that_its_name_is_deleted(task: LinuxKernel, peer: Peer) -> None:
    """Who asked for DEAD_NAME under a name that moves away gets PORT_DELETED, and nothing when the port dies later."""
    port, to = introduce(task, peer)
    far, theirs = introduce(task, peer)
    inbox = allocate(peer)
    request(peer, theirs, lib.MACH_NOTIFY_DEAD_NAME, inbox)
    send(peer, to, descriptors=[PortDescriptor(theirs, MOVE_SEND)])
    assert receive(peer, inbox).id == lib.MACH_NOTIFY_PORT_DELETED
    assert names(receive(task, port)) == [far]
    task.mach_port_destroy(far)
    assert nothing_waits(peer, inbox)
    peer.mach_port_deallocate(to)
    end(peer, inbox)
    end(task, port)


def test_dead_names_of_another_process_cost_nothing(task: LinuxKernel, peer: Peer) -> None:
    """A right to a port that dies becomes a dead name with its references, and frees its socket at the next look."""
    port, theirs = introduce(task, peer)
    peer.mach_port_mod_refs(theirs, lib.MACH_PORT_RIGHT_SEND, 4)
    end(task, port)
    assert code_of(send, peer, theirs) == lib.MACH_SEND_INVALID_DEST
    assert peer.mach_port_type(theirs) == DEAD_NAME
    assert refs(peer, theirs, lib.MACH_PORT_RIGHT_DEAD_NAME) == 5
    assert peer.state()["descriptors"] == peer.before["descriptors"]
    peer.mach_port_mod_refs(theirs, lib.MACH_PORT_RIGHT_DEAD_NAME, -5)
