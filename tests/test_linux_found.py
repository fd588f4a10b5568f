"""What recorded cases had not shown, found by trying those of XNU, Crashpad, ipc-channel, the Hurd and libdispatch."""

from __future__ import annotations

import threading

import pytest

from machrv._mach import lib
from machrv.kernel.linux import LinuxKernel
from machrv.message import Disposition, GuardedPortDescriptor, Message, OutOfLineDescriptor, PortDescriptor

from .conftest import PATIENCE
from .linux_tasks import bootstrap, nursery, peer, task  # noqa: F401 (fixtures)
from .linux_tasks import (
    Peer,
    allocate,
    code_of,
    end,
    give,
    introduce,
    names,
    nothing_waits,
    receive,
    request,
    send,
    wait_until_they_wait,
)

MAKE_SEND, COPY_SEND, MOVE_RECEIVE = Disposition.MAKE_SEND, Disposition.COPY_SEND, Disposition.MOVE_RECEIVE
RECEIVE, SEND = lib.MACH_PORT_TYPE_RECEIVE, lib.MACH_PORT_TYPE_SEND


@pytest.fixture
def port(task: LinuxKernel) -> int:
    return allocate(task)


def test_a_name_is_looked_at_before_who_has_the_right(task: LinuxKernel, port: int) -> None:
    """osfmk/ipc/ipc_entry.c, ipc_entry_alloc_name: index 0 and an index in use under another generation are
    KERN_FAILURE, before KERN_RIGHT_EXISTS; beyond the table is KERN_NO_SPACE; a live right is never overwritten."""
    task.mach_port_insert_right(port, port, MAKE_SEND)
    other = allocate(task)
    for name, code in [
        (port ^ 4, lib.KERN_FAILURE),
        (other ^ 4, lib.KERN_FAILURE),
        (0x000000FF, lib.KERN_FAILURE),
        (0xFFFFFF03, lib.KERN_NO_SPACE),
        (0x00070001, lib.KERN_INVALID_VALUE),
        (other, lib.KERN_RIGHT_EXISTS),
        (0x00070003, lib.KERN_RIGHT_EXISTS),
        (0x1_0000_0503, lib.KERN_INVALID_VALUE),
        (-1, lib.KERN_INVALID_VALUE),
    ]:
        assert code_of(task.mach_port_insert_right, name, port, COPY_SEND) == code, hex(name)
    assert code_of(task.mach_port_insert_right, port ^ 4, port, Disposition.MAKE_SEND_ONCE) == lib.KERN_FAILURE
    assert task.mach_port_type(port) == RECEIVE | SEND and task.mach_port_type(other) == RECEIVE
    assert [name for name, _ in task.mach_port_names()] == [port, other]
    end(task, other)
    task.mach_port_destroy(port)


def test_memory_that_is_given_away_with_a_message_is_gone(task: LinuxKernel, port: int) -> None:
    """`deallocate` of an out-of-line descriptor: a relay that sends on what it has received keeps nothing."""
    task.mach_port_insert_right(port, port, MAKE_SEND)
    send(task, port, 1, descriptors=[OutOfLineDescriptor(b"m" * 8192)])
    received = task.mach_msg(None, lib.MACH_RCV_MSG, None, port, 0)
    assert received is not None
    address = int.from_bytes(received[28:36], "little")
    assert task.vm_read(address, 8192) == b"m" * 8192
    forward = bytearray(received[:44])
    forward[0:4] = (lib.MACH_MSGH_BITS_COMPLEX | COPY_SEND).to_bytes(4, "little")
    forward[8:12], forward[12:16] = port.to_bytes(4, "little"), bytes(4)
    forward[36] = 1  # deallocate
    task.mach_msg(bytes(forward), lib.MACH_SEND_MSG, timeout=0)
    assert code_of(task.vm_read, address, 8192) == lib.KERN_INVALID_ADDRESS
    (memory,) = receive(task, port).descriptors
    assert isinstance(memory, OutOfLineDescriptor) and memory.data == b"m" * 8192
    task.mach_port_destroy(port)


@pytest.mark.parametrize("address", [0, 8, 0x7FFF_FFFF_F000, 2**63, 2**64 - 4096])
def test_reading_what_is_not_mapped(task: LinuxKernel, address: int) -> None:
    """KERN_INVALID_ADDRESS, and the process goes on."""
    assert code_of(task.vm_read, address, 4096) == lib.KERN_INVALID_ADDRESS


