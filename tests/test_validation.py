"""Chromium's validation matrix, over real processes and all three policies; and requirements that are really checked.

After each, the server has destroyed or handed out every right, and neither side has a descriptor or a name left: the
fixture `nothing_left` counts here, the program `validation` counts in the child.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from machrv import (
    ENFORCE_PEER_REQUIREMENTS,
    VALIDATE_PEER_REQUIREMENTS,
    AuditToken,
    DirectRendezvousClient,
    PeerRejectedError,
    PeerValidationPolicy,
    ProcessRequirement,
    ReceiveRight,
    RendezvousClient,
    RendezvousPort,
    RendezvousServer,
    RendezvousServerBase,
    Verdict,
    aio,
    four_char_code,
    launch,
    peer_validation_policy,
    set_verdict_callback,
)
from machrv.rendezvous.policy import POLICY_VARIABLE
from machrv.rendezvous.protocol import REQUEST_ID, REQUEST_WITH_INFO_PLIST_ID

from .conftest import PATIENCE, Program, finish, wait_for_no_senders
from .loops import no_senders, warm_uvloop  # noqa: F401 (fixture)

NO_VALIDATION, VALIDATE_ONLY, ENFORCE = PeerValidationPolicy
ALWAYS = ProcessRequirement.always_matches_for_testing()
NEVER = ProcessRequirement.never_matches_for_testing()
GOOD = four_char_code("good")


@pytest.fixture(params=list(PeerValidationPolicy), ids=lambda policy: policy.name)
def policy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[PeerValidationPolicy]:
    """The policy in force, here and in the children."""
    monkeypatch.delenv(POLICY_VARIABLE, raising=False)
    asked: PeerValidationPolicy = request.param
    with (
        VALIDATE_PEER_REQUIREMENTS.override(asked == VALIDATE_ONLY),
        ENFORCE_PEER_REQUIREMENTS.override(asked == ENFORCE),
    ):
        assert peer_validation_policy() is asked
        yield asked


@pytest.fixture
def verdicts() -> Iterator[list[Verdict]]:
    """Every verdict of this process."""
    found: list[Verdict] = []
    set_verdict_callback(found.append)
    yield found
    set_verdict_callback(None)


def rendezvous(
    server: RendezvousServer,
    command: list[str],
    requirement: ProcessRequirement | None = None,
    with_rights: bool = True,
    port_arrives: bool = True,
) -> subprocess.Popen[bytes]:
    """Launch a child that asks; it uses its port if that arrives. In the end nobody has a right to the port."""
    with ReceiveRight.allocate() as port:
        ports = {"port": port.make_send()} if with_rights else {}
        child = launch(command, ports, requirement, server=server)
        if with_rights and port_arrives:
            message = port.receive(PATIENCE)
            assert message.id == GOOD
            assert message.audit_token is not None and message.audit_token.pid == child.pid
        assert finish(child) == 0
        if with_rights:
            wait_for_no_senders(port)
    assert server.registration_count == 0
    return child


# -- the matrix ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_rights", [True, False])
def test_a_child_that_matches(
    policy: PeerValidationPolicy, with_rights: bool, server: RendezvousServer, program: Program, verdicts: list[Verdict]
) -> None:
    """It gets what is registered, whatever the policy."""
    command = program("validation", "rendezvous", "none", int(with_rights))
    child = rendezvous(server, command, ALWAYS, with_rights)
    expected = [("client", child.pid, ALWAYS, True, policy == ENFORCE, "")] * (policy != NO_VALIDATION)
    assert [(v.peer, v.audit_token.pid, *v[2:]) for v in verdicts] == expected


@pytest.mark.parametrize("with_rights", [True, False])
def test_a_child_that_does_not_match(
    policy: PeerValidationPolicy,
    with_rights: bool,
    server: RendezvousServer,
    program: Program,
    verdicts: list[Verdict],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Enforced, it gets no reply, which is a rendezvous without ports, and its rights are destroyed; the log says why."""
    arrives = with_rights and policy != ENFORCE
    child = rendezvous(server, program("validation", "rendezvous", "none", int(arrives)), NEVER, with_rights, arrives)
    expected = [("client", child.pid, NEVER, False, policy == ENFORCE, "no process ever does")]
    assert [(v.peer, v.audit_token.pid, *v[2:]) for v in verdicts] == expected * (policy != NO_VALIDATION)
    if policy != NO_VALIDATION:
        [record] = [record.getMessage() for record in caplog.records if "never_matches" in record.getMessage()]
        for part in (str(child.pid), "no process ever does", "refused" if policy == ENFORCE else "VALIDATE_ONLY"):
            assert part in record


