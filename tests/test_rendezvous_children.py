"""Many children, and children of every start method: each gets its own, and nobody else's."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from typing import Any

import pytest

from machrv import Message, ReceiveRight, RendezvousClient, RendezvousServer, SendRight, destroy_message, four_char_code
from machrv.kernel import current

from .conftest import PATIENCE, Program, finish, wait_for_no_senders

GOOD = four_char_code("good")
CROWD = 50


def test_fifty_children_at_once_get_their_own_ports(server: RendezvousServer, program: Program) -> None:
    """Each finds in its receive right the word that was put there for it, and says so on its own send right."""
    replies: dict[int, ReceiveRight] = {}
    children: dict[int, subprocess.Popen[bytes]] = {}
    for number in range(CROWD):
        receive, replies[number] = ReceiveRight.allocate(), ReceiveRight.allocate()
        with receive.make_send() as right:
            right.send(Message(1, b"word %d" % number))
        with server.lock:
            child = subprocess.Popen(program("client", "own_word", f"word {number}"))
            server.register_ports_for_pid(child.pid, {"recv": receive, "send": replies[number].make_send()})
        children[number] = child
    for number, port in replies.items():
        message = port.receive(PATIENCE)
        assert message.id == GOOD and message.body.partition(b"\0")[0] == b"word %d" % number
        assert message.audit_token is not None and message.audit_token.pid == children[number].pid
    for number, child in children.items():
        assert finish(child) == 0
        wait_for_no_senders(replies[number])
        replies[number].close()
    assert server.registration_count == 0


def test_children_launched_by_many_threads(server: RendezvousServer, program: Program) -> None:
    """The lock makes launching and registering one step, whoever does it."""
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with ReceiveRight.allocate() as port:
                with server.lock:
                    child = subprocess.Popen(program("client", "take_send_right"))
                    server.register_ports_for_pid(child.pid, {"port": port.make_send()})
                message = port.receive(PATIENCE)
                assert message.audit_token is not None and message.audit_token.pid == child.pid
                assert finish(child) == 0
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_stranger_gets_nothing(server: RendezvousServer, program: Program) -> None:
    """A process that nobody registered asks by name while another one's ports wait: it gets none of them."""
    with ReceiveRight.allocate() as port:
        with server.lock:
            child = subprocess.Popen(program("client", "exit_when_told"), stdin=subprocess.PIPE)
            server.register_ports_for_pid(child.pid, {"port": port.make_send()})
        assert finish(subprocess.Popen(program("client", "no_ports"))) == 0
        with RendezvousClient.connect(server.service_name) as own:
            assert own.port_count == 0
        assert server.registration_count == 1
        child.communicate()
        finish(child)
        wait_for_no_senders(port)


def test_a_grandchild_cannot_claim_for_its_parent(server: RendezvousServer, program: Program) -> None:
    """The registration is the child's own: what the child launches is somebody else."""
    grandchild = f"from machrv import RendezvousClient as C; assert C.connect({server.service_name!r}).port_count == 0"
    code = (
        "import subprocess, sys; from machrv import RendezvousClient\n"
        f"subprocess.run([sys.executable, '-c', {grandchild!r}], check=True)\n"
        "with RendezvousClient.connect() as client: assert client.port_count == 1\n"
    )
    with ReceiveRight.allocate() as port:
        with server.lock:
            child = subprocess.Popen([sys.executable, "-c", code])
            server.register_ports_for_pid(child.pid, {"port": port.make_send()})
        assert finish(child) == 0
        wait_for_no_senders(port)


def _multiprocessing_child(service_name: str | None, parent: int) -> None:
    """What a multiprocessing child does, whatever started it."""
    # A fork of the test process: its rights, its server and its threads are not here.
    assert current().mach_port_names() == []
    with RendezvousClient.connect(service_name) as client:
        right = client.take_send_right("port")
        assert isinstance(right, SendRight) and client.port_count == 0
        assert client.server_audit_token is not None and client.server_audit_token.pid == parent
        with right:
            right.send(Message(GOOD))
    if service_name is None:
        again = RendezvousClient.get_instance()
        assert again is not None and again.port_count == 0


@pytest.mark.parametrize("method, by_name", [("fork", False), ("spawn", False), ("spawn", True), ("forkserver", True)])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_multiprocessing_child_is_a_client(server: RendezvousServer, method: str, by_name: bool) -> None:
    """Nothing depends on the start method; the child of a fork server is told whom to ask."""
    context: Any = multiprocessing.get_context(method)
    try:
        with ReceiveRight.allocate() as port:
            name = server.service_name if by_name else None
            with server.lock:
                child = context.Process(target=_multiprocessing_child, args=(name, os.getpid()))
                child.start()
                server.register_ports_for_pid(child.pid, {"port": port.make_send()})
            message = port.receive(PATIENCE)
            assert message.id == GOOD
            assert message.audit_token is not None and message.audit_token.pid == child.pid
            child.join(PATIENCE)
            assert child.exitcode == 0
            child.close()
            destroy_message(message)
            wait_for_no_senders(port)
    finally:
        _stop_multiprocessing(method)


def _stop_multiprocessing(method: str) -> None:
    """The fork server and the resource tracker keep a pipe each."""
    from multiprocessing import forkserver, resource_tracker

    if method == "forkserver":
        forkserver._forkserver._stop()  # type: ignore[attr-defined]
    if method != "fork":
        resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


def test_a_forked_child_can_be_a_parent_itself(server: RendezvousServer, program: Program) -> None:
    """The child of a fork has no server until it asks for one; then it has its own, under its own name."""
    pid = os.fork()
    if pid == 0:
        try:
            own = RendezvousServer.get_instance()
            assert own is not server and own.service_name.endswith(f".{os.getpid()}")
            with ReceiveRight.allocate() as port:
                with own.lock:
                    child = subprocess.Popen(program("client", "take_send_right"))
                    own.register_ports_for_pid(child.pid, {"port": port.make_send()})
                assert port.receive(PATIENCE).id == GOOD
                assert finish(child) == 0
            own.close()
            server.close()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    with RendezvousClient.connect(server.service_name) as still_there:
        assert still_there.port_count == 0


def test_a_fork_while_the_lock_is_held_leaves_both_sides_usable(server: RendezvousServer, program: Program) -> None:
    """The parent registers the fork's pid under the lock; the child goes on without it."""
    with ReceiveRight.allocate() as port:
        with server.lock:
            pid = os.fork()
            if pid == 0:
                try:
                    with RendezvousClient.connect(timeout=PATIENCE) as client:
                        right = client.take_send_right("port")
                        assert right is not None
                        with right:
                            right.send(Message(GOOD))
                    os._exit(0)
                finally:
                    os._exit(1)
            server.register_ports_for_pid(pid, {"port": port.make_send()})
        assert port.receive(PATIENCE).id == GOOD
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
