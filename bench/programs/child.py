"""A child that claims one right and sends one message with it; with an argument, it claims it and sends nothing."""

import sys

from machrv import RendezvousClient

with RendezvousClient.connect() as rights:
    right = rights.take_send_right("port")
    assert right is not None
    with right:
        if len(sys.argv) == 1:
            from machrv import Message

            right.send(Message(1), timeout=30)
