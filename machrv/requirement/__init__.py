"""Who a peer must be: the place of process requirements.

What belongs here: the interface that the registry, the server and the client evaluate. What must never happen here:
rights. A requirement answers yes or no; what follows from the answer is the caller's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.audit import AuditToken


class Requirement(ABC):
    """What a process must be for rights to be handed to it, or taken from it."""

    @abstractmethod
    def validate(self, audit_token: AuditToken, info_plist: bytes = b"") -> bool:
        """Whether the process that sent a message with this token meets the requirement.

        `info_plist` is what the peer sent of its bundle's Info.plist, to be believed only as far as the peer's code
        signature vouches for it. An exception counts as no.
        """

    #: Whether a server must send its Info.plist data to be held against this.
    needs_info_plist = False

    def mismatch(self, audit_token: AuditToken, info_plist: bytes = b"") -> str | None:
        """Why the process does not meet the requirement; None if it does. This is what gets logged."""
        return None if self.validate(audit_token, info_plist) else f"{self!r} says no"


def own_info_plist() -> bytes:
    """The Info.plist data of this process's bundle, at most 18 KiB; b"" where it has none."""
    return b""
