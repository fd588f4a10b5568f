"""Waiting on macOS: ports, process exits, signals, forks. Over the stand-in, with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from machrv._mach import ffi, lib
from machrv.message.audit import AuditToken
from machrv.errors import MachError
from machrv.kernel.darwin.waiting import DarwinEventQueue, DarwinProcess
from machrv.kernel.linux.waiting import LinuxProcess
from machrv.message import Disposition, Message
from tests.standin.fixtures import PATIENCE, mac
from tests.standin.kernel import StandInKernel

__all__ = ["mac"]

RECEIVE = lib.MACH_PORT_RIGHT_RECEIVE


@pytest.fixture
def queue(mac: StandInKernel) -> Iterator[DarwinEventQueue]:
    queue = mac.event_queue()
    yield queue
    queue.close()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until its standard input is closed."""
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as child:
        yield child


def end(child: subprocess.Popen[bytes]) -> None:
    """End a child, and wait until it is a zombie."""
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)


# -- processes --------------------------------------------------------------------------------------------------------


def test_an_exit_is_reported_once(mac: StandInKernel, queue: DarwinEventQueue, child: subprocess.Popen[bytes]) -> None:
    """While it runs there is nothing to report; afterwards there is, to the queue and to whoever asks the process."""
    with mac.open_process(child.pid) as process:
        queue.add_process(process)
        assert queue.wait(0) == ([], []) and process.is_running()
        end(child)
        assert queue.wait(PATIENCE) == ([], [process])
        assert not process.is_running()
        assert queue.wait(0) == ([], [])
        queue.remove_process(process)


def test_asking_the_process_takes_nothing_from_the_queue(
    mac: StandInKernel, queue: DarwinEventQueue, child: subprocess.Popen[bytes]
) -> None:
    """is_running() has seen the exit first; the queue reports it all the same."""
    with mac.open_process(child.pid) as process:
        queue.add_process(process)
        end(child)
        assert not process.is_running()
        assert queue.wait(PATIENCE) == ([], [process])


def test_a_process_that_is_over_is_reported_too(
    mac: StandInKernel, queue: DarwinEventQueue, child: subprocess.Popen[bytes]
) -> None:
    """It exited after it was opened, and before, as a zombie: kqueue knows neither, and both are reported."""
    with mac.open_process(child.pid) as before:
        end(child)
        with mac.open_process(child.pid) as zombie:
            assert not zombie.is_running()
            queue.add_process(before)
            queue.add_process(zombie)
            reported: list[object] = []
            while len(reported) < 2:
                reported += queue.wait(PATIENCE)[1]
            assert set(map(id, reported)) == {id(before), id(zombie)}


def test_a_process_that_is_not_there_cannot_be_opened(mac: StandInKernel, child: subprocess.Popen[bytes]) -> None:
    """Reaped, or no number for a process: ProcessLookupError."""
    end(child)
    child.wait()
    for pid in (child.pid, 0, -1):
        with pytest.raises(ProcessLookupError):
            mac.open_process(pid)


def test_a_process_that_is_removed_is_not_reported(
    mac: StandInKernel, queue: DarwinEventQueue, child: subprocess.Popen[bytes]
) -> None:
    """Also where another one has its descriptor's number by then."""
    with mac.open_process(child.pid) as process:
        queue.add_process(process)
        queue.remove_process(process)
        queue.remove_process(process)
        number = process.fileno()
    with mac.open_process(os.getpid()) as other:
        assert other.fileno() == number
        queue.add_process(other)
        end(child)
        assert queue.wait(0) == ([], [])
        queue.remove_process(other)


