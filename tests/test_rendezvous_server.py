"""A parent, its server and real children: who gets what, and what is left when it is over."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import machrv

from machrv import (
    Disposition,
    KeyFormatError,
    LockNotHeldError,
    Message,
    PortDescriptor,
    ProcessGoneError,
    ReceiveRight,
    RegistrationError,
    RendezvousPort,
    RendezvousServer,
    RightError,
    SendRight,
    fileport,
    four_char_code,
)
from machrv.kernel import Kernel
from machrv.message import (
    MACH_NOTIFY_SEND_ONCE,
    MACH_PORT_RIGHT_SEND,
    MACH_PORT_TYPE_DEAD_NAME,
    MACH_PORT_TYPE_RECEIVE,
    MACH_PORT_TYPE_SEND,
    MACH_PORT_TYPE_SEND_ONCE,
)
from machrv.rendezvous.protocol import MAX_PORTS

from .conftest import PATIENCE, Program, finish, wait_for_no_senders, wait_for_server

if TYPE_CHECKING:
    from machrv.rendezvous.port import Ports

GOOD = four_char_code("good")


def start(server: RendezvousServer, command: list[str], ports: Ports) -> subprocess.Popen[bytes]:
    """Launch and register, the long way."""
    with server.lock:
        child = subprocess.Popen(command)
        server.register_ports_for_pid(child.pid, ports)
    return child


def test_the_child_takes_a_send_right_and_sends_good_on_it(server: RendezvousServer, program: Program) -> None:
    """The first thing that works: and the kernel says that it was the child who sent."""
    with ReceiveRight.allocate() as port:
        child = start(server, program("client", "take_send_right"), {"port": port.make_send()})
        message = port.receive(PATIENCE)
        assert message.id == GOOD
        assert message.audit_token is not None and message.audit_token.pid == child.pid
        assert finish(child) == 0
        wait_for_no_senders(port)
        assert server.registration_count == 0


def test_no_registration_gives_zero_ports(server: RendezvousServer, program: Program) -> None:
    """A child for which nothing was registered makes a rendezvous, and gets nothing."""
    assert finish(subprocess.Popen(program("client", "no_ports"))) == 0


def test_a_registration_of_no_ports_gives_zero_ports(server: RendezvousServer, program: Program) -> None:
    """An empty mapping is no error."""
    assert finish(start(server, program("client", "no_ports"), {})) == 0


def test_a_child_that_exits_unclaimed_leaves_nothing(server: RendezvousServer, program: Program) -> None:
    """Exit status 42, an empty registry, and the rights destroyed: the receiver hears that no sender is left."""
    with ReceiveRight.allocate() as port, ReceiveRight.allocate() as answers:
        moved = ReceiveRight.allocate()
        to_moved = moved.make_send()
        ports: Ports = {1: moved, 2: answers.make_send_once(), 3: port.make_send()}
        child = start(server, program("client", "exit_42"), ports)
        assert finish(child) == 42
        wait_for_no_senders(port)
        assert server.registration_count == 0
        assert answers.receive(PATIENCE).id == MACH_NOTIFY_SEND_ONCE
        assert server.kernel.mach_port_type(to_moved.name) == MACH_PORT_TYPE_DEAD_NAME
        to_moved.close()


DISPOSITIONS = ["MOVE_RECEIVE", "MOVE_SEND", "MOVE_SEND_ONCE", "COPY_SEND", "MAKE_SEND", "MAKE_SEND_ONCE"]


def registered(port: ReceiveRight, disposition: str, held: list[SendRight]) -> RendezvousPort:
    """A RendezvousPort of this disposition for `port`, from bare names; `held`: a send right that the parent holds."""
    if disposition in ("MOVE_SEND", "COPY_SEND"):
        held.append(port.make_send())
    if disposition == "MOVE_SEND_ONCE":
        return RendezvousPort(port.make_send_once().release(), Disposition.MOVE_SEND_ONCE)
    name = held.pop().release() if disposition == "MOVE_SEND" else port.name
    return RendezvousPort(name, getattr(Disposition, disposition))


@pytest.mark.parametrize("insert_send_right", [False, True])
@pytest.mark.parametrize("disposition", DISPOSITIONS)
def test_every_disposition_claimed_leaves_the_right_types_and_references(
    server: RendezvousServer, program: Program, kernel: Kernel, disposition: str, insert_send_right: bool
) -> None:
    """The child gets a right of the kind that the disposition makes; the parent keeps just what it had besides."""
    port = ReceiveRight.allocate()
    held = [port.make_send()] if insert_send_right else []
    others = len(held)
    rendezvous_port = registered(port, disposition, held)
    name = port.name
    scenario = ["take_disposition", disposition, *["expect_message"] * len(held)]
    child = start(server, program("client", *scenario), {"port": rendezvous_port})
    moves = disposition.startswith("MOVE")
    assert (rendezvous_port.name == 0) == moves
    kept = others + (disposition == "COPY_SEND")
    if disposition == "MOVE_RECEIVE":
        port.release()  # Its reference was registered by name, so the object does not own it any more.
        for right in held:
            right.send(Message(GOOD))
        assert finish(child) == 0
        wait_for_server(server)
        assert dict(kernel.mach_port_names()).get(name) == (MACH_PORT_TYPE_DEAD_NAME if kept else None)
    else:
        assert port.receive(PATIENCE).id == GOOD
        wait_for_server(server)
        assert kernel.mach_port_type(name) == MACH_PORT_TYPE_RECEIVE | (MACH_PORT_TYPE_SEND if kept else 0)
        assert kernel.mach_port_get_refs(name, MACH_PORT_RIGHT_SEND) == kept
        assert finish(child) == 0
        port.close()
    for right in held:
        right.close()


@pytest.mark.parametrize("insert_send_right", [False, True])
@pytest.mark.parametrize("disposition", DISPOSITIONS)
def test_every_disposition_destroyed_leaves_the_right_types_and_references(
    kernel: Kernel, disposition: str, insert_send_right: bool
) -> None:
    """MOVE_* give up the reference that they convey; COPY_SEND and MAKE_* own nothing; a second time does nothing."""
    port = ReceiveRight.allocate()
    held = [port.make_send()] if insert_send_right else []
    rendezvous_port = registered(port, disposition, held)
    name, conveyed, kept = port.name, rendezvous_port.name, len(held)
    for _ in range(2):
        rendezvous_port.destroy()
        if disposition == "MOVE_RECEIVE":
            assert dict(kernel.mach_port_names()).get(name) == (MACH_PORT_TYPE_DEAD_NAME if kept else None)
        else:
            assert kernel.mach_port_type(name) == MACH_PORT_TYPE_RECEIVE | (MACH_PORT_TYPE_SEND if kept else 0)
            assert kernel.mach_port_get_refs(name, MACH_PORT_RIGHT_SEND) == kept
        if disposition == "MOVE_SEND_ONCE":
            assert conveyed not in dict(kernel.mach_port_names())
    if disposition == "MOVE_RECEIVE":
        port.release()
    else:
        port.close()
    for right in held:
        right.close()


def test_a_wrong_base_bundle_id_finds_no_server(server: RendezvousServer, program: Program) -> None:
    """The child that looks under another id finds nobody, and what was registered for it stays."""
    with ReceiveRight.allocate() as port:
        assert finish(start(server, program("client", "wrong_base_bundle_id"), {"port": port.make_send()})) == 0
        wait_for_no_senders(port)


def test_a_second_claim_gets_nothing(server: RendezvousServer, program: Program) -> None:
    """Once claimed is claimed, for the same process too."""
    with ReceiveRight.allocate() as port:
        assert finish(start(server, program("client", "claim_twice"), {"port": port.make_send()})) == 0
        wait_for_no_senders(port)


def test_a_right_is_taken_once_and_only_as_what_it_is(server: RendezvousServer, program: Program) -> None:
    """A receive right asked for as a send right is None, and stays; taken twice is None."""
    with ReceiveRight.allocate() as port, ReceiveRight.allocate() as moved:
        child = start(server, program("client", "take_twice"), {"send": port.make_send(), "recv": moved})
        assert moved.closed
        assert port.receive(PATIENCE).id == GOOD
        assert finish(child) == 0


def test_rights_that_the_child_never_takes_are_given_up_at_its_end(server: RendezvousServer, program: Program) -> None:
    """Claimed and not taken is still released."""
    with ReceiveRight.allocate() as port:
        assert finish(start(server, program("client", "leave_unclaimed"), {"port": port.make_send()})) == 0
        wait_for_no_senders(port)


def test_an_open_file_travels_as_a_fileport(server: RendezvousServer, program: Program) -> None:
    """The child reads on where the parent stopped, and its descriptor is not inheritable."""
    read, write = os.pipe()
    os.write(write, b"from the parent")
    os.close(write)
    with ReceiveRight.allocate() as port:
        child = start(server, program("client", "read_file"), {"file": fileport(read), "port": port.make_send()})
        os.close(read)
        assert port.receive(PATIENCE).body.partition(b"\0")[0] == b"from the parent"
        assert finish(child) == 0


def test_a_child_serves_with_the_receive_right_it_was_given(server: RendezvousServer, program: Program) -> None:
    """The parent asks over the send right that it kept, and gets the answer of the child."""
    moved = ReceiveRight.allocate()
    with moved.make_send() as to_child, ReceiveRight.allocate() as answers:
        child = start(server, program("client", "answer"), {"recv": moved})
        to_child.send(Message(6, b"word", local_port=answers.name, local_disposition=Disposition.MAKE_SEND_ONCE))
        answer = answers.receive(PATIENCE)
        assert (answer.id, answer.body) == (7, b"word")
        assert answer.audit_token is not None and answer.audit_token.pid == child.pid
        assert finish(child) == 0


def test_registering_twice_for_one_process_is_refused(server: RendezvousServer, program: Program) -> None:
    """Until the process has asked or exited; and what was refused is still the caller's."""
    with ReceiveRight.allocate() as port, port.make_send() as second:
        with server.lock:
            child = subprocess.Popen(program("client", "exit_when_told"), stdin=subprocess.PIPE)
            server.register_ports_for_pid(child.pid, {"port": port.make_send()})
            with pytest.raises(RegistrationError, match="not claimed yet"):
                server.register_ports_for_pid(child.pid, {"more": second})
        assert not second.closed and server.registration_count == 1
        child.communicate()
        assert finish(child) == 0
        second.close()
        wait_for_no_senders(port)
        assert server.registration_count == 0


