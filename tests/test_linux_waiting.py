"""Waiting: who is held up by whom, who is woken by what, how long a deadline is, and what signals may do."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from machrv._mach import lib
from machrv.errors import MachError
from machrv.kernel.linux import LinuxKernel
from machrv.message import Disposition, Message, PortDescriptor

from .conftest import PATIENCE, SLACK
from .linux_tasks import bootstrap, nursery, other, peer, task  # noqa: F401 (fixtures)
from .linux_tasks import (
    RECEIVE,
    Peer,
    allocate,
    code_of,
    descriptors,
    end,
    give,
    in_thread,
    introduce,
    receive,
    send,
    wait_until_they_wait,
)

MAKE_SEND, MAKE_SEND_ONCE, COPY_SEND = Disposition.MAKE_SEND, Disposition.MAKE_SEND_ONCE, Disposition.COPY_SEND
MOVE_SEND_ONCE = Disposition.MOVE_SEND_ONCE


def test_nothing_is_held_while_calls_wait(task: LinuxKernel, peer: Peer) -> None:
    """Threads wait on a port, a set, for room, for a message over another right: the space is free for everybody else."""
    port, to = introduce(task, peer)
    far, full = introduce(peer, task)
    pset = task.mach_port_allocate(lib.MACH_PORT_RIGHT_PORT_SET)
    member = allocate(task)
    task.mach_port_insert_member(member, pset)
    while True:
        try:
            send(task, full, 0, bytes(50_000), timeout=0)
        except MachError:
            break
    codes: list[int] = []
    wait = 2.0  # What was held would make another call take as long.
    waits = [
        lambda: codes.append(code_of(receive, task, port, wait)),
        lambda: codes.append(code_of(receive, task, pset, wait)),
        lambda: codes.append(code_of(receive, task, member, wait)),
        lambda: codes.append(code_of(send, task, full, 0, bytes(50_000), timeout=wait)),
    ]
    threads = [in_thread(one) for one in waits]
    calls, slowest = 0, 0.0
    while any(thread.is_alive() for thread in threads):
        began = time.monotonic()
        mine = allocate(task)
        task.mach_port_insert_right(mine, mine, MAKE_SEND)
        send(task, mine, 1)
        assert receive(task, mine).id == 1
        task.mach_port_destroy(mine)
        slowest = max(slowest, time.monotonic() - began)
        calls += 1
    assert sorted(codes) == sorted([lib.MACH_RCV_TIMED_OUT] * 3 + [lib.MACH_SEND_TIMED_OUT])
    assert calls > 10 and slowest < 0.9 * wait
    peer.mach_port_deallocate(to)
    task.mach_port_deallocate(full)
    end(peer, far)
    for name in (port, member, pset):
        task.mach_port_destroy(name)


@pytest.mark.parametrize("rights", [0, 1, 3])
@pytest.mark.parametrize("what", ["port", "set", "member"])
def test_blocked_receivers_are_woken_by_destruction(task: LinuxKernel, peer: Peer, what: str, rights: int) -> None:
    """All of them, at once, with MACH_RCV_PORT_CHANGED; who waits on the set that loses a member goes on waiting."""
    port = allocate(task)
    theirs = [give(task, peer, port, MAKE_SEND_ONCE) for _ in range(rights)]
    pset = task.mach_port_allocate(lib.MACH_PORT_RIGHT_PORT_SET)
    if what != "port":
        task.mach_port_insert_member(port, pset)
    waited = port if what == "port" else pset
    codes: list[int] = []
    threads = [in_thread(lambda: codes.append(code_of(receive, task, waited))) for _ in range(4)]
    wait_until_they_wait(*threads)
    if what == "member":
        end(task, port)
        assert codes == []
        task.mach_port_destroy(pset)
    else:
        task.mach_port_destroy(waited)
    for thread in threads:
        thread.join(PATIENCE)
    assert codes == [lib.MACH_RCV_PORT_CHANGED] * 4
    for name, _ in task.mach_port_names():
        task.mach_port_destroy(name)
    for name in theirs:
        peer.mach_port_deallocate(name)


@pytest.mark.parametrize("timeout", [0, 0.02, 0.2])
def test_timeouts_are_kept(task: LinuxKernel, peer: Peer, timeout: float) -> None:
    """Not less and not much more, on a port, a set, and a full queue; while other threads stir the space up."""
    port, to = introduce(task, peer)
    pset = task.mach_port_allocate(lib.MACH_PORT_RIGHT_PORT_SET)
    far, full = introduce(peer, task)
    while True:
        try:
            send(task, full, 0, bytes(50_000), timeout=0)
        except MachError:
            break
    stop = threading.Event()

    def stir() -> None:
        while not stop.is_set():
            task.mach_port_destroy(allocate(task))

    stirrer = in_thread(stir)
    for call in (
        lambda: code_of(receive, task, port, timeout),
        lambda: code_of(receive, task, pset, timeout),
        lambda: code_of(send, task, full, 0, bytes(50_000), timeout=timeout),
    ):
        began = time.monotonic()
        assert call() in (lib.MACH_RCV_TIMED_OUT, lib.MACH_SEND_TIMED_OUT)
        assert timeout <= time.monotonic() - began < timeout + SLACK
    stop.set()
    stirrer.join()
    peer.mach_port_deallocate(to)
    task.mach_port_deallocate(full)
    end(peer, far)
    for name in (port, pset):
        task.mach_port_destroy(name)


def test_one_deadline_covers_send_and_receive(task: LinuxKernel, peer: Peer) -> None:
    """A call that does both takes as long as it was told, and no longer."""
    port, to = introduce(peer, task)
    reply = task.mach_reply_port()
    message = Message(
        1, remote_port=to, remote_disposition=COPY_SEND, local_port=reply, local_disposition=MAKE_SEND_ONCE
    ).encode()
    began = time.monotonic()
    both = lib.MACH_SEND_MSG | lib.MACH_RCV_MSG
    assert code_of(task.mach_msg, message, both, None, reply, 0.2) == lib.MACH_RCV_TIMED_OUT
    assert 0.2 <= time.monotonic() - began < 0.2 + SLACK
    got = receive(peer, port).remote_port
    send(peer, got, 2, how=MOVE_SEND_ONCE)
    assert receive(task, reply).id == 2
    task.mach_port_deallocate(to)
    end(peer, port)
    end(task, reply)


@pytest.mark.parametrize("timeout", [float("inf"), 1e12, 10**30])
def test_timeouts_that_are_for_ever(task: LinuxKernel, peer: Peer, timeout: float) -> None:
    """Very long is long, and no error."""
    port, to = introduce(task, peer)
    peer.begin("send_message", Message(5), to, COPY_SEND, timeout)
    assert receive(task, port, timeout).id == 5
    peer.end()
    queue = task.event_queue()
    queue.add_port(port)
    send(peer, to, 6)
    assert queue.wait(timeout) == ([port], [])
    queue.close()
    assert receive(task, port).id == 6
    peer.mach_port_deallocate(to)
    end(task, port)


# -- signals and finalisers -----------------------------------------------------------------------------------------------


def test_signals_are_let_in_while_a_receive_blocks(task: LinuxKernel, peer: Peer) -> None:
    """The handler runs at once, may use the space, and the receive goes on."""
    port, to = introduce(task, peer)
    mine = allocate(task)
    heard: list[float] = []

    def handler(number: int, frame: object) -> None:
        heard.append(time.monotonic())
        assert task.mach_port_type(mine) == RECEIVE
        if len(heard) == 3:
            signal.setitimer(signal.ITIMER_REAL, 0)
            peer.begin("send_message", Message(9), to, COPY_SEND, 5)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        began = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.03, 0.03)
        assert receive(task, port).id == 9
        assert len(heard) == 3 and heard[0] - began < 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    peer.end()
    peer.mach_port_deallocate(to)
    end(task, mine)
    end(task, port)


class Interruption(Exception):
    pass


@pytest.mark.parametrize("what", ["receive", "send"])
def test_an_exception_from_a_signal_handler_ends_the_wait(task: LinuxKernel, peer: Peer, what: str) -> None:
    """As Ctrl-C does: the call is over, nothing was taken, and the space is as before."""
    port, to = introduce(task, peer)
    far, full = introduce(peer, task)
    while True:
        try:
            send(task, full, 0, bytes(50_000), timeout=0)
        except MachError:
            break

    def handler(number: int, frame: object) -> None:
        raise Interruption

    before = signal.signal(signal.SIGALRM, handler)
    held, open_before = task.mach_port_names(), descriptors()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interruption):
            if what == "receive":
                receive(task, port)
            else:
                send(task, full, 0, bytes(50_000), [PortDescriptor(port, MAKE_SEND)])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert task.mach_port_names() == held
    send(peer, to, 3)
    assert receive(task, port).id == 3
    assert descriptors() <= open_before + 2  # what the receive waits with
    peer.mach_port_deallocate(to)
    task.mach_port_deallocate(full)
    end(peer, far)
    end(task, port)
