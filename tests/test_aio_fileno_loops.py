"""The life of what `fileno()` gives, while descriptors are scarce too, and every kind of event loop that waits for it."""

from __future__ import annotations

import asyncio
import os
import selectors
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from machrv import MachError, Message, PortSet, ReceiveRight, ReceiveTimeout, RightError, UnsupportedError
from machrv._mach import lib
from machrv.kernel import Kernel
from machrv.kernel.linux import LinuxKernel
from machrv.message import Disposition

from .linux_tasks import bootstrap, nursery, peer, task  # noqa: F401 (fixtures)
from .linux_tasks import Peer, code_of, introduce, send, started
from .loops import warm_uvloop  # noqa: F401 (fixture)
from .watching import PATIENCE, comes, readable

MAKE_SEND_ONCE = Disposition.MAKE_SEND_ONCE


# -- no descriptor ----------------------------------------------------------------------------------------------------


LOOK = """
import select, time
from machrv.errors import MachError
poll, looks, got = select.poll(), 0, None
poll.register(served.ready.fileno(), select.POLLIN)
began, used = time.monotonic(), time.process_time()
while got is None and (left := began + seconds - time.monotonic()) > 0:
    if poll.poll(left * 1000):
        looks += 1
        try:
            got = served.receive_message(door, 0).id
        except MachError as error:
            assert error.code in (lib.MACH_RCV_TIMED_OUT, lib.KERN_RESOURCE_SHORTAGE), error
result = got, looks, time.process_time() - used
"""


def test_a_look_up_that_no_descriptor_was_free_for(task: LinuxKernel) -> None:
    """While none is free the descriptor is quiet, but for a moment now and then; then it becomes readable by itself."""
    with started() as poor:
        poor.limit(300)
        door = poor.bootstrap_check_in("door")
        poor.run("served.ready = kernel.readiness(door)", door=door)
        assert poor.run(LOOK, door=door, seconds=0.01) == (None, 0, pytest.approx(0, abs=0.01))
        poor.exhaust()
        to = task.bootstrap_look_up("door")
        send(task, to, 4)
        got, looks, used = poor.run(LOOK, door=door, seconds=0.5)
        assert got is None and 1 <= looks < 10 and used < 0.2
        poor.free()
        got, looks, used = poor.run(LOOK, door=door, seconds=PATIENCE)
        assert got == 4 and looks < 5
        assert poor.run(LOOK, door=door, seconds=0.3)[:2] == (None, 0)
        task.mach_port_deallocate(to)
        poor.run("served.ready.close(); del served.ready")
        poor.mach_port_destroy(door)


# -- the life of a descriptor -----------------------------------------------------------------------------------------


def test_it_belongs_to_the_right(task: LinuxKernel) -> None:
    """Close-on-exec, and gone with the right: closed, released, or sent away; `nothing_left` counts."""
    for end in ("close", "release", "send"):
        with ReceiveRight.allocate(kernel=task) as port, ReceiveRight.allocate(kernel=task) as other:
            fd = port.fileno()
            assert not os.get_inheritable(fd)
            if end == "close":
                port.close()
            elif end == "release":
                task.mach_port_destroy(port.release())
            else:
                with other.make_send() as right:
                    right.send(Message(descriptors=[port]))
            with pytest.raises(RightError):
                port.fileno()


def test_a_right_that_could_not_be_sent_has_a_new_one(task: LinuxKernel) -> None:
    """It is still held, and can still be watched."""
    with ReceiveRight.allocate(kernel=task) as port, ReceiveRight.allocate(kernel=task) as gone:
        port.fileno()
        right = gone.make_send()
        gone.close()
        with right, pytest.raises(MachError):
            right.send(Message(descriptors=[port]))
        assert not readable(port)
        with port.make_send() as own:
            own.send(Message(3))
            assert comes(port)
            port.receive(timeout=0)


@pytest.mark.parametrize("kind", [ReceiveRight, PortSet])
def test_a_name_that_was_destroyed_behind_its_back(task: LinuxKernel, kind: Any) -> None:
    """A receive would say so: readable, for ever."""
    right = kind.allocate(kernel=task)
    assert not readable(right)
    task.mach_port_destroy(right.name)
    assert comes(right)
    assert code_of(right.receive, 0) == lib.MACH_RCV_INVALID_NAME
    assert comes(right)
    right.release()


def test_nothing_but_what_can_be_received_from(task: LinuxKernel) -> None:
    """A readiness of a send right, of a name that is none, of a kernel that has none."""
    with ReceiveRight.allocate(kernel=task) as port:
        once, _ = task.mach_port_extract_right(port.name, MAKE_SEND_ONCE)
        assert code_of(task.readiness, once) == lib.KERN_INVALID_RIGHT
        assert code_of(task.readiness, 12345) == lib.KERN_INVALID_NAME
        assert code_of(task.room, port.name) == lib.KERN_INVALID_RIGHT
        task.mach_port_deallocate(once)
        port.receive(timeout=0)
    with pytest.raises(UnsupportedError):
        Kernel.readiness(task, 1)


