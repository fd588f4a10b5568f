"""Who else may try: an impostor, a sibling, a child that turns into another program, squatters, forgers, a relay.

After each, nobody has a right that was not for him, and nobody has a name or a descriptor left (`nothing_left` here, the
program `validation` in itself).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from machrv import (
    ENFORCE_PEER_REQUIREMENTS,
    DirectRendezvousClient,
    DirectRendezvousServer,
    Disposition,
    Message,
    PeerRejectedError,
    PortDescriptor,
    ProcessRequirement,
    ReceiveRight,
    RendezvousClient,
    RendezvousError,
    RendezvousServer,
    SendOnceRight,
    Verdict,
    destroy_message,
    four_char_code,
    launch,
    set_verdict_callback,
    take_reply_right,
)
from machrv.message import MACH_NOTIFY_DEAD_NAME, MACH_NOTIFY_NO_SENDERS, MACH_NOTIFY_SEND_ONCE
from machrv.rendezvous import SERVICE_NAME_VARIABLE, server_name
from machrv.rendezvous.protocol import reply

from .conftest import PATIENCE, Program, finish, wait_for_no_senders

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks what only Linux can check")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may put other credentials on a message")

GOOD = four_char_code("good")


@pytest.fixture(autouse=True)
def enforced() -> Iterator[None]:
    """Requirements count, here and in the children."""
    with ENFORCE_PEER_REQUIREMENTS.override(True):
        yield


@pytest.fixture
def verdicts() -> Iterator[list[Verdict]]:
    """Every verdict of this process."""
    found: list[Verdict] = []
    set_verdict_callback(found.append)
    yield found
    set_verdict_callback(None)


@pytest.fixture
def server_requirement() -> Iterator[Callable[[ProcessRequirement], None]]:
    """Demand something of servers, until the test is over."""
    yield RendezvousClient.set_server_process_requirement
    RendezvousClient.set_server_process_requirement(None)


def ask() -> ProcessRequirement.Builder:
    """A builder for this platform."""
    return ProcessRequirement.Builder()


def policed() -> dict[str, str]:
    """The environment for a child that is not started by `launch`."""
    environment = dict(os.environ)
    RendezvousServer.add_feature_state_to_environment(environment)
    return environment


def line(process: subprocess.Popen[bytes]) -> str:
    """The next line that a child says."""
    assert process.stdout is not None
    return process.stdout.readline().decode().rstrip("\n")


def tell(process: subprocess.Popen[bytes], what: bytes = b"go\n") -> None:
    """Say something to a child."""
    assert process.stdin is not None
    process.stdin.write(what)
    process.stdin.flush()


# -- those who ask -------------------------------------------------------------------------------------------------------


def test_an_impostor_who_knows_the_name_gets_nothing(server: RendezvousServer, program: Program) -> None:
    """Same user, same program, the right name: he has no registration, and takes nothing from the child that has."""
    with ReceiveRight.allocate() as port:
        command = program("validation", "told", "parent", 1)
        requirement = ask().signed_with_same_identity().parent_is_this_process().build()
        child = launch(command, {"port": port.make_send()}, requirement, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        impostor = subprocess.Popen(program("validation", "ask_by_name", server.service_name), start_new_session=True)
        assert finish(impostor) == 0
        assert server.registration_count == 1
        tell(child)
        assert port.receive(PATIENCE).id == GOOD
        assert finish(child) == 0
        wait_for_no_senders(port)


def test_a_sibling_who_asks_first_gets_his_own(server: RendezvousServer, program: Program) -> None:
    """However early he is, and whether he has ports of his own or none."""
    with ReceiveRight.allocate() as first, ReceiveRight.allocate() as second:
        command = program("validation", "told", "real", 1)
        child = launch(command, {"port": first.make_send()}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert finish(launch(program("validation", "rendezvous", "real", 0))) == 0
        sibling = launch(program("validation", "rendezvous", "real", 1), {"port": second.make_send()})
        message = second.receive(PATIENCE)
        assert message.audit_token is not None and message.audit_token.pid == sibling.pid
        assert finish(sibling) == 0
        tell(child)
        message = first.receive(PATIENCE)
        assert message.audit_token is not None and message.audit_token.pid == child.pid
        assert finish(child) == 0
        for port in (first, second):
            wait_for_no_senders(port)


def test_a_child_that_turned_into_another_program_is_judged_as_that(
    server: RendezvousServer, program: Program, verdicts: list[Verdict]
) -> None:
    """It is the process that was launched, and not the program: only a requirement tells. What it says is logged."""
    shell = os.path.realpath("/bin/sh")
    for requirement, count in ((ask().identifier(shell).build(), 0), (ask().signed_with_same_identity().build(), 1)):
        verdicts.clear()
        with ReceiveRight.allocate() as port:
            command = program("validation", "rendezvous", "none", count)
            child = launch(["/bin/sh", "-c", 'exec "$@"', "sh", *command], {"port": port.make_send()}, requirement)
            if count:
                assert port.receive(PATIENCE).id == GOOD
            assert finish(child) == 0
            wait_for_no_senders(port)
        [verdict] = verdicts
        assert verdict.matched == bool(count) and verdict.audit_token.pid == child.pid
        assert count or os.path.realpath(sys.executable) in verdict.reason


# -- those who answer ----------------------------------------------------------------------------------------------------


def test_a_name_squatted_before_the_parent_checks_in(program: Program) -> None:
    """The parent hears of it at once; a child that knows whom to expect takes nothing from the squatter."""
    name = server_name(os.getpid())
    squatter = subprocess.Popen(program("squatter", name), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert line(squatter) == "ready"
    with pytest.raises(RendezvousError, match="BOOTSTRAP_NAME_IN_USE"):
        RendezvousServer.get_instance()
    child = subprocess.Popen(program("validation", "rendezvous", "parent", "none"), env=policed())
    assert line(squatter) == "asked"
    assert finish(child) == 0
    assert line(squatter) == "given up"
    assert finish(squatter) == 0
    with RendezvousServer.get_instance() as server:
        assert server.service_name == name


def test_a_child_that_expects_nobody_takes_what_a_squatter_gives(program: Program) -> None:
    """What the one before is compared with: without a requirement, whoever has the name is the server."""
    squatter = subprocess.Popen(program("squatter", server_name(os.getpid())), stdout=subprocess.PIPE)
    assert line(squatter) == "ready"
    assert finish(subprocess.Popen(program("validation", "rendezvous", "none", 1), env=policed())) == 0
    assert line(squatter) == "asked"
    assert line(squatter) == f"used {GOOD:#x}"
    assert line(squatter) == "given up"
    assert finish(squatter) == 0


def test_a_name_squatted_after_the_parent_died(program: Program) -> None:
    """The orphan knows the name from its environment, and finds the squatter there: it takes nothing from him."""
    command = program("validation", "told", "parent", "none")
    parent = subprocess.Popen(
        program("doomed_parent", *command), env=policed(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    name, _ = line(parent).split()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    squatter = subprocess.Popen(program("squatter", name), stdout=subprocess.PIPE)
    assert line(squatter) == "ready"
    tell(parent)  # The orphan has the same standard streams.
    assert line(parent) == "done"
    assert finish(parent) == -signal.SIGKILL
    assert line(squatter) == "asked"
    assert line(squatter) == "given up"
    assert finish(squatter) == 0


@pytest.mark.parametrize("accepted", [False, True])
def test_a_reply_of_somebody_who_is_not_the_server(
    accepted: bool,
    server: RendezvousServer,
    program: Program,
    verdicts: list[Verdict],
    server_requirement: Callable[[ProcessRequirement], None],
) -> None:
    """A server hands the reply right on, and a child of this process answers: it is judged, since it sent the reply."""
    asked = ask().parent_is_this_process() if accepted else ask().is_parent_of_this_process()
    server_requirement(asked.build())
    accomplices: list[subprocess.Popen[bytes]] = []

    def hand_on() -> None:
        right = take_reply_right(service.receive(PATIENCE))
        assert isinstance(right, SendOnceRight)
        accomplices.append(launch(program("squatter", "none", "relay"), {"repl": right}, stdout=subprocess.PIPE))

    with ReceiveRight.allocate() as service:
        relay = threading.Thread(target=hand_on)
        relay.start()
        if accepted:
            with DirectRendezvousClient.initialize(service.make_send()) as client:
                assert client.port_count == 1
        else:
            with pytest.raises(PeerRejectedError, match="is_parent_of_this_process"):
                DirectRendezvousClient.initialize(service.make_send())
        relay.join()
    [accomplice] = accomplices
    [verdict] = verdicts
    assert verdict.peer == "server" and verdict.audit_token.pid == accomplice.pid and verdict.matched == accepted
    assert line(accomplice) == "asked"
    assert line(accomplice) == "given up"
    assert finish(accomplice) == 0


@pytest.mark.parametrize("message_id", [MACH_NOTIFY_SEND_ONCE, MACH_NOTIFY_NO_SENDERS, MACH_NOTIFY_DEAD_NAME])
@pytest.mark.parametrize("with_rights", [True, False])
def test_a_forged_notification_does_not_pass_for_no_reply(
    message_id: int, with_rights: bool, server_requirement: Callable[[ProcessRequirement], None]
) -> None:
    """A process that answers with a notification's id is no kernel: a failure, and its rights are destroyed."""
    server_requirement(ProcessRequirement.always_matches_for_testing())
    with ReceiveRight.allocate() as service, ReceiveRight.allocate() as port:
        forged = reply({1: PortDescriptor(port.name, Disposition.MAKE_SEND)}) if with_rights else Message()
        forged.id = message_id

        def answer() -> None:
            right = take_reply_right(service.receive(PATIENCE))
            assert isinstance(right, SendOnceRight)
            with right:
                right.send(forged)

        forger = threading.Thread(target=answer)
        forger.start()
        with pytest.raises(RendezvousError, match="no reply"):
            DirectRendezvousClient.initialize(service.make_send())
        forger.join()
        if with_rights:
            wait_for_no_senders(port)


