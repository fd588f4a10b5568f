"""A child that claims one right and exits; with an argument, it only exits."""

import sys

if len(sys.argv) == 1:
    from machrv import RendezvousClient

    with RendezvousClient.connect() as rights:
        right = rights.take_send_right("port")
        assert right is not None
        right.close()
