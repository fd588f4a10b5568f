"""Peers that do not do what they should: they get nothing, nobody else notices, and nothing is left of it."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from machrv import (
    AuditToken,
    DirectRendezvousClient,
    DirectRendezvousServer,
    Disposition,
    MachError,
    Message,
    OutOfLineDescriptor,
    PortDescriptor,
    ReceiveRight,
    ReceiveTimeout,
    RendezvousClient,
    RendezvousError,
    RendezvousPort,
    RendezvousServer,
    RendezvousServerBase,
    RendezvousTimeout,
    RightError,
    SendOnceRight,
    SendRight,
    ServerNotFoundError,
    destroy_message,
    four_char_code,
    take_reply_right,
)
from machrv.kernel import Kernel
from machrv.message import (
    BOOTSTRAP_UNKNOWN_SERVICE,
    MACH_MSGH_BITS_COMPLEX,
    MACH_NOTIFY_NO_SENDERS,
    MACH_NOTIFY_SEND_ONCE,
)
from machrv.rendezvous.protocol import REPLY_ID, REQUEST_ID, REQUEST_WITH_INFO_PLIST_ID, reply

from .conftest import PATIENCE, Program, finish, idles, wait_for_no_senders, wait_for_server


class OnePort(RendezvousServerBase):
    """A server that counts who asks, and has one send right for everybody."""

    def __init__(self, port: ReceiveRight) -> None:
        self.asked: list[AuditToken] = []
        self.port = port
        super().__init__()

    def ports_for_client(self, audit_token: AuditToken) -> Mapping[int, RendezvousPort]:
        self.asked.append(audit_token)
        return {1: RendezvousPort(self.port.name, Disposition.MAKE_SEND)}


def answerable(answers: ReceiveRight, **fields: Any) -> Message:
    """A request whose answer goes to `answers`."""
    fields.setdefault("local_disposition", Disposition.MAKE_SEND_ONCE)
    return Message(local_port=answers.name, **{"id": REQUEST_ID, **fields})


BAD_REQUESTS: dict[str, dict[str, Any]] = {
    "another id": {"id": REQUEST_ID + 1},
    "the id of a reply": {"id": REPLY_ID},
    "an id with Info.plist that this server does not know": {"id": REQUEST_WITH_INFO_PLIST_ID},
    "a notification's id": {"id": MACH_NOTIFY_NO_SENDERS},
    "four bytes too many": {"body": b"more"},
    "64 KiB too many": {"body": bytes(65536)},
    "a megabyte too many": {"body": bytes(1 << 20)},
    "complex without descriptors": {"bits": MACH_MSGH_BITS_COMPLEX},
    "memory in it": {"descriptors": [OutOfLineDescriptor(b"x" * 100_000)]},
}


@pytest.mark.parametrize("fields", BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_a_request_of_the_wrong_id_or_size_is_destroyed_and_not_answered(fields: dict[str, Any]) -> None:
    """Its sender hears that its reply right was destroyed; the next one is served."""
    with ReceiveRight.allocate() as port, ReceiveRight.allocate() as answers, OnePort(port) as server:
        with server.send_right() as right:
            right.send(answerable(answers, **fields))
            notification = answers.receive(PATIENCE)
            assert notification.id == MACH_NOTIFY_SEND_ONCE
            assert notification.audit_token is not None and notification.audit_token.is_kernel
            assert server.asked == []
            with DirectRendezvousClient.initialize(right) as client:
                assert client.port_count == 1 and len(server.asked) == 1


def test_the_rights_in_a_bad_request_are_destroyed() -> None:
    """Send, send-once and receive rights in its descriptors do not stay with the server."""
    with ReceiveRight.allocate() as port, ReceiveRight.allocate() as answers, OnePort(port) as server:
        with server.send_right() as right, ReceiveRight.allocate() as other:
            moved = ReceiveRight.allocate()
            with moved.make_send() as to_moved:
                right.send(answerable(answers, descriptors=[other.make_send(), other.make_send_once(), moved]))
                assert other.receive(PATIENCE).id == MACH_NOTIFY_SEND_ONCE
                wait_for_no_senders(other)
                assert answers.receive(PATIENCE).id == MACH_NOTIFY_SEND_ONCE
                with pytest.raises(MachError):
                    to_moved.send(Message())
        assert server.asked == []


def test_a_request_that_cannot_be_answered_claims_nothing() -> None:
    """No reply right, or a send right in its place: nobody is asked for ports."""
    with ReceiveRight.allocate() as port, ReceiveRight.allocate() as answers, OnePort(port) as server:
        with server.send_right() as right:
            right.send(Message(REQUEST_ID))
            right.send(answerable(answers, local_disposition=Disposition.MAKE_SEND))
            wait_for_no_senders(answers)
            with DirectRendezvousClient.initialize(right) as client:
                assert client.port_count == 1
        assert len(server.asked) == 1


def test_a_forged_notification_is_no_answer_of_the_kernels(program: Program) -> None:
    """A SEND_ONCE notification that a process sends in place of a reply is an error, not an empty reply."""

    with ReceiveRight.allocate() as service, service.make_send() as right:
        forger = threading.Thread(target=_answer_with, args=(service, Message(MACH_NOTIFY_SEND_ONCE)))
        forger.start()
        with pytest.raises(RendezvousError, match="no reply"):
            DirectRendezvousClient.initialize(right)
        forger.join()


def _answer_with(service: ReceiveRight, answer: Message) -> None:
    right = take_reply_right(service.receive(PATIENCE))
    assert isinstance(right, SendOnceRight)
    with right:
        right.send(answer)


def test_rights_in_something_that_is_no_reply_are_destroyed() -> None:
    """The client takes nothing from a server that does not keep to the protocol, and keeps nothing of it."""
    with ReceiveRight.allocate() as service, service.make_send() as right, ReceiveRight.allocate() as other:
        descriptors = [PortDescriptor(other.name, Disposition.MAKE_SEND)] * 2
        answer = reply({1: descriptors[0], 2: descriptors[1]})
        answer.body = answer.body[4:] + answer.body[:4]
        server = threading.Thread(target=_answer_with, args=(service, answer))
        server.start()
        with pytest.raises(RendezvousError, match="no reply"):
            DirectRendezvousClient.initialize(right)
        server.join()
        wait_for_no_senders(other)


def test_a_server_that_does_not_answer_times_out() -> None:
    """The error is a TimeoutError; what comes later goes nowhere."""
    with ReceiveRight.allocate() as service, service.make_send() as right:
        with pytest.raises(RendezvousTimeout) as caught:
            DirectRendezvousClient.initialize(right, timeout=0.05)
        assert isinstance(caught.value, TimeoutError)
        destroy_message(service.receive(PATIENCE))


def test_a_server_that_is_dead_is_not_found() -> None:
    """Asking a right whose receiver is gone is an error at once, and the right stays the caller's."""
    service = ReceiveRight.allocate()
    with service.make_send() as right:
        service.close()
        with pytest.raises(ServerNotFoundError, match="went away"):
            DirectRendezvousClient.initialize(right)
        assert not right.closed