def test_a_forgotten_right_takes_its_descriptor_along(task: LinuxKernel) -> None:
    """`nothing_left` counts; also where the finaliser runs in the middle of a call."""
    for _ in range(2):
        port = ReceiveRight.allocate(kernel=task)
        port.fileno()
        with pytest.warns(ResourceWarning):
            del port


def test_the_child_of_a_fork_has_none_of_it(task: LinuxKernel) -> None:
    """Rights do not survive fork, and neither do descriptors of theirs; the parent's go on."""
    with ReceiveRight.allocate(kernel=task) as port, port.make_send() as right:
        fd = port.fileno()
        pid = os.fork()
        if not pid:
            try:
                os.fstat(fd)
            except OSError:
                try:
                    port.fileno()
                except RightError:
                    with ReceiveRight.allocate(kernel=task) as own:
                        own.fileno()
                    os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        right.send(Message(1))
        assert comes(port)
        port.receive(timeout=0)


def test_a_thread_that_receives_meanwhile(task: LinuxKernel, peer: Peer) -> None:
    """A blocked receive and a loop on one port: each message goes to one of them, and both hear of the next."""
    name, to = introduce(task, peer)
    with ReceiveRight.adopt(name, task) as port:
        got: list[int] = []

        def block() -> None:
            got.append(port.receive(PATIENCE).id)

        thread = threading.Thread(target=block)
        thread.start()
        port.fileno()
        send(peer, to, 1)
        thread.join(PATIENCE)
        assert got == [1]
        send(peer, to, 2)
        while not got[1:]:
            assert readable(port, PATIENCE)
            try:
                got.append(port.receive(timeout=0).id)
            except ReceiveTimeout:
                pass  # the thread has only just noticed that it was woken
        assert got == [1, 2]
        peer.mach_port_deallocate(to)


# -- event loops ------------------------------------------------------------------------------------------------------


def expect(port: ReceiveRight | PortSet, numbers: Iterator[int]) -> bool:
    """Take what is there; whether that was all."""
    while True:
        try:
            assert port.receive(timeout=0).id == next(numbers)
        except ReceiveTimeout:
            return numbers.__length_hint__() == 0  # type: ignore[attr-defined, no-any-return]


def send_in_turns(peer: Peer, to: int) -> Iterator[int]:
    """Ten messages, which the peer sends one by one while this process goes on."""
    message = Message(0)
    for number in range(10):
        message = Message(number)
        peer.begin("send_message", message, to, Disposition.COPY_SEND, PATIENCE)
    return iter(range(10))


@pytest.fixture(params=["port", "set"])
def watched(request: pytest.FixtureRequest, task: LinuxKernel, peer: Peer) -> Iterator[tuple[Any, Callable[[], Any]]]:
    """What to watch, and what has ten messages sent to it."""
    name, to = introduce(task, peer)
    with ReceiveRight.adopt(name, task) as port, PortSet.allocate(task) as ports:
        if request.param == "set":
            ports.insert(port)
        yield (port if request.param == "port" else ports), lambda: send_in_turns(peer, to)
        for _ in range(10):
            peer.end()
        peer.mach_port_deallocate(to)


def test_with_selectors(watched: tuple[Any, Callable[[], Any]]) -> None:
    """The right itself is what is registered."""
    port, begin = watched
    with selectors.DefaultSelector() as selector:
        selector.register(port, selectors.EVENT_READ)
        assert selector.select(0) == []
        numbers = begin()
        while not expect(port, numbers):
            assert selector.select(PATIENCE)[0][0].fileobj is port
        assert selector.select(0) == []
        selector.unregister(port)


async def add_reader(port: Any, begin: Callable[[], Any]) -> None:
    """Ten messages by way of loop.add_reader."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    numbers = begin()
    loop.add_reader(port, lambda: expect(port, numbers) and not done.done() and done.set_result(None))
    await asyncio.wait_for(done, PATIENCE)
    loop.remove_reader(port)


def test_with_asyncio(watched: tuple[Any, Callable[[], Any]]) -> None:
    """loop.add_reader on the right itself."""
    asyncio.run(add_reader(*watched))


def test_with_uvloop(warm_uvloop: Any, watched: tuple[Any, Callable[[], Any]]) -> None:
    """The same on libuv."""
    uvloop = warm_uvloop or pytest.skip("uvloop is not installed")
    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(add_reader(*watched))
    finally:
        loop.close()


def test_with_trio(watched: tuple[Any, Callable[[], Any]]) -> None:
    """trio.lowlevel.wait_readable on the right itself."""
    trio = pytest.importorskip("trio")
    port, begin = watched

    async def main() -> None:
        numbers = begin()
        with trio.fail_after(PATIENCE):
            while not expect(port, numbers):
                await trio.lowlevel.wait_readable(port)

    trio.run(main)
