"""A child that asks a server over a send right that it got from its parent, under 'serv'."""

from __future__ import annotations

import sys

from machrv import DirectRendezvousClient, Message, RendezvousClient, SendRight

client = RendezvousClient.get_instance()
assert client is not None
server = client.take_send_right("serv")
assert isinstance(server, SendRight)
if sys.argv[1:] == ["copy"]:
    # One more reference of the server's right: a second request over it.
    with server.copy() as again:
        with DirectRendezvousClient.initialize(server) as direct:
            right = direct.take_send_right("port")
            assert isinstance(right, SendRight)
            with right:
                right.send(Message(1))
        with DirectRendezvousClient.initialize(again) as second:
            assert second.port_count == 0
else:
    with DirectRendezvousClient.initialize(server) as direct:
        sys.exit(direct.port_count)
