"""A message outlives its sender: a process that has sent, exited and been waited for is heard, and is given nothing.

Everything as this kernel is; as Linux 6.12, which has no pidfd for such a sender; and as before Linux 6.9, where it cannot
be told which process it was either.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

if sys.platform != "linux":
    pytest.skip("what Linux says of a sender that is gone", allow_module_level=True)

from machrv import AuditToken, ProcessRequirement, ReceiveRight, RendezvousServer, destroy_message, launch, take_rights
from machrv import ENFORCE_PEER_REQUIREMENTS
from machrv._mach import lib
from machrv.doctor import linux
from machrv.rights.files import fileport_fd
from machrv.kernel import Kernel
from machrv.kernel.linux.waiting import LinuxProcess
from machrv.message import MACH_NOTIFY_NO_SENDERS, Message
from machrv.rendezvous.verdict import refusal
from machrv.rendezvous.registry import Registry
from machrv.rights import SendRight

from . import linux_hostile as h
from .conftest import PATIENCE, Program, finish, wait_for_no_senders
from .linux_features import needs
from .test_pid_reuse import permitted, recycled, wait_until_there  # noqa: F401 (a fixture)

SWITCHES = {
    "as this kernel is": 0,
    "as Linux 6.12": lib.MACHRV_WITHOUT_PIDFD_OF_GONE,
    "as Linux 6.8": lib.MACHRV_WITHOUT_PIDFS | lib.MACHRV_WITHOUT_PIDFD_INFO,
    "as Linux 6.5": lib.MACHRV_WITHOUT_PIDFS | lib.MACHRV_WITHOUT_PIDFD_INFO | lib.MACHRV_WITHOUT_PIDFD_OF_GONE,
}


@pytest.fixture(params=SWITCHES)
def tells(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Kernels that say more and less of a sender that is gone: whether this one still tells which process it was."""
    lib.machrv_without(SWITCHES[request.param])
    try:
        found = linux.features()
        yield found[linux.GONE] and found["pidfs"]
    finally:
        lib.machrv_without(0)


CHILD = """
import sys, tempfile
from machrv import Message, RendezvousClient, fileport
with RendezvousClient.connect() as rights:
    port = rights.take_send_right("port")
with port, tempfile.TemporaryFile(buffering=0) as file:
    file.write(b"in the file")
    for kind in sys.argv[1:]:
        descriptors = [fileport(file.fileno())] if kind == "file" else []
        port.send(Message(body=b"done" * (50_000 if kind == "large" else 1), descriptors=descriptors))
"""


def from_one_that_is_gone(server: RendezvousServer, port: ReceiveRight, *kinds: str) -> int:
    """Have a child send its results over `port` and exit, and wait for it; its pid."""
    child = launch([sys.executable, "-c", CHILD, *kinds], {"port": port.make_send()}, server=server)
    assert finish(child) == 0
    return child.pid


@pytest.mark.parametrize("kind", ["plain", "file", "large"])
def test_a_child_sends_its_result_and_exits(server: RendezvousServer, tells: bool, kind: str) -> None:
    """The parent waits for it and reads then, three times: all there, with the sender's pid and user as attested."""
    with ReceiveRight.allocate() as port:
        pid = from_one_that_is_gone(server, port, kind, kind, kind)
        for _ in range(3):
            message = port.receive(PATIENCE)
            assert message.body == b"done" * (50_000 if kind == "large" else 1)
            token = message.audit_token
            assert token is not None and (token.pid, token.asid) == (pid, 0)
            assert (token.euid, token.egid, token.ruid, token.rgid) == (
                os.geteuid(),
                os.getegid(),
                os.getuid(),
                os.getgid(),
            )
            assert bool(token.pidversion) is tells
            if kind == "file":
                [right] = take_rights(message)
                assert isinstance(right, SendRight)
                with right, open(fileport_fd(right), "rb") as file:
                    assert os.pread(file.fileno(), 100, 0) == b"in the file"
            else:
                destroy_message(message)
        wait_for_no_senders(port)


def test_it_is_no_shortage(server: RendezvousServer, tells: bool) -> None:
    """Messages that come after it, from whoever lives, still say all that the kernel knows of them."""
    with ReceiveRight.allocate() as port, port.make_send() as own:
        from_one_that_is_gone(server, port, "plain")
        own.send(Message(5))
        first, second = port.receive(PATIENCE), port.receive(PATIENCE)
        assert first.body == b"done"
        assert second.id == 5 and second.audit_token == port.kernel.audit_token()
        assert second.audit_token.pidversion


def test_who_was_pinned_matches_what_it_sent_only_where_that_is_known(
    server: RendezvousServer, tells: bool, kernel: Kernel
) -> None:
    """Pinned while it ran, so that its pidversion is known here; its message's is not, on some kernels."""
    with ReceiveRight.allocate() as port:
        child = launch([sys.executable, "-c", CHILD, "plain"], {"port": port.make_send()}, server=server)
        process = kernel.open_process(child.pid)
        try:
            assert finish(child) == 0
            token = port.receive(PATIENCE).audit_token
            assert token is not None and token.pid == child.pid
            assert process.matches(token) is tells
        finally:
            process.close()


