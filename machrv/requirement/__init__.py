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
