"""Rights and memory as arguments of a multiprocessing.Process; and that nothing else pickles or copies them."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.popen_spawn_posix import Popen
from typing import Any

import pytest

from machrv import (
    Channel,
    Disposition,
    CopyError,
    MemoryObject,
    Message,
    PortSet,
    ReceiveRight,
    RendezvousPort,
    RendezvousServer,
    RightError,
    SendOnceRight,
    SendRight,
    fileport,
    fileport_fd,
)
from machrv.kernel import Kernel

from .conftest import PATIENCE, wait_for_no_senders


@pytest.fixture(scope="module", autouse=True)
def helpers() -> Iterator[None]:
    """What multiprocessing keeps running is not one test's, and ends with these tests."""
    from multiprocessing import forkserver, resource_tracker

    resource_tracker.ensure_running()
    forkserver.ensure_running()
    yield
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


@pytest.fixture(params=["spawn", "forkserver", "fork"])
def context(request: pytest.FixtureRequest) -> Any:
    """The ways to start a process. All but fork pickle its arguments."""
    return multiprocessing.get_context(request.param)


def use(send: SendRight, inbox: ReceiveRight, once: SendOnceRight, file: SendRight, memory: MemoryObject) -> None:
    """Every one of them works in the new process."""
    word = inbox.receive(PATIENCE).body
    fd = fileport_fd(file)
    with memory.map(writable=True) as view:
        view[:4] = word
    once.send(Message(2, os.pread(fd, 4, 0)))
    send.send(Message(1, word))
    os.close(fd)
    for right in (send, inbox, file, memory):
        right.close()


def not_used(right: SendRight) -> None:
    os._exit(3)


def joined(process: Any) -> int:
    process.join(PATIENCE)
    code: int = process.exitcode
    process.close()
    return code


def wait_until_nothing_is_kept() -> None:
    deadline = time.monotonic() + PATIENCE
    while "machrv-handover" in [thread.name for thread in threading.enumerate()]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_process_is_started_with_rights_and_memory(context: Any, tmp_path: Any) -> None:
    """Rights move there; memory stays its owner's as well."""
    (tmp_path / "file").write_bytes(b"file")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    with ReceiveRight.allocate() as port, ReceiveRight.allocate() as answers, MemoryObject.create(4) as memory:
        moved = ReceiveRight.allocate()
        with moved.make_send() as to_moved:
            rights = (port.make_send(), moved, answers.make_send_once(), fileport(fd), memory)
            process = context.Process(target=use, args=rights)
            process.start()
            to_moved.send(Message(0, b"word"))
        assert port.receive(PATIENCE).body == b"word"
        assert answers.receive(PATIENCE).body == b"file"
        assert joined(process) == 0
        with memory.map() as view:
            assert view[:] == b"word"
        wait_for_no_senders(port)
        assert all(right.closed for right in rights[:4]) and not memory.closed
    os.close(fd)
    wait_until_nothing_is_kept()


def test_what_a_process_does_not_take_is_given_up(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends before it has unpickled its arguments: here, the module that has its function is not to be found there."""
    with ReceiveRight.allocate() as port:
        process = context.Process(target=use, args=(Unfindable(), port.make_send()))
        process.start()
        assert joined(process) != 0
        wait_for_no_senders(port)
    wait_until_nothing_is_kept()


@dataclass
class Job:
    """What a process may be given among other things."""

    ends: list[Channel]
    more: dict[str, Any]


def talk(job: Job) -> None:
    """With everything that is in there."""
    with job.ends[0] as end, job.more["port"][0] as port:
        for message in end:
            port.send(Message(3, message.data))
            if message.data == b"and":
                message.reply(b"done")


def test_what_is_given_may_be_in_what_is_given(context: Any) -> None:
    """In lists, tuples, dicts and dataclasses; an end of a channel that has been used, too."""
    ours, theirs = Channel.pair()
    with ours, ReceiveRight.allocate() as port:
        ours.send(b"earlier")
        process = context.Process(target=talk, args=(Job([theirs], {"port": (port.make_send(), 5)}),))
        process.start()
        assert theirs.closed
        assert port.receive(PATIENCE).body == b"earlier\0"
        assert ours.request(b"and", timeout=PATIENCE).data == b"done"
        assert port.receive(PATIENCE).body[:3] == b"and"
        ours.close()
        assert joined(process) == 0
        wait_for_no_senders(port)
    wait_until_nothing_is_kept()


def exits_with(right: SendRight) -> None:
    """0 if the right can be used, 1 if it is spent."""
    try:
        right.send(Message(4))
    except RightError as error:
        assert "before fork" in str(error)
        os._exit(1)
    os._exit(0)


def test_other_children_of_a_fork_get_nothing() -> None:
    """Neither one that is forked by hand, nor a second process that was made with the same right."""
    context = multiprocessing.get_context("fork")
    with ReceiveRight.allocate() as port:
        right = port.make_send()
        first, second = (context.Process(target=exits_with, args=(right,)) for _ in range(2))
        pid = os.fork()
        if pid == 0:
            exits_with(right)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1 and not right.closed
        first.start()
        second.start()
        assert right.closed
        assert (joined(first), joined(second)) == (0, 1)
        assert port.receive(PATIENCE).id == 4
        wait_for_no_senders(port)
    wait_until_nothing_is_kept()


class Unfindable:
    """Its unpickling fails, before that of what comes behind it."""

    def __reduce__(self) -> Any:
        return os._exit, (5,)


def test_a_process_that_cannot_be_started_leaves_the_right_to_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was pickled for it is held again."""

    def fails(self: Any, process: Any) -> None:
        from multiprocessing import context, reduction
        import io

        context.set_spawning_popen(self)
        try:
            reduction.dump(process, io.BytesIO())
        finally:
            context.set_spawning_popen(None)
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(Popen, "_launch", fails)
    with ReceiveRight.allocate() as port, port.make_send() as right:
        process = multiprocessing.get_context("spawn").Process(target=not_used, args=(right,))
        with pytest.raises(BlockingIOError):
            process.start()
        del process
        assert not right.closed
        right.send(Message(1), PATIENCE)
        assert port.receive(PATIENCE).id == 1
    wait_until_nothing_is_kept()


def test_anywhere_else_nothing_is_pickled_or_copied(server: RendezvousServer) -> None:
    """And the text says what to do; a queue of multiprocessing is such a place too."""
    from multiprocessing.reduction import ForkingPickler

    with ReceiveRight.allocate() as port, port.make_send() as right, MemoryObject.create(1) as memory:
        with PortSet.allocate() as ports:
            for one in (port, right, memory, ports, server):
                for way in (copy.copy, copy.deepcopy, pickle.dumps, ForkingPickler.dumps):
                    with pytest.raises(CopyError, match=r"launch\(\).*multiprocessing.Process") as caught:
                        way(one)
                    assert isinstance(caught.value, TypeError) and isinstance(caught.value, RightError)
                    assert type(one).__name__ in str(caught.value)
                assert not getattr(one, "closed", False)
        made, moves = RendezvousPort(port.name, Disposition.MAKE_SEND), RendezvousPort(
            right.name, Disposition.MOVE_SEND
        )
        assert copy.copy(made).name == made.name  # It owns nothing.
        for way in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(CopyError, match="has one owner"):
                way(moves)
