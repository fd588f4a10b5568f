"""Processes that are killed, ports that die, rights that run out: what each of the others is told."""

from __future__ import annotations

import pytest

from machrv._mach import lib
from machrv.doctor.linux import GONE
from machrv.kernel.linux import LinuxKernel
from machrv.message import Disposition, OutOfLinePortsDescriptor, PortDescriptor

from .conftest import idles
from .linux_features import HAS
from .linux_tasks import bootstrap, nursery, other, peer, task  # noqa: F401 (fixtures)
from .linux_tasks import (
    DEAD_NAME,
    DEAD_NAME_NOTIFICATION,
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
)

MAKE_SEND, MAKE_SEND_ONCE, COPY_SEND = Disposition.MAKE_SEND, Disposition.MAKE_SEND_ONCE, Disposition.COPY_SEND
MOVE_SEND, MOVE_SEND_ONCE, MOVE_RECEIVE = Disposition.MOVE_SEND, Disposition.MOVE_SEND_ONCE, Disposition.MOVE_RECEIVE


# -- the receiver dies ----------------------------------------------------------------------------------------------------


def test_a_killed_receiver_leaves_dead_names(task: LinuxKernel, peer: Peer) -> None:
    """Send rights, send-once rights and looked-up rights alike: dead names with their references, which close."""
    port, send_right = introduce(peer, task)
    once = give(peer, task, port, MAKE_SEND_ONCE)
    peer.bootstrap_check_in("door")
    way = task.bootstrap_look_up("door")
    task.mach_port_mod_refs(send_right, lib.MACH_PORT_RIGHT_SEND, 2)
    peer.kill()
    assert dict(task.mach_port_names()) == {send_right: DEAD_NAME, once: DEAD_NAME, way: DEAD_NAME}
    assert refs(task, send_right, lib.MACH_PORT_RIGHT_DEAD_NAME) == 3
    task.mach_port_mod_refs(send_right, lib.MACH_PORT_RIGHT_DEAD_NAME, -3)
    for name in (once, way):
        task.mach_port_deallocate(name)
    assert code_of(task.bootstrap_look_up, "door") == lib.BOOTSTRAP_UNKNOWN_SERVICE
    end(task, task.bootstrap_check_in("door"))


def test_sending_to_a_killed_receiver(task: LinuxKernel, peer: Peer) -> None:
    """MACH_SEND_INVALID_DEST, whether or not anybody has looked since; a moved right is still the sender's."""
    _, to = introduce(peer, task)
    mine = allocate(task)
    peer.kill()
    assert code_of(send, task, to, 1) == lib.MACH_SEND_INVALID_DEST
    assert code_of(send, task, to, 1, descriptors=[PortDescriptor(mine, MOVE_RECEIVE)]) == lib.MACH_SEND_INVALID_DEST
    assert task.mach_port_type(mine) == RECEIVE and task.mach_port_type(to) == DEAD_NAME
    task.mach_port_deallocate(to)
    end(task, mine)


