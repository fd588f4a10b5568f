"""One message, in every way: within a process, and to another process and back.

What belongs here: for each way, a call that sends and receives once. What must never happen here: a right that arrives
and is not given up.

"Fresh" rights are those that somebody has just made, for one use: whoever gets one sends one message with it and closes it,
whoever made it hears that message and closes the port. A socket pair is the same to whoever has no ports.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Each way imports what it needs itself: the others' imports are not measured with it.
    from multiprocessing.connection import Connection
    from socket import socket as Socket
    from typing import Any

    from machrv import Message, ReceivedMessage, ReceiveRight, SendOnceRight, SendRight

_PROGRAM = str(Path(__file__).resolve().parents[1] / "programs" / "message.py")
_STOP = 2
Work = Callable[[], object]


def _message(size: int, others: list[int]) -> Message:
    from machrv import Disposition, Message, PortDescriptor

    return Message(1, bytes(size), [PortDescriptor(name, Disposition.COPY_SEND) for name in others])


def _given_up(message: Message) -> None:
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
def machrv_between(size: int, rights: int) -> Iterator[Work]:
    """To a child that was launched with a right to send back, which sends the same."""
    return _launched("echo", size, rights)


@contextmanager
def machrv_fresh(size: int, rights: int) -> Iterator[Work]:
    """The same with rights that are made for this message, in either direction, and used."""
    return _launched("fresh", size, rights)


def _launched(mode: str, size: int, rights: int) -> Iterator[Work]:
    from machrv import Message, ReceiveRight, launch

    with ExitStack() as stack:
        port, other = (stack.enter_context(ReceiveRight.allocate()) for _ in range(2))
        right = stack.enter_context(other.make_send())
        command = [sys.executable, _PROGRAM, mode, str(size), str(rights)]
        process = stack.enter_context(launch(command, {"back": port.make_send(), "here": other}))
        others = stack.enter_context(_others(0 if mode == "fresh" else rights))
        message = _message(size, others)

        def work() -> None:
            right.send(message)
            _given_up(port.receive(timeout=30))

        give, use, hear = _fresh()

        def fresh() -> None:
            ports = give(right, rights)
            use(port.receive(timeout=30))
            hear(ports)

        yield fresh if mode == "fresh" else work
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


def fresh(size: int, rights: int) -> None:
    """The child of `machrv_fresh`."""
    from machrv import RendezvousClient

    give, use, hear = _fresh()
    with RendezvousClient.connect() as client:
        back, here = client.take_send_right("back"), client.take_receive_right("here")
        assert back is not None and here is not None
        with back, here:
            while (received := here.receive(timeout=60)).id != _STOP:
                ports = give(back, rights)
                use(received)
                hear(ports)


def _fresh() -> tuple[
    Callable[[SendRight | SendOnceRight, int], list[ReceiveRight]],
    Callable[[ReceivedMessage], None],
    Callable[[list[ReceiveRight]], None],
]:
    """Three calls: give so many fresh rights away, use those that have come, hear what was sent with those given away."""
    from machrv import Message, ReceiveRight, SendRight, take_rights

    def give(right: SendRight | SendOnceRight, count: int) -> list[ReceiveRight]:
        ports = [ReceiveRight.allocate() for _ in range(count)]
        right.send(Message(1, b"", [port.make_send() for port in ports]))
        return ports

    def use(received: ReceivedMessage) -> None:
        for right in take_rights(received):
            assert isinstance(right, SendRight)
            with right:
                right.send(Message(1))

    def hear(ports: list[ReceiveRight]) -> None:
        for port in ports:
            with port:
                port.receive(timeout=30)

    return give, use, hear


@contextmanager
def machrv_channel(size: int, files: int) -> Iterator[Work]:
    """A `Channel.request` to a launched child, which answers with the same data; or which takes so many open files out of it,
    and answers with nothing."""
    from machrv import Channel, launch

    ours, theirs = Channel.pair()
    process = launch([sys.executable, _PROGRAM, "channel", str(size), str(files)], {"chan": theirs})
    data = bytes(size)
    with ours, ExitStack() as stack:
        things = [stack.enter_context(open(os.devnull, "rb")) for _ in range(files)]
        yield lambda: ours.request(data, things, timeout=30)
    process.wait(30)


def channel(size: int, files: int) -> None:
    """The child of `machrv_channel`."""
    from machrv import RendezvousClient, fileport_fd

    with RendezvousClient.connect() as client, client.take_channel("chan") as end:
        for message in end:
            with message:
                for right in message.rights:
                    os.close(fileport_fd(right))
                message.reply(b"" if files else message.data)


@contextmanager
def machrv_request(size: int, _: int) -> Iterator[Work]:
    """A `SendRight.request` to a launched child, which answers with the same."""
    from machrv import Message, ReceiveRight, launch

    with ReceiveRight.allocate() as port, port.make_send() as right:
        process = launch([sys.executable, _PROGRAM, "reply", str(size), "0"], {"here": port})
        message = Message(1, bytes(size))
        yield lambda: right.request(message, timeout=30)
    process.wait(30)


def reply(size: int, _: int) -> None:
    """The child of `machrv_request`."""
    from machrv import Message, RendezvousClient

    with RendezvousClient.connect() as client:
        port = client.take_receive_right("here")
        assert port is not None
        answer = Message(1, bytes(size))
        with port:
            for message in port:
                with message:
                    message.reply(answer)


@contextmanager
def pipe_files(_: int, files: int) -> Iterator[Work]:
    """So many open files over `send_handle`; the child closes them, and answers with nothing."""
    from multiprocessing.reduction import recv_handle, send_handle

    def turn(end: Connection[Any, Any]) -> None:
        end.recv_bytes()
        for _ in range(files):
            os.close(recv_handle(end))
        end.send_bytes(b"")

    with _forked(turn) as first, ExitStack() as stack:
        things = [stack.enter_context(open(os.devnull, "rb")) for _ in range(files)]

        def work() -> None:
            first.send_bytes(b"")
            for thing in things:
                send_handle(first, thing.fileno(), 0)
            first.recv_bytes()

        yield work


def _pipe_rights(count: int) -> list[int]:
    import socket

    return [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)[0].detach() for _ in range(count)]


def _pipe_exchange(first: Connection[Any, Any], second: Connection[Any, Any], body: bytes, fds: list[int]) -> None:
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
    from multiprocessing.reduction import recv_handle, send_handle

    fds, body = _pipe_rights(rights), bytes(size + 24)

    def give(end: Connection[Any, Any]) -> None:
        end.send_bytes(body)
        for fd in fds:
            send_handle(end, fd, 0)

    def take(end: Connection[Any, Any]) -> None:
        end.recv_bytes()
        for _ in fds:
            os.close(recv_handle(end))

    def turn(end: Connection[Any, Any]) -> None:
        take(end)
        give(end)

    with _forked(turn) as first:

        def work() -> None:
            give(first)
            take(first)

        yield work


@contextmanager
def pipe_fresh(size: int, rights: int) -> Iterator[Work]:
    """Fresh socket pairs, one end of each over `send_handle`: whoever gets one sends one packet with it."""
    import socket
    from multiprocessing.reduction import recv_handle, send_handle

    body = bytes(24)

    def give(end: Connection[Any, Any]) -> list[Socket]:
        kept = []
        end.send_bytes(body)
        for _ in range(rights):
            mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                send_handle(end, theirs.fileno(), 0)
            kept.append(mine)
        return kept

    def use(end: Connection[Any, Any]) -> None:
        fds = [recv_handle(end) for _ in range(rights)]
        for fd in fds:
            os.write(fd, body)
            os.close(fd)

    def hear(kept: list[Socket]) -> None:
        for mine in kept:
            with mine:
                mine.recv(64)

    def turn(end: Connection[Any, Any]) -> None:
        end.recv_bytes()
        fds = [recv_handle(end) for _ in range(rights)]
        kept = give(end)
        for fd in fds:
            os.write(fd, body)
            os.close(fd)
        hear(kept)

    with _forked(turn) as first:

        def work() -> None:
            kept = give(first)
            first.recv_bytes()
            use(first)
            hear(kept)

        yield work


@contextmanager
def _forked(turn: Callable[[Connection[Any, Any]], None]) -> Iterator[Connection[Any, Any]]:
    """One end of a Pipe; a child answers at the other one."""
    from multiprocessing import Pipe

    first, second = Pipe()
    pid = os.fork()
    if pid == 0:
        first.close()
        try:
            while True:
                turn(second)
        except (EOFError, OSError):
            os._exit(0)
    second.close()
    yield first
    first.close()
    os.waitpid(pid, 0)


#: what a child of this side is told to be
CHILDREN = {"echo": echo, "fresh": fresh, "channel": channel, "reply": reply}

WAYS = {
    ("machrv", "within"): machrv_within,
    ("Kernel", "within"): kernel_within,
    ("Pipe", "within"): pipe_within,
    ("machrv", "between"): machrv_between,
    ("Pipe", "between"): pipe_between,
    ("machrv", "fresh"): machrv_fresh,
    ("Pipe", "fresh"): pipe_fresh,
    ("machrv", "channel"): machrv_channel,
    ("machrv", "request"): machrv_request,
    ("Pipe", "files"): pipe_files,
}
