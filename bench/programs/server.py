"""A rendezvous server for whoever asks: `server.py SERVICE PORTS`. Ends when its standard input does.

Each answer carries PORTS fresh send rights under the keys 0, 1, ... It says "ready" once it can be found.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from machrv import AuditToken, Disposition, ReceiveRight, RendezvousPort, RendezvousServerBase, current


class Server(RendezvousServerBase):
    """Answers everybody with new send rights to one port."""

    def __init__(self, service_name: str, count: int) -> None:
        self._target = ReceiveRight.allocate()
        name = self._target.name
        self._answer = {key: RendezvousPort(name, Disposition.MAKE_SEND) for key in range(count)}
        super().__init__(ReceiveRight(current().bootstrap_check_in(service_name)))

    def ports_for_client(self, audit_token: AuditToken) -> Mapping[int, RendezvousPort]:
        """The same for each: MAKE_SEND owns nothing, and makes a right when the reply is sent."""
        return self._answer

    def close(self) -> None:
        """Stop serving."""
        super().close()
        self._target.close()


with Server(sys.argv[1], int(sys.argv[2])):
    print("ready", flush=True)
    sys.stdin.read()
