"""The calls of `Kernel` that few programs make: choosing names, guards, counters, looking at a queue, memory."""

from __future__ import annotations

import os
import sys
import threading

import pytest

if sys.platform != "linux":
    pytest.skip("several port spaces in one process", allow_module_level=True)

from machrv._mach import lib
from machrv.errors import MachError
from machrv.kernel import PortStatus, current
from machrv.kernel.linux import LinuxKernel
from machrv.message import Disposition, Message, PortDescriptor

from .conftest import PATIENCE
from .linux_tasks import RCV, RECEIVE, SEND, allocate, bootstrap, code_of, end, nursery, receive, send, task

__all__ = ["bootstrap", "nursery", "task"]


def test_this_process_has_one_kernel_and_it_is_the_first_task() -> None:
    """However many threads ask; another one is another port space."""
    found = []
    threads = [threading.Thread(target=lambda: found.append(current())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(map(id, found)) == {id(current())}
    kernel = current()
    assert isinstance(kernel, LinuxKernel) and kernel._task == lib.mach_task_self() and kernel.name == "linux"
    other = LinuxKernel()
    assert other._task != kernel._task
    name = allocate(other)
    assert code_of(kernel.mach_port_type, name) == lib.KERN_INVALID_NAME
    other.close()
    assert other.mach_port_names() == []
    name = allocate(other)  # It can be used again.
    other.mach_port_destroy(name)


def test_a_name_of_ones_own_choice(task: LinuxKernel) -> None:
    """It stands for what was asked for, and cannot be given out twice."""
    name = allocate(task)
    task.mach_port_destroy(name)
    task.mach_port_allocate_name(lib.MACH_PORT_RIGHT_RECEIVE, name)
    assert task.mach_port_type(name) == RECEIVE
    assert code_of(task.mach_port_allocate_name, lib.MACH_PORT_RIGHT_PORT_SET, name) == lib.KERN_NAME_EXISTS
    assert allocate(task) != name
    for each, _ in task.mach_port_names():
        task.mach_port_destroy(each)


def test_a_port_that_is_constructed(task: LinuxKernel) -> None:
    """With a limit, a context and a send right; both rights go with one call."""
    name = task.mach_port_construct(lib.MPO_INSERT_SEND_RIGHT, context=0xFFFFFFFFFFFFFFFF, queue_limit=77)
    assert task.mach_port_type(name) == RECEIVE | SEND
    assert task.mach_port_get_attributes(name, lib.MACH_PORT_LIMITS_INFO) == 77
    assert task.mach_port_get_context(name) == 0xFFFFFFFFFFFFFFFF
    task.mach_port_destruct(name, -1)
    assert task.mach_port_names() == []


def test_counters_are_set(task: LinuxKernel) -> None:
    """The status shows them, and the next message bears its number."""
    name = allocate(task)
    task.mach_port_insert_right(name, name, Disposition.MAKE_SEND)
    task.mach_port_set_mscount(name, 9)
    task.mach_port_set_seqno(name, 41)
    status = task.mach_port_get_attributes(name, lib.MACH_PORT_RECEIVE_STATUS)
    assert isinstance(status, PortStatus) and (status.mscount, status.seqno) == (9, 41)
    send(task, name, 1)
    trailer = receive(task, name).trailer
    assert trailer is not None and trailer.seqno == 41
    task.mach_port_destroy(name)


def test_a_guarded_port(task: LinuxKernel) -> None:
    """Who gives it up has to know the guard; the status says that there is one."""
    name = allocate(task)
    task.mach_port_guard(name, 0x1234567890)
    status = task.mach_port_get_attributes(name, lib.MACH_PORT_RECEIVE_STATUS)
    assert isinstance(status, PortStatus) and status.flags & lib.MACH_PORT_STATUS_FLAG_GUARDED
    with pytest.raises(MachError):
        task.mach_port_destruct(name, 0, 7)
    with pytest.raises(MachError):
        task.mach_port_unguard(name, 7)
    task.mach_port_unguard(name, 0x1234567890)
    end(task, name)


def test_a_look_at_the_queue_takes_nothing(task: LinuxKernel) -> None:
    """The next message's id and size, again and again; an empty queue is a failure."""
    name = allocate(task)
    task.mach_port_insert_right(name, name, Disposition.MAKE_SEND)
    assert code_of(task.mach_port_peek, name) == lib.KERN_FAILURE
    for id in (5, 6):
        send(task, name, id, bytes(8 * id))
    for _ in range(2):
        _, size, id, trailer = task.mach_port_peek(name)
        assert (size, id) == (24 + 40, 5) and len(trailer) >= 8
    assert [receive(task, name).id for _ in range(2)] == [5, 6]
    task.mach_port_destroy(name)


def test_the_members_of_a_set(task: LinuxKernel) -> None:
    """All of them, in any order; an empty set has none."""
    pset = task.mach_port_allocate(lib.MACH_PORT_RIGHT_PORT_SET)
    assert task.mach_port_get_set_status(pset) == []
    ports = {allocate(task) for _ in range(3)}
    for port in ports:
        task.mach_port_insert_member(port, pset)
    assert set(task.mach_port_get_set_status(pset)) == ports
    for name in (*ports, pset):
        task.mach_port_destroy(name)


def test_memory_is_allocated_written_and_read(task: LinuxKernel) -> None:
    """Zeroed pages; what is nobody's cannot be written to."""
    address = task.vm_allocate(10000)
    assert task.vm_read(address, 10000) == bytes(10000)
    task.vm_write(address + 4000, b"contents")
    assert task.vm_read(address + 4000, 8) == b"contents"
    task.vm_deallocate(address, 10000)
    task.vm_deallocate(address, 0)
    assert code_of(task.vm_write, 16, b"x") == lib.KERN_INVALID_ADDRESS


def test_a_message_that_nobody_wants_is_destroyed(task: LinuxKernel) -> None:
    """With every right in it. What is no whole message is refused, and nothing of it given up."""
    port, other = allocate(task), allocate(task)
    task.mach_port_insert_right(port, port, Disposition.MAKE_SEND)
    send(task, port, 1, b"", [PortDescriptor(other, Disposition.MAKE_SEND)], reply=other, reply_how=21)
    data = task.mach_msg(None, RCV, None, port, 0)
    assert data is not None
    for cut in (data[:20], data[:30], data[:39], data[:4] + b"\xff\xff\xff\xff" + data[8:]):
        assert code_of(task.mach_msg_destroy, cut) == lib.KERN_INVALID_ARGUMENT
    assert task.mach_port_get_refs(other, lib.MACH_PORT_RIGHT_SEND) == 1
    task.mach_msg_destroy(data)
    assert task.mach_port_type(other) == RECEIVE
    assert receive(task, other, 0).id == lib.MACH_NOTIFY_SEND_ONCE
    for name in (port, other):
        task.mach_port_destroy(name)


def test_whose_message_is_too_large_is_told(task: LinuxKernel) -> None:
    """Of a set, with MACH_RCV_LARGE_IDENTITY: the member that it waits at."""
    port, pset = allocate(task), task.mach_port_allocate(lib.MACH_PORT_RIGHT_PORT_SET)
    task.mach_port_insert_member(port, pset)
    task.mach_port_insert_right(port, port, Disposition.MAKE_SEND)
    send(task, port, 1, bytes(1000))
    option = RCV | lib.MACH_RCV_LARGE | lib.MACH_RCV_LARGE_IDENTITY
    with pytest.raises(MachError) as caught:
        task.mach_msg(None, option, 100, pset, 0)
    assert (caught.value.code, caught.value.size) == (lib.MACH_RCV_TOO_LARGE, 1024)
    assert getattr(caught.value, "port") == port
    assert receive(task, port, 0).body == bytes(1000)
    for name in (port, pset):
        task.mach_port_destroy(name)


def test_a_handler_that_receives_in_the_middle_of_a_receive(task: LinuxKernel) -> None:
    """Buffers are kept for the next call, and never shared."""
    import signal

    port, other = allocate(task), allocate(task)
    for name in (port, other):
        task.mach_port_insert_right(name, name, Disposition.MAKE_SEND)
    got = []

    def handler(number: int, frame: object) -> None:
        send(task, other, 2, b"inner" + bytes(3))
        got.append(receive(task, other).body)
        send(task, port, 1, b"outer" + bytes(3))

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        got.append(receive(task, port, PATIENCE).body)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert got == [b"inner\0\0\0", b"outer\0\0\0"]
    for name in (port, other):
        task.mach_port_destroy(name)


def test_a_watched_port_that_goes_is_reported_once(task: LinuxKernel) -> None:
    """By its name, as kqueue does; then nobody watches it, and its descriptor is closed."""
    queue = task.event_queue()
    port = allocate(task)
    queue.add_port(port)
    before = len(os.listdir("/proc/self/fd"))
    assert queue.wait(0) == ([], [])
    task.mach_port_destroy(port)
    assert queue.wait(PATIENCE) == ([port], [])
    assert queue.wait(0) == ([], []) and len(os.listdir("/proc/self/fd")) < before
    queue.remove_port(port)
    queue.close()


def test_the_child_of_a_fork_has_closed_what_it_waited_with(task: LinuxKernel) -> None:
    """Queues and readiness: the descriptors are the parent's. What is made anew in the child works."""
    port = allocate(task)
    queue, readiness = task.event_queue(), task.readiness(port)
    queue.add_port(port)
    pid = os.fork()
    if pid == 0:
        try:
            assert readiness.fileno() == -1 and task.mach_port_names() == []
            queue.wake()
            queue.close()
            mine = allocate(task)
            task.mach_port_insert_right(mine, mine, Disposition.MAKE_SEND)
            fresh = task.event_queue()
            fresh.add_port(mine)
            task.mach_msg(Message(3).encode_to(mine, Disposition.COPY_SEND), lib.MACH_SEND_MSG, timeout=0)
            assert fresh.wait(PATIENCE) == ([mine], [])
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    readiness.close()
    queue.close()
    task.mach_port_destroy(port)