def test_the_server_is_killed_while_the_client_waits(program: Program) -> None:
    """The wait ends at once: no reply is a rendezvous without ports, and without anybody who answered."""
    name = f"org.machrv.MachPortRendezvousServer.killed.{os.getpid()}"
    child = subprocess.Popen(program("mute_server", name), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    found: list[RendezvousClient] = []
    client = threading.Thread(target=lambda: found.append(RendezvousClient.connect(name, timeout=PATIENCE)))
    client.start()
    assert child.stdout.readline() == b"asked\n"
    assert client.is_alive()
    child.send_signal(signal.SIGKILL)
    client.join(PATIENCE)
    assert not client.is_alive() and finish(child) == -signal.SIGKILL
    assert found[0].port_count == 0 and found[0].server_audit_token is None
    with pytest.raises(ServerNotFoundError) as caught:
        RendezvousClient.connect(name)
    cause = caught.value.__cause__
    assert isinstance(cause, MachError) and cause.code == BOOTSTRAP_UNKNOWN_SERVICE
    assert name in str(caught.value)


class KillsWhoAsks(RendezvousServerBase):
    """A server whose client is gone by the time of the reply."""

    def __init__(self, *ports: RendezvousPort) -> None:
        self.ports = dict(enumerate(ports))
        self.done = threading.Event()
        super().__init__()

    def ports_for_client(self, audit_token: AuditToken) -> Mapping[int, RendezvousPort]:
        os.kill(audit_token.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # the test has waited for it by then
            os.waitid(os.P_PID, audit_token.pid, os.WEXITED | os.WNOWAIT)
        return self.ports


def test_the_client_is_killed_while_the_server_replies(server: RendezvousServer, program: Program) -> None:
    """The reply goes nowhere; what was in it is released, and the next client is served."""
    with ReceiveRight.allocate() as port, ReceiveRight.allocate() as answers:
        moved = ReceiveRight.allocate()
        to_moved = moved.make_send()
        ports = [RendezvousPort.from_right(right) for right in (moved, answers.make_send_once(), port.make_send())]
        with KillsWhoAsks(*ports) as killer:
            with server.lock:
                child = subprocess.Popen(program("direct_client"))
                server.register_ports_for_pid(child.pid, {"serv": killer.send_right()})
            assert finish(child) == -signal.SIGKILL
            wait_for_server(killer)
            wait_for_no_senders(port)
            assert answers.receive(PATIENCE).id == MACH_NOTIFY_SEND_ONCE
            with pytest.raises(MachError):
                to_moved.send(Message())
            to_moved.close()
        with server.lock:
            child = subprocess.Popen(program("client", "take_send_right"))
            server.register_ports_for_pid(child.pid, {"port": port.make_send()})
        destroy_message(port.receive(PATIENCE))
        assert finish(child) == 0


def test_a_client_that_floods_does_not_hide_another(server: RendezvousServer, program: Program) -> None:
    """Thousands of bad requests while a child asks: the child gets its port."""
    stop = threading.Event()
    flooding = threading.Event()

    def flood() -> None:
        with server.send_right() as right:
            while not stop.is_set():
                try:
                    right.send(Message(1, bytes(100)), timeout=0)
                except MachError:
                    flooding.set()

    flooder = threading.Thread(target=flood)
    flooder.start()
    try:
        assert flooding.wait(PATIENCE)
        with ReceiveRight.allocate() as port:
            with server.lock:
                child = subprocess.Popen(program("client", "take_send_right"))
                server.register_ports_for_pid(child.pid, {"port": port.make_send()})
            destroy_message(port.receive(PATIENCE))
            assert finish(child) == 0
    finally:
        stop.set()
        flooder.join()


def test_a_server_without_descriptors_loses_nothing_and_recovers(server: RendezvousServer, program: Program) -> None:
    """A child asks while its parent's descriptor table is full: it waits, and gets its port once there is room."""
    with ReceiveRight.allocate() as port, port.make_send() as own:
        with server.lock:
            child = subprocess.Popen(program("client", "when_told", "take_send_right"), stdin=subprocess.PIPE)
            server.register_ports_for_pid(child.pid, {"port": own.copy()})
        assert child.stdin is not None
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + 64, limits[1]))
        hog = []
        try:
            with pytest.raises(OSError):
                while True:
                    hog.append(os.open(os.devnull, os.O_RDONLY))
            child.stdin.close()

            def receives(seconds: float) -> None:
                with pytest.raises(ReceiveTimeout):
                    port.receive(timeout=seconds)

            receives(0.3)  # Time for the child to ask.
            assert idles(receives)
            assert child.poll() is None and server.registration_count == 1
        finally:
            for fd in hog:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert port.receive(PATIENCE).id == four_char_code("good")
        assert finish(child) == 0


