"""A process that is nobody's parent and serves under a name all the same: `squatter.py NAME [relay]`.

Answers one request with a send right to a port of its own. Says "ready", then "asked", then "given up" once nobody has
that right any more. With `relay`, it is the accomplice: it does not serve; a server hands it the client's reply right
under 'repl', and it answers in that server's place.
"""

from __future__ import annotations

import sys

from machrv import Disposition, PortDescriptor, ReceiveRight, RendezvousClient, SendOnceRight, current, take_reply_right
from machrv.rendezvous.protocol import reply


def reply_right() -> SendOnceRight:
    """The right to answer a client."""
    if sys.argv[2:] == ["relay"]:
        client = RendezvousClient.get_instance()
        assert client is not None
        right = client.take_send_right("repl")
    else:
        service = ReceiveRight(current().bootstrap_check_in(sys.argv[1]))
        print("ready", flush=True)
        with service:
            right = take_reply_right(service.receive(30, wait_for_senders=True))  # type: ignore[assignment]
    assert isinstance(right, SendOnceRight)
    return right


with ReceiveRight.allocate() as port:
    answerable = reply_right()
    print("asked", flush=True)
    key = int.from_bytes(b"port", "big")
    answerable.send(reply({key: PortDescriptor(port.name, Disposition.MAKE_SEND)}))
    for message in port:
        print(f"used {message.id:#x}", flush=True)
    print("given up", flush=True)
