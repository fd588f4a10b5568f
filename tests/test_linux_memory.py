"""Messages of every size, and memory beside messages: what is copied, what is mapped, and what that costs."""

from __future__ import annotations

import hashlib
import os

import pytest

from machrv._mach import lib
from machrv.kernel.linux import LinuxKernel
from machrv.message import Disposition, Message, OutOfLineDescriptor, OutOfLinePortsDescriptor, PortDescriptor

from .linux_tasks import bootstrap, nursery, peer, task  # noqa: F401 (fixtures)
from .linux_tasks import (
    LARGE,
    RCV,
    SEND,
    Peer,
    allocate,
    code_of,
    descriptors,
    end,
    introduce,
    names,
    nothing_waits,
    receive,
    receive_raw,
    refs,
    send,
)

KIB, MIB = 1024, 1024 * 1024
#: a message of more goes beside the packet
INLINE = 65536
AUDIT_TRAILER = 52


def pattern(size: int) -> bytes:
    """So many bytes that repeat nowhere near."""
    block = hashlib.shake_256(b"machrv").digest(65521)
    return (block * (size // len(block) + 1))[:size]


def mappings() -> int:
    """How many mappings this process has."""
    with open("/proc/self/maps") as maps:
        return len(maps.readlines())


SIZES = [0, 4, 1000, INLINE - 4, INLINE, INLINE + 4, MIB, 20 * MIB]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("complex", [False, True], ids=["plain", "complex"])
def test_a_message_of_any_size_arrives_whole(task: LinuxKernel, peer: Peer, size: int, complex: bool) -> None:
    """Over another process's right and over the port's own; with and without a right in it; nothing stays open."""
    port, to = introduce(task, peer)
    task.mach_port_insert_right(port, port, Disposition.MAKE_SEND)
    body = pattern(size)
    rights = [PortDescriptor(to, Disposition.COPY_SEND)] if complex else []
    send(peer, to, 1, body, rights)
    message = receive(task, port)
    assert (message.id, message.body == body) == (1, True)
    assert names(message) == [port] * complex
    send(task, port, 2, body, [PortDescriptor(port, Disposition.COPY_SEND)] * complex)
    message = receive(task, port)
    assert (message.id, message.body == body) == (2, True)
    assert refs(task, port) == 1 + 2 * complex
    task.mach_port_mod_refs(port, lib.MACH_PORT_RIGHT_SEND, -refs(task, port))
    peer.mach_port_deallocate(to)
    end(task, port)


@pytest.mark.parametrize("size", [64 * MIB, 82 * MIB])
@pytest.mark.parametrize("complex", [False, True], ids=["plain", "complex"])
def test_a_message_that_is_too_large_is_refused_by_the_sender(task: LinuxKernel, size: int, complex: bool) -> None:
    """XNU's limit, 64 MiB less a trailer, is the same whatever the message carries; nothing has been taken."""
    port = allocate(task)
    task.mach_port_insert_right(port, port, Disposition.MAKE_SEND)
    rights = [PortDescriptor(port, Disposition.MOVE_SEND)] if complex else []
    assert code_of(send, task, port, 1, bytes(size), rights) == lib.MACH_SEND_TOO_LARGE
    assert refs(task, port) == 1 and nothing_waits(task, port)
    send(task, port, 2)
    assert receive(task, port).id == 2
    task.mach_port_destroy(port)


def test_the_largest_message_goes_through(task: LinuxKernel) -> None:
    """Exactly as large as may be."""
    port = allocate(task)
    task.mach_port_insert_right(port, port, Disposition.MAKE_SEND)
    size = 64 * MIB - 68
    send(task, port, 1, bytes(size - 24))
    assert len(receive_raw(task, port)) == size + AUDIT_TRAILER
    task.mach_port_destroy(port)


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 5 * MIB])
@pytest.mark.parametrize("type", [lib.MACH_MSG_OOL_DESCRIPTOR, lib.MACH_MSG_OOL_VOLATILE_DESCRIPTOR])
def test_memory_beside_a_message_arrives_whole(task: LinuxKernel, peer: Peer, size: int, type: int) -> None:
    """As many bytes as were sent, in memory of the receiver's own, which it may write to, and gives back."""
    port, to = introduce(task, peer)
    data = pattern(size)
    send(peer, to, descriptors=[OutOfLineDescriptor(data, type=type)])
    before = mappings()
    message = Message.decode(receive_raw(task, port))
    (descriptor,) = message.descriptors
    assert (descriptor.size, descriptor.type) == (size, type)
    assert mappings() == before + 1
    assert task.vm_read(descriptor.address, size) == data
    task.vm_deallocate(descriptor.address, size)
    assert mappings() == before
    peer.mach_port_deallocate(to)
    end(task, port)


