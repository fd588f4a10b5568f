"""The event queue: ports with something to receive, processes that exit, and what happens to either behind its back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from machrv._mach import lib
from machrv.kernel import Process
from machrv.kernel.linux import LinuxKernel
from machrv.kernel.linux.waiting import LinuxEventQueue
from machrv.message import Disposition

from .conftest import PATIENCE, SLACK, idles
from .linux_tasks import bootstrap, nursery, other, peer, task  # noqa: F401 (fixtures)
from .linux_tasks import (
    DEAD_NAME_NOTIFICATION,
    NO_SENDERS,
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

MAKE_SEND, MAKE_SEND_ONCE = Disposition.MAKE_SEND, Disposition.MAKE_SEND_ONCE


@pytest.fixture
def queue(task: LinuxKernel) -> Iterator[LinuxEventQueue]:
    queue = task.event_queue()
    yield queue
    queue.close()
    queue.close()  # idempotent


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A child that lives until its standard input ends."""
    child = subprocess.Popen([sys.executable, "-S", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield child
    child.kill()
    with child:
        pass


def test_a_port_is_reported_as_long_as_something_waits(task: LinuxKernel, peer: Peer, queue: LinuxEventQueue) -> None:
    """Not before, not after, and only the ports that have something."""
    port, to = introduce(task, peer)
    quiet = allocate(task)
    queue.add_port(port)
    queue.add_port(quiet)
    assert queue.wait(0) == ([], [])
    send(peer, to, 1)
    send(peer, to, 2)
    for number in (1, 2):
        assert queue.wait(PATIENCE) == ([port], [])
        assert queue.wait(0) == ([port], [])
        assert receive(task, port).id == number
    assert queue.wait(0) == ([], [])
    peer.mach_port_deallocate(to)
    end(task, port)
    end(task, quiet)


def test_a_set_is_reported_for_its_members(task: LinuxKernel, peer: Peer, queue: LinuxEventQueue) -> None:
    """Members that join while it is watched count, those that leave do not."""
    pset = task.mach_port_allocate(lib.MACH_PORT_RIGHT_PORT_SET)
    port, to = introduce(task, peer)
    queue.add_port(pset)
    send(peer, to, 1)
    assert queue.wait(0) == ([], [])
    task.mach_port_insert_member(port, pset)
    assert queue.wait(0) == ([pset], [])
    task.mach_port_extract_member(port, pset)
    assert queue.wait(0) == ([], [])
    task.mach_port_insert_member(port, pset)
    assert receive(task, pset).id == 1
    assert queue.wait(0) == ([], [])
    peer.mach_port_deallocate(to)
    end(task, port)
    task.mach_port_destroy(pset)


def test_a_look_up_alone_is_no_message(task: LinuxKernel, peer: Peer, queue: LinuxEventQueue) -> None:
    """A port may be reported though nothing can be received: receiving with timeout 0 says so, and then it is quiet."""
    door = task.bootstrap_check_in("door")
    queue.add_port(door)
    way = peer.bootstrap_look_up("door")
    for _ in range(3):
        ports, _ = queue.wait(0)
        if not ports:
            break
        assert ports == [door] and nothing_waits(task, door)
    assert queue.wait(0) == ([], [])
    send(peer, way, 1)
    assert queue.wait(PATIENCE) == ([door], [])
    assert receive(task, door).id == 1
    peer.mach_port_deallocate(way)
    end(task, door)


def test_ports_that_are_added_and_removed(task: LinuxKernel, peer: Peer, queue: LinuxEventQueue) -> None:
    """Adding twice is adding once; removing what is not there is no error; what is no receive right is one."""
    port, to = introduce(task, peer)
    queue.add_port(port)
    queue.add_port(port)
    send(peer, to, 1)
    assert queue.wait(0) == ([port], [])
    queue.remove_port(port)
    queue.remove_port(port)
    queue.remove_port(0x7777)
    assert queue.wait(0) == ([], [])
    queue.add_port(port)
    assert queue.wait(0) == ([port], [])
    dead = task.mach_port_allocate(lib.MACH_PORT_RIGHT_DEAD_NAME)
    for name in (0x7777, 0, dead):
        assert code_of(queue.add_port, name) == lib.KERN_INVALID_RIGHT
    receive(task, port)
    task.mach_port_deallocate(dead)
    peer.mach_port_deallocate(to)
    end(task, port)


def test_a_port_in_two_queues(task: LinuxKernel, peer: Peer, queue: LinuxEventQueue) -> None:
    """Each queue reports it."""
    second = task.event_queue()
    port, to = introduce(task, peer)
    for one in (queue, second):
        one.add_port(port)
    send(peer, to, 1)
    assert queue.wait(0) == second.wait(0) == ([port], [])
    second.close()
    assert queue.wait(0) == ([port], [])
    receive(task, port)
    peer.mach_port_deallocate(to)
    end(task, port)


def test_a_port_that_dies_while_it_is_watched(task: LinuxKernel, queue: LinuxEventQueue) -> None:
    """It is reported once, as kqueue does, and forgotten; another port, watched with a descriptor of the same number, is
    reported under its own name."""
    for _ in range(3):
        first = allocate(task)
        queue.add_port(first)
        end(task, first)
        assert queue.wait(0) == ([first], [])
        assert queue.wait(0) == ([], [])
        second = allocate(task)
        queue.add_port(second)
        queue.remove_port(first)
        task.mach_port_insert_right(second, second, MAKE_SEND)
        send(task, second, 1)
        assert queue.wait(0) == ([second], [])
        task.mach_port_destroy(second)
        assert queue.wait(0) == ([second], [])


def test_a_process_whose_descriptor_has_a_dead_ports_number(
    task: LinuxKernel, queue: LinuxEventQueue, sleeper: subprocess.Popen[bytes]
) -> None:
    """Its exit is reported as a process's."""
    port = allocate(task)
    queue.add_port(port)
    end(task, port)
    assert queue.wait(0) == ([port], [])
    with pinned(task, sleeper.pid) as process:
        queue.add_process(process)
        sleeper.kill()
        assert queue.wait(PATIENCE) == ([], [process])
        queue.remove_process(process)


def test_a_port_that_moves_away_while_it_is_watched(task: LinuxKernel, peer: Peer, queue: LinuxEventQueue) -> None:
    """Reported once more, and not again, whatever comes for its new owner; back home, it is watched anew."""
    port = allocate(task)
    task.mach_port_insert_right(port, port, MAKE_SEND)
    queue.add_port(port)
    there = give(task, peer, port, Disposition.MOVE_RECEIVE)
    assert queue.wait(0) == ([port], [])
    send(task, port, 1)
    assert queue.wait(0) == ([], [])
    assert give(peer, task, there, Disposition.MOVE_RECEIVE) == port
    queue.remove_port(port)
    queue.add_port(port)
    assert queue.wait(0) == ([port], [])
    assert receive(task, port).id == 1
    task.mach_port_destroy(port)


def test_a_notification_that_becomes_due_wakes_the_queue(task: LinuxKernel, peer: Peer, queue: LinuxEventQueue) -> None:
    """Nobody calls the space while the port dies: waiting on the queue is enough."""
    far, right = introduce(peer, task)
    port, theirs = introduce(task, peer)
    inbox = allocate(task)
    request(task, right, DEAD_NAME_NOTIFICATION, inbox)
    request(task, port, NO_SENDERS, inbox)
    queue.add_port(inbox)
    assert queue.wait(0) == ([], [])
    peer.kill()
    found = set()
    while len(found) < 2:
        ports, _ = queue.wait(PATIENCE)
        assert ports in ([], [inbox])
        found |= {receive(task, name, 0).id for name in ports}
    assert found == {DEAD_NAME_NOTIFICATION, NO_SENDERS}
    told = []
    assert idles(lambda seconds: told.append(queue.wait(seconds)))
    assert all(one == ([], []) for one in told)
    task.mach_port_mod_refs(right, lib.MACH_PORT_RIGHT_DEAD_NAME, -2)
    for name in (port, inbox):
        end(task, name)


# -- processes -------------------------------------------------------------------------------------------------------------


class pinned:
    """A pinned process for the length of a `with`."""

    def __init__(self, task: LinuxKernel, pid: int) -> None:
        self.process = task.open_process(pid)

    def __enter__(self) -> Process:
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.close()
        self.process.close()  # idempotent


def test_an_exit_is_reported_once(task: LinuxKernel, queue: LinuxEventQueue, sleeper: subprocess.Popen[bytes]) -> None:
    """While it lives nothing; then once, though it is not reaped; it is the caller's to close."""
    with pinned(task, sleeper.pid) as process:
        queue.add_process(process)
        assert queue.wait(0) == ([], []) and process.is_running()
        sleeper.kill()
        assert queue.wait(PATIENCE) == ([], [process])
        assert queue.wait(0) == ([], []) and not process.is_running()
        sleeper.wait()
        assert queue.wait(0) == ([], []) and not process.is_running()
        queue.remove_process(process)
        queue.remove_process(process)


def test_an_exit_that_is_over_already(
    task: LinuxKernel, queue: LinuxEventQueue, sleeper: subprocess.Popen[bytes]
) -> None:
    """Added after it has gone, reaped or not: reported all the same, and once."""
    with pinned(task, sleeper.pid) as process:
        sleeper.kill()
        sleeper.wait()
        queue.add_process(process)
        assert queue.wait(PATIENCE) == ([], [process])
        assert queue.wait(0) == ([], [])
        queue.remove_process(process)


def test_a_removed_process_is_not_reported(
    task: LinuxKernel, queue: LinuxEventQueue, sleeper: subprocess.Popen[bytes]
) -> None:
    """Even if it exits; its descriptor is closed by its owner."""
    before = descriptors()
    with pinned(task, sleeper.pid) as process:
        queue.add_process(process)
        queue.remove_process(process)
        sleeper.kill()
        sleeper.wait()
        assert queue.wait(0) == ([], [])
    assert descriptors() == before


def test_processes_and_ports_together(task: LinuxKernel, peer: Peer, queue: LinuxEventQueue) -> None:
    """Twenty children exit, messages come: everything is reported by some wait or other."""
    port, to = introduce(task, peer)
    queue.add_port(port)
    children = [subprocess.Popen(["/bin/true"]) for _ in range(20)]
    processes = [task.open_process(child.pid) for child in children]
    for process in processes:
        queue.add_process(process)
    for number in range(20):
        send(peer, to, number)
    gone: set[Process] = set()
    got = []
    while len(gone) < 20 or len(got) < 20:
        ports, exited = queue.wait(PATIENCE)
        assert not gone & set(exited)
        gone |= set(exited)
        got += [receive(task, name, 0).id for name in ports]
    assert gone == set(processes) and got == list(range(20))
    for process, child in zip(processes, children):
        queue.remove_process(process)
        process.close()
        child.wait()
    peer.mach_port_deallocate(to)
    end(task, port)


@pytest.mark.parametrize("pid", [-1, 0, 2**22 + 1])
def test_a_process_that_there_is_not(task: LinuxKernel, pid: int) -> None:
    """ProcessLookupError, and nothing left open."""
    before = descriptors()
    with pytest.raises(ProcessLookupError):
        task.open_process(pid)
    assert descriptors() == before


def test_a_thread_is_no_process(task: LinuxKernel) -> None:
    """The number of a thread that is not its process's first."""
    numbers: list[int] = []
    done, known = threading.Event(), threading.Event()

    def work() -> None:
        numbers.append(threading.get_native_id())
        known.set()
        done.wait()

    thread = in_thread(work)
    known.wait()
    try:
        with pytest.raises(ProcessLookupError):
            task.open_process(numbers[0])
    finally:
        done.set()
        thread.join()


def test_the_dead_and_reaped_cannot_be_pinned(task: LinuxKernel) -> None:
    """A zombie can: its parent has not asked for it yet."""
    child = subprocess.Popen(["/bin/true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with pinned(task, child.pid) as process:
        assert not process.is_running()
    child.wait()
    with pytest.raises(ProcessLookupError):
        task.open_process(child.pid)


# -- waking ----------------------------------------------------------------------------------------------------------------


def test_wake_ends_a_wait(task: LinuxKernel, queue: LinuxEventQueue) -> None:
    """The present one, from another thread; or the next one, and that only."""
    queue.wake()
    queue.wake()
    assert queue.wait(PATIENCE) == ([], [])
    assert queue.wait(0) == ([], [])
    found: list[object] = []
    waiter = in_thread(lambda: found.append(queue.wait()))
    while not found:
        queue.wake()
    waiter.join(PATIENCE)
    assert found == [([], [])]
    queue.wait(0)


def test_a_wait_takes_as_long_as_it_was_told(queue: LinuxEventQueue) -> None:
    """Neither less nor much more."""
    for timeout in (0, 0.05, 0.2):
        began = time.monotonic()
        assert queue.wait(timeout) == ([], [])
        assert timeout <= time.monotonic() - began < timeout + SLACK


def test_what_is_added_while_another_thread_waits(
    task: LinuxKernel, peer: Peer, queue: LinuxEventQueue, sleeper: subprocess.Popen[bytes]
) -> None:
    """A port with a message, and a process that exits, wake a wait that began before they were added."""
    port, to = introduce(task, peer)
    send(peer, to, 1)
    found: list[tuple[list[int], list[Process]]] = []
    waiter = in_thread(lambda: found.append(queue.wait(PATIENCE)))
    queue.add_port(port)
    waiter.join(PATIENCE)
    assert found == [([port], [])]
    receive(task, port)
    with pinned(task, sleeper.pid) as process:
        waiter = in_thread(lambda: found.append(queue.wait(PATIENCE)))
        queue.add_process(process)
        sleeper.kill()
        waiter.join(PATIENCE)
        assert found[1:] == [([], [process])]
        queue.remove_process(process)
    peer.mach_port_deallocate(to)
    end(task, port)


def test_a_signal_in_the_middle_of_a_wait(queue: LinuxEventQueue) -> None:
    """The handler runs, and the wait goes on: until its time is over, or until a later handler ends it."""
    heard: list[float] = []

    def hear(number: int, frame: object) -> None:
        heard.append(time.monotonic())
        if len(heard) % 2:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
        elif len(heard) == 4:
            queue.wake()

    before = signal.signal(signal.SIGALRM, hear)
    try:
        for wait, ended in ((0.3, False), (PATIENCE, True)):
            began = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            assert queue.wait(wait) == ([], [])
            while len(heard) % 2 or not heard:  # On a busy machine it comes late.
                signal.pause()
            took = time.monotonic() - began
            assert took < PATIENCE if ended else took >= wait
    finally:
        signal.signal(signal.SIGALRM, before)
