"""Tasks of the Linux port space for tests: one in this process, others in processes of their own.

What belongs here: starting them, talking to them, and the few message shapes that every room needs. Functions that take a
task take either kind. What must never happen here: a check of what a task answers; that is the tests' business.
"""

from __future__ import annotations

import io
import itertools
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from machrv._mach import lib
from machrv.errors import MachError
from machrv.kernel import Kernel
from machrv.kernel.linux import LinuxKernel
from machrv.message import Disposition, GuardedPortDescriptor, Message, OutOfLinePortsDescriptor, PortDescriptor
from machrv.rights.transfer import receive_message, send_message

from .conftest import PATIENCE, PROGRAMS

SEND, RECEIVE, SEND_ONCE, PORT_SET, DEAD_NAME = (
    int(lib.MACH_PORT_TYPE_SEND),
    int(lib.MACH_PORT_TYPE_RECEIVE),
    int(lib.MACH_PORT_TYPE_SEND_ONCE),
    int(lib.MACH_PORT_TYPE_PORT_SET),
    int(lib.MACH_PORT_TYPE_DEAD_NAME),
)
NO_SENDERS, SEND_ONCE_NOTIFICATION, DEAD_NAME_NOTIFICATION, PORT_DESTROYED = (
    int(lib.MACH_NOTIFY_NO_SENDERS),
    int(lib.MACH_NOTIFY_SEND_ONCE),
    int(lib.MACH_NOTIFY_DEAD_NAME),
    int(lib.MACH_NOTIFY_PORT_DESTROYED),
)
#: Receive, with the largest trailer that tells who sent.
RCV = int(lib.MACH_RCV_MSG) | 3 << 24
LARGE = int(lib.MACH_RCV_LARGE)

_serial = itertools.count()


class Nursery:
    """The process that the peers are forked from, so that a test does not wait for an interpreter to start."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, str(PROGRAMS / "linux_task.py"), str(theirs.fileno())]
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()])

    def birth(self, switches: Sequence[str], requests: int, answers: int) -> int:
        """A new process that reads from and writes to these descriptors; its pid."""
        word = pickle.dumps((os.environ["MACHRV_BOOTSTRAP_DIR"], tuple(switches)))
        socket.send_fds(self.socket, [word], [requests, answers])
        return int(self.socket.recv(16))

    def close(self) -> None:
        self.socket.close()
        self.process.wait(PATIENCE)


_nurseries: list[Nursery] = []


class Answers(io.FileIO):
    """The pipe that a peer answers by. Reading ends in a TimeoutError where the peer hangs."""

    def readinto(self, buffer: Any) -> int:
        if not select.select([self], [], [], 4 * PATIENCE)[0]:
            raise TimeoutError("the peer hangs")
        return super().readinto(buffer) or 0


class Peer:
    """A task in a process of its own: every method of `Kernel` is called there (see programs/linux_task.py)."""

    def __init__(self, *switches: str) -> None:
        requests, to_requests = os.pipe()
        from_answers, answers = os.pipe()
        self._requests, self._answers = os.fdopen(to_requests, "wb"), io.BufferedReader(Answers(from_answers))
        self.pid = _nurseries[0].birth(switches, requests, answers)
        os.close(requests)
        os.close(answers)
        self.pidfd = os.pidfd_open(self.pid)
        self._pending = 0
        self.before: dict[str, Any] = self.call("state")

    def begin(self, method: str, *args: Any, **kwargs: Any) -> None:
        """Have a method called without waiting for what it answers."""
        pickle.dump((method, args, kwargs), self._requests)
        self._requests.flush()
        self._pending += 1

    def end(self) -> Any:
        """What the oldest call that was begun has answered; raises what it raised. A peer that hangs is killed."""
        try:
            kind, value = pickle.load(self._answers)
        except TimeoutError:
            self.kill()
            raise
        self._pending -= 1
        if kind == "MachError":
            raise MachError(*value)
        if kind == "error":
            raise AssertionError(f"the peer failed:\n{value}")
        return value

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        self.begin(method, *args, **kwargs)
        return self.end()

    def __getattr__(self, method: str) -> Any:
        if method.startswith("_"):
            raise AttributeError(method)
        return lambda *args, **kwargs: self.call(method, *args, **kwargs)

    @property
    def lives(self) -> bool:
        return self.pidfd >= 0

    def kill(self) -> None:
        """Gone, without a chance to tidy up."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        assert select.select([self.pidfd], [], [], PATIENCE)[0], "a killed process does not end"
        ends = time.monotonic() + PATIENCE
        while os.path.exists(f"/proc/{self.pid}"):  # its parent, the nursery, has not waited for it yet
            assert time.monotonic() < ends, "nobody waits for a process that was killed"
            os.sched_yield()
        os.close(self.pidfd)
        self.pidfd = -1
        for stream in (self._requests, self._answers):
            try:
                stream.close()
            except BrokenPipeError:
                pass

    def leave(self) -> None:
        """The usual end: it must own nothing any more, neither names nor descriptors, beyond what it began with."""
        try:
            after = self.call("state")
            assert self._pending == 0
            assert after == self.before, f"{after} is left of {self.before}"
        finally:
            self.kill()


