"""Processes for load: a nursery that forks children quickly, and what a child can do.

What belongs here: making processes and telling them what to do. What must never happen here: a judgement. The nursery is
forked before the parent has a server or a thread.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
from time import perf_counter
from typing import Any

from machrv import (
    MachError,
    MachrvError,
    Message,
    ReceiveRight,
    RendezvousClient,
    SendOnceRight,
    SendRight,
    four_char_code,
)
from machrv.kernel import current
from machrv.rendezvous.protocol import request

GOOD = four_char_code("good")
PATIENCE = 60.0


class Child:
    """A child of the nursery, with a socket to it."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self._control = control
        control.settimeout(PATIENCE)

    def tell(self, do: str, **what: Any) -> None:
        """Give an order."""
        self._control.send(json.dumps({"do": do, **what}).encode())

    def answer(self) -> Any:
        """What it says to the last order; None if it has died."""
        try:
            found = self._control.recv(65536)
        except ConnectionError:
            return None
        return json.loads(found)["answer"] if found else None

    def ask(self, do: str, **what: Any) -> Any:
        """`tell` and `answer`."""
        self.tell(do, **what)
        return self.answer()

    def kill(self) -> None:
        """Kill it. The nursery waits for it."""
        os.kill(self.pid, signal.SIGKILL)
        self._control.close()

    def close(self) -> None:
        """Let it end by itself."""
        self._control.close()


class Nursery:
    """A process whose only work is to fork."""

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._orders.close()
                _nurse(theirs)
            finally:
                os._exit(0)
        theirs.close()

    def child(self) -> Child:
        """A new child."""
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(self._orders, [b"child"], [theirs.fileno()])
        return Child(int(self._orders.recv(32)), mine)

    def close(self) -> None:
        """End it. Its children end when their sockets are closed."""
        self._orders.close()
        os.waitpid(self._pid, 0)


def _nurse(orders: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Nobody waits for the children: they are gone when they are gone.
    while (received := socket.recv_fds(orders, 16, 1))[0]:
        pid = os.fork()
        if pid == 0:
            orders.close()
            try:
                _live(socket.socket(fileno=received[1][0]))
            except ConnectionError:
                pass  # The parent has no use for it any more.
            finally:
                os._exit(0)
        os.close(received[1][0])
        orders.send(str(pid).encode())


# -- in the child -----------------------------------------------------------------------------------------------------


def _live(control: socket.socket) -> None:
    held: list[Any] = []
    while order := control.recv(65536):
        told = json.loads(order)
        answer = globals()[f"_{told.pop('do')}"](held, **told)
        control.send(json.dumps({"answer": answer}).encode())


def _claim(held: list[Any], service: str, use: bool = True) -> int | str:
    """Claim, use what came, and give it up; with `use` false, hold it."""
    try:
        client = RendezvousClient.connect(service, timeout=PATIENCE)
    except MachrvError as error:
        return type(error).__name__
    count = client.port_count
    if not use:
        held.append(client)
        return count
    with client:
        for key in range(count):
            right = client.take_send_right(key) or client.take_receive_right(key)
            assert right is not None
            with right:
                if isinstance(right, (SendRight, SendOnceRight)):
                    right.send(Message(GOOD))
                else:
                    assert right.receive(PATIENCE).id == GOOD
    return count


def _time(held: list[Any], service: str, rounds: int) -> list[float]:
    """How long claims take, each, in seconds."""
    taken = []
    for _ in range(rounds):
        began = perf_counter()
        RendezvousClient.connect(service, timeout=PATIENCE).close()
        taken.append(perf_counter() - began)
    return taken


def _flood(held: list[Any], service: str, count: int) -> int:
    """Messages that are no requests, as fast as they go."""
    sent = 0
    with SendRight(current().bootstrap_look_up(service)) as right:
        for number in range(count):
            try:
                right.send(Message(number, bytes(number % 256 * 4)), timeout=0)
                sent += 1
            except MachError:
                pass
    return sent


def _ask(held: list[Any], service: str, count: int) -> int:
    """Requests whose replies nobody reads."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    answers = ReceiveRight.allocate(1024)
    held.append(answers)
    with SendRight(current().bootstrap_look_up(service)) as right:
        for number in range(count):
            message = request(answers.name)
            try:
                right.send(message, timeout=PATIENCE)
            except MachError:
                return number
    return count


def _hold(held: list[Any], service: str, count: int) -> int:
    """Connections that nothing is sent over."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    folder = os.environ["MACHRV_BOOTSTRAP_DIR"]
    path = f"{folder}/{os.readlink(f'{folder}/{service}')}"
    for _ in range(count):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(path)
        held.append(connection)
    return count