class Raises(RendezvousServerBase):
    """A server whose hooks fail, one after the other."""

    def __init__(self, port: ReceiveRight, failing: str) -> None:
        self.port = port
        self.failing = failing
        super().__init__()

    def _perhaps(self, hook: str) -> None:
        if hook == self.failing:
            raise ZeroDivisionError(f"{hook} fails")

    def ports_for_client(self, audit_token: AuditToken) -> Mapping[int, RendezvousPort]:
        self._perhaps("ports")
        return {1: RendezvousPort.from_right(self.port.make_send())}

    def is_valid_additional_message_id(self, message_id: int) -> bool:
        self._perhaps("id")
        return True

    def additional_data_for_reply(self, message_id: int) -> bytes:
        self._perhaps("data")
        return b"data"


@pytest.mark.parametrize("failing", ["ports", "id", "data"])
def test_a_hook_that_fails_refuses_its_client(failing: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, the reply right is destroyed, the ports are given up, and the server goes on."""
    with ReceiveRight.allocate() as port, ReceiveRight.allocate() as answers:
        with Raises(port, failing) as server, server.send_right() as right:
            right.send(answerable(answers, id=77))
            assert answers.receive(PATIENCE).id == MACH_NOTIFY_SEND_ONCE
            assert f"{failing} fails" in caplog.text
            server.failing = ""
            right.send(answerable(answers, id=77))
            message = answers.receive(PATIENCE)
            assert message.id == REPLY_ID and b"data" in message.body
            destroy_message(message)
        wait_for_no_senders(port)


class Refuses(RendezvousServerBase):
    """A server that lets nobody have anything: the default."""


def test_a_refused_client_gets_no_reply_and_no_failure() -> None:
    """Its wait ends with the destruction of its reply right: zero ports, and nobody who answered."""
    with Refuses() as server, DirectRendezvousClient.initialize(server.send_right()) as client:
        assert client.port_count == 0 and client.server_audit_token is None


def test_the_direct_server_serves_the_first_that_asks(server: RendezvousServer, program: Program) -> None:
    """A child gets the send right by other means, asks, and gets the ports; a second request gets none."""
    with ReceiveRight.allocate() as port:
        with DirectRendezvousServer({"port": port.make_send()}) as direct:
            with server.lock:
                child = subprocess.Popen(program("direct_client", "copy"))
                server.register_ports_for_pid(child.pid, {"serv": direct.send_right()})
            message = port.receive(PATIENCE)
            assert message.audit_token is not None and message.audit_token.pid == child.pid
            assert finish(child) == 0


def test_closing_the_direct_server_gives_up_what_nobody_asked_for(kernel: Kernel) -> None:
    """And a client that asks then is told so."""
    with ReceiveRight.allocate() as port:
        direct = DirectRendezvousServer({1: port.make_send()})
        right = direct.send_right()
        direct.close()
        direct.close()
        wait_for_no_senders(port)
        with right, pytest.raises(ServerNotFoundError):
            DirectRendezvousClient.initialize(right)
        with pytest.raises(RightError):
            direct.send_right()


def test_a_direct_server_that_cannot_take_its_ports_leaves_them(kernel: Kernel) -> None:
    """A bad key: nothing was moved, nothing runs."""
    with ReceiveRight.allocate() as port, port.make_send() as right:
        with pytest.raises(ValueError):
            DirectRendezvousServer({1: right, "long key": right})
        assert not right.closed


def test_an_unclaimed_client_gives_its_rights_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """On close, and with a warning when it is forgotten."""
    monkeypatch.setattr(RendezvousClient, "_asked", True)  # So that none of these is what `get_instance` keeps.
    with ReceiveRight.allocate() as port:
        for forget in (False, True):
            direct = DirectRendezvousServer({1: port.make_send()})
            client = DirectRendezvousClient.initialize(direct.send_right())
            direct.close()
            assert client.port_count == 1
            if forget:
                with pytest.warns(ResourceWarning):
                    del client
            else:
                client.close()
                client.close()
                assert client.take_send_right(1) is None
            wait_for_no_senders(port)


def test_a_given_receive_right_becomes_the_servers(kernel: Kernel) -> None:
    """A subclass may serve on a port that it made; the object is spent, close destroys the port."""
    port = ReceiveRight.allocate()
    right = port.make_send()
    assert isinstance(right, SendRight)
    server = RendezvousServerBase(port)
    assert port.closed
    server.close()
    with right, pytest.raises(ServerNotFoundError):
        DirectRendezvousClient.initialize(right)
