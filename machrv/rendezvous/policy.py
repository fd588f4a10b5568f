"""Whether a peer is good enough: where requirements are evaluated, for either end of a rendezvous.

What belongs here: the decision. What must never happen here: taking a lock, or touching rights. Registry, server and
client come here after their locks are released and before anything is handed out.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.audit import AuditToken
    from machrv.requirement import Requirement


def is_acceptable(requirement: Requirement | None, audit_token: AuditToken | None, info_plist: bytes = b"") -> bool:
    """Whether the process behind `audit_token` may go on. No requirement: yes. No token to judge by: no.

    A requirement that cannot be evaluated is not met: its exception is logged, not raised.
    """
    if requirement is None:
        return True
    if audit_token is None:
        return False
    try:
        return requirement.validate(audit_token, info_plist)
    except Exception:
        import logging

        logging.getLogger("machrv").exception("evaluating %r failed: the peer is refused", requirement)
        return False
