"""A live rendezvous server: messages made by a grammar, with rights of every kind, and packets between them.

As Chromium's fuzzer of the same server does it, but over process borders. The server asks its hooks for nobody but the
hostile process, answers what is a request, and destroys the rest.
"""

from __future__ import annotations

from typing import Any

from .harness import Harness

COUNTED = "messages"
_SERVICE = "org.machrv.fuzz.server"


class Target:
    """One call: up to sixteen messages, and then one of our own, which is answered when all others were handled."""

    def __init__(self) -> None:
        self.harness = Harness()
        from machrv.rendezvous.server import RendezvousServerBase
        from machrv.rendezvous.port import RendezvousPort
        from machrv.rights import ReceiveRight

        asked: list[Any] = []

        class Server(RendezvousServerBase):
            """Has one right of each kind for whoever asks."""

            def ports_for_client(self, audit_token: Any) -> Any:
                asked.append(audit_token)
                if len(asked) % 4 == 0:
                    return None
                port = ReceiveRight.allocate()
                rights = [port.make_send(), port.make_send_once(), port]
                return {key: RendezvousPort.from_right(right) for key, right in enumerate(rights)}

            def is_valid_additional_message_id(self, message_id: int) -> bool:
                return bool(message_id & 1)

            def additional_data_for_reply(self, message_id: int) -> bytes:
                return bytes(message_id & 63)

        self.asked = asked
        self.server = Server(ReceiveRight(self.harness.kernel.bootstrap_check_in(_SERVICE)))
        self.harness.settle = self._quiesce
        self._quiesce()
        self.harness.start()

    def __call__(self, data: bytes) -> int:
        began = self.harness.began()
        self.asked.clear()
        self.harness.hostile.order("m", _SERVICE, data)
        count = self.harness.hostile.done()
        self._quiesce()
        assert {token.pid for token in self.asked} <= {self.harness.hostile.pid}, self.asked
        self.harness.ended(began)
        return count

    def close(self) -> None:
        """End the attacker and the server."""
        self.server.close()
        self.harness.close()

    def _quiesce(self) -> None:
        from machrv.message import MACH_NOTIFY_SEND_ONCE, Message
        from machrv.rights import ReceiveRight

        with ReceiveRight.allocate() as answers, self.server.send_right() as right:
            right.send(Message(0, local_port=answers.name, local_disposition=21))
            answer = answers.receive(20)
            assert answer.id == MACH_NOTIFY_SEND_ONCE and answer.audit_token and answer.audit_token.is_kernel, answer


def seeds() -> list[bytes]:
    """Where to begin."""
    return [
        b"",
        bytes(64),
        bytes([0, 0, 0, 0, 1, 1, 0, 1, 5, 2] * 8),
        bytes(range(120)),
        bytes([0, 1, 4, 3, 2, 7] * 20),
    ]
