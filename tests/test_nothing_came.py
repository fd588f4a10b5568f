"""A child that gets nothing is told why, and so is whoever reads the parent's log."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from machrv import ReceiveRight, RendezvousServer, launch
from machrv.rendezvous import SERVICE_NAME_VARIABLE
from machrv.rendezvous.keys import key_text, readable_key, uint32_key

from .conftest import PATIENCE, Program, finish

#: A wrapper: it starts a program, and waits for it.
WRAPPER = [sys.executable, "-c", "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"]


def test_a_child_behind_a_wrapper_is_told_of_it(
    server: RendezvousServer, program: Program, caplog: pytest.LogCaptureFixture
) -> None:
    """The child's text and the log of the parent name the wrapper, which has the rights."""
    caplog.set_level(logging.INFO, "machrv")
    with ReceiveRight.allocate() as port:
        command = [*WRAPPER, *program("client", "no_right")]
        child = launch(
            command,
            {"port": port.make_send(), "more": port.make_send()},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        text, complaint = (stream.decode() for stream in child.communicate(timeout=PATIENCE))
        assert finish(child) == 0
    assert "most likely started by a wrapper" in text and f"its parent is {child.pid} (" in text, text
    assert "most likely started by a wrapper" in complaint  # The log of a child that has set no log up.
    told = [record.getMessage() for record in caplog.records]
    assert told[0].startswith(f"registered 'more', 'port' for process {child.pid}"), told
    assert "asked and nothing is registered for it; its parent " in told[1]
    assert f"parent {child.pid} ({sys.executable}" in told[1] and told[1].endswith("has 2 rights registered"), told


def test_the_parents_log_tells_who_got_what(
    server: RendezvousServer, program: Program, caplog: pytest.LogCaptureFixture
) -> None:
    """At INFO: what was registered for whom, and that it asked and got it."""
    caplog.set_level(logging.INFO, "machrv")
    with ReceiveRight.allocate() as port:
        child = launch(program("client", "take_send_right"), {"port": port.make_send()})
        port.receive(PATIENCE)
        assert finish(child) == 0
    registered, got = (record.getMessage() for record in caplog.records)
    assert registered.startswith(f"registered 'port' for process {child.pid}")
    assert got.startswith(f"process {child.pid} (") and got.endswith("asked and got 'port'")


def test_a_child_that_was_not_launched_is_told_so(server: RendezvousServer, program: Program) -> None:
    """With a server that knows nothing of it, and where there is no server at all."""
    environment = {name: value for name, value in os.environ.items() if name != SERVICE_NAME_VARIABLE}
    command = program("client", "no_right")
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "was not launched by machrv.launch()" in done.stdout and "nobody has registered" in done.stdout, done
    assert done.stderr == ""
    orphan = subprocess.run([*WRAPPER, *command], env=environment, capture_output=True, text=True)
    assert "nobody has checked this name in" in orphan.stdout and "was not launched by" in orphan.stdout, orphan


def test_a_child_that_asks_again_is_told_that_it_has(server: RendezvousServer) -> None:
    """Nothing is left, and nobody speaks of a wrapper."""
    code = (
        "from machrv import RendezvousClient as C\n"
        "with C.connect() as first, C.connect() as again:\n"
        "    first['port']\n"
        "    try: again['port']\n"
        "    except KeyError as error: print(error)\n"
        "    first.take_send_right('port').close()\n"
        "    try: first['port']\n"
        "    except KeyError as error: print(error)\n"
    )
    with ReceiveRight.allocate() as port:
        child = launch([sys.executable, "-c", code], {"port": port.make_send()}, stdout=subprocess.PIPE)
        out = child.communicate(timeout=PATIENCE)[0].decode().splitlines()
        assert finish(child) == 0
    assert "has asked before" in out[0] and "wrapper" not in out[0]
    assert "everything that came was taken" in out[1]


def test_a_process_is_called_by_its_command_line(tmp_path: Path) -> None:
    """One line, not too long, whatever the process has written there."""
    from machrv.rendezvous.telling import ancestors, process_text

    code = "import sys; sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code, "\x1b[31m\n" * 40], stdin=subprocess.PIPE) as child:
        deadline = time.monotonic() + PATIENCE
        while code not in process_text(child.pid) and time.monotonic() < deadline:
            pass  # Until it has exec'ed.
        assert process_text(child.pid).isprintable() and process_text(child.pid).endswith("...)")
        assert next(ancestors(child.pid)) == os.getpid()
    assert process_text(child.pid) == str(child.pid) and list(ancestors(child.pid)) == []


@pytest.mark.parametrize(
    ("key", "text"),
    [("file", "'file'"), ("log", "'log'"), (7, "7"), (0, "0"), (0x66696C65, "'file'"), ("\xe9", "3911196704")],
)
def test_a_key_is_shown_as_it_is_written(key: int | str, text: str) -> None:
    """And what is shown is the same key."""
    number = uint32_key(key)
    assert key_text(number) == text and uint32_key(readable_key(number)) == number
