"""Features, the policy that follows from them and the environment, and what is told of verdicts."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from machrv import (
    ENFORCE_PEER_REQUIREMENTS,
    VALIDATE_PEER_REQUIREMENTS,
    AuditToken,
    PeerValidationPolicy,
    ProcessRequirement,
    RendezvousServer,
    Requirement,
    Verdict,
    current,
    peer_validation_policy,
    set_verdict_callback,
)
from machrv.rendezvous import verdict as verdict_module
from machrv.rendezvous.policy import POLICY_VARIABLE, add_feature_state_to_environment
from machrv.rendezvous.verdict import refusal
from machrv.requirement.requirement import Mismatch

NO_VALIDATION, VALIDATE_ONLY, ENFORCE = PeerValidationPolicy
ALWAYS = ProcessRequirement.always_matches_for_testing()
NEVER = ProcessRequirement.never_matches_for_testing()


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No policy from outside, no callback left, and nobody was warned yet."""
    monkeypatch.delenv(POLICY_VARIABLE, raising=False)
    monkeypatch.setattr(verdict_module, "_warned", False)
    yield
    set_verdict_callback(None)


def test_the_policies_are_chromiums_numbers() -> None:
    """They are ints with names, found by number; no others exist."""
    assert [(policy.name, policy.value) for policy in PeerValidationPolicy] == [
        ("NO_VALIDATION", 0),
        ("VALIDATE_ONLY", 1),
        ("ENFORCE", 2),
    ]
    assert PeerValidationPolicy(2) is PeerValidationPolicy.ENFORCE and len(PeerValidationPolicy) == 3
    assert repr(ENFORCE) == "PeerValidationPolicy.ENFORCE" and ENFORCE > VALIDATE_ONLY
    for number in (-1, 3):
        with pytest.raises(ValueError):
            PeerValidationPolicy(number)


def test_both_features_are_off_by_default() -> None:
    """As in Chromium, whose names they have: nothing is validated unless somebody asks for it."""
    assert VALIDATE_PEER_REQUIREMENTS.name == "MachPortRendezvousValidatePeerRequirements"
    assert ENFORCE_PEER_REQUIREMENTS.name == "MachPortRendezvousEnforcePeerRequirements"
    assert not VALIDATE_PEER_REQUIREMENTS.enabled and not ENFORCE_PEER_REQUIREMENTS.enabled
    assert peer_validation_policy() is NO_VALIDATION


@pytest.mark.parametrize(
    ("validate", "enforce", "expected"),
    [
        (False, False, NO_VALIDATION),
        (True, False, VALIDATE_ONLY),
        (False, True, ENFORCE),
        (True, True, ENFORCE),
    ],
)
def test_the_policy_follows_from_the_features(validate: bool, enforce: bool, expected: PeerValidationPolicy) -> None:
    """Enforcing includes validating."""
    with VALIDATE_PEER_REQUIREMENTS.override(validate), ENFORCE_PEER_REQUIREMENTS.override(enforce):
        assert peer_validation_policy() is expected
    assert peer_validation_policy() is NO_VALIDATION


def test_overrides_nest_and_end_in_any_order() -> None:
    """The latest that is still in force counts; without a `with`, one lasts until it is ended."""
    first = ENFORCE_PEER_REQUIREMENTS.override(True)
    try:
        assert ENFORCE_PEER_REQUIREMENTS.enabled
        second = ENFORCE_PEER_REQUIREMENTS.override(False)
        with ENFORCE_PEER_REQUIREMENTS.override(True):
            assert ENFORCE_PEER_REQUIREMENTS.enabled
            first.end()
            assert ENFORCE_PEER_REQUIREMENTS.enabled
        assert not ENFORCE_PEER_REQUIREMENTS.enabled
        second.end()
        second.end()
    finally:
        first.end()
    assert ENFORCE_PEER_REQUIREMENTS.overrides == []