def test_memory_is_a_copy(task: LinuxKernel) -> None:
    """What the sender writes after sending is not seen, nor what the receiver writes by anybody else."""
    from array import array

    port = allocate(task)
    task.mach_port_insert_right(port, port, Disposition.MAKE_SEND)
    memory = array("B", b"before")
    address, size = memory.buffer_info()
    send(task, port, descriptors=[OutOfLineDescriptor(address=address, size=size)] * 2)
    memory[:] = array("B", b"after!")
    first, second = Message.decode(receive_raw(task, port)).descriptors
    assert task.vm_read(first.address, size) == b"before"
    from machrv._mach import ffi

    ffi.buffer(ffi.cast("char *", first.address), size)[:] = b"mine!!"
    assert task.vm_read(first.address, size) == b"mine!!"
    assert task.vm_read(second.address, size) == b"before"
    for descriptor in (first, second):
        task.vm_deallocate(descriptor.address, size)
    task.mach_port_destroy(port)


def test_memory_of_no_size_takes_no_descriptor(task: LinuxKernel, peer: Peer) -> None:
    """Nothing arrives as nothing: address and size 0."""
    port, to = introduce(task, peer)
    send(peer, to, descriptors=[OutOfLineDescriptor(b""), OutOfLinePortsDescriptor([], Disposition.COPY_SEND)])
    memory, ports = Message.decode(receive_raw(task, port)).descriptors
    assert (memory.address, memory.size, ports.address, ports.count) == (0, 0, 0, 0)
    peer.mach_port_deallocate(to)
    end(task, port)


def test_memory_that_is_not_there_is_refused(task: LinuxKernel) -> None:
    """MACH_SEND_INVALID_MEMORY; and as on Mach the rights before it in the body are gone."""
    port = allocate(task)
    task.mach_port_insert_right(port, port, Disposition.MAKE_SEND)
    nowhere = [OutOfLineDescriptor(address=4096, size=100)]
    assert code_of(send, task, port, descriptors=nowhere) == lib.MACH_SEND_INVALID_MEMORY
    array_nowhere = [OutOfLinePortsDescriptor(disposition=Disposition.COPY_SEND, address=4096, count=10)]
    assert code_of(send, task, port, descriptors=array_nowhere) == lib.MACH_SEND_INVALID_MEMORY
    task.mach_port_mod_refs(port, lib.MACH_PORT_RIGHT_SEND, 1)
    taken = [PortDescriptor(port, Disposition.MOVE_SEND), *nowhere]
    assert code_of(send, task, port, descriptors=taken) == lib.MACH_SEND_INVALID_MEMORY
    assert refs(task, port) == 1 and nothing_waits(task, port)
    task.mach_port_destroy(port)


