"""What may be launched with: files, sockets and memory stay their owner's; and a `with` that is left by an exception."""

from __future__ import annotations

import asyncio
import io
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from machrv import (
    KeyFormatError,
    MemoryObject,
    PortSet,
    ReceiveRight,
    RegistrationError,
    RendezvousServer,
    RightError,
    aio,
    launch,
)

from .conftest import PATIENCE, Program, finish, wait_for_no_senders
from .loops import Run, run, warm_uvloop  # noqa: F401 (fixtures)

WAITS = [sys.executable, "-c", "import time; time.sleep(600)"]
#: A child that does not end when it is asked to.
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)",
]


def test_an_exception_in_the_body_ends_the_child_and_is_seen(server: RendezvousServer) -> None:
    """The child waits for what the body would have sent: it is ended, and the exception comes out."""
    with ReceiveRight.allocate() as port:
        begun = time.monotonic()
        with pytest.raises(ZeroDivisionError):
            with launch(WAITS, {"port": port.make_send()}, stdin=subprocess.PIPE) as child:
                assert child.stdin is not None
                child.stdin.write(b"what nobody reads")  # And is still buffered.
                raise ZeroDivisionError
        assert time.monotonic() - begun < PATIENCE
        assert child.returncode == -signal.SIGTERM
        wait_for_no_senders(port)