@pytest.mark.parametrize("how", ["destroyed", "moved away"])
@pytest.mark.parametrize("kind", [lib.MACH_PORT_RIGHT_RECEIVE, lib.MACH_PORT_RIGHT_PORT_SET])
def test_a_queue_is_woken_when_what_it_watches_goes(task: LinuxKernel, peer: Peer, how: str, kind: int) -> None:
    """And tells the name, as kqueue does: whoever waits for ever does not."""
    if how == "moved away" and kind == lib.MACH_PORT_RIGHT_PORT_SET:
        pytest.skip("a set does not move")
    port, to = introduce(peer, task)
    name = task.mach_port_allocate(kind)
    queue = task.event_queue()
    queue.add_port(name)
    found: list[tuple[list[int], list[object]]] = []
    waiter = threading.Thread(target=lambda: found.append(queue.wait(None)))  # type: ignore[arg-type]
    waiter.start()
    wait_until_they_wait(waiter)
    if how == "destroyed":
        task.mach_port_mod_refs(name, kind, -1)
    else:
        send(task, to, 1, descriptors=[PortDescriptor(name, MOVE_RECEIVE)])
    waiter.join(PATIENCE)
    assert not waiter.is_alive() and found == [([name], [])]
    queue.close()
    if how == "moved away":
        (moved,) = names(receive(peer, port))
        end(peer, moved)
    end(peer, port)
    task.mach_port_deallocate(to)


SIZES = [0, 4, 512, 2048, 2052, 20_000, 48_000, 60_000, 65_500, 65_536, 100_000]


def takes(receiver: LinuxKernel | Peer, port: int, sender: LinuxKernel | Peer, to: int, limit: int, size: int) -> None:
    """So many messages are sent without waiting, and received."""
    for number in range(limit):
        send(sender, to, number, bytes(size), timeout=0)
    for number in range(limit):
        message = receive(receiver, port)
        assert message.id == number and len(message.body) == size


@pytest.mark.parametrize("size", [*SIZES, 1_000_000])
@pytest.mark.parametrize("limit", [1, 5, 16, 64])
def test_a_queue_takes_as_many_messages_as_its_limit_says(task: LinuxKernel, peer: Peer, size: int, limit: int) -> None:
    """Of any size: what the socket has no room for is in memory of its own."""
    port, to = introduce(task, peer)
    task.mach_port_set_attributes(port, lib.MACH_PORT_LIMITS_INFO, limit)
    takes(task, port, peer, to, limit, size)
    peer.mach_port_deallocate(to)
    end(task, port)