@pytest.mark.parametrize("with_rights", [True, False])
def test_a_parent_that_matches(
    policy: PeerValidationPolicy, with_rights: bool, server: RendezvousServer, program: Program
) -> None:
    """The child takes what is registered; zero ports are no failure."""
    rendezvous(server, program("validation", "rendezvous", "always", int(with_rights)), None, with_rights)


@pytest.mark.parametrize("with_rights", [True, False])
def test_a_parent_that_does_not_match(
    policy: PeerValidationPolicy, with_rights: bool, server: RendezvousServer, program: Program
) -> None:
    """Enforced, the child has no rendezvous, and what came with the reply is destroyed."""
    expected = "none" if policy == ENFORCE else int(with_rights)
    command = program("validation", "rendezvous", "never", expected)
    rendezvous(server, command, None, with_rights, policy != ENFORCE)


@pytest.mark.parametrize("who", ["the child", "the parent", "both"])
def test_one_that_does_not_match_is_enough(
    policy: PeerValidationPolicy, who: str, server: RendezvousServer, program: Program
) -> None:
    """Both are judged. A child that is refused gets no reply, so its server could not show who it is: no rendezvous."""
    theirs = "always" if who == "the child" else "never"
    mine = ALWAYS if who == "the parent" else NEVER
    expected = "none" if policy == ENFORCE else 1
    command = program("validation", "rendezvous", theirs, expected)
    rendezvous(server, command, mine, True, policy != ENFORCE)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks what only Linux can check")
def test_both_are_who_they_must_be(
    policy: PeerValidationPolicy, server: RendezvousServer, program: Program, verdicts: list[Verdict]
) -> None:
    """Same program, same user, parent and child: both ends find that out about the other."""
    requirement = (
        ProcessRequirement.Builder()
        .identifier(os.path.realpath(sys.executable))
        .signed_with_same_identity()
        .user(os.getuid())
        .group(os.getgid())
        .parent_is_this_process()
        .build()
    )
    rendezvous(server, program("validation", "rendezvous", "real", 1), requirement)
    assert [verdict.matched for verdict in verdicts] == [True] * (policy != NO_VALIDATION)


