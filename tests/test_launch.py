"""Launching in one step: the child has its ports, or every one of them is given up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from machrv import (
    AuditToken,
    Disposition,
    KeyFormatError,
    Message,
    ReceiveRight,
    RegistrationError,
    RendezvousError,
    RendezvousPort,
    RendezvousServer,
    RightError,
    four_char_code,
    launch,
)
from machrv.kernel import Kernel
from machrv.message import MACH_NOTIFY_SEND_ONCE, MACH_PORT_TYPE_DEAD_NAME
from machrv.rendezvous import SERVICE_NAME_VARIABLE
from machrv.rendezvous.protocol import MAX_PORTS
from machrv.rendezvous.policy import ENFORCE_PEER_REQUIREMENTS
from machrv.requirement import Requirement

from .conftest import PATIENCE, Program, finish, wait_for_no_senders

GOOD = four_char_code("good")


def test_launch_hands_a_right_over(server: RendezvousServer, program: Program) -> None:
    """Lock, spawn, register: the child sends 'good' on what it got."""
    with ReceiveRight.allocate() as port:
        child = launch(program("client", "take_send_right"), {"port": port.make_send()})
        assert isinstance(child, subprocess.Popen)
        message = port.receive(PATIENCE)
        assert message.id == GOOD
        assert message.audit_token is not None and message.audit_token.pid == child.pid
        assert finish(child) == 0
        wait_for_no_senders(port)


def test_launch_without_ports_is_popen(server: RendezvousServer, program: Program) -> None:
    """What Popen takes, launch takes; the child's rendezvous brings nothing."""
    with launch([sys.executable, "-c", "print(6 * 7)"], stdout=subprocess.PIPE) as child:
        assert child.communicate()[0] == b"42\n"
    assert finish(launch(program("client", "no_ports"))) == 0


def test_the_child_is_told_whom_to_ask(server: RendezvousServer) -> None:
    """The server's name is in its environment, beside what the caller put there, and not in the caller's own."""
    code = f"import os; print(os.environ['{SERVICE_NAME_VARIABLE}'], os.environ['WORD'])"
    with launch([sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "WORD": "w"}) as child:
        assert child.communicate()[0].decode().split() == [server.service_name, "w"]
    assert SERVICE_NAME_VARIABLE not in os.environ


