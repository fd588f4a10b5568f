"""A rendezvous, from both sides."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import Any

from typing_extensions import assert_type

from machrv import (
    ENFORCE_PEER_REQUIREMENTS,
    VALIDATE_PEER_REQUIREMENTS,
    AuditToken,
    Child,
    CopyError,
    DirectRendezvousClient,
    DirectRendezvousServer,
    Disposition,
    Feature,
    Kernel,
    KeyFormatError,
    KeyNotFoundError,
    LockNotHeldError,
    PeerRejectedError,
    PeerValidationPolicy,
    ProcessGoneError,
    ProcessRequirement,
    ReceiveRight,
    ReceiveTimeout,
    RegistrationError,
    RendezvousClient,
    RendezvousError,
    RendezvousPermissionError,
    RendezvousPort,
    RendezvousServer,
    RendezvousServerBase,
    RendezvousTimeout,
    Requirement,
    RequirementError,
    SendOnceRight,
    SendRight,
    ServerNotFoundError,
    UnsupportedRequirementError,
    Verdict,
    base_bundle_id,
    current,
    launch,
    peer_validation_policy,
    set_base_bundle_id,
    set_verdict_callback,
)


def launching(port: ReceiveRight, requirement: Requirement) -> None:
    """Keys are numbers or four characters, or both; ports are rights or `RendezvousPort`s, or both."""
    child = launch(["child"])
    assert_type(child, Child)
    popen: subprocess.Popen[Any] = child
    popen.wait()
    launch("child", {"port": port.make_send()})
    launch([b"child"], {1: port.make_send(), 2: port.make_send_once()}, requirement)
    launch(["child"], {"port": RendezvousPort.from_right(port), 7: port.make_send()}, requirement=requirement)
    with RendezvousServer.get_instance() as server:
        launch(["child"], server=server, stdin=subprocess.PIPE, env={**os.environ})
    launch(["child"], nameless=True)
    assert_type(RendezvousServer.get_instance(nameless=True), RendezvousServer)
    assert_type(RendezvousServer(nameless=True), RendezvousServer)


def serving(pid: int, port: RendezvousPort, requirement: Requirement) -> None:
    """The server of many clients."""
    server = RendezvousServer.get_instance()
    assert_type(server, RendezvousServer)
    assert_type(RendezvousServer(kernel=current()), RendezvousServer)
    with server.lock:
        server.set_process_requirement_for_pid(pid, requirement)
        server.register_ports_for_pid(pid, {"port": port})
    if server.lock.acquire(blocking=False) or server.lock.acquire(timeout=1.0):
        server.lock.check()
        server.lock.release()
    assert_type(server.lock.held(), bool)
    environment: dict[str, str] = {}
    server.add_feature_state_to_environment(environment)
    assert_type(server.service_name, str)
    assert_type(server.registration_count, int)
    assert_type(server.kernel, Kernel)
    server.clear_client_data_for_testing()
    server.close()


class Own(RendezvousServerBase):
    """A server with the three hooks."""

    def ports_for_client(self, audit_token: AuditToken) -> Mapping[int, RendezvousPort] | None:
        return {1: RendezvousPort(0x103, Disposition.COPY_SEND)} if audit_token.pid else None

    def is_valid_additional_message_id(self, message_id: int) -> bool:
        return message_id == 1

    def additional_data_for_reply(self, message_id: int) -> bytes:
        return b"data"


def ends(server: RendezvousServerBase) -> None:
    """Where no name is looked up."""
    assert_type(server.send_right(), SendRight)
    with DirectRendezvousServer({"port": ReceiveRight.allocate()}) as direct:
        client = DirectRendezvousClient.initialize(direct.send_right(), timeout=5)
        assert_type(client, DirectRendezvousClient)
        client.close()
    with Own(ReceiveRight.allocate(), current()) as own:
        assert_type(own, Own)


def claiming(requirement: Requirement) -> None:
    """The client's side."""
    RendezvousClient.set_server_process_requirement(requirement)
    assert_type(RendezvousClient.get_instance(), "RendezvousClient | None")
    try:
        with RendezvousClient.connect("org.example.server", timeout=5.0) as rights:
            assert_type(rights, RendezvousClient)
            assert_type(rights.take_send_right("port"), "SendRight | SendOnceRight | None")
            assert_type(rights.take_receive_right(7), "ReceiveRight | None")
            assert_type(rights.port_count, int)
            assert_type(rights.server_audit_token, "AuditToken | None")
    except (ServerNotFoundError, PeerRejectedError, RendezvousPermissionError) as error:
        rendezvous: RendezvousError = error
        print(rendezvous)
    except RendezvousTimeout as late:
        timeout: TimeoutError = late
        print(timeout)