# -- where the policy comes from -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parents", "childs"), [("2", "2"), ("1", "1"), ("0", "0")])
def test_a_child_has_its_parents_policy(
    server: RendezvousServer, program: Program, parents: str, childs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that the parent has from its own parent, without `launch`, through the environment alone."""
    monkeypatch.setenv(POLICY_VARIABLE, parents)
    environment = dict(os.environ)
    server.add_feature_state_to_environment(environment)
    assert environment[POLICY_VARIABLE] == childs
    command = program("validation", "rendezvous", "never", "none" if childs == "2" else 0)
    assert finish(subprocess.Popen(command, env=environment)) == 0


@pytest.mark.parametrize("environment", [{}, {POLICY_VARIABLE: "0"}, {POLICY_VARIABLE: "none"}])
def test_an_environment_does_not_switch_off_what_the_child_asks_for(
    server: RendezvousServer, environment: Mapping[str, str]
) -> None:
    """A child whose code enforces does so, whatever whoever started it says."""
    code = (
        "import machrv\n"
        "machrv.ENFORCE_PEER_REQUIREMENTS.override(True)\n"
        "machrv.RendezvousClient.set_server_process_requirement("
        "machrv.ProcessRequirement.never_matches_for_testing())\n"
        "assert machrv.RendezvousClient.get_instance() is None\n"
    )
    outside = {name: value for name, value in os.environ.items() if name != POLICY_VARIABLE}
    assert finish(subprocess.Popen([sys.executable, "-c", code], env={**outside, **environment})) == 0


# -- what is asked, and what is answered ---------------------------------------------------------------------------------


class Recorded(RendezvousServerBase):
    """A server that notes the ids of its requests, and sends some bytes along."""

    def __init__(self, data: bytes = b"") -> None:
        self.ids: list[int] = []
        self.data = data
        super().__init__()

    def ports_for_client(self, audit_token: AuditToken) -> Mapping[int, RendezvousPort]:
        return {}

    def is_valid_additional_message_id(self, message_id: int) -> bool:
        return message_id == REQUEST_WITH_INFO_PLIST_ID

    def additional_data_for_reply(self, message_id: int) -> bytes:
        self.ids.append(message_id)
        return self.data


class Listens(ProcessRequirement):
    """A requirement that notes what it is given, and is always met."""

    def __init__(self, needs_info_plist: bool) -> None:
        super().__init__({"check_dynamic_validity_only": True} if needs_info_plist else {"user": 0}, self)
        self.given: list[tuple[AuditToken, bytes]] = []

    def mismatch(self, audit_token: AuditToken, info_plist: bytes = b"") -> str | None:
        self.given.append((audit_token, info_plist))
        return None


@pytest.fixture
def server_requirement() -> Iterator[None]:
    """What this process demands of servers is dropped afterwards."""
    yield
    RendezvousClient.set_server_process_requirement(None)


@pytest.mark.usefixtures("server_requirement")
@pytest.mark.parametrize("needs_info_plist", [False, True])
def test_the_info_plist_is_asked_for_where_it_counts(policy: PeerValidationPolicy, needs_info_plist: bool) -> None:
    """'mrzV' in place of 'mrzv', if the requirement needs it and is looked at; it is judged with what came."""
    requirement = Listens(needs_info_plist)
    RendezvousClient.set_server_process_requirement(requirement)
    with Recorded(b"<plist/>") as server, DirectRendezvousClient.initialize(server.send_right()) as client:
        asked = needs_info_plist and policy != NO_VALIDATION
        assert server.ids == [REQUEST_WITH_INFO_PLIST_ID if asked else REQUEST_ID]
        judged = [(client.server_audit_token, b"<plist/>")] * (policy != NO_VALIDATION)
        assert requirement.given == judged


@pytest.mark.usefixtures("server_requirement")
def test_a_server_sends_the_info_plist_of_its_process(
    server: RendezvousServer, policy: PeerValidationPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For 'mrzV' alone; a process without a bundle has none."""
    assert server.additional_data_for_reply(REQUEST_WITH_INFO_PLIST_ID) == b""
    monkeypatch.setattr("machrv.rendezvous.server.own_info_plist", lambda: b"x" * (18 << 10))
    assert server.additional_data_for_reply(REQUEST_ID) == b""
    requirement = Listens(True)
    RendezvousClient.set_server_process_requirement(requirement)
    with RendezvousClient.connect(server.service_name) as client:
        assert client.port_count == 0 and client.server_audit_token is not None
    assert [len(data) for _, data in requirement.given] == [18 << 10] * (policy != NO_VALIDATION)


class Silent(RendezvousServerBase):
    """A server that refuses everybody."""


@pytest.mark.usefixtures("server_requirement")
def test_a_missing_reply_is_a_failure_where_the_server_must_show_itself(
    policy: PeerValidationPolicy, verdicts: list[Verdict]
) -> None:
    """Enforced, with a requirement; otherwise it is zero ports, and a verdict."""
    RendezvousClient.set_server_process_requirement(ALWAYS)
    with Silent() as server:
        if policy == ENFORCE:
            with pytest.raises(PeerRejectedError, match="did not answer"):
                DirectRendezvousClient.initialize(server.send_right())
        else:
            DirectRendezvousClient.initialize(server.send_right()).close()
        expected = [("server", None, ALWAYS, False, policy == ENFORCE, "there is no answer to judge it by")]
        assert verdicts == expected * (policy != NO_VALIDATION)
        assert all(verdict.status is None and 0 <= verdict.seconds < 30 for verdict in verdicts)
        RendezvousClient.set_server_process_requirement(None)
        DirectRendezvousClient.initialize(server.send_right()).close()


@pytest.mark.usefixtures("server_requirement")
@pytest.mark.parametrize("how", ["connect", "initialize"])
@pytest.mark.parametrize("requirement", [ALWAYS, NEVER], ids=["met", "not met"])
def test_a_server_is_held_against_its_requirement_on_a_loop_too(
    policy: PeerValidationPolicy, verdicts: list[Verdict], how: str, requirement: ProcessRequirement
) -> None:
    """`aio.connect` and `aio.initialize` judge as the others do: what a server that is refused has sent is given up."""
    RendezvousClient.set_server_process_requirement(requirement)

    async def main() -> None:
        with ReceiveRight.allocate() as port:
            if how == "connect":
                async with aio.RendezvousServer() as server:
                    with server.lock:
                        server.register_ports_for_pid(os.getpid(), {"port": port.make_send()})
                    await ask(aio.connect(server.service_name))
            else:
                async with aio.DirectRendezvousServer({"port": port.make_send()}) as server:
                    await ask(aio.initialize(server.send_right()))
            await no_senders(port)

    async def ask(asking: Any) -> None:
        if policy == ENFORCE and requirement is NEVER:
            with pytest.raises(PeerRejectedError, match="does not meet"):
                await asking
        else:
            with await asking as rights:
                assert rights.port_count == 1

    asyncio.run(main())
    judged = [(verdict.peer, verdict.requirement, verdict.matched) for verdict in verdicts]
    assert judged == [("server", requirement, requirement is ALWAYS)] * (policy != NO_VALIDATION)


@pytest.mark.usefixtures("server_requirement")
def test_a_requirement_that_comes_too_late_is_noticed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After the one rendezvous of this process, its server cannot be judged any more."""
    monkeypatch.setattr(RendezvousClient, "_asked", True)
    RendezvousClient.set_server_process_requirement(None)
    assert not caplog.records
    RendezvousClient.set_server_process_requirement(ALWAYS)
    assert "after get_instance" in caplog.text
