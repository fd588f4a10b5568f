"""ProcessRequirement: what is asked of a process, and whether it is met.

What belongs here: the object that everybody passes around. What must never happen here: finding anything out about a
process: that is the evaluator's, one per platform.
"""

from __future__ import annotations

from machrv.requirement import Requirement
from machrv.requirement.builder import Builder as _Builder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Protocol, TypeAlias

    from machrv.audit import AuditToken

    class Evaluator(Protocol):
        """What a platform makes of what was asked."""

        def mismatch(self, audit_token: AuditToken, info_plist: bytes) -> str | None:
            """Why the process does not fulfil it; None if it does."""


class ProcessRequirement(Requirement):
    """What a process must be. Immutable; make it with `ProcessRequirement.Builder()`.

    What each check is worth, and what it does not show, is in docs/security.md.
    """

    __slots__ = ("_asked", "_evaluator", "needs_info_plist")

    Builder: TypeAlias = _Builder

    def __init__(self, asked: Mapping[str, Any], evaluator: Evaluator) -> None:
        """For the builder: what was asked, by the names of its methods, and who finds out."""
        self._asked = dict(asked)
        self._evaluator = evaluator
        self.needs_info_plist: bool = "check_dynamic_validity_only" in asked

    @property
    def text(self) -> str | None:
        """The requirement as Security.framework reads it; None on platforms without such a language."""
        return getattr(self._evaluator, "text", None)

    def validate(self, audit_token: AuditToken, info_plist: bytes = b"") -> bool:
        """Whether the process that sent a message with this token meets the requirement, now.

        A token that is not from a received message's trailer proves nothing. `info_plist` is the server's Info.plist
        data: `check_dynamic_validity_only` on macOS needs it. Raises UnsupportedError for a requirement that was built
        for another platform; whatever else goes wrong is a no.
        """
        return self.mismatch(audit_token, info_plist) is None

    def mismatch(self, audit_token: AuditToken, info_plist: bytes = b"") -> str | None:
        """As `validate`, with the reason: why the process does not meet the requirement; None if it does."""
        return self._evaluator.mismatch(audit_token, info_plist)

    @staticmethod
    def always_matches_for_testing() -> ProcessRequirement:
        """A requirement that every process meets."""
        return ProcessRequirement({"always_matches_for_testing": True}, _Always())

    @staticmethod
    def never_matches_for_testing() -> ProcessRequirement:
        """A requirement that no process meets."""
        return ProcessRequirement({"never_matches_for_testing": True}, _Never())

    def __repr__(self) -> str:
        asked = (name if value is True else f"{name}={value!r}" for name, value in self._asked.items())
        return f"ProcessRequirement({', '.join(asked)})"


class _Always:
    def mismatch(self, audit_token: AuditToken, info_plist: bytes) -> str | None:
        return None


class _Never:
    def mismatch(self, audit_token: AuditToken, info_plist: bytes) -> str | None:
        return "no process ever does"
