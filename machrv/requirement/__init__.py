"""Who a peer must be: requirements, and how each platform finds out.

    process     ProcessRequirement: what is asked of a process, and the answer
    builder     how one is put together, and what is refused
    linux       what Linux can check; pinned: the process while it is looked at; image: the program that it runs
    darwin      what macOS can check, as text; security: Security.framework

What belongs here: the interface that the server and the client evaluate. What must never happen here: rights, and
policy. A requirement answers yes or no; what follows from the answer is decided in `machrv.rendezvous.policy`. Nor may a
requirement ever say yes because it could not look: what cannot be checked is refused when it is built.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod

from machrv.errors import MachrvError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.audit import AuditToken


class RequirementError(MachrvError, ValueError):
    """A requirement that cannot be built: a bad value, a contradiction, or one that would let the wrong ones in."""


class UnsupportedRequirementError(RequirementError, UnsupportedError):
    """A requirement that this system cannot check; the message says what and why."""


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
        """Why the process does not meet the requirement, for the log; None if it does."""
        return None if self.validate(audit_token, info_plist) else "the requirement says no, and not why"


def own_info_plist() -> bytes:
    """The Info.plist data of this process's bundle, XML, at most 18 KiB; b"" where there is none."""
    if sys.platform != "darwin":
        return b""
    from machrv.requirement.darwin import info_plist

    return info_plist()
