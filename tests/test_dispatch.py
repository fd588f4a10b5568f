"""The dispatch thread: it calls back, survives what callbacks do, and ends when nobody needs it."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from time import monotonic

import pytest

from machrv import Message, ReceiveRight, ReceiveTimeout
from machrv.rendezvous.dispatch import Dispatcher
from machrv.kernel import Kernel

from .conftest import PATIENCE, finish


@pytest.fixture
def dispatcher(kernel: Kernel) -> Iterator[Dispatcher]:
    dispatcher = Dispatcher(kernel)
    yield dispatcher
    dispatcher.close()


def test_a_message_calls_back_on_the_dispatch_thread(dispatcher: Dispatcher) -> None:
    """The callback runs for every message, elsewhere than in the thread that sent it."""
    heard: list[tuple[int, str]] = []
    done = threading.Event()
    with ReceiveRight.allocate() as port, port.make_send() as right:

        def callback() -> None:
            heard.append((port.receive(timeout=0).id, threading.current_thread().name))
            if len(heard) == 3:
                done.set()

        dispatcher.watch_port(port.name, callback)
        for id in range(3):
            right.send(Message(id))
        assert done.wait(PATIENCE)
        dispatcher.unwatch_port(port.name)
        assert heard == [(id, "machrv-dispatch") for id in range(3)]
        right.send(Message(4))
        assert port.receive(PATIENCE).id == 4 and len(heard) == 3


def test_a_message_that_waits_already_calls_back(dispatcher: Dispatcher) -> None:
    """What came before the port was watched is not missed."""
    done = threading.Event()
    with ReceiveRight.allocate() as port, port.make_send() as right:
        right.send(Message(1))

        def callback() -> None:
            port.receive(timeout=0)
            done.set()

        dispatcher.watch_port(port.name, callback)
        assert done.wait(PATIENCE)
        dispatcher.unwatch_port(port.name)


def test_an_exit_calls_back_once(kernel: Kernel, dispatcher: Dispatcher) -> None:
    """Whether the process exits afterwards or has exited before: once, and without being waited for."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    calls: list[str] = []
    first, second = threading.Event(), threading.Event()
    process = kernel.open_process(child.pid)

    def exited(what: str, event: threading.Event) -> None:
        calls.append(what)
        event.set()

    dispatcher.watch_process(process, lambda: exited("later", first))
    assert not calls
    child.communicate(b"\n")
    assert first.wait(PATIENCE)
    dispatcher.unwatch_process(process)
    process.close()
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    process = kernel.open_process(zombie.pid)
    dispatcher.watch_process(process, lambda: exited("before", second))
    assert second.wait(PATIENCE)
    assert finish(zombie) == 0
    dispatcher.close()
    process.close()
    assert calls == ["later", "before"]


def test_a_process_whose_exit_was_reported_is_forgotten(kernel: Kernel, dispatcher: Dispatcher) -> None:
    """A server that sees many children come and go does not remember them, nor mistake one for another."""
    children = [subprocess.Popen([sys.executable, "-c", ""]) for _ in range(4)]
    processes = [kernel.open_process(child.pid) for child in children]
    done = [threading.Event() for _ in children]
    for process, event in zip(processes, done):
        dispatcher.watch_process(process, event.set)
    assert all(event.wait(PATIENCE) for event in done) and [finish(child) for child in children] == [0] * 4
    for process in processes:
        dispatcher.unwatch_process(process)
        process.close()
    remembered = weakref.WeakSet(processes)
    del process, processes
    turned = threading.Event()
    with ReceiveRight.allocate() as port, port.make_send() as right:
        right.send(Message(1))
        dispatcher.watch_port(port.name, turned.set)
        assert turned.wait(PATIENCE)  # So the thread is through with the exits.
        dispatcher.unwatch_port(port.name)
    gc.collect()
    assert len(remembered) == 0