def most(limit: int) -> int:
    """As many as this system's largest buffer has room for: docs/linux.md, "How much waits"."""
    with open("/proc/sys/net/core/wmem_max", encoding="ascii") as file:
        return min(limit, (2 * int(file.read()) - 98_304) // 1280)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("limit", [65, 200, lib.MACH_PORT_QLIMIT_MAX])
@pytest.mark.parametrize("how", ["made before", "made behind", "looked up", "moved on", "one's own"])
def test_a_queue_takes_more_than_usual(task: LinuxKernel, peer: Peer, size: int, limit: int, how: str) -> None:
    """Whenever its limit was set, and whoever has which right: a sender that finds it full makes room."""
    if size in (4, 2052, 60_000, 65_500) and how != "made before":
        pytest.skip("a size for one way of many")
    if how == "looked up":
        port = task.bootstrap_check_in("roomy")
        to = peer.bootstrap_look_up("roomy")
        send(peer, to, timeout=0)
        receive(task, port)  # it is known now who has looked it up
    else:
        port = allocate(task)
        to = give(task, peer, port, MAKE_SEND) if how in ("made before", "moved on") else 0
    task.mach_port_set_attributes(port, lib.MACH_PORT_LIMITS_INFO, limit)
    if how == "made behind":
        to = give(task, peer, port, MAKE_SEND)
    if how == "one's own":
        task.mach_port_insert_right(port, port, MAKE_SEND)
        takes(task, port, task, port, most(limit), size)
        task.mach_port_deallocate(port)
    elif how == "moved on":
        there = give(task, peer, port, MOVE_RECEIVE)
        assert peer.mach_port_get_attributes(there, lib.MACH_PORT_LIMITS_INFO) == limit
        again = give(peer, task, there, MAKE_SEND)
        takes(peer, there, task, again, most(limit), size)
        task.mach_port_deallocate(again)
        peer.mach_port_destroy(there)
    else:
        takes(task, port, peer, to, most(limit), size)
        peer.mach_port_deallocate(to)
    if how != "moved on":
        end(task, port)


def test_a_usual_queue_is_full_before_that(task: LinuxKernel, peer: Peer) -> None:
    """MACH_SEND_TIMED_OUT, and the message is the sender's: who asked for no more does not hold so much."""
    port, to = introduce(task, peer)
    sent = peer.flood(to, 100_000)
    assert 80 <= sent < 600
    assert code_of(send, peer, to, timeout=0) == lib.MACH_SEND_TIMED_OUT
    peer.mach_port_deallocate(to)
    task.mach_port_destroy(port)


@pytest.mark.parametrize("how", ["destroyed", "moved away"])
def test_a_right_that_goes_while_somebody_waits(task: LinuxKernel, peer: Peer, port: int, how: str) -> None:
    """MACH_RCV_PORT_CHANGED, whichever it is (xnu-11417, osfmk/ipc/ipc_mqueue.c, ipc_mqueue_receive_results)."""
    door, to = introduce(peer, task)
    codes: list[int | None] = []
    waiter = threading.Thread(target=lambda: codes.append(code_of(receive, task, port, PATIENCE)))
    waiter.start()
    wait_until_they_wait(waiter)
    if how == "destroyed":
        end(task, port)
    else:
        send(task, to, 1, descriptors=[PortDescriptor(port, MOVE_RECEIVE)])
    waiter.join(PATIENCE)
    assert codes == [lib.MACH_RCV_PORT_CHANGED]
    if how == "moved away":
        (moved,) = names(receive(peer, door))
        end(peer, moved)
    task.mach_port_deallocate(to)
    end(peer, door)


def test_a_sender_is_told_when_there_is_room_again(task: LinuxKernel, peer: Peer) -> None:
    """MACH_NOTIFY_SEND_POSSIBLE, once a send with MACH_SEND_NOTIFY has found none; at once where it is asked for so."""
    port, to = introduce(task, peer)
    inbox = allocate(peer)
    request(peer, to, lib.MACH_NOTIFY_SEND_POSSIBLE, inbox, sync=1)
    assert receive(peer, inbox).id == lib.MACH_NOTIFY_SEND_POSSIBLE
    request(peer, to, lib.MACH_NOTIFY_SEND_POSSIBLE, inbox)
    delayed = lib.MACH_PORT_TYPE_SPREQUEST_DELAYED
    bits = lib.MACH_PORT_TYPE_DNREQUEST | lib.MACH_PORT_TYPE_SPREQUEST
    assert dict(peer.mach_port_names())[to] == SEND | bits | delayed
    assert peer.mach_port_type(to) == SEND | lib.MACH_PORT_TYPE_DNREQUEST  # as XNU's: it does not tell the others
    sent = peer.flood(to, 100_000)
    message = Message(1, remote_port=to, remote_disposition=COPY_SEND).encode()
    option = lib.MACH_SEND_MSG | lib.MACH_SEND_NOTIFY
    assert code_of(peer.mach_msg, message, option, None, 0, 0) == lib.MACH_SEND_TIMED_OUT
    assert dict(peer.mach_port_names())[to] == SEND | bits
    for _ in range(sent):
        receive(task, port)
    assert receive(peer, inbox, PATIENCE).id == lib.MACH_NOTIFY_SEND_POSSIBLE
    assert peer.mach_port_type(to) == SEND
    assert nothing_waits(peer, inbox)
    peer.mach_port_deallocate(to)
    end(peer, inbox)
    end(task, port)


def test_a_guarded_right_for_who_asks_for_such(task: LinuxKernel, peer: Peer) -> None:
    """As ipc_right_copyout leaves it: guarded with the address that it was received at, and immovable."""
    port, to = introduce(task, peer)
    theirs = allocate(peer)
    flags = 3  # immovable, unguarded on send
    send(peer, to, descriptors=[GuardedPortDescriptor(theirs, MOVE_RECEIVE, flags=flags)])
    data = task.mach_msg(None, lib.MACH_RCV_MSG | lib.MACH_RCV_GUARDED_DESC, None, port, 0)
    assert data is not None
    (descriptor,) = Message.decode(data).descriptors
    assert isinstance(descriptor, GuardedPortDescriptor) and descriptor.flags == 1 and descriptor.context
    assert task.mach_port_get_context(descriptor.name) == descriptor.context
    assert code_of(end, task, descriptor.name) == lib.KERN_INVALID_RIGHT
    task.mach_port_destruct(descriptor.name, 0, descriptor.context)
    peer.mach_port_deallocate(to)
    end(task, port)
