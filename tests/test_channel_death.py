"""The other end of a channel dies, in every way there is: whoever receives or asks hears it within a tenth of a second."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from machrv import Channel, ChannelClosedError, RendezvousServer, aio, launch

from .conftest import PATIENCE, SLACK
from .test_multiprocessing import helpers  # noqa: F401 (a fixture)

TAKE = "from machrv import RendezvousClient as R; channel = R.connect().take_channel('chan'); channel.send(b'taken')\n"
#: What the child does; and whether it is killed, once it has said that it has taken its end, or before it could.
FATES = {
    "exits before it asks": ("raise SystemExit", ""),
    "is killed before it asks": ("import time; time.sleep(600)", "at once"),
    "takes nothing": ("from machrv import RendezvousClient as R; R.connect().close()", ""),
    "is killed": (TAKE + "import time; time.sleep(600)", "taken"),
    "is killed while it receives": (TAKE + "held = channel.receive(); channel.receive()", "taken"),
    "aborts": (TAKE + "import os; os.abort()", ""),
    "closes and lives": (TAKE + "channel.close()\nimport time; time.sleep(600)", "ends first"),
}


def receive(ours: Channel) -> None:
    ours.receive(PATIENCE)


def request(ours: Channel) -> None:
    ours.request(b"?", timeout=PATIENCE)


def iterate(ours: Channel) -> None:
    assert list(ours) == []
    raise EOFError


def receive_on_a_loop(ours: Channel) -> None:
    asyncio.run(aio.Channel(ours).receive(PATIENCE))


def request_on_a_loop(ours: Channel) -> None:
    asyncio.run(aio.Channel(ours).request(b"?", timeout=PATIENCE))


WAYS = [receive, request, iterate, receive_on_a_loop, request_on_a_loop]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("fate", FATES)
def test_a_child_is_gone(server: RendezvousServer, fate: str, way: Callable[[Channel], None]) -> None:
    """By its exit, or by its close; also where somebody waits since before."""
    program, killed = FATES[fate]
    ours, theirs = Channel.pair()
    with ours, ThreadPoolExecutor(1) as pool:
        child = launch([sys.executable, "-W", "ignore", "-c", program], {"chan": theirs}, stderr=subprocess.DEVNULL)
        if program.startswith(TAKE):
            assert ours.receive(PATIENCE).data == b"taken"
        heard = pool.submit(_when_heard, way, ours)
        if killed in ("at once", "taken"):
            child.kill()
        if killed != "ends first":
            child.wait(PATIENCE)
        gone = time.monotonic()
        assert heard.result(PATIENCE) - gone < SLACK or killed == "ends first"
        child.kill()
        child.wait(PATIENCE)


def _when_heard(way: Callable[[Channel], None], ours: Channel) -> float:
    with pytest.raises(EOFError):
        way(ours)
    return time.monotonic()


PARENT = """
import signal, subprocess, sys
from machrv import Channel, launch
ours, theirs = Channel.pair()
ours.send(b"before")
launch([sys.executable, "-W", "ignore", "-c", sys.argv[1]], {"chan": theirs})
signal.pause()
"""
ORPHAN = """
import time
from machrv import RendezvousClient
channel = RendezvousClient.connect().take_channel("chan")
print("waits", flush=True)
assert channel.receive(30).data == b"before"
try:
    CALL
except EOFError:
    print(time.monotonic(), flush=True)
"""


@pytest.mark.parametrize(
    "call",
    [
        "channel.receive(30)",
        "channel.request(b'?', timeout=30)",
        "list(channel); raise EOFError",
        "while True: channel.send(bytes(4096), timeout=30)",
    ],
)
def test_a_parent_is_killed(call: str) -> None:
    """Its child hears it, whatever it is doing; what the parent had sent comes first."""
    command = [sys.executable, "-W", "ignore", "-c", PARENT, ORPHAN.replace("CALL", call)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"waits\n"
        parent.kill()
        killed = time.monotonic()
        assert float(parent.stdout.readline()) - killed < SLACK


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_process_of_multiprocessing_is_gone(helpers: None, method: str) -> None:
    """Killed, or never started: then the end is its owner's."""
    ours, theirs = Channel.pair()
    with ours:
        process = multiprocessing.get_context(method).Process(target=hold, args=(theirs,))
        process.start()
        assert ours.receive(PATIENCE).data == b"taken"
        process.kill()
        process.join()
        process.close()
        gone = time.monotonic()
        with pytest.raises(ChannelClosedError):
            ours.receive(PATIENCE)
        assert time.monotonic() - gone < SLACK


def hold(channel: Channel) -> None:
    channel.send(b"taken")
    threading.Event().wait()


def test_a_process_that_was_forked_holds_nothing(server: RendezvousServer) -> None:
    """It has no end of what its parent had, and nobody waits for it."""
    ours, theirs = Channel.pair()
    with ours:
        pid = os.fork()
        if not pid:
            try:
                assert ours.closed and theirs.closed
                with pytest.raises(Exception, match="made before fork"):
                    ours.send(b"")
                time.sleep(600)
            finally:
                os._exit(1)
        try:
            theirs.close()
            gone = time.monotonic()
            with pytest.raises(ChannelClosedError):
                ours.receive(PATIENCE)
            assert time.monotonic() - gone < SLACK
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