def test_a_callback_that_fails_is_called_again_and_disturbs_nobody(
    dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    """Its exception is logged, it gets another try, and meanwhile the other port is served."""
    failed, recovered, served = threading.Event(), threading.Event(), threading.Event()
    with ReceiveRight.allocate() as bad, ReceiveRight.allocate() as good:
        with bad.make_send() as to_bad, good.make_send() as to_good:

            def fail_twice() -> None:
                fail_twice_calls.append(1)
                if len(fail_twice_calls) <= 2:
                    failed.set()
                    raise RuntimeError("a callback that fails")
                bad.receive(timeout=0)
                recovered.set()

            fail_twice_calls: list[int] = []

            def serve() -> None:
                good.receive(timeout=0)
                served.set()

            with caplog.at_level(logging.ERROR, "machrv"):
                dispatcher.watch_port(bad.name, fail_twice)
                dispatcher.watch_port(good.name, serve)
                to_bad.send(Message(1))
                assert failed.wait(PATIENCE)
                to_good.send(Message(2))
                assert served.wait(PATIENCE) and recovered.wait(PATIENCE)
            assert len(fail_twice_calls) == 3
            assert "a callback that fails" in caplog.text
            dispatcher.unwatch_port(bad.name)
            dispatcher.unwatch_port(good.name)


def test_a_failure_that_lasts_does_not_spin(dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture) -> None:
    """Every further try waits longer than the one before."""
    tries: list[float] = []
    enough = threading.Event()
    with ReceiveRight.allocate() as port, port.make_send() as right:

        def fail() -> None:
            tries.append(monotonic())
            if len(tries) == 4:
                enough.set()
            raise RuntimeError("as before")

        with caplog.at_level(logging.CRITICAL, "machrv"):
            right.send(Message(1))
            dispatcher.watch_port(port.name, fail)
            assert enough.wait(PATIENCE)
            dispatcher.unwatch_port(port.name)
        pauses = [later - earlier for earlier, later in zip(tries, tries[1:4])]
        assert pauses[0] >= 0.02 and pauses[1] >= 0.04 and pauses[2] >= 0.08


def test_a_failing_exit_callback_is_logged_and_the_thread_lives(
    kernel: Kernel, dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    """One exit that cannot be handled does not hide the next one."""
    done = threading.Event()
    children = [subprocess.Popen([sys.executable, "-c", ""]) for _ in range(2)]
    processes = [kernel.open_process(child.pid) for child in children]

    def fail() -> None:
        raise RuntimeError("an exit that fails")

    with caplog.at_level(logging.ERROR, "machrv"):
        dispatcher.watch_process(processes[0], fail)
        finish(children[0])
        dispatcher.watch_process(processes[1], done.set)
        finish(children[1])
        assert done.wait(PATIENCE)
        dispatcher.close()  # Joins: what the thread has logged, it has logged.
    for process in processes:
        process.close()
    assert "an exit that fails" in caplog.text


def test_unwatching_waits_for_the_callback(dispatcher: Dispatcher) -> None:
    """On return the callback is not running: what it uses may go."""
    entered, leave, left = threading.Event(), threading.Event(), threading.Event()
    with ReceiveRight.allocate() as port, port.make_send() as right:

        def callback() -> None:
            entered.set()
            leave.wait(PATIENCE)
            port.receive(timeout=0)
            left.set()

        dispatcher.watch_port(port.name, callback)
        right.send(Message(1))
        assert entered.wait(PATIENCE)
        threading.Timer(0.05, leave.set).start()
        dispatcher.unwatch_port(port.name)
        assert left.is_set()


def test_a_callback_may_unwatch_its_own_port(dispatcher: Dispatcher) -> None:
    """No waiting for itself; and it is not called again."""
    done = threading.Event()
    calls: list[int] = []
    with ReceiveRight.allocate() as port, port.make_send() as right:

        def callback() -> None:
            calls.append(port.receive(timeout=0).id)
            dispatcher.unwatch_port(port.name)
            done.set()

        dispatcher.watch_port(port.name, callback)
        right.send(Message(1))
        assert done.wait(PATIENCE)
        right.send(Message(2))
        dispatcher.close()
        assert calls == [1]
        assert port.receive(timeout=PATIENCE).id == 2


def test_one_shared_dispatcher_per_kernel_that_ends_with_its_last_user(kernel: Kernel) -> None:
    """Two users share the thread; it runs until the second is done, and a later user gets a new one."""
    first, second = Dispatcher.shared(kernel), Dispatcher.shared(kernel)
    assert first is second
    first.release()
    assert not second.closed
    second.release()
    assert second.closed
    third = Dispatcher.shared(kernel)
    assert third is not first and not third.closed
    third.release()


def test_a_closed_dispatcher_takes_nothing_on(dispatcher: Dispatcher) -> None:
    """Closing is final and idempotent; unwatching stays harmless."""
    with ReceiveRight.allocate() as port:
        dispatcher.watch_port(port.name, lambda: None)
        dispatcher.close()
        dispatcher.close()
        dispatcher.unwatch_port(port.name)
        with pytest.raises(RuntimeError, match="closed"):
            dispatcher.watch_port(port.name, lambda: None)
        with pytest.raises(ReceiveTimeout):
            port.receive(timeout=0)


def test_the_child_of_a_fork_has_no_dispatcher(kernel: Kernel) -> None:
    """The thread is not there: the object is closed, and the child can make its own."""
    shared = Dispatcher.shared(kernel)
    pid = os.fork()
    if pid == 0:
        try:
            assert shared.closed
            shared.close()
            done = threading.Event()
            own = Dispatcher()
            with ReceiveRight.allocate() as port, port.make_send() as right:
                own.watch_port(port.name, done.set)
                right.send(Message(1))
                assert done.wait(PATIENCE)
                own.close()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not shared.closed
    shared.release()
