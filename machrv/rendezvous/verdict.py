"""The decision about one peer: who is held against what, and what follows from it."""

# What must never happen here: taking a lock, or touching rights. Server and client come here after their locks are released
# and before anything is handed out. A client that has no requirement to judge by does without this module.

from __future__ import annotations

import sys
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from machrv.log import log
from machrv.rendezvous.policy import PeerValidationPolicy, peer_validation_policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from machrv.message import AuditToken
    from machrv.requirement import Requirement


class _Verdict(NamedTuple):
    peer: str
    audit_token: AuditToken | None
    requirement: Requirement
    matched: bool
    enforced: bool
    reason: str


class Verdict(_Verdict):
    """What was found about one peer.

    `peer` is "client" or "server", `audit_token` its `AuditToken` (None: it did not answer), `requirement` what it was
    held against, `matched` whether it meets it, `reason` why not ("" if it does), `enforced` whether a mismatch ends the
    rendezvous. `status` is the number that the system gave for a mismatch: macOS an OSStatus of Security.framework
    (-67050: errSecCSReqFailed), Linux an errno where it could not be looked at; None if there is none. `seconds`: how long
    the decision took.
    """

    status: int | None = None  # Beside the six, which a program may unpack.
    seconds: float = 0.0


_callback: Callable[[Verdict], object] | None = None
_warned = False


def set_verdict_callback(callback: Callable[[Verdict], object] | None) -> None:
    """Have `callback` called with every `Verdict` from now on, so that a roll-out can be measured; None: nobody.

    It is called on the thread that judged: for clients, that is the thread which serves all of them. What it raises is
    logged. It cannot change the verdict.
    """
    global _callback
    _callback = callback


def refusal(
    peer: str, requirement: Requirement | None, audit_token: AuditToken | None, info_plist: bytes = b""
) -> str | None:
    """Why the rendezvous with this `peer` ("client", "server") must end; None if it may go on.

    No token to judge by, one without a pidversion (whoever that was), and a requirement that cannot be evaluated: it is not
    met. Every verdict is logged (logger "machrv": INFO if the requirement is met, WARNING if not) and goes to the callback.
    """
    if requirement is None:
        return None
    policy = peer_validation_policy()
    who = f"the {peer}" if audit_token is None else f"the {peer}, process {audit_token.pid},"
    if policy == PeerValidationPolicy.NO_VALIDATION:
        _warn_of_no_validation(who, requirement)
        return None
    began = perf_counter()
    reason = _mismatch(requirement, audit_token, info_plist)
    took = perf_counter() - began
    enforced = policy == PeerValidationPolicy.ENFORCE
    if reason is not None:
        outcome = "it is refused" if enforced else "it goes on, since the policy is VALIDATE_ONLY"
        log().warning("%s does not meet %r: %s; %s", who, requirement, reason, outcome)
    elif "logging" in sys.modules:  # Otherwise nobody has asked for INFO records, and the import is not free.
        log().info("%s meets %r", who, requirement)
    callback = _callback
    if callback is not None:
        try:
            verdict = Verdict(peer, audit_token, requirement, reason is None, enforced, str(reason or ""))
            verdict.status, verdict.seconds = getattr(reason, "status", None), took
            callback(verdict)
        except Exception:
            log().exception("the verdict callback %r failed", callback)
    return reason if enforced else None


def _mismatch(requirement: Requirement, audit_token: AuditToken | None, info_plist: bytes) -> str | None:
    if audit_token is None:
        return "there is no answer to judge it by"
    if not audit_token.pidversion:
        return "it has exited, and the kernel no longer tells which process with its number it was"
    try:
        return requirement.mismatch(audit_token, info_plist)
    except Exception as error:
        log().exception("evaluating %r failed", requirement)
        return f"it could not be evaluated ({error!r})"


def _warn_of_no_validation(who: str, requirement: Requirement) -> None:
    """Once per process: whoever sets a requirement most likely wants it to count."""
    global _warned
    if not _warned:
        _warned = True
        log().warning(
            "%s is not held against %r, nor will others be: the policy is NO_VALIDATION. "
            "machrv.ENFORCE_PEER_REQUIREMENTS.override(True) makes requirements count",
            who,
            requirement,
        )