def test_registering_without_the_lock_is_refused(server: RendezvousServer) -> None:
    """An error, not a race; another thread's holding the lock does not count."""
    with ReceiveRight.allocate() as port, port.make_send() as right:
        with pytest.raises(LockNotHeldError) as caught:
            server.register_ports_for_pid(os.getpid(), {"port": right})
        assert isinstance(caught.value, RuntimeError)
        assert not right.closed
        with pytest.raises(LockNotHeldError):
            server.lock.release()
        with server.lock:
            with pytest.raises(RuntimeError, match="already"):
                server.lock.acquire()


def test_registering_for_a_process_that_is_gone_is_refused(server: RendezvousServer) -> None:
    """The pid of a child that was waited for: nobody is there to ask, the rights stay the caller's."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    assert finish(child) == 0
    with ReceiveRight.allocate() as port, port.make_send() as right, server.lock:
        with pytest.raises(ProcessGoneError) as caught:
            server.register_ports_for_pid(child.pid, {"port": right})
        assert isinstance(caught.value, ProcessLookupError)
        assert not right.closed and server.registration_count == 0


def test_a_child_that_has_exited_and_was_not_waited_for_can_be_registered(server: RendezvousServer) -> None:
    """A child may be quicker than its parent: its registration ends at once."""
    with ReceiveRight.allocate() as port:
        with server.lock:
            child = subprocess.Popen([sys.executable, "-c", ""])
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            server.register_ports_for_pid(child.pid, {"port": port.make_send()})
        wait_for_no_senders(port)
        assert server.registration_count == 0
        assert finish(child) == 0


@pytest.mark.parametrize("count", [128, MAX_PORTS])
def test_as_many_ports_as_fit_arrive(server: RendezvousServer, program: Program, count: int) -> None:
    """Each under its own key."""
    with ReceiveRight.allocate(queue_limit=1024) as port:
        child = start(server, program("client", "many", count), {key: port.make_send() for key in range(count)})
        assert sorted(port.receive(PATIENCE).id for _ in range(count)) == list(range(count))
        assert finish(child) == 0
        wait_for_no_senders(port)


def test_more_ports_than_fit_are_refused_before_anything_is_moved(server: RendezvousServer, kernel: Kernel) -> None:
    """One too many: all of them are still the caller's."""
    with ReceiveRight.allocate() as port:
        rights = [port.make_send() for _ in range(MAX_PORTS + 1)]
        with server.lock, pytest.raises(RegistrationError, match=str(MAX_PORTS)):
            server.register_ports_for_pid(os.getpid(), dict(enumerate(rights)))
        assert kernel.mach_port_get_refs(port.name, MACH_PORT_RIGHT_SEND) == MAX_PORTS + 1
        assert server.registration_count == 0
        for right in rights:
            right.close()