def test_a_child_that_does_not_end_when_asked_is_killed(server: RendezvousServer) -> None:
    """Two seconds of grace, and no more."""
    with pytest.raises(ZeroDivisionError):
        with launch(STUBBORN, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None and child.stdout.readline() == b"\n"
            raise ZeroDivisionError
    assert child.returncode == -signal.SIGKILL


def test_without_an_exception_the_with_waits(server: RendezvousServer) -> None:
    """As Popen's: nobody is killed."""
    with launch([sys.executable, "-c", "import time; time.sleep(0.3)"]) as child:
        pass
    assert child.returncode == 0


def test_an_exception_in_the_body_ends_the_child_of_a_loop(run: Run[None]) -> None:  # noqa: F811
    """The same with `async with`; and without an exception it waits."""

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with await aio.launch(WAITS) as child:
                raise ZeroDivisionError
        assert await child.wait() == -signal.SIGTERM
        with pytest.raises(ZeroDivisionError):
            async with await aio.launch(STUBBORN, stdout=asyncio.subprocess.PIPE) as child:
                assert child.stdout is not None and await child.stdout.readline() == b"\n"
                raise ZeroDivisionError
        assert await child.wait() == -signal.SIGKILL
        async with await aio.launch([sys.executable, "-c", "import time; time.sleep(0.3)"]) as child:
            pass
        assert child.returncode == 0

    run(main())


def test_a_cancelled_body_ends_the_child_of_a_loop(run: Run[None]) -> None:  # noqa: F811
    """Whoever is cancelled while waiting for the child at the end of the `async with` leaves no child behind."""

    async def main() -> None:
        started: asyncio.Future[aio.Child] = asyncio.get_running_loop().create_future()

        async def waits() -> None:
            async with await aio.launch(WAITS) as child:
                started.set_result(child)

        task = asyncio.ensure_future(waits())
        child = await started
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await child.wait() == -signal.SIGKILL

    run(main())


def test_files_sockets_and_memory_are_launched_with_and_stay_their_owners(
    server: RendezvousServer, program: Program, tmp_path: Path
) -> None:
    """A child uses each of them; here, every one of them is as it was."""
    ours, theirs = socket.socketpair()
    with open(tmp_path / "file", "w+") as file, ours, theirs, MemoryObject.from_bytes(b"before") as memory:
        file.write("from the parent\n")
        file.flush()
        file.seek(0)
        child = launch(program("client", "use_values"), {"file": file, "sock": theirs, "memo": memory})
        theirs.close()
        ours.settimeout(PATIENCE)
        assert ours.recv(100) == b"from the parent\n"
        assert finish(child) == 0
        assert not file.closed and not memory.closed
        assert file.read() == "from the child\n"
        with memory.map() as view:
            assert view[:6] == b"behind"


class NoFile:
    """Something that calls a descriptor its own, and has none."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("value", [None, 3, b"bytes", "text", NoFile(), io.StringIO("text"), object()])
def test_what_cannot_be_registered_is_refused_and_nothing_of_others_is_touched(
    server: RendezvousServer, tmp_path: Path, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """One sentence, with the key as it was written; no second traceback; files, sockets, memory are alive."""
    ours, theirs = socket.socketpair()
    with open(tmp_path / "file", "w") as file, ours, theirs, MemoryObject.create(1) as memory:
        with ReceiveRight.allocate() as port:
            good = {"file": file, "sock": theirs, "memo": memory, "port": port.make_send()}
            with pytest.raises(RegistrationError, match="'what'"):
                launch(WAITS, {**good, "what": value})
            wait_for_no_senders(port)  # Rights are the call's, whatever happens.
        assert not file.closed and theirs.fileno() >= 0 and not memory.closed
        assert not getattr(value, "closed", False)
    assert not caplog.records


def test_what_is_closed_is_refused(server: RendezvousServer, tmp_path: Path) -> None:
    """A file, a socket, memory; and a set of ports, which cannot be moved, stays its owner's."""
    with open(tmp_path / "file", "w") as file, MemoryObject.create(1) as memory, socket.socket() as sock:
        pass
    for value, error in ((file, RegistrationError), (sock, RegistrationError), (memory, RightError)):
        with pytest.raises(error, match="'it'"):
            launch(WAITS, {"it": value})
    with PortSet.allocate() as ports:
        with pytest.raises(RegistrationError, match="'set'"):
            launch(WAITS, {"set": ports})  # type: ignore[dict-item]
        assert not ports.closed
    with pytest.raises(RegistrationError, match="dict"):
        launch(WAITS, ["port"])  # type: ignore[arg-type]


def test_a_descriptor_that_is_closed_meanwhile_gives_the_rights_back(server: RendezvousServer) -> None:
    """Registering fails after rights were taken: the caller has them again, and it is an OSError."""

    class Gone:
        def fileno(self) -> int:
            return 99_999

    child = launch(WAITS)
    with child, ReceiveRight.allocate() as port, port.make_send() as right:
        with server.lock, pytest.raises(OSError):
            server.register_ports_for_pid(child.pid, {"port": right, "gone": Gone()})
        assert not right.closed
        child.kill()


def test_a_registration_without_ports_does_not_stand_in_the_way(server: RendezvousServer, program: Program) -> None:
    """`launch(cmd)`, then ports for the same child; and once there are some, no others."""
    child = launch(program("client", "when_told", "take_send_right"), stdin=subprocess.PIPE)
    assert child.stdin is not None
    with ReceiveRight.allocate() as port, port.make_send() as other:
        with server.lock:
            server.register_ports_for_pid(child.pid, {})
            server.register_ports_for_pid(child.pid, {"port": port.make_send()})
            with pytest.raises(RegistrationError, match="'port'.*not claimed yet"):
                server.register_ports_for_pid(child.pid, {"more": other})
        assert not other.closed
        child.stdin.close()
        port.receive(PATIENCE)
        assert finish(child) == 0


def test_short_keys_are_keys(server: RendezvousServer, program: Program, tmp_path: Path) -> None:
    """One to four characters; a text that says what is wrong says it in characters."""
    with ReceiveRight.allocate() as port:
        child = launch(program("client", "send_to", "a"), {"a   ": port.make_send()})
        port.receive(PATIENCE)
        port.receive(PATIENCE)
        assert finish(child) == 0
        with pytest.raises(RegistrationError, match="twice"):
            launch(WAITS, {"log": port.make_send(), "log ": port.make_send()})
        with pytest.raises(KeyFormatError, match="one to four characters"):
            launch(WAITS, {"a long key": port.make_send()})
        wait_for_no_senders(port)