def test_a_child_whose_parent_is_not_who_launched_it_finds_the_server(server: RendezvousServer) -> None:
    """The environment names the server where the parent's pid leads nowhere: here, an orphan registered by its pid."""
    orphan = (
        "import os, sys; from machrv import RendezvousClient\n"
        "launched = os.getpid()\n"
        "if os.fork(): os._exit(0)\n"
        "while os.getppid() == launched: pass\n"
        "print(os.getpid(), flush=True); sys.stdin.readline()\n"
        "client = RendezvousClient.get_instance()\n"
        "assert client is not None and client.server_audit_token.pid == int(sys.argv[1])\n"
        "print(client.port_count, flush=True)\n"
    )
    with ReceiveRight.allocate() as port:
        command = [sys.executable, "-c", orphan, str(os.getpid())]
        child = launch(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdin is not None
        pid = int(child.stdout.readline())
        with server.lock:
            server.register_ports_for_pid(pid, {"port": port.make_send()})
        child.stdin.write(b"\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"1\n"
        assert finish(child) == 0
        wait_for_no_senders(port)


#: Ports, and what must be true once all of them were given up.
Kinds = tuple[dict[str, Any], Callable[[], None]]


@pytest.fixture
def kinds(kernel: Kernel) -> Iterator[Kinds]:
    """One right of every kind to be moved, and a check that all of them were given up."""
    with ReceiveRight.allocate() as port, ReceiveRight.allocate() as answers:
        moved = ReceiveRight.allocate()
        with moved.make_send() as to_moved:
            ports = {
                "send": port.make_send(),
                "once": answers.make_send_once(),
                "recv": moved,
                "name": RendezvousPort(port.make_send().release(), Disposition.MOVE_SEND),
            }

            def all_given_up() -> None:
                wait_for_no_senders(port)
                assert answers.receive(PATIENCE).id == MACH_NOTIFY_SEND_ONCE
                assert kernel.mach_port_type(to_moved.name) == MACH_PORT_TYPE_DEAD_NAME

            yield ports, all_given_up


def test_a_program_that_does_not_exist_destroys_what_was_to_be_moved(kinds: Kinds, server: RendezvousServer) -> None:
    """FileNotFoundError, as from Popen, and no right is left."""
    ports, all_given_up = kinds
    with pytest.raises(FileNotFoundError):
        launch(["/nonexistent/program"], ports)
    all_given_up()
    assert server.registration_count == 0
    with server.lock:
        pass  # It was released.


def test_ports_that_are_refused_are_destroyed_and_nothing_is_started(kinds: Kinds, server: RendezvousServer) -> None:
    """A key that is none: the mistake is found before a child is started."""
    ports, all_given_up = kinds
    with pytest.raises(KeyFormatError):
        launch([sys.executable, "-c", "raise SystemExit('started')"], {**ports, "a long key": ports["send"]})
    all_given_up()


def test_too_many_ports_are_destroyed(server: RendezvousServer) -> None:
    """One more than fits."""
    with ReceiveRight.allocate() as port:
        with pytest.raises(RegistrationError):
            launch(["/bin/true"], {key: port.make_send() for key in range(MAX_PORTS + 1)})
        wait_for_no_senders(port)


def test_a_spent_right_destroys_the_others(kinds: Kinds, server: RendezvousServer) -> None:
    """What cannot be moved fails the call, and what could is given up."""
    ports, all_given_up = kinds
    with ReceiveRight.allocate() as other:
        spent = other.make_send()
        spent.close()
        with pytest.raises(RightError):
            launch(["/bin/true"], {**ports, "more": spent})
    all_given_up()


def test_a_lock_that_this_thread_holds_fails_the_call(kinds: Kinds, server: RendezvousServer) -> None:
    """No deadlock; and the rights are given up."""
    ports, all_given_up = kinds
    with server.lock, pytest.raises(RuntimeError, match="already"):
        launch(["/bin/true"], ports)
    all_given_up()


def test_a_child_that_is_gone_before_it_is_registered_is_no_failure(kinds: Kinds, server: RendezvousServer) -> None:
    """The quickest child of all: launch returns it, its rights are given up."""
    ports, all_given_up = kinds
    assert finish(launch(["/bin/true"], ports)) == 0
    all_given_up()


def test_a_child_that_was_waited_for_before_it_is_registered_is_no_failure(
    kinds: Kinds, server: RendezvousServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody's exit status is kept (SIGCHLD is ignored), and it has exited: launch returns it, its rights are given up."""
    ports, all_given_up = kinds
    register, gone = server.register_ports_for_pid, []

    def register_late(pid: int, ports: Any) -> None:
        with pytest.raises(ChildProcessError):  # Waits for its exit; then there is nothing to wait for.
            os.waitpid(pid, 0)
        gone.append(pid)
        register(pid, ports)

    monkeypatch.setattr(server, "register_ports_for_pid", register_late)
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        child = launch(["/bin/true"], ports)
        assert gone == [child.pid]
        assert child.wait(PATIENCE) == 0  # What Popen says when it cannot know.
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert server.registration_count == 0
    all_given_up()


def test_a_child_that_cannot_be_registered_is_killed(kinds: Kinds, server: RendezvousServer) -> None:
    """Registering fails after the child was started: it does not go on without its ports."""
    ports, all_given_up = kinds
    (wait, let_go), (read, write) = os.pipe(), os.pipe()
    server.close()
    try:
        with pytest.raises(RendezvousError, match="closed"):
            launch(["/bin/cat"], ports, server=server, stdin=wait, pass_fds=[write])
        os.close(write)
        os.set_blocking(read, False)
        assert os.read(read, 1) == b""  # Nobody has the other end any more: the child was gone when launch raised.
    finally:
        for fd in (wait, let_go, read):  # A child that lives ends now.
            os.close(fd)
    all_given_up()


class Says(Requirement):
    """A requirement that has been met, or has not, or cannot be evaluated."""

    def __init__(self, answer: bool | None, server: RendezvousServer) -> None:
        self.answer = answer
        self.server = server
        self.asked: list[AuditToken] = []

    def validate(self, audit_token: AuditToken, info_plist: bytes = b"") -> bool:
        assert not self.server.lock.held()
        assert self.server.registration_count == 0
        self.asked.append(audit_token)
        if self.answer is None:
            raise ZeroDivisionError
        return self.answer


def test_a_child_that_meets_its_requirement_gets_its_ports(server: RendezvousServer, program: Program) -> None:
    """It is judged once, by the token that its request bore, with the lock released."""
    requirement = Says(True, server)
    with ReceiveRight.allocate() as port, ENFORCE_PEER_REQUIREMENTS.override(True):
        child = launch(program("client", "take_send_right"), {"port": port.make_send()}, requirement)
        assert port.receive(PATIENCE).id == GOOD
        assert finish(child) == 0
    assert [token.pid for token in requirement.asked] == [child.pid]


@pytest.mark.parametrize("answer", [False, None])
def test_a_child_that_does_not_meet_its_requirement_gets_nothing(
    kinds: Kinds, server: RendezvousServer, program: Program, answer: bool | None
) -> None:
    """Its rights are destroyed, never handed out; its rendezvous ends without ports."""
    ports, all_given_up = kinds
    with ENFORCE_PEER_REQUIREMENTS.override(True):
        assert finish(launch(program("client", "no_ports"), ports, Says(answer, server))) == 0
    all_given_up()


def test_a_requirement_is_set_once(server: RendezvousServer, program: Program) -> None:
    """A second one for the same process is refused, as are second ports."""
    with ReceiveRight.allocate() as port:
        ports = {"port": port.make_send()}
        child = launch(program("client", "exit_when_told"), ports, Says(True, server), stdin=subprocess.PIPE)
    with server.lock:
        with pytest.raises(RegistrationError, match="requirement"):
            server.set_process_requirement_for_pid(child.pid, Says(True, server))
        with pytest.raises(RegistrationError, match="not claimed"):
            server.register_ports_for_pid(child.pid, {})
    child.communicate()
    assert finish(child) == 0


def test_messages_wait_in_a_receive_right_that_is_moved(server: RendezvousServer, program: Program) -> None:
    """What was sent before the child existed, the child receives."""
    with ReceiveRight.allocate() as answers:
        moved = ReceiveRight.allocate()
        with moved.make_send() as right:
            right.send(Message(1, b"early"))
        child = launch(program("client", "own_word", "early"), {"recv": moved, "send": answers.make_send()})
        assert answers.receive(PATIENCE).body.partition(b"\0")[0] == b"early"
        assert finish(child) == 0