@pytest.mark.parametrize("key", [-1, 2**32, "ports", 1.5, None, b"port"])
def test_a_key_that_is_no_uint32_is_refused(server: RendezvousServer, key: object) -> None:
    """And the good ones beside it are not moved either."""
    with ReceiveRight.allocate() as port, port.make_send() as good, port.make_send() as bad:
        with server.lock, pytest.raises(KeyFormatError):
            server.register_ports_for_pid(os.getpid(), {1: good, key: bad})
        assert not good.closed and not bad.closed and server.registration_count == 0


def test_one_key_in_two_spellings_is_refused(server: RendezvousServer) -> None:
    """'port' and 0x706f7274 are the same key."""
    with ReceiveRight.allocate() as port, port.make_send() as one, port.make_send() as two, server.lock:
        with pytest.raises(RegistrationError, match="twice"):
            server.register_ports_for_pid(os.getpid(), {"port": one, 0x706F7274: two})
        assert not one.closed and not two.closed


def test_what_is_no_right_is_refused(server: RendezvousServer, kernel: Kernel) -> None:
    """A bare name, a spent right, a name without the right that its disposition needs, one reference given twice."""
    with ReceiveRight.allocate() as port, port.make_send() as right:
        spent = port.make_send()
        spent.close()
        refused: list[Ports] = [
            {1: right, 2: port.name},  # type: ignore[dict-item]
            {1: right, 2: spent},
            {1: right, 2: right},
            {1: right, 2: RendezvousPort(right.name, Disposition.MOVE_SEND)},
            {1: right, 2: RendezvousPort(port.name, Disposition.MOVE_SEND_ONCE)},
            {1: right, 2: RendezvousPort(0x12345, Disposition.MAKE_SEND)},
        ]
        for ports in refused:
            with server.lock, pytest.raises((RightError, RegistrationError)):
                server.register_ports_for_pid(os.getpid(), ports)
            assert not right.closed and server.registration_count == 0
        with pytest.raises(RightError):
            RendezvousPort(port.name, 15)


