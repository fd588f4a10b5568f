"""One message, in every way: within a process, and to another process and back.

What belongs here: for each way, a call that sends and receives once. What must never happen here: a right that arrives
and is not given up.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_PROGRAM = str(Path(__file__).resolve().parents[1] / "programs" / "message.py")
_STOP = 2
Work = Callable[[], object]


def _message(size: int, others: list[int]):  # type: ignore[no-untyped-def]
    from machrv import Disposition, Message, PortDescriptor

    return Message(1, bytes(size), [PortDescriptor(name, Disposition.COPY_SEND) for name in others])


def _given_up(message) -> None:  # type: ignore[no-untyped-def]
    from machrv import destroy_message

    if message.descriptors:
        destroy_message(message)


@contextmanager
def _others(count: int) -> Iterator[list[int]]:
    """The names of send rights to as many ports."""
    from machrv import ReceiveRight

    with ExitStack() as stack:
        ports = [stack.enter_context(ReceiveRight.allocate()) for _ in range(count)]
        yield [stack.enter_context(port.make_send()).name for port in ports]


@contextmanager
def machrv_within(size: int, rights: int) -> Iterator[Work]:
    """`Message` objects and owned rights, an audit trailer, decoded."""
    from machrv import ReceiveRight, destroy_message

    with ReceiveRight.allocate() as port, port.make_send() as right, _others(rights) as others:
        message = _message(size, others)

        def work() -> None:
            right.send(message)
            received = port.receive()
            if received.descriptors:
                destroy_message(received)

        yield work


@contextmanager
def kernel_within(size: int, rights: int) -> Iterator[Work]:
    """Bytes, through `Kernel.mach_msg`."""
    from machrv import Disposition, ReceiveRight
    from machrv.message import MACH_RCV_MSG, MACH_RCV_TRAILER_AUDIT, MACH_SEND_MSG, trailer_request

    with ReceiveRight.allocate() as port, port.make_send() as right:
        mach_msg, name = port.kernel.mach_msg, port.name
        receive = MACH_RCV_MSG | trailer_request(MACH_RCV_TRAILER_AUDIT)
        image = _message(size, []).encode_to(right.name, Disposition.COPY_SEND)

        def work() -> None:
            mach_msg(image, MACH_SEND_MSG)
            mach_msg(None, receive, None, name)

        yield work


@contextmanager
def primitives_within(size: int, rights: int) -> Iterator[Work]:
    """The two C functions below `Kernel.mach_msg`, called from Python, on a pair of sockets."""
    import socket

    from machrv import Disposition
    from machrv._mach import ffi, lib

    image = _message(size, []).encode_to(1, Disposition.COPY_SEND)
    first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with first, second:
        second.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        sending, receiving, received = first.fileno(), second.fileno(), ffi.new("machrv_received *")
        send, receive, length = lib.machrv_send_plain, lib.machrv_receive, len(image)

        def work() -> None:
            send(sending, image, length, 0)
            receive(receiving, received)

        yield work


@contextmanager
def machrv_between(size: int, rights: int) -> Iterator[Work]:
    """To a child that was launched with a right to send back."""
    from machrv import Message, ReceiveRight, launch

    with ExitStack() as stack:
        port, other = (stack.enter_context(ReceiveRight.allocate()) for _ in range(2))
        right = stack.enter_context(other.make_send())
        command = [sys.executable, _PROGRAM, "echo", str(size), str(rights)]
        process = stack.enter_context(launch(command, {"back": port.make_send(), "here": other}))
        others = stack.enter_context(_others(rights))
        message = _message(size, others)

        def work() -> None:
            right.send(message)
            _given_up(port.receive(timeout=30))

        work()
        yield work
        right.send(Message(_STOP))
        process.wait(30)


def echo(size: int, rights: int) -> None:
    """The child of `machrv_between`: sends back what comes, until it is told to stop."""
    from machrv import RendezvousClient

    with RendezvousClient.connect() as client, _others(rights) as others:
        back, here = client.take_send_right("back"), client.take_receive_right("here")
        assert back is not None and here is not None
        message = _message(size, others)
        with back, here:
            while (received := here.receive(timeout=60)).id != _STOP:
                _given_up(received)
                back.send(message)


def _pipe_rights(count: int) -> list[int]:
    import socket

    return [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)[0].detach() for _ in range(count)]


def _pipe_exchange(first, second, body: bytes, fds: list[int]) -> None:  # type: ignore[no-untyped-def]
    from multiprocessing.reduction import recv_handle, send_handle

    first.send_bytes(body)
    for fd in fds:
        send_handle(first, fd, 0)
    second.recv_bytes()
    for _ in fds:
        os.close(recv_handle(second))


@contextmanager
def pipe_within(size: int, rights: int) -> Iterator[Work]:
    """Bytes through a `multiprocessing.Pipe`; rights one after the other with `send_handle`."""
    from multiprocessing import Pipe

    first, second = Pipe()
    with first, second:
        fds, body = _pipe_rights(rights), bytes(size + 24)
        yield lambda: _pipe_exchange(first, second, body, fds)


@contextmanager
def pipe_between(size: int, rights: int) -> Iterator[Work]:
    """The same, to a forked child and back."""
    from multiprocessing import Pipe
    from multiprocessing.reduction import recv_handle, send_handle

    first, second = Pipe()
    fds, body = _pipe_rights(rights), bytes(size + 24)

    def give(end) -> None:  # type: ignore[no-untyped-def]
        end.send_bytes(body)
        for fd in fds:
            send_handle(end, fd, 0)

    def take(end) -> None:  # type: ignore[no-untyped-def]
        end.recv_bytes()
        for _ in fds:
            os.close(recv_handle(end))

    pid = os.fork()
    if pid == 0:
        first.close()
        try:
            while True:
                take(second)
                give(second)
        except (EOFError, OSError):
            os._exit(0)
    second.close()

    def work() -> None:
        give(first)
        take(first)

    yield work
    first.close()
    os.waitpid(pid, 0)


WAYS = {
    ("machrv", "within"): machrv_within,
    ("Kernel", "within"): kernel_within,
    ("primitives", "within"): primitives_within,
    ("Pipe", "within"): pipe_within,
    ("machrv", "between"): machrv_between,
    ("Pipe", "between"): pipe_between,
}
