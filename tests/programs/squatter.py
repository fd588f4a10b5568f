"""A process that is nobody's parent and serves under a name all the same: `squatter.py NAME [relay]`.

Answers one request with a send right to a port of its own. Says "ready", then "asked", then "given up" once nobody has
that right any more. With `relay`, it is the accomplice: it does not serve; a server hands it the client's reply right
under 'repl', and it answers in that server's place.
"""

from __future__ import annotations

import sys

from machrv import Disposition, PortDescriptor, ReceiveRight, RendezvousClient, SendOnceRight, current, take_reply_right
from machrv.message import MACH_NOTIFY_NO_SENDERS
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
            right = take_reply_right(service.receive(30))  # type: ignore[assignment]
    assert isinstance(right, SendOnceRight)
    return right


with ReceiveRight.allocate() as port:
    answerable = reply_right()
    print("asked", flush=True)
    key = int.from_bytes(b"port", "big")
    answerable.send(reply({key: PortDescriptor(port.name, Disposition.MAKE_SEND)}))
    current().mach_port_request_notification(
        port.name, MACH_NOTIFY_NO_SENDERS, 0, port.name, Disposition.MAKE_SEND_ONCE
    )
    while (message := port.receive(30)).id != MACH_NOTIFY_NO_SENDERS:
        print(f"used {message.id:#x}", flush=True)
    print("given up", flush=True)
