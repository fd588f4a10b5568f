"""The table of registrations: the process is the key, not its number."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from machrv import AuditToken, Disposition, ReceiveRight, RendezvousClient, RendezvousError, RendezvousPort, RightError
from machrv.kernel import Kernel
from machrv.message import MACH_NOTIFY_SEND_ONCE, MACH_PORT_RIGHT_SEND
from machrv.rendezvous.port import destroy_ports
from machrv.errors import LockNotHeldError
from machrv.rendezvous.registry import CheckedLock, Registry

from .conftest import PATIENCE, Program, finish, wait_for_no_senders


@pytest.fixture
def registry(kernel: Kernel) -> Iterator[Registry]:
    registry = Registry(kernel)
    yield registry
    registry.close()


@pytest.fixture
def child(program: Program) -> Iterator[subprocess.Popen[bytes]]:
    """A child that runs as long as the test."""
    child = subprocess.Popen(program("client", "exit_when_told"), stdin=subprocess.PIPE)
    yield child
    child.communicate()
    finish(child)


def test_a_process_with_a_recycled_pid_gets_nothing(registry: Registry, program: Program) -> None:
    """The same pid with another pidversion is another process: the registration stays for the one that it is for."""
    with ReceiveRight.allocate() as port:
        with registry.lock:
            child = subprocess.Popen(program("client", "exit_when_told"), stdin=subprocess.PIPE)
            registry.register_ports(child.pid, {"port": port.make_send()})
        token = port.kernel.audit_token()
        version = token.pidversion - 1 & 0xFFFFFFFF  # older than this process, and so than the child
        other = AuditToken(token.auid, token.euid, token.egid, token.ruid, token.rgid, child.pid, token.asid, version)
        assert registry.claim(other) is None
        assert registry.claim(token) is None
        assert len(registry) == 1
        child.communicate()
        assert finish(child) == 0
        wait_for_no_senders(port)
        assert len(registry) == 0


def test_a_claim_hands_over_what_was_registered(registry: Registry, kernel: Kernel) -> None:
    """Once; the claimer owns the ports then, and the pinned process is let go."""
    with ReceiveRight.allocate() as port:
        with registry.lock:
            registry.register_ports(os.getpid(), {"port": port.make_send()})
            assert registry.lock.held()
        registration = registry.claim(kernel.audit_token())
        assert registration is not None and registration.ports is not None
        assert registry.claim(kernel.audit_token()) is None and len(registry) == 0
        assert list(registration.ports) == [0x706F7274]
        destroy_ports(registration.ports)
        wait_for_no_senders(port)


def test_after_a_claim_the_same_process_can_be_registered_again(registry: Registry, kernel: Kernel) -> None:
    """A process that has claimed is a process without a registration."""
    for _ in range(3):
        with ReceiveRight.allocate() as port:
            with registry.lock:
                registry.register_ports(os.getpid(), {"port": port.make_send()})
            registration = registry.claim(kernel.audit_token())
            assert registration is not None and registration.ports is not None
            destroy_ports(registration.ports)


def test_a_refused_registration_leaves_no_trace(registry: Registry, child: subprocess.Popen[bytes]) -> None:
    """A bad key after a process was pinned for it: nothing is registered, nothing is pinned."""
    with ReceiveRight.allocate() as port, port.make_send() as right, registry.lock:
        spent = port.make_send()
        spent.close()
        for ports in ({"a": right, "long key": right}, {1: right, 2: spent}):
            with pytest.raises(Exception, match="key|spent"):
                registry.register_ports(child.pid, ports)
        assert not right.closed and len(registry) == 0


def test_ports_that_cannot_all_be_taken_are_all_given_back(
    registry: Registry, kernel: Kernel, child: subprocess.Popen[bytes]
) -> None:
    """One object under two keys, though its name has references enough: the first is the caller's again."""
    with ReceiveRight.allocate() as port, port.make_send() as right, port.make_send_once() as once:
        twice = RendezvousPort(port.make_send().release(), Disposition.MOVE_SEND)
        with registry.lock, pytest.raises(RightError):
            registry.register_ports(child.pid, {1: right, 2: once, 3: twice, 4: twice})
        assert not right.closed and not once.closed and twice.name == port.name
        assert kernel.mach_port_get_refs(port.name, MACH_PORT_RIGHT_SEND) == 2 and len(registry) == 0
        twice.destroy()
        once.close()
        assert port.receive(PATIENCE).id == MACH_NOTIFY_SEND_ONCE


def test_clearing_ends_every_registration(registry: Registry, child: subprocess.Popen[bytes]) -> None:
    """For tests, and on close; a closed registry takes nothing on."""
    with ReceiveRight.allocate() as port:
        with registry.lock:
            registry.register_ports(child.pid, {"port": port.make_send()})
            registry.register_ports(os.getpid(), {"port": port.make_send()})
        registry.clear()
        assert len(registry) == 0
        wait_for_no_senders(port)
        with registry.lock:  # As Chromium has it.
            registry.register_ports(child.pid, {"port": port.make_send()})
            registry.clear()
            assert registry.lock.held() and len(registry) == 0
        wait_for_no_senders(port)
        registry.close()
        with port.make_send() as right, registry.lock, pytest.raises(RendezvousError, match="closed"):
            registry.register_ports(child.pid, {"port": right})
        registry.close()


def test_the_lock_knows_who_holds_it() -> None:
    """Taken twice by one thread is an error, and so is releasing what one does not hold."""
    lock = CheckedLock()
    with pytest.raises(LockNotHeldError):
        lock.check()
    with lock:
        lock.check()
        with pytest.raises(RuntimeError):
            lock.acquire()
    assert lock.acquire(blocking=False) and lock.held()
    lock.release()
    assert not lock.held()
    with pytest.raises(LockNotHeldError):
        lock.release()


def test_the_child_of_a_fork_has_not_asked_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the parent asked its own parent, and with what result, is not the child's."""
    monkeypatch.setattr(RendezvousClient, "_asked", True)
    assert RendezvousClient.get_instance() is None
    pid = os.fork()
    if pid == 0:
        os._exit(RendezvousClient._asked)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_get_instance_says_once_and_for_all_that_there_is_no_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """None, a line in the log that says whom it looked for, and no second try."""
    monkeypatch.setattr(RendezvousClient, "_asked", False)
    assert RendezvousClient.get_instance() is None
    assert f"MachPortRendezvousServer.{os.getppid()}" in caplog.text
    caplog.clear()
    assert RendezvousClient.get_instance() is None
    assert caplog.text == ""


def test_an_answer_goes_to_the_process_that_asked(registry: Registry, kernel: Kernel) -> None:
    """The kernel's own token claims nothing."""
    with registry.lock:
        registry.register_ports(os.getpid(), {})
    assert registry.claim(AuditToken.KERNEL) is None
    assert registry.claim(kernel.audit_token()) is not None
