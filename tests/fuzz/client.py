"""The client, asking a hostile server: a client with ports, or a typed error, in bounded time."""

from __future__ import annotations

import os

from .harness import Harness

COUNTED = "replies"
SERVICE = "org.machrv.fuzz.client"


class Target:
    """One call: one rendezvous, answered with up to three packets."""

    def __init__(self) -> None:
        self.harness = Harness()
        self.harness.hostile.order("l", SERVICE, b"")
        self.harness.hostile.done()
        self._ask(b"")
        self.harness.start()

    def __call__(self, data: bytes) -> int:
        began = self.harness.began()
        count = self._ask(data)
        self.harness.ended(began)
        return count

    def close(self) -> None:
        """End the attacker."""
        self.harness.close()

    def _ask(self, data: bytes) -> int:
        from machrv.errors import RendezvousError
        from machrv.rendezvous import RendezvousClient

        hostile = self.harness.hostile
        hostile.order("s", SERVICE, data)
        try:
            with RendezvousClient.connect(SERVICE, timeout=10) as client:
                token = client.server_audit_token
                assert token is None or token.pid == hostile.pid, token
                assert token is not None or client.port_count == 0
                for key in range(6):
                    take(client, key)
        except RendezvousError as error:
            assert str(error) and not isinstance(error, TimeoutError), error
        return hostile.done()


def take(client: object, key: int) -> bool:
    """Take the right under a key, use it and give it up; whether there was one."""
    from machrv.errors import MachrvError
    from machrv.rights.files import fileport_fd
    from machrv.rendezvous import RendezvousClient

    assert isinstance(client, RendezvousClient)
    right = client.take_send_right(key) or client.take_receive_right(key)
    if right is None:
        return False
    with right:
        try:
            os.close(fileport_fd(right))  # type: ignore[arg-type]
        except MachrvError:
            pass
    return True


def seeds() -> list[bytes]:
    """Where to begin."""
    return [
        b"",
        bytes(64),
        bytes([0, 3, 0, 0, 1, 0, 0, 2] * 8),
        bytes(range(120)),
        bytes([0, 2, 0, 0, 0, 0, 1, 1] * 12),
    ]
