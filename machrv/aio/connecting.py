"""The child's end on the loop: one request, one reply."""

# The waits of a rendezvous. What must never happen here: an await between the reply taken and its rights owned. What is
# asked, and what a reply must be, is the business of `machrv.rendezvous.client`.

from __future__ import annotations

import asyncio

from machrv.errors import MachError, RendezvousTimeout
from machrv.kernel import current
from machrv.rendezvous.client import (
    DirectRendezvousClient,
    RendezvousClient,
    check_reachable,
    explained,
    found,
    request_id,
    server_requirement,
    taken,
)
from machrv.rendezvous.protocol import request
from machrv.rights.awaiting import receive, send
from machrv.rights.kinds import SendRight, reply_port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.message.audit import AuditToken
    from machrv.kernel import Kernel
    from machrv.rights.kinds import OwnedRight

#: Seconds between two tries to be taken in by a server that is very busy: at first, and at most.
_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.1


async def connect(
    service_name: str | None = None, timeout: float = 30.0, kernel: Kernel | None = None
) -> RendezvousClient:
    """As `RendezvousClient.connect`: ask the server under `service_name` (None: this process's parent) for the rights.

    `timeout` in seconds covers everything. Raises as `RendezvousClient.connect`. A claim is made once, by the request:
    cancelled, or timed out, before the request is sent, nothing was claimed; after it, the claim is spent, and the rights
    that come, or have come, are destroyed, so that their other ends notice. Shield it (asyncio.shield) where a timeout of
    your own should not cost the rights.

        with await aio.connect() as rights:
            port = rights.take_send_right("port")
    """
    deadline = asyncio.get_running_loop().time() + timeout
    kernel = kernel if kernel is not None else current()
    server, what = await _found(service_name, kernel, timeout, deadline)
    with server:
        return RendezvousClient(*await _ask(server, what, timeout, deadline))


async def initialize(send_right: SendRight, timeout: float = 30.0) -> DirectRendezvousClient:
    """As `DirectRendezvousClient.initialize`: ask the server that `send_right` leads to. The right is spent.

    Raises as `connect`, and is cancelled as that; as long as the request was not sent, the caller still owns the right.
    """
    deadline = asyncio.get_running_loop().time() + timeout
    return DirectRendezvousClient(*await _ask(send_right, "server", timeout, deadline))._known()


async def _found(service_name: str | None, kernel: Kernel, timeout: float, deadline: float) -> tuple[SendRight, str]:
    """A send right to the server, and what it is called. Nothing tells when a busy server takes the next in."""
    pause = _FIRST_PAUSE
    while True:
        try:
            return found(service_name, kernel, 0, timeout)
        except RendezvousTimeout:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                raise
            await asyncio.sleep(min(pause, left))
            pause = min(_LONGEST_PAUSE, 2 * pause)


async def _ask(
    server: SendRight, what: str, timeout: float, deadline: float
) -> tuple[dict[int, OwnedRight], AuditToken | None]:
    """Send a request to `server`, whose right is spent then, and take what the reply brings."""
    loop, kernel, requirement = asyncio.get_running_loop(), server.kernel, server_requirement()
    check_reachable(server, what)
    with reply_port(kernel) as answers:
        try:
            # Its right is copied into the request and closed behind it: to the server that is the same as a move, and a
            # request that is given up before it was sent has not touched it.
            await send(server, request(answers.name, request_id(requirement)), max(0.0, deadline - loop.time()))
            server.close()
            reply = await receive(answers, max(0.0, deadline - loop.time()))
        except MachError as error:
            raise explained(error, what, timeout) from error
    return taken(reply, what, requirement)