# -- a token without a pidversion claims nothing --------------------------------------------------------------------------


@pytest.fixture
def zombie() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has exited, and that nobody has waited for."""
    child = subprocess.Popen(["true"], stdin=subprocess.DEVNULL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    yield child
    assert finish(child) == 0


def test_two_processes_that_are_not_known_are_not_the_same(zombie: subprocess.Popen[bytes]) -> None:
    """Before Linux 6.9 a process that has exited has no pidversion either: 0 on both sides says nothing."""
    lib.machrv_without(lib.MACHRV_WITHOUT_PIDFS)
    try:
        with LinuxProcess(zombie.pid) as process:
            assert process.pidversion == 0
            assert not process.matches(AuditToken(pid=zombie.pid))
    finally:
        lib.machrv_without(0)


def nobody_in_particular(kernel: Kernel, pid: int) -> AuditToken:
    """What a message of a process `pid` bears of which no more is known."""
    return AuditToken(*kernel.audit_token()[:5], pid)


def test_nobody_in_particular_claims_nothing(kernel: Kernel) -> None:
    """The registration stays for the process that it is for."""
    registry = Registry(kernel)
    try:
        with ReceiveRight.allocate() as port:
            with registry.lock:
                registry.register_ports(os.getpid(), {"port": port.make_send()})
            assert registry.claim(nobody_in_particular(kernel, os.getpid())) is None
            assert len(registry) == 1
            registry.clear()
            wait_for_no_senders(port)
    finally:
        registry.close()


def test_not_even_what_is_registered_for_a_process_that_is_not_known(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a pinned process answers: the registry looks at the token itself."""
    registry = Registry(kernel)
    monkeypatch.setattr(LinuxProcess, "matches", lambda process, token: token.pid == process.pid)
    try:
        with ReceiveRight.allocate() as port:
            with registry.lock:
                registry.register_ports(os.getpid(), {"port": port.make_send()})
            assert registry.claim(nobody_in_particular(kernel, os.getpid())) is None
            assert len(registry) == 1
            registry.clear()
            wait_for_no_senders(port)
    finally:
        registry.close()


def test_nobody_in_particular_meets_no_requirement(kernel: Kernel) -> None:
    """Neither one that looks at the process, nor one that would let everybody in."""
    token = nobody_in_particular(kernel, os.getpid())
    user = ProcessRequirement.Builder().user(os.getuid()).build()
    with ENFORCE_PEER_REQUIREMENTS.override(True):
        assert refusal("server", user, kernel.audit_token()) is None
        for requirement in (user, ProcessRequirement.always_matches_for_testing()):
            reason = refusal("server", requirement, token)
            assert reason is not None and "no longer tells which process" in reason
    reason = user.mismatch(token)
    assert reason is not None and "not the one that sent the message" in reason


FORGER = """
import os, sys
from machrv import RendezvousClient, current
from tests.sockets import socket_of
with RendezvousClient.connect() as rights:
    port = rights.take_send_right("port")
for packet in sys.argv[1:]:
    os.write(socket_of(current(), port.name), bytes.fromhex(packet))
port.close()
"""
HEIR = """
import sys
from machrv import RendezvousClient
from machrv._mach import lib
lib.machrv_without(int(sys.argv[2]))
with RendezvousClient.connect(sys.argv[1]) as rights:
    port = rights.take_receive_right("port")
with port:
    for _ in range(2):
        message = port.receive(30)
        print(message.id, message.audit_token.is_kernel, message.audit_token.pid, message.audit_token.pidversion)
"""


@pytest.mark.usefixtures("permitted")
@needs("SO_PASSPIDFD")  # Without it, what it sent may count as sent by whoever has its number by then.
def test_who_had_the_pid_before_is_not_the_process_itself(server: RendezvousServer, program: Program) -> None:
    """What it sent is not taken for what this process sent itself, whose notifications are the kernel's words."""
    with ReceiveRight.allocate() as port:
        notification = h.packet(id=MACH_NOTIFY_NO_SENDERS, flags=1)[0]
        plain = h.packet(id=7)[0]
        command = [sys.executable, "-c", FORGER, notification.hex(), plain.hex()]
        child = launch(command, {"port": port.make_send()}, server=server)
        assert finish(child) == 0
        with server.lock:
            command = [sys.executable, "-c", HEIR, server.service_name, str(lib.MACHRV_WITHOUT_PIDFD_OF_GONE)]
            parent = recycled(program, child.pid, command, stdout=subprocess.PIPE)
            wait_until_there(child.pid, parent)
            server.register_ports_for_pid(child.pid, {"port": port})
        out, _ = parent.communicate(timeout=PATIENCE)
    assert parent.returncode == 0
    assert [line.split() for line in out.decode().splitlines()] == [
        [str(MACH_NOTIFY_NO_SENDERS), "False", str(child.pid), "0"],
        ["7", "False", str(child.pid), "0"],
    ]