@pytest.mark.parametrize("message_id", [MACH_NOTIFY_SEND_ONCE, MACH_NOTIFY_NO_SENDERS, MACH_NOTIFY_DEAD_NAME])
def test_a_forged_notification_moves_no_server(message_id: int, server: RendezvousServer, program: Program) -> None:
    """A client that sends one to the server ends nobody's registration, its own included."""
    with ReceiveRight.allocate() as port, ReceiveRight.allocate() as answers:
        child = launch(
            program("validation", "told", "real", 1), {"port": port.make_send()}, stdin=subprocess.PIPE, stdout=-1
        )
        with server.send_right() as right:
            right.send(Message(message_id, local_port=answers.name, local_disposition=Disposition.MAKE_SEND_ONCE))
            right.send(Message(message_id, child.pid.to_bytes(4, sys.byteorder)))
        destroy_message(answers.receive(PATIENCE))
        assert server.registration_count == 1
        tell(child)
        assert port.receive(PATIENCE).id == GOOD
        assert finish(child) == 0


# -- forged credentials --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What makes a process put other credentials on its messages, to be preloaded."""
    path = tmp_path_factory.mktemp("forge") / "forge.so"
    source = Path(__file__).parent / "programs" / "forge.c"
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    subprocess.run([compiler, "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(path), str(source), "-ldl"], check=True)
    return str(path)


@needs_root
def test_forged_user_ids_do_not_meet_a_requirement(
    forge: str, server: RendezvousServer, program: Program, verdicts: list[Verdict]
) -> None:
    """Root may put any ids on its messages: the token bears them, but the process itself is looked at."""
    environment = {**os.environ, "LD_PRELOAD": forge, "FORGED_CREDENTIALS": "0:4321:4322"}
    for requirement, count in ((ask().user(4321), 0), (ask().group(4322), 0), (ask().user(0).group(0), 1)):
        verdicts.clear()
        with ReceiveRight.allocate() as port:
            command = program("validation", "rendezvous", "none", count)
            child = launch(command, {"port": port.make_send()}, requirement.build(), env=environment)
            if count:
                message = port.receive(PATIENCE)
                assert message.audit_token is not None and message.audit_token.ruid == 4321
            assert finish(child) == 0
            wait_for_no_senders(port)
        [verdict] = verdicts
        assert verdict.audit_token.pid == child.pid and verdict.audit_token.ruid == 4321
        assert verdict.matched == bool(count)


@needs_root
def test_a_forged_pid_of_somebody_without_ports_gets_nothing(
    forge: str, server: RendezvousServer, program: Program
) -> None:
    """Root names another process: it is that one's registration that counts, and there is none."""
    with ReceiveRight.allocate() as port:
        bystander = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        environment = {**os.environ, "LD_PRELOAD": forge, "FORGED_CREDENTIALS": f"{bystander.pid}:0:0"}
        requirement = ask().parent_is_this_process().build()
        child = launch(program("client", "no_ports"), {"port": port.make_send()}, requirement, env=environment)
        assert finish(child) == 0
        wait_for_no_senders(port)
        bystander.communicate()


@needs_root
@pytest.mark.parametrize("forged", ["1:65534:65534", "0:0:65534", "0:65534:0"])
def test_nobody_else_may_forge(forge: str, forged: str, server: RendezvousServer, program: Program) -> None:
    """A process that has given root up: the kernel does not send what is not true of it."""
    environment = {**os.environ, "LD_PRELOAD": forge, SERVICE_NAME_VARIABLE: server.service_name}
    with ReceiveRight.allocate() as port, DirectRendezvousServer({"port": port.make_send()}) as direct:
        command = program("validation", "ask_as_nobody", forged)
        child = launch(command, {"serv": direct.send_right()}, env=environment, stdout=subprocess.PIPE)
        said = line(child)
        assert finish(child) == 0
        assert "asking the server failed" in said
        with DirectRendezvousClient.initialize(direct.send_right()) as client:
            assert client.port_count == 1, "the forger took it"
        wait_for_no_senders(port)