def test_an_event_of_one_that_was_removed_meanwhile_is_dropped(
    mac: StandInKernel, queue: DarwinEventQueue, child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the kernel's report and the look at it, the number went to the kqueue of a process that runs."""
    process = mac.open_process(child.pid)
    queue.add_process(process)
    end(child)
    real = queue._kqueue.wait

    class Late:
        """The kqueue, to which that happens."""

        fileno, change, close = queue._kqueue.fileno, queue._kqueue.change, queue._kqueue.close

        @staticmethod
        def wait(timeout: float | None) -> Any:
            found = real(timeout)
            number = process.fileno()
            queue.remove_process(process)
            process.close()
            others.append(mac.open_process(os.getpid()))
            assert others[0].fileno() == number
            queue.add_process(others[0])
            return found

    others: list[DarwinProcess] = []
    monkeypatch.setattr(queue, "_kqueue", Late)
    assert queue.wait(PATIENCE) == ([], [])
    monkeypatch.undo()
    queue.remove_process(others[0])
    others[0].close()


def test_only_processes_of_this_kernel_are_watched(mac: StandInKernel, queue: DarwinEventQueue) -> None:
    """Another kernel's process is refused by what it is."""
    with LinuxProcess(os.getpid()) as process, pytest.raises(TypeError, match="open_process"):
        queue.add_process(process)


# -- who a process is -------------------------------------------------------------------------------------------------


def token(child: subprocess.Popen[bytes], pidversion: int | None) -> AuditToken:
    assert pidversion is not None
    return AuditToken(pid=child.pid, pidversion=pidversion & 0xFFFFFFFF)


def test_the_first_message_pins_the_pidversion(mac: StandInKernel, child: subprocess.Popen[bytes]) -> None:
    """Of this exec or a later one; any other is another process from then on, and another pid was never this one."""
    for later in (0, 1, 0x7FFFFFFF):
        with mac.open_process(child.pid) as process:
            assert process.pidversion is not None
            pidversion = process.pidversion + later
            assert not process.matches(AuditToken(pid=child.pid + 1, pidversion=pidversion & 0xFFFFFFFF))
            assert process.matches(token(child, pidversion))
            assert process.matches(token(child, pidversion)) and not process.matches(token(child, pidversion + 1))
    with mac.open_process(child.pid) as process:
        assert process.matches(token(child, process.pidversion))
        end(child)
        assert process.matches(token(child, process.pidversion)) and not process.matches(token(child, pidversion))


def test_who_had_the_pid_before_pins_nothing(mac: StandInKernel, child: subprocess.Popen[bytes]) -> None:
    """A message that waited since before the process was there bears an older pidversion."""
    with mac.open_process(child.pid) as process:
        assert process.pidversion is not None
        for before in (process.pidversion - 1, process.pidversion - 0x7FFFFFFF):
            assert not process.matches(token(child, before))
        assert process.matches(token(child, process.pidversion))


def test_where_the_pidversion_is_not_told_any_first_message_pins(
    mac: StandInKernel, child: subprocess.Popen[bytes]
) -> None:
    """Another user's process, or a sandbox that denies task names: until then it is pinned by its number alone."""
    mac.task.functions.denies_task_names = True
    with mac.open_process(child.pid) as process:
        assert process.pidversion is None
        assert process.matches(token(child, 7)) and not process.matches(token(child, 8))


def test_a_token_without_a_pidversion_pins_nothing(mac: StandInKernel, child: subprocess.Popen[bytes]) -> None:
    """Whether the system tells the pidversion of the process or not: who that token is of is not known."""
    for denies in (False, True):
        mac.task.functions.denies_task_names = denies
        with mac.open_process(child.pid) as process:
            assert (process.pidversion is None) is denies
            assert not process.matches(token(child, 0))
            pidversion = 7 if process.pidversion is None else process.pidversion
            assert process.matches(token(child, pidversion)) and not process.matches(token(child, 0))


def test_a_process_that_never_asked_matches_nobody_once_it_is_over(
    mac: StandInKernel, child: subprocess.Popen[bytes]
) -> None:
    """Its number may be another's by now: a first message after its exit pins nothing."""
    with mac.open_process(child.pid) as process:
        pidversion = process.pidversion
        end(child)
        assert not process.matches(token(child, pidversion)) and not process.matches(token(child, 0))


# -- ports ------------------------------------------------------------------------------------------------------------


def test_a_port_is_reported_as_long_as_something_waits(mac: StandInKernel, queue: DarwinEventQueue) -> None:
    """A bare receive right, and a set by the set's name; a port that was removed or destroyed is not reported."""
    port, member = mac.mach_port_allocate(RECEIVE), mac.mach_port_allocate(RECEIVE)
    pset = mac.mach_port_allocate(lib.MACH_PORT_RIGHT_PORT_SET)
    mac.mach_port_insert_member(member, pset)
    queue.add_port(port)
    queue.add_port(port)
    queue.add_port(pset)
    for name, watched in ((port, port), (member, pset)):
        assert queue.wait(0) == ([], [])
        mac.mach_port_insert_right(name, name, Disposition.MAKE_SEND)
        mac.mach_msg(Message(1).encode_to(name, Disposition.MOVE_SEND), lib.MACH_SEND_MSG, timeout=0)
        assert queue.wait(PATIENCE) == ([watched], []) and queue.wait(PATIENCE) == ([watched], [])
        mac.mach_msg(None, lib.MACH_RCV_MSG, None, name, 0)
    mac.mach_port_insert_right(port, port, Disposition.MAKE_SEND)
    mac.mach_msg(Message(1).encode_to(port, Disposition.MOVE_SEND), lib.MACH_SEND_MSG, timeout=0)
    queue.remove_port(port)
    queue.remove_port(port)
    assert queue.wait(0) == ([], [])
    mac.mach_port_mod_refs(member, RECEIVE, -1)
    mac.mach_port_mod_refs(pset, lib.MACH_PORT_RIGHT_PORT_SET, -1)
    queue.remove_port(pset)
    assert queue.wait(0) == ([], [])


def test_what_cannot_be_received_from_cannot_be_watched(mac: StandInKernel, queue: DarwinEventQueue) -> None:
    """No such name: KERN_INVALID_RIGHT."""
    with pytest.raises(MachError, match="EventQueue.add_port: KERN_INVALID_RIGHT"):
        queue.add_port(0x4203)


# -- time, signals, threads, forks ------------------------------------------------------------------------------------


def test_waking_ends_the_present_or_the_next_wait(queue: DarwinEventQueue) -> None:
    """Once for each waiting or coming wait, from any thread."""
    queue.wake()
    queue.wake()
    assert queue.wait(PATIENCE) == ([], [])
    thread = threading.Thread(target=queue.wake)
    thread.start()
    assert queue.wait(PATIENCE) == ([], [])
    thread.join()


def test_a_signal_does_not_end_a_wait(
    mac: StandInKernel, queue: DarwinEventQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After EINTR the rest is waited for, and not the whole again."""
    now = [50.0]
    told: list[float | None] = []
    monkeypatch.setattr("machrv.kernel.darwin.kqueue.monotonic", lambda: now[0])
    functions = mac.task.functions
    real = functions.kevent

    def kevent(kq: int, changes: Any, count: int, events: Any, most: int, timeout: Any) -> int:
        told.append(timeout.tv_sec + timeout.tv_nsec / 1e9 if timeout else None)
        now[0] += 1.25
        if len(told) == 3:
            timeout.tv_sec = timeout.tv_nsec = 0
        return real(kq, changes, count, events, most, timeout)

    functions.interrupted_waits = 2
    monkeypatch.setattr(functions, "kevent", kevent)
    assert queue.wait(3.0) == ([], [])
    assert told == pytest.approx([3.0, 1.75, 0.5])


def test_the_child_of_a_fork_closes_nothing(mac: StandInKernel, child: subprocess.Popen[bytes]) -> None:
    """A kqueue is not inherited: in the child its number may be another file's, which must stay open."""
    queue, process = mac.event_queue(), mac.open_process(child.pid)
    numbers = queue._kqueue.fileno(), process.fileno()
    pid = os.fork()
    if pid == 0:
        try:
            os.closerange(*sorted((min(numbers), max(numbers) + 1)))
            file = os.open(os.devnull, os.O_RDONLY)
            for number in numbers:
                os.dup2(file, number)
            queue.close()
            process.close()
            os._exit(0 if all(os.fstat(number) for number in numbers) else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert process.is_running()
    queue.close()
    queue.close()
    process.close()
    assert not process.is_running()


def fail(mac: StandInKernel, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    """From now on this call answers EMFILE."""

    def call(*_: object) -> int:
        ffi.errno = 24
        return -1

    monkeypatch.setattr(mac.task.functions, function, call)


def test_no_room_is_a_shortage(mac: StandInKernel, queue: DarwinEventQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a free descriptor: KERN_RESOURCE_SHORTAGE, with the system's word for it; nothing is left half made."""
    with mac.open_process(os.getpid()) as process:
        fail(mac, monkeypatch, "kevent")
        with pytest.raises(MachError, match="EventQueue.add_process .Too many open.*: KERN_RESOURCE_SHORTAGE"):
            queue.add_process(process)
        for function in ("kevent", "kqueue"):
            fail(mac, monkeypatch, function)
            with pytest.raises(MachError, match="event_queue .Too many open files.: KERN_RESOURCE_SHORTAGE"):
                mac.event_queue()
            with pytest.raises(MachError, match="open_process .Too many open files.: KERN_RESOURCE_SHORTAGE"):
                mac.open_process(os.getpid())
        monkeypatch.undo()
        assert len(mac.task.functions.kqueues) == 2