def test_a_receiver_killed_with_messages_in_its_queue(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """Rights in messages that it never received are given up by the kernel: each maker is told."""
    _, to = introduce(peer, task)
    inbox = allocate(task)
    task.mach_port_insert_right(inbox, inbox, MAKE_SEND)
    kept = allocate(task)
    task.mach_port_insert_right(kept, kept, MAKE_SEND)
    far, theirs = introduce(other, task)
    request(other, far, NO_SENDERS, far)
    send(task, to, 1, descriptors=[PortDescriptor(inbox, MAKE_SEND_ONCE), PortDescriptor(kept, MOVE_RECEIVE)])
    send(task, to, 2, descriptors=[OutOfLinePortsDescriptor([theirs], MOVE_SEND)])
    send(task, to, 3, bytes(100_000), reply=inbox, reply_how=MAKE_SEND_ONCE)
    assert nothing_waits(task, inbox) and nothing_waits(other, far)
    peer.kill()
    assert [receive(task, inbox).id for _ in range(2)] == [SEND_ONCE_NOTIFICATION] * 2
    assert receive(other, far).id == NO_SENDERS
    assert task.mach_port_type(kept) == DEAD_NAME
    for name in (to, kept):
        task.mach_port_deallocate(name)
    task.mach_port_destroy(inbox)
    end(other, far)


def test_a_sender_that_waits_for_room_is_told_of_the_receivers_death(task: LinuxKernel, peer: Peer) -> None:
    """Blocked on a full queue: woken with MACH_SEND_INVALID_DEST, its reply right destroyed or kept, never lost."""
    _, to = introduce(peer, task)
    mine = allocate(task)
    while True:
        try:
            send(task, to, 0, bytes(50000), timeout=0)
        except Exception:
            break
    codes: list[int] = []
    waiter = in_thread(lambda: codes.append(code_of(send, task, to, 1, descriptors=[PortDescriptor(mine, MAKE_SEND)])))
    peer.kill()
    waiter.join(30)
    assert codes == [lib.MACH_SEND_INVALID_DEST]
    assert not task.mach_port_get_attributes(mine, lib.MACH_PORT_RECEIVE_STATUS).srights  # type: ignore[union-attr]
    task.mach_port_deallocate(to)
    end(task, mine)


def test_dead_name_notifications_when_the_receiver_is_killed(task: LinuxKernel, peer: Peer) -> None:
    """A blocked receiver gets them without anybody else doing anything; each brings its dead-name reference."""
    _, first = introduce(peer, task)
    _, second = introduce(peer, task)
    inbox = allocate(task)
    for name in (first, second):
        assert request(task, name, DEAD_NAME_NOTIFICATION, inbox) == 0
    found: list[int] = []

    def take() -> None:
        for _ in range(2):
            message = receive(task, inbox)
            assert message.id == DEAD_NAME_NOTIFICATION
            assert message.audit_token is not None and message.audit_token.is_kernel
            found.append(int.from_bytes(message.body[8:12], "little"))

    waiter = in_thread(take)
    peer.kill()
    waiter.join(30)
    assert sorted(found) == sorted([first, second])
    for name in (first, second):
        assert task.mach_port_type(name) == DEAD_NAME
        task.mach_port_mod_refs(name, lib.MACH_PORT_RIGHT_DEAD_NAME, -2)
    end(task, inbox)


def test_a_receive_right_under_way_dies_with_its_only_holder(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """It was in a message to a process that is killed before it receives: the port is dead for all."""
    _, to = introduce(peer, task)
    port, theirs = introduce(task, other)
    inbox = allocate(other)
    request(other, theirs, DEAD_NAME_NOTIFICATION, inbox)
    send(task, to, descriptors=[PortDescriptor(port, MOVE_RECEIVE)])
    send(other, theirs, 5)
    assert nothing_waits(other, inbox)
    peer.kill()
    assert receive(other, inbox).id == DEAD_NAME_NOTIFICATION
    other.mach_port_mod_refs(theirs, lib.MACH_PORT_RIGHT_DEAD_NAME, -2)
    end(other, inbox)
    task.mach_port_deallocate(to)


# -- the sender dies ------------------------------------------------------------------------------------------------------


def test_what_a_killed_sender_sent_arrives(task: LinuxKernel, peer: Peer) -> None:
    """Messages, rights and all; and the trailer says who it was, though it is gone."""
    port, to = introduce(task, peer)
    theirs = allocate(peer)
    token = peer.token()
    send(peer, to, 1, b"will", [PortDescriptor(theirs, MOVE_RECEIVE), PortDescriptor(to, COPY_SEND)])
    peer.kill()
    message = receive(task, port)
    assert (message.id, message.body) == (1, b"will")
    told = HAS[GONE] and HAS["pidfs"]  # which process it was
    assert message.audit_token is not None and tuple(message.audit_token) == (token if told else (*token[:7], 0))
    moved, home = names(message)
    assert task.mach_port_type(moved) == RECEIVE and home == port
    end(task, moved)
    task.mach_port_deallocate(port)
    end(task, port)


def test_a_killed_holder_of_a_send_once_right_means_a_notification(task: LinuxKernel, peer: Peer) -> None:
    """Held under a name, under way to it, or in a message that it never received: SEND_ONCE, once for each."""
    port, to = introduce(peer, task)
    inbox = allocate(task)
    held = give(task, peer, inbox, MAKE_SEND_ONCE)
    assert held
    send(task, to, reply=inbox, reply_how=MAKE_SEND_ONCE)
    send(task, to, descriptors=[PortDescriptor(inbox, MAKE_SEND_ONCE)])
    found: list[int] = []
    waiter = in_thread(lambda: [found.append(receive(task, inbox).id) for _ in range(3)])
    peer.kill()
    waiter.join(30)
    assert found == [SEND_ONCE_NOTIFICATION] * 3
    assert nothing_waits(task, inbox)
    end(task, inbox)
    task.mach_port_deallocate(to)


def test_a_send_once_notification_bears_the_kernels_token(task: LinuxKernel, peer: Peer) -> None:
    """It is what the kernel says of a right, not what its holder says; a header and nothing else."""
    inbox = allocate(task)
    give(task, peer, inbox, MAKE_SEND_ONCE)
    peer.kill()
    message = receive(task, inbox)
    assert message.id == SEND_ONCE_NOTIFICATION and message.body == b"" and message.descriptors == ()
    assert message.audit_token is not None and message.audit_token.is_kernel
    assert message.trailer is not None and message.trailer.security_token == (0, 1)
    end(task, inbox)


@pytest.mark.parametrize("how", ["deallocated", "killed", "moved away", "destroyed with its port"])
def test_no_senders_when_the_last_send_right_goes(task: LinuxKernel, peer: Peer, other: Peer, how: str) -> None:
    """Two processes hold rights; the notification comes with the second one's end, and says how many were made."""
    port, theirs = introduce(task, peer)
    far = give(task, other, port, MAKE_SEND)
    request(task, port, NO_SENDERS, port)
    other.mach_port_deallocate(far)
    assert nothing_waits(task, port)
    found: list[object] = []
    waiter = in_thread(lambda: found.append(receive(task, port)))
    if how == "deallocated":
        peer.mach_port_deallocate(theirs)
    elif how == "killed":
        peer.kill()
    elif how == "moved away":
        again = give(peer, other, theirs, MOVE_SEND)
        other.mach_port_destroy(again)
    else:
        door = allocate(peer)
        once, _ = peer.mach_port_extract_right(door, MAKE_SEND_ONCE)
        send(peer, once, descriptors=[PortDescriptor(theirs, MOVE_SEND)], how=MOVE_SEND_ONCE)
        end(peer, door)
    waiter.join(30)
    (message,) = found
    assert message.id == NO_SENDERS  # type: ignore[attr-defined]
    assert message.body[8:12] == (2).to_bytes(4, "little")  # type: ignore[attr-defined]
    end(task, port)


def test_no_senders_above_the_make_send_count_waits_for_a_sender(task: LinuxKernel) -> None:
    """Who asks with a `sync` that is more than were made asks about those yet to come: none is there, and nothing is told."""
    port, inbox = allocate(task), allocate(task)
    assert request(task, port, NO_SENDERS, inbox, sync=1) == 0
    assert nothing_waits(task, inbox)
    assert task.mach_port_get_attributes(port, lib.MACH_PORT_RECEIVE_STATUS).nsrequest  # type: ignore[union-attr]
    task.mach_port_insert_right(port, port, MAKE_SEND)
    assert nothing_waits(task, inbox)
    task.mach_port_deallocate(port)
    message = receive(task, inbox, 0)
    assert message.id == NO_SENDERS and message.body[8:12] == (1).to_bytes(4, "little")
    assert request(task, port, NO_SENDERS, inbox, sync=1) == 0  # as many were made: at once
    assert receive(task, inbox, 0).id == NO_SENDERS
    for name in (port, inbox):
        end(task, name)


def test_no_senders_waits_for_the_messages_that_were_sent(task: LinuxKernel, peer: Peer) -> None:
    """A message in the queue still holds the right that it came over."""
    port, theirs = introduce(task, peer)
    inbox = allocate(task)
    request(task, port, NO_SENDERS, inbox)
    send(peer, theirs, 1)
    peer.kill()
    assert nothing_waits(task, inbox)
    assert receive(task, port).id == 1
    assert receive(task, inbox).id == NO_SENDERS
    for name in (port, inbox):
        end(task, name)


def test_a_sender_killed_in_the_middle_of_a_stream(task: LinuxKernel, peer: Peer) -> None:
    """Whole messages from the first to some last one, then end-of-file: none cut, none twice, nothing left behind."""
    port, to = introduce(task, peer)
    request(task, port, NO_SENDERS, port)
    before = descriptors()
    mine = allocate(peer)
    peer.begin("run", STREAM, to=to, mine=mine)
    for number in range(200):
        message = receive(task, port)
        assert message.id == number and len(message.body) == number * 10 // 4 * 4
        for name in names(message):
            task.mach_port_deallocate(name)
    peer.kill()
    number = 200
    while (message := receive(task, port)).id != NO_SENDERS:
        assert message.id == number
        for name in names(message):
            task.mach_port_deallocate(name)
        number += 1
    assert descriptors() <= before
    end(task, port)


STREAM = """
from machrv.message import Disposition, Message, PortDescriptor
for number in range(10**9):
    rights = [PortDescriptor(mine, Disposition.MAKE_SEND)] * (number % 3)
    served.send_message(Message(number, bytes(number * 10 // 4 * 4 % 60000), rights), to, Disposition.COPY_SEND, 30)
"""


# -- dead names -----------------------------------------------------------------------------------------------------------


def test_a_dead_name_request_on_what_is_dead_already(task: LinuxKernel, peer: Peer) -> None:
    """Refused, unless an immediate notification was asked for: then it comes at once."""
    port, theirs = introduce(task, peer)
    inbox = allocate(peer)
    end(task, port)
    assert code_of(request, peer, theirs, DEAD_NAME_NOTIFICATION, inbox) == lib.KERN_INVALID_ARGUMENT
    assert receive(peer, inbox).id == SEND_ONCE_NOTIFICATION  # the right that was not needed
    assert request(peer, theirs, DEAD_NAME_NOTIFICATION, inbox, sync=1) == 0
    assert receive(peer, inbox).id == DEAD_NAME_NOTIFICATION
    assert refs(peer, theirs, lib.MACH_PORT_RIGHT_DEAD_NAME) == 2
    peer.mach_port_mod_refs(theirs, lib.MACH_PORT_RIGHT_DEAD_NAME, -2)
    end(peer, inbox)


def test_a_watched_name_whose_receive_right_goes_has_a_reference_more(task: LinuxKernel) -> None:
    """A name with both rights becomes a dead name: one reference for each to send, and the one that the notification brings."""
    port, inbox = allocate(task), allocate(task)
    for _ in range(2):
        task.mach_port_insert_right(port, port, MAKE_SEND)
    request(task, port, DEAD_NAME_NOTIFICATION, inbox)
    end(task, port)
    assert task.mach_port_type(port) == DEAD_NAME and refs(task, port, lib.MACH_PORT_RIGHT_DEAD_NAME) == 3
    message = receive(task, inbox, 0)
    assert message.id == DEAD_NAME_NOTIFICATION and message.body[8:12] == port.to_bytes(4, "little")
    task.mach_port_mod_refs(port, lib.MACH_PORT_RIGHT_DEAD_NAME, -3)
    end(task, inbox)


def test_a_request_is_replaced_and_cancelled(task: LinuxKernel, peer: Peer) -> None:
    """The right that was registered before comes back; cancelled, nothing is told when the port dies."""
    port, theirs = introduce(task, peer)
    inbox = allocate(peer)
    assert request(peer, theirs, DEAD_NAME_NOTIFICATION, inbox) == 0
    previous = request(peer, theirs, DEAD_NAME_NOTIFICATION, inbox)
    send(peer, previous, 77, how=MOVE_SEND_ONCE)
    assert receive(peer, inbox).id == 77
    previous = peer.mach_port_request_notification(theirs, DEAD_NAME_NOTIFICATION, 0, 0, 0)
    send(peer, previous, 78, how=MOVE_SEND_ONCE)
    assert receive(peer, inbox).id == 78
    end(task, port)
    assert peer.mach_port_type(theirs) == DEAD_NAME and nothing_waits(peer, inbox)
    peer.mach_port_deallocate(theirs)
    end(peer, inbox)


def test_a_notification_to_a_port_in_a_third_process(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """The request may name another process's send-once right: it is told when the port dies."""
    port, theirs = introduce(task, peer)
    inbox = allocate(other)
    to = give(other, peer, inbox, MAKE_SEND_ONCE)
    assert peer.mach_port_request_notification(theirs, DEAD_NAME_NOTIFICATION, 0, to, MOVE_SEND_ONCE) == 0
    end(task, port)
    assert peer.mach_port_type(theirs) == DEAD_NAME
    assert receive(other, inbox).id == DEAD_NAME_NOTIFICATION
    peer.mach_port_mod_refs(theirs, lib.MACH_PORT_RIGHT_DEAD_NAME, -2)
    end(other, inbox)


@pytest.mark.parametrize("way", ["extract", "insert", "message to oneself"])
def test_a_watched_right_that_changes_its_name_is_no_longer_watched(task: LinuxKernel, peer: Peer, way: str) -> None:
    """PORT_DELETED for the old name; when the port dies nobody is told, and who waits does not spin."""

    port, right = introduce(peer, task)
    inbox = allocate(task)
    request(task, right, DEAD_NAME_NOTIFICATION, inbox)
    if way == "extract":
        renamed, _ = task.mach_port_extract_right(right, MOVE_SEND)
    elif way == "insert":
        renamed = 0x4203
        task.mach_port_insert_right(renamed, right, MOVE_SEND)
    else:
        once, _ = task.mach_port_extract_right(inbox, MAKE_SEND_ONCE)
        send(task, once, descriptors=[PortDescriptor(right, MOVE_SEND)], how=MOVE_SEND_ONCE)
    messages = {message.id: message for message in [receive(task, inbox) for _ in range(1 + (way[0] == "m"))]}
    assert lib.MACH_NOTIFY_PORT_DELETED in messages
    if way[0] == "m":
        (renamed,) = names(messages[0])
    assert task.mach_port_type(renamed) == SEND
    end(peer, port)
    codes = []
    assert idles(lambda seconds: codes.append(code_of(receive, task, inbox, seconds)))
    assert set(codes) == {lib.MACH_RCV_TIMED_OUT}
    assert task.mach_port_type(renamed) == DEAD_NAME
    task.mach_port_deallocate(renamed)
    # A descriptor of the same number as before is watched all the same.
    port, right = introduce(peer, task)
    request(task, right, DEAD_NAME_NOTIFICATION, inbox)
    end(peer, port)
    assert receive(task, inbox).id == DEAD_NAME_NOTIFICATION
    task.mach_port_mod_refs(right, lib.MACH_PORT_RIGHT_DEAD_NAME, -2)
    end(task, inbox)


def test_port_destroyed_across_processes(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """The port that one process destroys comes, with its queue, to another one that was named; its holders see no end."""
    port, theirs = introduce(task, peer)
    inbox = allocate(other)
    to = give(other, task, inbox, MAKE_SEND_ONCE)
    task.mach_port_request_notification(port, PORT_DESTROYED, 0, to, MOVE_SEND_ONCE)
    send(peer, theirs, 1)
    task.mach_port_destroy(port)
    send(peer, theirs, 2)
    message = receive(other, inbox)
    assert message.id == PORT_DESTROYED
    (rescued,) = names(message)
    assert [receive(other, rescued).id for _ in range(2)] == [1, 2]
    end(other, rescued)
    end(other, inbox)
    assert peer.mach_port_type(theirs) == DEAD_NAME
    peer.mach_port_deallocate(theirs)
