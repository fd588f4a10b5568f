"""A child from its start to its end, in every way: handed one thing to send one message with, which the parent hears.

What belongs here: for each way, a call that starts one child and waits for it. What must never happen here: a child that
ends without having done its work, or a parent that lets it do more than the name says.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

_PROGRAMS = Path(__file__).resolve().parents[1] / "programs"
_KERNEL = "import machrv.kernel; machrv.kernel.current()"
Work = Callable[[], object]


def _bare(*command: str) -> None:
    with subprocess.Popen(command) as process:
        if process.wait():
            raise RuntimeError(f"{' '.join(command)}: {process.returncode}")


@contextmanager
def launched(*command: str, heard: bool = True) -> Iterator[Work]:
    """A child that claims a send right from us; `heard`: and sends a message with it."""
    from machrv import ReceiveRight, launch

    with ReceiveRight.allocate() as port:

        def work() -> None:
            with launch(command, {"port": port.make_send()}) as process:
                if heard:
                    port.receive(timeout=30)
                if process.wait():
                    raise RuntimeError(f"{' '.join(command)}: {process.returncode}")

        yield work


@contextmanager
def bare(*command: str) -> Iterator[Work]:
    """A child that does nothing."""
    yield lambda: _bare(*command)


@contextmanager
def inheriting() -> Iterator[Work]:
    """A socket by its number: `pass_fds`."""
    program = str(_PROGRAMS / "child_fd.py")

    def work() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            fd = theirs.fileno()
            with subprocess.Popen([sys.executable, program, str(fd)], pass_fds=[fd]) as process:
                ours.recv(64)
                if process.wait():
                    raise RuntimeError("a child that inherits has failed")

    yield work


@contextmanager
def multiprocessed(method: str) -> Iterator[Work]:
    """One end of a `multiprocessing.Pipe`, handed to a Process."""
    import multiprocessing

    from bench.peers.spawn import speak

    context = multiprocessing.get_context(method)

    def work() -> None:
        ours, theirs = context.Pipe(duplex=False)
        with ours:
            process = context.Process(target=speak, args=(theirs,))  # type: ignore[attr-defined]
            process.start()
            theirs.close()
            ours.recv_bytes()
            process.join()
            if process.exitcode:
                raise RuntimeError("a child of multiprocessing has failed")
            process.close()

    yield work


WAYS: dict[str, Callable[[], AbstractContextManager[Work]]] = {
    "machrv": lambda: launched(sys.executable, str(_PROGRAMS / "child.py")),
    "claim only": lambda: launched(sys.executable, str(_PROGRAMS / "child.py"), "claim", heard=False),
    "bare Python": lambda: bare(sys.executable, "-c", "pass"),
    "the kernel": lambda: bare(sys.executable, "-c", _KERNEL),
    "pass_fds": inheriting,
    "multiprocessing, spawn": lambda: multiprocessed("spawn"),
    "multiprocessing, forkserver": lambda: multiprocessed("forkserver"),
}
#: the same of a program that is given
C_WAYS: dict[str, Callable[[str], AbstractContextManager[Work]]] = {
    "machrv": lambda program: launched(program, heard=False),
    "bare C": lambda program: bare(program, "nothing"),
}