Task = Kernel | Peer


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where peers come from: one for all modules, though each has this fixture for its own."""
    if _nurseries:
        yield _nurseries[0]
        return
    nursery = Nursery()
    _nurseries.append(nursery)
    yield nursery
    _nurseries.remove(nursery)
    nursery.close()


@pytest.fixture
def bootstrap(nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A bootstrap directory that this test and its processes have to themselves; in the end it holds no name."""
    directory = tmp_path / "bootstrap"
    monkeypatch.setenv("MACHRV_BOOTSTRAP_DIR", str(directory))
    yield directory
    if directory.exists():
        left = [file for file in os.listdir(directory) if file != ".lock"]
        assert left == [], f"{left} are left in the bootstrap directory"


@pytest.fixture
def task(bootstrap: Path) -> Iterator[LinuxKernel]:
    """A task in this process. When the test is over it must have no name, and no descriptor that it did not begin with."""
    kernel = LinuxKernel()
    kernel.event_queue().close()
    before = descriptors()
    yield kernel
    names = kernel.mach_port_names()
    after = descriptors()
    kernel.close()
    assert names == [], f"{[(hex(name), hex(kind)) for name, kind in names]} are left"
    assert after == before, f"{after} descriptors are open, {before} were"


@pytest.fixture
def peer(task: LinuxKernel) -> Iterator[Peer]:
    """A task in another process. It must end as it began, unless the test has killed it."""
    with started() as peer:
        yield peer


@pytest.fixture
def other(task: LinuxKernel) -> Iterator[Peer]:
    """A third task."""
    with started() as peer:
        yield peer


class started:
    """A peer for the length of a `with`; it must end as it began."""

    def __init__(self, *switches: str) -> None:
        self.peer = Peer(*switches)

    def __enter__(self) -> Peer:
        return self.peer

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if self.peer.lives and error is None:
            self.peer.leave()
        elif self.peer.lives:
            self.peer.kill()


def descriptors() -> int:
    """How many descriptors this process has open, once those are closed that it has given up."""
    lib.machrv_settle(5000)
    return len(os.listdir("/proc/self/fd")) - 1


# -- what every room does -------------------------------------------------------------------------------------------------


def allocate(task: Task) -> int:
    """A new port."""
    return int(task.mach_port_allocate(lib.MACH_PORT_RIGHT_RECEIVE))


def end(task: Task, port: int) -> None:
    """Destroy a receive right; a send right under the same name becomes a dead name."""
    task.mach_port_mod_refs(port, lib.MACH_PORT_RIGHT_RECEIVE, -1)


def empty(task: Task) -> None:
    """Destroy every name."""
    while found := task.mach_port_names():
        task.mach_port_destroy(found[0][0])


def refs(task: Task, name: int, right: int = int(lib.MACH_PORT_RIGHT_SEND)) -> int:
    return int(task.mach_port_get_refs(name, right))


