"""The child's end of a rendezvous without a name: the client of a server whose send right came by other means.

What belongs here: that client. What must never happen here: anything that a child needs which finds its parent by its name.
"""

from __future__ import annotations

from time import monotonic

from machrv import rendezvous
from machrv.rendezvous.steps import ask, judged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Self

    from machrv.rights import SendRight


class DirectRendezvousClient(rendezvous._Ports):
    """The client of a server whose send right came by other means."""

    __slots__ = ()

    @classmethod
    def initialize(cls, send_right: SendRight, timeout: float = rendezvous._DEFAULT_TIMEOUT) -> Self:
        """Ask the server that `send_right` leads to. The right is spent.

        Raises as `RendezvousClient.connect`; if the request could not be sent, the caller still owns the right.
        """
        deadline, requirement, kernel = monotonic() + timeout, rendezvous._server_requirement, send_right.kernel
        return cls(*judged(ask(send_right, "server", requirement, deadline), "server", requirement, kernel))
