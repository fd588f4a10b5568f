"""A pid is given to another process, for real: the newcomer gets nothing that was meant for its predecessor.

Everything twice: with pidfds that have inodes of their own (Linux 6.9), and with start times in their place.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machrv import (
    ENFORCE_PEER_REQUIREMENTS,
    AuditToken,
    ProcessRequirement,
    ReceiveRight,
    RendezvousServer,
    destroy_message,
    four_char_code,
)
from machrv.kernel import Kernel
from machrv.rendezvous.protocol import request

from .conftest import PATIENCE, Program, finish, wait_for_no_senders
from .linux_features import needs

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="clone3 with set_tid is Linux's")

GOOD = four_char_code("good")


@pytest.fixture(params=["pidfs", "start times"], autouse=True)
def told_apart_by(request: pytest.FixtureRequest) -> Iterator[str]:
    """What tells one process from the next that has its pid."""
    from machrv._mach import lib

    if request.param == "start times":
        lib.machrv_without(lib.MACHRV_WITHOUT_PIDFS)
    yield request.param
    lib.machrv_without(0)


@pytest.fixture(scope="module", autouse=True)
def permitted() -> None:
    """Skips where a process cannot choose its pid."""
    child = subprocess.Popen(["true"])
    child.wait()
    command = [sys.executable, os.path.join(os.path.dirname(__file__), "programs", "recycle.py"), str(child.pid)]
    done = subprocess.run([*command, "/bin/true"], capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip(done.stderr.strip())


def recycled(program: Program, pid: int, command: list[str], **popen: Any) -> subprocess.Popen[bytes]:
    """Run a command as the process `pid`; what is returned is its parent, which exits with its status."""
    return subprocess.Popen(program("recycle", pid, *command), **popen)


def exit_unnoticed(server: RendezvousServer, child: subprocess.Popen[bytes]) -> None:
    """Kill a registered child and wait for it, with the server not hearing of its exit: a slow dispatch thread."""
    [registration] = server._registry._registrations.values()
    server._registry._dispatcher.unwatch_process(registration.process)
    child.send_signal(signal.SIGKILL)
    assert finish(child) == -signal.SIGKILL


@pytest.mark.parametrize("noticed", [True, False])
def test_the_newcomer_gets_nothing(server: RendezvousServer, program: Program, noticed: bool) -> None:
    """Whether the server has heard of the exit or not: the registration is the dead process's, and ends unclaimed."""
    with ReceiveRight.allocate() as port:
        with server.lock:
            child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
            server.register_ports_for_pid(child.pid, {"port": port.make_send()})
        if noticed:
            child.kill()
            assert finish(child) == -signal.SIGKILL
            wait_for_no_senders(port)
        else:
            exit_unnoticed(server, child)
            assert server.registration_count == 1
        newcomer = recycled(program, child.pid, program("validation", "ask_by_name", server.service_name))
        assert finish(newcomer) == 0
        if not noticed:
            assert server.registration_count == 1, "the newcomer claimed it"
            server.clear_client_data_for_testing()
            wait_for_no_senders(port)


def test_a_newcomer_of_the_same_instant_gets_nothing(
    server: RendezvousServer, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Start times tell hundredths of a second apart, no less: that the registered process runs no more is what counts."""
    from machrv.kernel.linux.waiting import LinuxProcess

    monkeypatch.setattr(LinuxProcess, "matches", lambda process, token: token.pid == process.pid)
    with ReceiveRight.allocate() as port:
        with server.lock:
            child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
            server.register_ports_for_pid(child.pid, {"port": port.make_send()})
        exit_unnoticed(server, child)
        newcomer = recycled(program, child.pid, program("validation", "ask_by_name", server.service_name))
        assert finish(newcomer) == 0
        server.clear_client_data_for_testing()
        wait_for_no_senders(port)


def test_the_newcomer_is_registered_anew(server: RendezvousServer, program: Program) -> None:
    """What is registered for the newcomer ends the registration that was left, and only that is what it gets."""
    with ReceiveRight.allocate() as port, ReceiveRight.allocate() as old, ENFORCE_PEER_REQUIREMENTS.override(True):
        with server.lock:
            child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
            server.register_ports_for_pid(child.pid, {"port": old.make_send()})
            server.set_process_requirement_for_pid(child.pid, ProcessRequirement.never_matches_for_testing())
        exit_unnoticed(server, child)
        with server.lock:
            parent = recycled(program, child.pid, program("validation", "take_by_name", server.service_name))
            wait_until_there(child.pid, parent)
            server.register_ports_for_pid(child.pid, {"port": port.make_send()})
        message = port.receive(PATIENCE)
        assert message.id == GOOD and message.audit_token is not None and message.audit_token.pid == child.pid
        assert finish(parent) == 0
        wait_for_no_senders(old)
        wait_for_no_senders(port)


def wait_until_there(pid: int, parent: subprocess.Popen[bytes]) -> None:
    """Until `parent` has made its child."""
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    while str(pid) not in children.read_text().split():
        assert parent.poll() is None
        os.sched_yield()


@needs("SO_PASSPIDFD")  # Without it, the request may count as one of whoever has the number by then.
def test_a_request_of_the_dead_claims_nothing(server: RendezvousServer, program: Program) -> None:
    """Sent by a process that had the pid before: what the server finds in its queue is not the newcomer's request."""
    with ReceiveRight.allocate() as port, ReceiveRight.allocate() as answers, server.send_right() as right:
        with server.lock:
            # The dispatch thread takes this process's request, and waits for the lock; what comes after it stays queued.
            right.send(request(answers.name))
            dead = subprocess.Popen(program("validation", "ask_and_exit", server.service_name))
            assert finish(dead) == 0
            parent = recycled(program, dead.pid, program("validation", "take_by_name", server.service_name))
            wait_until_there(dead.pid, parent)
            server.register_ports_for_pid(dead.pid, {"port": port.make_send()})
        destroy_message(answers.receive(PATIENCE))
        assert port.receive(PATIENCE).id == GOOD
        assert finish(parent) == 0
        wait_for_no_senders(port)


def test_a_requirement_does_not_judge_the_newcomer_in_place_of_the_dead(
    program: Program, kernel: Kernel, told_apart_by: str
) -> None:
    """The token is the dead process's: that the newcomer would meet the requirement does not help it."""
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    with kernel.open_process(child.pid) as process:  # type: ignore[attr-defined]
        token = AuditToken(pid=child.pid, pidversion=process.pidversion)
        requirement = ProcessRequirement.Builder().user(os.getuid()).build()
        assert requirement.mismatch(token) is None
        child.kill()
        assert finish(child) == -signal.SIGKILL
        newcomer = recycled(program, child.pid, ["/bin/cat"], stdin=subprocess.PIPE)
        wait_until_there(child.pid, newcomer)
        assert not process.is_running()
        with kernel.open_process(child.pid) as another:  # type: ignore[attr-defined]
            assert another.is_running()
            assert requirement.mismatch(AuditToken(pid=child.pid, pidversion=another.pidversion)) is None
            if another.pidversion != process.pidversion:
                assert requirement.mismatch(token) is not None
            else:
                assert told_apart_by == "start times", "an inode was given out twice"
    newcomer.communicate()