def send(
    task: Task,
    to: int,
    id: int = 0,
    body: bytes = b"",
    descriptors: Sequence[Any] = (),
    *,
    how: int = Disposition.COPY_SEND,
    reply: int = 0,
    reply_how: int = 0,
    timeout: float | None = PATIENCE,
) -> None:
    """Send a message over the right `to`; `data` and `names` of out-of-line descriptors are laid out in memory."""
    message = Message(id, body, descriptors, local_port=reply, local_disposition=reply_how)
    if isinstance(task, Peer):
        task.call("send_message", message, to, how, timeout)
    else:
        send_message(task, message, to, how, timeout)


def receive(task: Task, port: int, timeout: float | None = PATIENCE) -> Message:
    """The next message of a port or set, with an audit trailer, out-of-line memory copied in."""
    if isinstance(task, Peer):
        message = task.call("receive_message", port, timeout)
        assert isinstance(message, Message)
        return message
    return receive_message(task, port, timeout)


def receive_raw(
    task: Task, port: int, timeout: float | None = 0, *, option: int = RCV, size: int | None = None
) -> bytes:
    """As `receive`, as it lies in memory."""
    return bytes(task.mach_msg(None, option, size, port, timeout))


def nothing_waits(task: Task, port: int) -> bool:
    """Whether a port has no message."""
    try:
        message = receive(task, port, 0)
    except MachError as error:
        assert error.code == lib.MACH_RCV_TIMED_OUT, error
        return True
    raise AssertionError(f"something waits: {message!r}")


def names(message: Message) -> list[int]:
    """The port names in the descriptors of a received message, those of arrays too."""
    found: list[int] = []
    for descriptor in message.descriptors:
        if isinstance(descriptor, (PortDescriptor, GuardedPortDescriptor)):
            found.append(descriptor.name)
        elif isinstance(descriptor, OutOfLinePortsDescriptor):
            found += descriptor.names or ()
    return found


def code_of(call: Any, *args: Any, **kwargs: Any) -> int:
    """The code of the MachError that a call raises."""
    with pytest.raises(MachError) as caught:
        call(*args, **kwargs)
    return caught.value.code


def introduce(receiver: Task, sender: Task, how: int = Disposition.MAKE_SEND) -> tuple[int, int]:
    """A port of `receiver`, and a right to it that `sender` has been given in a message: (port, right)."""
    port = allocate(receiver)
    return port, give(receiver, sender, port, how)


def give(giver: Task, taker: Task, name: int, how: int) -> int:
    """Hand a right over in a message, through a bootstrap name that is gone afterwards; what `taker` calls it."""
    word = f"introduction-{os.getpid()}-{next(_serial)}"
    door = taker.bootstrap_check_in(word)
    to = giver.bootstrap_look_up(word)
    send(giver, to, descriptors=[PortDescriptor(name, how)])
    giver.mach_port_deallocate(to)
    (got,) = names(receive(taker, door))
    end(taker, door)
    return got


def request(task: Task, name: int, notification: int, to: int, sync: int = 0) -> int:
    """Ask for a notification to the port `to`."""
    return int(task.mach_port_request_notification(name, notification, sync, to, Disposition.MAKE_SEND_ONCE))


def in_thread(function: Any, *args: Any) -> threading.Thread:
    thread = threading.Thread(target=function, args=args)
    thread.start()
    return thread


#: poll, ppoll, epoll_wait, epoll_pwait, epoll_pwait2 on x86-64; ppoll, epoll_pwait, epoll_pwait2 on aarch64
_POLLS = {"7", "271", "232", "281"} | {"73", "22", "441"}


def wait_until_they_wait(*threads: threading.Thread) -> None:
    """Until each of them sleeps in the kernel for a message, or for room."""
    for thread in threads:
        while True:
            with open(f"/proc/self/task/{thread.native_id}/syscall") as file:
                if file.read().split()[0] in _POLLS:
                    break
            time.sleep(0.001)