def test_memory_in_a_message_that_is_destroyed_is_given_back(task: LinuxKernel, peer: Peer) -> None:
    """Too large for the receiver, or still in the queue when the port dies: neither mapping nor descriptor is left."""
    port, to = introduce(task, peer)
    before = mappings(), descriptors()
    for _ in range(2):
        send(peer, to, body=bytes(100), descriptors=[OutOfLineDescriptor(pattern(100_000))])
    assert code_of(receive_raw, task, port, size=60) == lib.MACH_RCV_TOO_LARGE
    assert (mappings(), descriptors()) == before
    end(task, port)
    assert mappings() == before[0]
    peer.mach_port_deallocate(to)


@pytest.mark.parametrize("size", [100, INLINE + 100])
def test_a_message_larger_than_the_buffer_waits_or_is_destroyed(task: LinuxKernel, peer: Peer, size: int) -> None:
    """With MACH_RCV_LARGE it stays and its size is told; without, it and the right in it are gone."""
    port, to = introduce(task, peer)
    body = pattern(size)
    right = [PortDescriptor(to, Disposition.COPY_SEND)]
    send(peer, to, 1, body, right)
    send(peer, to, 2, body, right)
    msgh_size = 24 + 4 + 12 + size
    from machrv.errors import MachError

    for enough in (20, 24, 60, msgh_size + AUDIT_TRAILER - 1):
        with pytest.raises(MachError) as caught:
            receive_raw(task, port, option=RCV | LARGE, size=enough)
        assert (caught.value.code, caught.value.size) == (lib.MACH_RCV_TOO_LARGE, msgh_size)
    message = Message.decode(receive_raw(task, port, option=RCV | LARGE, size=msgh_size + AUDIT_TRAILER))
    assert (message.id, message.body == body) == (1, True)
    assert code_of(receive_raw, task, port, size=60) == lib.MACH_RCV_TOO_LARGE
    assert nothing_waits(task, port)
    assert task.mach_port_type(port) & SEND and refs(task, port) == 1
    task.mach_port_mod_refs(port, lib.MACH_PORT_RIGHT_SEND, -1)
    peer.mach_port_deallocate(to)
    end(task, port)


def test_many_pieces_of_memory_in_one_message(task: LinuxKernel, peer: Peer) -> None:
    """Each arrives in its place, among rights and arrays of rights."""
    port, to = introduce(task, peer)
    pieces = [pattern(number * 1000 + 1) for number in range(20)]
    content = [OutOfLineDescriptor(piece) for piece in pieces]
    content.insert(7, PortDescriptor(to, Disposition.COPY_SEND))  # type: ignore[arg-type]
    content.insert(3, OutOfLinePortsDescriptor([to, 0, to], Disposition.COPY_SEND))  # type: ignore[arg-type]
    send(peer, to, 5, b"tail", content)
    message = receive(task, port)
    assert [d.data for d in message.descriptors if isinstance(d, OutOfLineDescriptor)] == pieces
    assert names(message) == [port, 0, port, port] and message.body == b"tail"
    task.mach_port_mod_refs(port, lib.MACH_PORT_RIGHT_SEND, -3)
    peer.mach_port_deallocate(to)
    end(task, port)


def test_memory_of_a_sender_that_is_gone(task: LinuxKernel, peer: Peer) -> None:
    """The kernel holds what is under way: the sender may be killed."""
    port, to = introduce(task, peer)
    data, body = pattern(3 * MIB), pattern(MIB)
    send(peer, to, 1, body, [OutOfLineDescriptor(data)])
    peer.kill()
    message = receive(task, port)
    assert message.descriptors[0].data == data and message.body == body
    end(task, port)


def test_inline_memory_is_not_shared_with_the_sender(task: LinuxKernel, peer: Peer) -> None:
    """The memfd of a large message is sealed: a receiver's view cannot change, and it is closed once it is read."""
    port, to = introduce(task, peer)
    before = descriptors()
    for _ in range(5):
        send(peer, to, 1, bytes(INLINE + 4))
        receive(task, port)
    assert descriptors() == before
    assert not any("memfd" in os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd_exists(fd))
    peer.mach_port_deallocate(to)
    end(task, port)


def fd_exists(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")
