"""fork(): as on Mach, port rights are not inherited. The child begins with an empty space, the parent notices nothing."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable

import pytest

from machrv._mach import lib
from machrv.kernel import current
from machrv.kernel.linux import LinuxKernel
from machrv.message import Disposition, Message, PortDescriptor

from .conftest import PATIENCE, idles, open_descriptors
from .linux_tasks import bootstrap, nursery, peer, task  # noqa: F401 (fixtures)
from .linux_tasks import (
    DEAD_NAME,
    DEAD_NAME_NOTIFICATION,
    NO_SENDERS,
    RECEIVE,
    SEND,
    SEND_ONCE_NOTIFICATION,
    Peer,
    allocate,
    code_of,
    empty,
    end,
    give,
    in_thread,
    introduce,
    names,
    nothing_waits,
    receive,
    request,
    send,
    wait_until_they_wait,
)

MAKE_SEND, MAKE_SEND_ONCE = Disposition.MAKE_SEND, Disposition.MAKE_SEND_ONCE

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


class Child:
    """A forked child that runs a function, and waits to be released before it ends."""

    def __init__(self, function: Callable[[], None]) -> None:
        told, tell = os.pipe()
        wait, self.release_end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self.release_end)
                os.close(told)
                function()
                os.write(tell, b"x")
                os.read(wait, 1)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        os.close(wait)
        os.close(tell)
        assert os.read(told, 1) == b"x", "the child has failed"
        os.close(told)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.release_end)
        assert os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]) == 0


def everything(task: LinuxKernel, peer: Peer) -> tuple[int, int, int]:
    """Give a task something of every kind: (a bootstrap port, a port of the peer's, a right to it)."""
    door = task.bootstrap_check_in("door")
    task.mach_port_insert_right(door, door, MAKE_SEND)
    task.mach_port_extract_right(door, MAKE_SEND_ONCE)
    pset = task.mach_port_allocate(lib.MACH_PORT_RIGHT_PORT_SET)
    task.mach_port_insert_member(door, pset)
    port, right = introduce(peer, task)
    request(task, right, DEAD_NAME_NOTIFICATION, door)
    request(task, door, NO_SENDERS, door)
    task.mach_port_allocate(lib.MACH_PORT_RIGHT_DEAD_NAME)
    task.fileport_makeport(0)
    send(task, door, 1, descriptors=[PortDescriptor(allocate(task), Disposition.MOVE_RECEIVE)])
    return door, port, right


def test_the_child_has_an_empty_space_and_no_socket(task: LinuxKernel, peer: Peer) -> None:
    """Names of every kind, messages waiting, requests: nothing of it in the child, neither names nor descriptors."""
    before = open_descriptors()
    door, port, right = everything(task, peer)
    names_before = task.mach_port_names()

    def child() -> None:
        assert task.mach_port_names() == [] and current().mach_port_names() == []
        left = {fd: what for fd, what in open_descriptors().items() if fd not in before and "pipe" not in what}
        assert left == {}, left
        assert code_of(task.mach_port_type, door) == lib.KERN_INVALID_NAME
        assert code_of(send, task, right) == lib.MACH_SEND_INVALID_DEST
        assert code_of(receive, task, door, 0) == lib.MACH_RCV_INVALID_NAME

    with Child(child):
        assert task.mach_port_names() == names_before
        send(task, right, 5)
        assert receive(peer, port).id == 5
        assert receive(task, door).id == 1
    end(peer, port)
    assert receive(task, door).id == DEAD_NAME_NOTIFICATION
    empty(task)


def test_the_child_holds_nothing_alive(task: LinuxKernel, peer: Peer) -> None:
    """While it lives, the parent gives everything up: the others learn of it at once."""
    port, right = introduce(peer, task)
    mine, theirs = introduce(task, peer)
    once = give(peer, task, port, MAKE_SEND_ONCE)
    request(peer, port, NO_SENDERS, port)
    with Child(lambda: None):
        task.mach_port_deallocate(right)
        assert receive(peer, port).id == NO_SENDERS
        task.mach_port_deallocate(once)
        assert receive(peer, port).id == SEND_ONCE_NOTIFICATION
        end(task, mine)
        assert peer.mach_port_type(theirs) == DEAD_NAME
    peer.mach_port_deallocate(theirs)
    end(peer, port)


def test_the_child_can_use_its_space(task: LinuxKernel, peer: Peer) -> None:
    """It makes ports, looks names up, and is known by its own pid."""
    door = peer.bootstrap_check_in("door")

    def child() -> None:
        port = allocate(task)
        to = task.bootstrap_look_up("door")
        assert task.audit_token().pid == os.getpid()
        send(task, to, 1, descriptors=[PortDescriptor(port, MAKE_SEND)])
        message = receive(task, port)
        assert message.id == 2 and message.audit_token is not None and message.audit_token.pid == peer.pid
        task.mach_port_insert_right(port, port, MAKE_SEND)
        for number in range(3):
            send(task, port, number)
            message = receive(task, port)
            assert message.audit_token == task.audit_token() and message.id == number
        task.mach_port_destroy(port)
        task.mach_port_deallocate(to)
        assert task.mach_port_names() == []

    answerer = in_thread(_answer, peer, door)
    with Child(child) as forked:
        answerer.join(PATIENCE)
        assert _answer.pid == forked.pid  # type: ignore[attr-defined]
    end(peer, door)


def _answer(peer: Peer, door: int) -> None:
    message = receive(peer, door)
    assert message.audit_token is not None
    _answer.pid = message.audit_token.pid  # type: ignore[attr-defined]
    (to,) = names(message)
    send(peer, to, 2, how=Disposition.MOVE_SEND)


def test_a_child_of_a_child(task: LinuxKernel, peer: Peer) -> None:
    """Each begins anew, and neither disturbs those before it."""

    def grandchild() -> None:
        assert task.mach_port_names() == []
        allocate(task)

    def child() -> None:
        assert task.mach_port_names() == []
        port = allocate(task)
        task.mach_port_insert_right(port, port, MAKE_SEND)
        with Child(grandchild):
            send(task, port, 4)
        assert receive(task, port).id == 4

    port, right = introduce(peer, task)
    with Child(child):
        send(task, right, 1)
    assert receive(peer, port).id == 1
    end(peer, port)
    task.mach_port_deallocate(right)


def test_a_bootstrap_name_survives_the_end_of_a_child(bootstrap: object, task: LinuxKernel, peer: Peer) -> None:
    """The child leaves as programs do, running its exit handlers: the name is still the parent's."""
    door = task.bootstrap_check_in("door")
    process = multiprocessing.get_context("fork").Process(target=sys.exit)
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == 0
    process.close()
    pid = os.fork()
    if pid == 0:
        try:
            import atexit

            atexit._run_exitfuncs()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    to = peer.bootstrap_look_up("door")
    send(peer, to, 3)
    assert receive(task, door).id == 3
    peer.mach_port_deallocate(to)
    end(task, door)


@pytest.mark.parametrize("many", [False, True], ids=["one right", "many rights"])
def test_a_fork_while_a_thread_waits(task: LinuxKernel, peer: Peer, many: bool) -> None:
    """The waiting thread is not woken, does not spin while the child lives, and receives what comes."""
    port, right = introduce(task, peer)
    if many:
        task.mach_port_insert_right(port, port, MAKE_SEND)
        send(task, port, 0)
        receive(task, port)
    found: list[int] = []
    waiter = in_thread(lambda: found.append(receive(task, port).id))
    wait_until_they_wait(waiter)

    def child() -> None:
        mine = allocate(task)
        assert nothing_waits(task, mine)
        end(task, mine)

    with Child(child):
        assert idles(time.sleep)  # nothing is waited for: what is measured is that nothing happens
        send(peer, right, 7)
        waiter.join(PATIENCE)
        assert found == [7]
    peer.mach_port_deallocate(right)
    task.mach_port_destroy(port)


def test_forks_while_other_threads_use_the_space(task: LinuxKernel) -> None:
    """Whatever the others are in the middle of, the child's space is empty and works, and nothing is held by it."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            while not stop.is_set():
                port = allocate(task)
                once, _ = task.mach_port_extract_right(port, MAKE_SEND_ONCE)
                send(task, once, 3, bytes(70_000), [PortDescriptor(port, MAKE_SEND_ONCE)], how=18)
                (again,) = names(receive(task, port))
                task.mach_port_deallocate(again)
                assert receive(task, port).id == SEND_ONCE_NOTIFICATION
                end(task, port)
        except BaseException as error:
            failures.append(error)

    def child() -> None:
        assert task.mach_port_names() == []
        sockets = [what for what in open_descriptors().values() if "socket" in what]
        assert len(sockets) <= allowed, sockets
        port = allocate(task)
        task.mach_port_insert_right(port, port, MAKE_SEND)
        send(task, port, 1)
        assert receive(task, port).id == 1
        task.mach_port_destroy(port)

    allowed = sum("socket" in what for what in open_descriptors().values())
    workers = [in_thread(work) for _ in range(2)]
    for _ in range(40):
        with Child(child):
            pass
    stop.set()
    for worker in workers:
        worker.join(PATIENCE)
    assert failures == []


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_children_of_multiprocessing(task: LinuxKernel, method: str) -> None:
    """However they are started, they reach their parent by name, with their own pid, and leave nothing behind."""
    door = task.bootstrap_check_in("door")
    processes = [multiprocessing.get_context(method).Process(target=_call, args=(number,)) for number in range(2)]
    for process in processes:
        process.start()
    seen = {}
    for _ in processes:
        message = receive(task, door)
        assert message.audit_token is not None
        seen[message.audit_token.pid] = message.id
    assert seen == {process.pid: number for number, process in enumerate(processes)}
    for process in processes:
        process.join(PATIENCE)
        assert process.exitcode == 0
        process.close()
    end(task, door)
    if method == "forkserver":
        from multiprocessing import forkserver

        forkserver._forkserver._stop()  # type: ignore[attr-defined]
    if method != "fork":
        from multiprocessing import resource_tracker

        resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


def _call(number: int) -> None:
    kernel = current()
    to = kernel.bootstrap_look_up("door")
    message = Message(number, remote_port=to, remote_disposition=Disposition.MOVE_SEND)
    kernel.mach_msg(message.encode(), lib.MACH_SEND_MSG)
    assert kernel.mach_port_names() == []


def test_a_program_that_is_started_inherits_nothing(task: LinuxKernel, peer: Peer) -> None:
    """Everything is close-on-exec: a started program has no descriptor of the space's, even with close_fds off."""
    before = set(open_descriptors())
    door, _, _ = everything(task, peer)  # rights that came in messages, files
    introduce(task, peer)  # a socket pair
    way = peer.bootstrap_look_up("door")  # and what accept gives
    assert task.mach_port_get_attributes(door, lib.MACH_PORT_RECEIVE_STATUS).mscount == 2  # type: ignore[union-attr]
    queue = task.event_queue()
    queue.add_port(door)
    ours = sorted(set(map(int, open_descriptors())) - set(map(int, before)))
    assert len(ours) > 5
    listed = subprocess.run(
        [sys.executable, "-c", WHICH, *map(str, ours)], close_fds=False, capture_output=True, text=True
    )
    assert (listed.returncode, listed.stdout, listed.stderr) == (0, "", "")
    queue.close()
    peer.mach_port_deallocate(way)
    empty(task)
    empty(peer)


#: Says which of these numbers are descriptors here.
WHICH = """
import os, sys
for fd in map(int, sys.argv[1:]):
    try:
        os.fstat(fd)
    except OSError:
        continue
    print(fd, os.readlink(f"/proc/self/fd/{fd}"))
"""


def test_an_event_queue_in_the_child(task: LinuxKernel, peer: Peer) -> None:
    """The parent's queue goes on; the child makes one of its own."""
    port, right = introduce(task, peer)
    queue = task.event_queue()
    queue.add_port(port)

    def child() -> None:
        own = task.event_queue()
        mine = allocate(task)
        own.add_port(mine)
        task.mach_port_insert_right(mine, mine, MAKE_SEND)
        send(task, mine, 1)
        assert own.wait(PATIENCE) == ([mine], [])
        own.close()
        queue.close()

    with Child(child):
        assert queue.wait(0) == ([], [])
        send(peer, right, 2)
        assert queue.wait(PATIENCE) == ([port], [])
    assert receive(task, port).id == 2
    queue.close()
    peer.mach_port_deallocate(right)
    end(task, port)


def test_two_spaces_and_a_fork(task: LinuxKernel) -> None:
    """All spaces of the process are empty in the child, and tell apart by their numbers as before."""
    second = LinuxKernel()
    first_port, port = introduce(task, second)
    assert second.mach_port_type(port) == SEND and task.mach_port_type(first_port) == RECEIVE

    def child() -> None:
        for space in (task, second):
            assert space.mach_port_names() == []
        assert task.audit_token().asid != second.audit_token().asid
        mine, right = introduce(second, task)
        send(task, right, 9)
        assert receive(second, mine).audit_token == task.audit_token()

    with Child(child):
        pass
    send(second, port, 1)
    assert receive(task, first_port).id == 1
    second.close()
    end(task, first_port)