@pytest.mark.parametrize("asked", PeerValidationPolicy)
@pytest.mark.parametrize(
    "value",
    [None, "0", "1", "2", "3", "-1", "", "02", "+2", "++2", "+", "-0", " 2", "2 ", "ENFORCE", "2\n", "²", "1e0"],
)
def test_the_environment_tightens_and_never_loosens(
    asked: PeerValidationPolicy, value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0, 1 and 2, as Chromium reads numbers, count where they are stricter than what the code asks for; anything else says
    nothing."""
    if value is not None:
        monkeypatch.setenv(POLICY_VARIABLE, value)
    outside = PeerValidationPolicy(int(value)) if value in ("0", "1", "2", "02", "+2") else NO_VALIDATION
    with (
        VALIDATE_PEER_REQUIREMENTS.override(asked == VALIDATE_ONLY),
        ENFORCE_PEER_REQUIREMENTS.override(asked == ENFORCE),
    ):
        assert peer_validation_policy() is max(asked, outside)


def test_the_variable_is_spelled_as_chromium_spells_it() -> None:
    """A letter is missing in it, and has to be."""
    assert POLICY_VARIABLE == "MACH_PORT_RENDEZVOUS_PEER_VALDATION"


@pytest.mark.parametrize("policy", PeerValidationPolicy)
@pytest.mark.parametrize("before", [None, "0", "2", "nonsense"])
def test_a_childs_environment_gets_the_policy(policy: PeerValidationPolicy, before: str | None) -> None:
    """Its number; a stricter one that is in there stays. The present environment is not touched."""
    environment = {} if before is None else {POLICY_VARIABLE: before}
    with (
        VALIDATE_PEER_REQUIREMENTS.override(policy == VALIDATE_ONLY),
        ENFORCE_PEER_REQUIREMENTS.override(policy == ENFORCE),
    ):
        RendezvousServer.add_feature_state_to_environment(environment)
    assert environment == {POLICY_VARIABLE: "2" if before == "2" else str(policy.value)}
    assert POLICY_VARIABLE not in os.environ


def test_a_policy_from_outside_goes_on_to_the_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process's parent demanded, this process demands of its children."""
    monkeypatch.setenv(POLICY_VARIABLE, "1")
    environment: dict[str, str] = {}
    add_feature_state_to_environment(environment)
    assert environment[POLICY_VARIABLE] == "1"


def judged(requirement: Requirement | None, peer: str = "client") -> tuple[str | None, list[Verdict]]:
    """What follows for this process as the peer, and the verdicts that were reported."""
    verdicts: list[Verdict] = []
    set_verdict_callback(verdicts.append)
    return refusal(peer, requirement, current().audit_token()), verdicts


def test_without_validation_nobody_is_judged_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """No verdict; but whoever set a requirement is told that it does not count."""
    for _ in range(2):
        assert judged(NEVER) == (None, [])
    [record] = caplog.records
    assert record.name == "machrv" and record.levelno == logging.WARNING
    assert "NO_VALIDATION" in record.getMessage() and "ENFORCE_PEER_REQUIREMENTS" in record.getMessage()


def test_validating_reports_and_lets_pass(caplog: pytest.LogCaptureFixture) -> None:
    """A verdict and a record for each peer, whether it matched or not; nobody is refused."""
    caplog.set_level(logging.INFO, "machrv")
    with VALIDATE_PEER_REQUIREMENTS.override(True):
        assert judged(None) == (None, [])
        refused, [verdict] = judged(ALWAYS, "server")
        assert refused is None
        assert verdict == ("server", current().audit_token(), ALWAYS, True, False, "")
        refused, [verdict] = judged(NEVER)
        assert refused is None
        assert verdict == ("client", current().audit_token(), NEVER, False, False, "no process ever does")
        assert verdict.status is None and 0 < verdict.seconds < 30
    matched, failed = caplog.records
    assert matched.levelno == logging.INFO and "meets ProcessRequirement(always" in matched.getMessage()
    assert failed.levelno == logging.WARNING
    for part in (f"the client, process {os.getpid()},", "no process ever does", "VALIDATE_ONLY"):
        assert part in failed.getMessage()


def test_enforcing_refuses_with_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    """The same verdicts, and a mismatch has consequences."""
    with ENFORCE_PEER_REQUIREMENTS.override(True):
        refused, [verdict] = judged(ALWAYS)
        assert refused is None and verdict.matched and verdict.enforced
        refused, [verdict] = judged(NEVER)
        assert refused == verdict.reason == "no process ever does"
        assert not verdict.matched and verdict.enforced
        assert "it is refused" in caplog.text
        set_verdict_callback(None)
        assert refusal("server", ALWAYS, None) is not None, "nobody answered, so nobody showed anything"
        assert refusal("server", None, None) is None


class Fails(Requirement):
    """A requirement that cannot be evaluated."""

    def validate(self, audit_token: AuditToken, info_plist: bytes = b"") -> bool:
        raise ZeroDivisionError("no way to tell")


def test_what_cannot_be_evaluated_is_not_met(caplog: pytest.LogCaptureFixture) -> None:
    """The exception is logged, and the peer refused."""
    with ENFORCE_PEER_REQUIREMENTS.override(True):
        refused, [verdict] = judged(Fails())
    assert refused is not None and "no way to tell" in refused and not verdict.matched
    assert "ZeroDivisionError" in caplog.text


def test_a_verdict_has_the_number_that_the_system_gave() -> None:
    """An errno here, an OSStatus on macOS; and how long it took."""

    class Slow(Requirement):
        def validate(self, audit_token: AuditToken, info_plist: bytes = b"") -> bool:
            raise NotImplementedError

        def mismatch(self, audit_token: AuditToken, info_plist: bytes = b"") -> str | None:
            began = time.perf_counter()
            while time.perf_counter() < began + 0.02:
                pass
            return Mismatch("it is not signed", -67062)

    with VALIDATE_PEER_REQUIREMENTS.override(True):
        _, [verdict] = judged(Slow())
        assert (verdict.status, verdict.reason) == (-67062, "it is not signed") and 0.02 <= verdict.seconds < 30
        if sys.platform == "linux":
            with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
                with current().open_process(child.pid) as process:  # type: ignore[attr-defined]
                    token = AuditToken(pid=child.pid, pidversion=process.pidversion)
            verdicts: list[Verdict] = []
            set_verdict_callback(verdicts.append)
            refusal("client", ProcessRequirement.Builder().user(os.getuid()).build(), token)
            assert verdicts[0].status == errno.ESRCH


def test_a_callback_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged."""

    def fail(verdict: Verdict) -> None:
        raise ZeroDivisionError("the callback's own fault")

    set_verdict_callback(fail)
    with ENFORCE_PEER_REQUIREMENTS.override(True):
        assert refusal("client", ALWAYS, current().audit_token()) is None
        assert refusal("client", NEVER, current().audit_token()) is not None
    assert caplog.text.count("the callback's own fault") >= 2
