"""What every test stands on: nothing may be left behind, and children are real programs.

`nothing_left` holds for every test in the folder: no descriptor, no port name, no child process more than before.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from machrv import Disposition, Message, NoSenders, ReceiveRight, RendezvousServer, RendezvousServerBase
from machrv._mach import lib
from machrv.kernel import Kernel, current
from machrv.message import MACH_NOTIFY_SEND_ONCE

PROGRAMS = Path(__file__).parent / "programs"

#: What runs on a Mac, or shall: docs/macos.md. The rest looks into /proc, or drives the Linux kernel of machrv.
ON_MACOS = (
    "test_audit.py",
    "test_channel.py",
    "test_channel_methods.py",
    "test_chromium_golden.py",
    "test_collection.py",
    "test_commands.py",
    "test_dispatch.py",
    "test_errors.py",
    "test_launch.py",
    "test_layout.py",
    "test_message.py",
    "test_message_properties.py",
    "test_public_surface.py",
    "test_rendezvous_*.py",
    "test_rights.py",
)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """On a Mac, plain `python -m pytest` takes the tests that can pass there, and leaves the others alone."""
    if sys.platform != "darwin" or not collection_path.match("test_*.py"):
        return None
    return None if any(collection_path.match(f"tests/{pattern}") for pattern in ON_MACOS) else True


#: Seconds that no wait in a test reaches unless the test fails.
PATIENCE = float(os.environ.get("MACHRV_TEST_PATIENCE", 30))
#: Seconds that what has a time of its own may take beyond it: ten times and more what it does on a machine that is busy.
SLACK = 10.0


def open_descriptors() -> dict[str, str]:
    """The open descriptors of this process, and what each is, once those are closed that it has given up."""
    if sys.platform.startswith("linux"):
        lib.machrv_settle(5000)
    found = {}
    folder = Path("/proc/self/fd") if Path("/proc/self/fd").exists() else Path("/dev/fd")
    for entry in os.listdir(folder):
        try:
            found[entry] = os.readlink(folder / entry)
        except OSError:
            pass  # The one that listed the folder.
    return found


def settled(expected: int | None = None) -> dict[str, str]:
    """What is open once the library's own thread has closed what it was given; it tells nobody when.

    That is when there are as many as expected, at the latest after five seconds; or, if nobody knows, when there are no fewer
    after a while.
    """
    found = open_descriptors()
    deadline = time.monotonic() + (0.05 if expected is None else 5)
    while len(found) != expected and time.monotonic() < deadline:
        time.sleep(0.002)
        now = open_descriptors()
        if expected is None and len(now) < len(found):
            deadline = time.monotonic() + 0.05
        found = now
    return found


@pytest.fixture(scope="session")
def warm_kernel() -> Kernel:
    """The kernel of this process, with the descriptors that it keeps once it has waited for the first time."""
    kernel = current()
    kernel.event_queue().close()
    settled()
    return kernel


@pytest.fixture(autouse=True)
def nothing_left(warm_kernel: Kernel) -> Iterator[None]:
    """A test leaves no descriptor and no port name behind."""
    kernel = warm_kernel
    names_before = dict(kernel.mach_port_names())
    before = open_descriptors()
    yield
    if len(open_descriptors()) != len(before) or dict(kernel.mach_port_names()) != names_before:
        gc.collect()  # What only a reference cycle holds is not lost yet.
    after = settled(len(before))
    names_after = dict(kernel.mach_port_names())
    assert {hex(name): hex(kind) for name, kind in names_after.items() if name not in names_before} == {}
    assert names_after == names_before
    assert {fd: what for fd, what in after.items() if fd not in before} == {}
    assert len(after) == len(before)


@pytest.fixture
def kernel(warm_kernel: Kernel) -> Kernel:
    """The kernel under test."""
    return warm_kernel


@pytest.fixture
def server() -> Iterator[RendezvousServer]:
    """The rendezvous server of this process, closed afterwards."""
    with RendezvousServer.get_instance() as server:
        yield server


def idles(wait: Callable[[float], object], used: Callable[[], float] = time.process_time) -> bool:
    """Whether a wait of so many seconds, in vain, costs less than half of that of the processor: a short one, or a longer one.

    What spins uses up all that it gets, however long it takes; what a busy machine adds does not grow with the time.
    """
    for seconds in (0.2, 0.6, 2.0):
        before = used()
        wait(seconds)
        if used() - before < seconds / 2:
            return True
    return False


Program = Callable[..., "list[str]"]


@pytest.fixture
def program() -> Program:
    """The command line of a program in tests/programs."""

    def command(name: str, *args: object) -> list[str]:
        return [sys.executable, str(PROGRAMS / f"{name}.py"), *map(str, args)]

    return command


def finish(process: subprocess.Popen[bytes]) -> int:
    """Wait for a child, and say how it ended. One that hangs is killed, and the test fails."""
    with process:
        try:
            return process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def wait_for_no_senders(port: ReceiveRight) -> None:
    """Wait until the last send right to `port` is gone, wherever it was."""
    with pytest.raises(NoSenders):
        port.receive(PATIENCE)


def wait_for_server(server: RendezvousServerBase) -> None:
    """Wait until every request that was sent before has been handled: they are, one after the other."""
    with ReceiveRight.allocate() as answers, server.send_right() as right:
        no_request = Message(0, local_port=answers.name, local_disposition=Disposition.MAKE_SEND_ONCE)
        right.send(no_request)
        assert answers.receive(PATIENCE).id == MACH_NOTIFY_SEND_ONCE
