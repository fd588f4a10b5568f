"""What a server and a client hold their peer against: `Requirement`."""

from __future__ import annotations

from abc import ABC, abstractmethod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.message import AuditToken


class Mismatch(str):
    """Why a process does not meet a requirement, with the number that the system gave, if it gave one: see `Verdict`."""

    __slots__ = ("status",)

    status: int | None

    def __new__(cls, reason: str, status: int | None = None) -> Mismatch:
        """`status` is an OSStatus of Security.framework, or an errno."""
        made = super().__new__(cls, reason)
        made.status = status
        return made


class Requirement(ABC):
    """What a process must be for rights to be handed to it, or taken from it."""

    #: Whether a server must send its Info.plist data to be held against this.
    needs_info_plist: bool = False

    @abstractmethod
    def validate(self, audit_token: AuditToken, info_plist: bytes = b"") -> bool:
        """Whether the process that sent a message with this token meets the requirement.

        `info_plist` is what the peer sent of its bundle's Info.plist, to be believed only as far as the peer's code
        signature vouches for it. An exception counts as no.
        """

    def mismatch(self, audit_token: AuditToken, info_plist: bytes = b"") -> str | None:
        """Why the process does not meet the requirement, for the log; None if it does. A `Mismatch` tells a number too."""
        return None if self.validate(audit_token, info_plist) else "the requirement says no, and not why"