def single_ports(right: SendRight) -> None:
    """What is registered under a key."""
    port = RendezvousPort.from_right(right)
    assert_type(port, RendezvousPort)
    assert_type(port.name, int)
    assert_type(port.disposition, Disposition)
    assert_type(port.kernel, "Kernel | None")
    print(port.descriptor(current()), port.owned(current()))
    port.destroy()


def requirements(token: AuditToken, verdicts: list[Verdict]) -> None:
    """Who a peer must be."""
    builder = ProcessRequirement.Builder()
    builder.identifier("/usr/bin/cat").identifier_is_one_of(["/usr/bin/cat", "/bin/cat"])
    builder.signed_with_same_identity().has_same_team_identifier().has_same_certificate_type()
    builder.team_identifier("ABCDE12345").developer_id_certificate_type().app_store_certificate_type()
    builder.development_certificate_type().check_dynamic_validity_only()
    builder.user(0).group(0).digest(b"0" * 32).security_label("label")
    builder.cgroup("/a.slice").systemd_unit("a.service").systemd_unit("a.service", uid=5)
    requirement = builder.parent_is_this_process().is_parent_of_this_process().build()
    assert_type(requirement, ProcessRequirement)
    assert_type(requirement.validate(token), bool)
    assert_type(requirement.mismatch(token, b""), "str | None")
    assert_type(requirement.text, "str | None")
    assert_type(requirement.needs_info_plist, bool)
    assert_type(ProcessRequirement.always_matches_for_testing(), ProcessRequirement)
    assert_type(ProcessRequirement.never_matches_for_testing(), ProcessRequirement)
    set_verdict_callback(verdicts.append)
    set_verdict_callback(None)
    for verdict in verdicts:
        assert_type(verdict.peer, str)
        assert_type(verdict.audit_token, "AuditToken | None")
        assert_type(verdict.status, "int | None")
        assert_type(verdict.seconds, float)
        assert_type(verdict.requirement, Requirement)
        assert_type((verdict.matched, verdict.enforced), "tuple[bool, bool]")
        assert_type(verdict.reason, str)


class Nobody(Requirement):
    """A requirement of one's own."""

    def validate(self, audit_token: AuditToken, info_plist: bytes = b"") -> bool:
        return False


def policies() -> None:
    """What a requirement leads to."""
    assert_type(peer_validation_policy(), PeerValidationPolicy)
    assert_type(PeerValidationPolicy(2) == PeerValidationPolicy.ENFORCE, bool)
    assert_type(PeerValidationPolicy.VALIDATE_ONLY.name + PeerValidationPolicy.NO_VALIDATION.name, str)
    assert_type(PeerValidationPolicy.ENFORCE.value, int)
    assert_type(list(PeerValidationPolicy), "list[PeerValidationPolicy]")
    with VALIDATE_PEER_REQUIREMENTS.override(True), ENFORCE_PEER_REQUIREMENTS.override(False) as override:
        assert_type(override.enabled, bool)
        override.end()
    feature: Feature = VALIDATE_PEER_REQUIREMENTS
    assert_type(feature.name, str)
    assert_type((feature.enabled, feature.enabled_by_default), "tuple[bool, bool]")
    assert_type(len(feature.overrides), int)
    assert_type(base_bundle_id(), str)
    set_base_bundle_id("org.example")


def failures() -> list[type[ValueError] | type[RuntimeError] | type[ProcessLookupError]]:
    """Each is what Python's own is as well."""
    return [
        KeyFormatError,
        RegistrationError,
        RequirementError,
        UnsupportedRequirementError,
        LockNotHeldError,
        ProcessGoneError,
    ]


def once(right: SendOnceRight) -> RendezvousPort:
    """A send-once right can be registered too."""
    return RendezvousPort.from_right(right)


def taking(client: RendezvousClient) -> None:
    """What came under each key, by what it is."""
    try:
        assert_type(client.take("port", SendRight), SendRight)
        assert_type(client.take_fd("fd"), int)
        client.take_file("file").close()
        client.take_socket("sock").close()
        client.take_memory("memo", 4096).close()
    except KeyNotFoundError as error:
        print(error)
    except CopyError as error:
        print(error)
    except ReceiveTimeout as error:
        assert_type(error.waited, "float | None")