def test_what_is_registered_twice_over_owns_nothing_and_can_be_used_again(
    server: RendezvousServer, kernel: Kernel
) -> None:
    """MAKE_SEND and COPY_SEND own nothing: one RendezvousPort serves for many children."""
    with ReceiveRight.allocate() as port:
        made = RendezvousPort(port.name, Disposition.MAKE_SEND)
        children = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(2)]
        with server.lock:
            for child in children:
                server.register_ports_for_pid(child.pid, {"port": made})
        assert made.name == port.name and server.registration_count == 2
        server.clear_client_data_for_testing()
        assert server.registration_count == 0
        for child in children:
            child.communicate(b"\n")
            assert finish(child) == 0


def test_registrations_are_cleared_with_the_lock_held_as_in_the_seed(server: RendezvousServer) -> None:
    """Or without it; and what was registered is given up."""
    for held in (True, False):
        with ReceiveRight.allocate() as port:
            with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
                with server.lock:
                    server.register_ports_for_pid(child.pid, {"port": port.make_send()})
                    if held:
                        server.clear_client_data_for_testing()
                if not held:
                    server.clear_client_data_for_testing()
                assert server.registration_count == 0
                wait_for_no_senders(port)


def test_the_direct_client_is_the_instance_of_a_process_that_has_not_asked(server: RendezvousServer) -> None:
    """As in Chromium on iOS. The first one is; it is given up at exit, or when it is closed; who has asked keeps what it has."""
    code = (
        "from machrv import *\n"
        "with ReceiveRight.allocate() as port:\n"
        "    server = DirectRendezvousServer({'port': port.make_send()})\n"
        "    first = DirectRendezvousClient.initialize(server.send_right())\n"
        "    assert RendezvousClient.get_instance() is first and DirectRendezvousClient.get_instance() is first\n"
        "    with DirectRendezvousClient.initialize(server.send_right()) as second:\n"
        "        assert RendezvousClient.get_instance() is first\n"
        "    first.take_send_right('port').close()\n"
        "    first.close()\n"
        "    parents = RendezvousClient.get_instance()\n"
        "    assert type(parents) is RendezvousClient and 'here' in parents\n"
        "    DirectRendezvousClient.initialize(server.send_right())\n"
        "    assert RendezvousClient.get_instance() is parents\n"
        "    server.close()\n"
    )
    with ReceiveRight.allocate() as port:
        child = machrv.launch([sys.executable, "-c", code], {"here": port.make_send()}, server=server)
        assert finish(child) == 0
        wait_for_no_senders(port)


def test_from_right_takes_the_right_over(kernel: Kernel) -> None:
    """The right is spent; the port gives it up; forgotten, it is given up with a warning."""
    with ReceiveRight.allocate() as port:
        right = port.make_send()
        rendezvous_port = RendezvousPort.from_right(right)
        assert right.closed and rendezvous_port.disposition == Disposition.MOVE_SEND
        assert rendezvous_port.name == port.name
        assert kernel.mach_port_get_refs(port.name, MACH_PORT_RIGHT_SEND) == 1
        rendezvous_port.destroy()
        assert rendezvous_port.name == 0
        assert kernel.mach_port_get_refs(port.name, MACH_PORT_RIGHT_SEND) == 0
        forgotten = RendezvousPort.from_right(port.make_send_once())
        assert forgotten.disposition == Disposition.MOVE_SEND_ONCE
        with pytest.warns(ResourceWarning):
            del forgotten
        assert port.receive(PATIENCE).id == MACH_NOTIFY_SEND_ONCE
        moved = RendezvousPort.from_right(ReceiveRight.allocate())
        assert moved.disposition == Disposition.MOVE_RECEIVE
        moved.destroy()


def test_one_server_per_process_and_a_new_one_after_close() -> None:
    """The same object until it is closed; its name can be checked in again then."""
    first = RendezvousServer.get_instance()
    assert RendezvousServer.get_instance() is first
    assert first.service_name == f"org.machrv.MachPortRendezvousServer.{os.getpid()}"
    first.close()
    first.close()
    with RendezvousServer.get_instance() as second:
        assert second is not first
        with second.lock, pytest.raises(ProcessGoneError):
            second.register_ports_for_pid(2**22 + 1, {})


def test_closing_the_server_gives_up_what_nobody_claimed(program: Program) -> None:
    """The rights go, and the child that asks too late finds nobody."""
    with ReceiveRight.allocate() as port:
        with RendezvousServer.get_instance() as server, server.lock:
            child = subprocess.Popen(program("client", "exit_when_told"), stdin=subprocess.PIPE)
            server.register_ports_for_pid(child.pid, {"port": port.make_send()})
            server.lock.release()
            server.close()
            server.lock.acquire()
        wait_for_no_senders(port)
        child.communicate()
        assert finish(child) == 0


def test_a_reply_that_cannot_be_made_gives_everything_up(
    server: RendezvousServer, program: Program, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    """A receive right that its owner closed after registering MAKE_SEND of it: the child gets nothing, nothing leaks."""
    doomed = ReceiveRight.allocate()
    with ReceiveRight.allocate() as port, ReceiveRight.allocate() as answers:
        with port.make_send(), server.lock:
            child = subprocess.Popen(program("client", "no_ports"))
            made = RendezvousPort(doomed.name, Disposition.MAKE_SEND)
            ports: Ports = {1: port.make_send(), 2: answers.make_send_once(), 3: made, 4: port.make_send()}
            server.register_ports_for_pid(child.pid, ports)
            doomed.close()
            server.lock.release()
            assert finish(child) == 0
            assert answers.receive(PATIENCE).id == MACH_NOTIFY_SEND_ONCE
            server.close()  # On return, everything is given up that is going to be.
            assert kernel.mach_port_get_refs(port.name, MACH_PORT_RIGHT_SEND) == 1
            server.lock.acquire()
        assert "could not be sent" in caplog.text and "giving up" not in caplog.text


def test_the_port_types_in_a_reply(kernel: Kernel) -> None:
    """What a RendezvousPort puts into a message: a right to move, or a name with its disposition."""
    with ReceiveRight.allocate() as port:
        made = RendezvousPort(port.name, Disposition.MAKE_SEND)
        assert made.descriptor(kernel) == PortDescriptor(port.name, Disposition.MAKE_SEND)
        moved = RendezvousPort.from_right(port.make_send_once())
        once = moved.descriptor(kernel)
        assert not isinstance(once, PortDescriptor) and kernel.mach_port_type(once.name) == MACH_PORT_TYPE_SEND_ONCE
        moved.destroy()
        assert port.receive(PATIENCE).id == MACH_NOTIFY_SEND_ONCE
