"""The in-flight form: packets that no library of ours would send, received by a port that anybody can look up.

A live message that passes for one must bear the hostile process's token; whatever it brings is used, and given up.
"""

from __future__ import annotations

import os

from .harness import Harness

COUNTED = "packets"
_SERVICE = "org.machrv.fuzz.packets"


class Target:
    """One call: up to four packets over one connection."""

    def __init__(self) -> None:
        self.harness = Harness()
        self.open()
        self("".encode())
        self.harness.start()

    def open(self) -> None:
        """A new port to be attacked, in place of the one that was closed."""
        from machrv.rights import ReceiveRight

        self.port = ReceiveRight(self.harness.kernel.bootstrap_check_in(_SERVICE))
        folder = self.harness.folder.name
        self.path = f"{folder}/{os.readlink(f'{folder}/{_SERVICE}')}"

    def __call__(self, data: bytes) -> int:
        harness = self.harness
        began = harness.began() if hasattr(harness, "_names") else None
        harness.hostile.order("p", self.path, data)
        count = harness.hostile.done()
        for _ in range(64):
            if self.receive() is None:
                break
        else:
            raise AssertionError("four packets have made more than 64 messages")
        if began is not None:
            harness.ended(began)
        return count

    def close(self) -> None:
        """End the attacker, close the port."""
        self.port.close()
        self.harness.close()

    def receive(self, ours: int | None = None) -> bool | None:
        """Take what comes next: None if nothing waits; whether it was a message of this process's own, with this id."""
        from machrv.errors import MachError
        from machrv.message import MACH_RCV_TIMED_OUT
        from machrv.rights.received import take_reply_right, take_rights

        try:
            message = self.port.receive(timeout=0, wait_for_senders=True)
        except MachError as error:
            return None if error.code == MACH_RCV_TIMED_OUT else False
        token = message.audit_token
        if ours is not None and message.id == ours and token is not None and token.pid == os.getpid():
            return True
        assert token is not None and token.pid == self.harness.hostile.pid and not token.is_kernel, message
        for right in [*take_rights(message), take_reply_right(message)]:
            if right is not None:
                with right:
                    self._use(right)
        return False

    def _use(self, right: object) -> None:
        """Do with a right from a stranger what a program would do."""
        from machrv.errors import MachrvError
        from machrv.rights.files import fileport_fd
        from machrv.message import Message
        from machrv import destroy_message
        from machrv.rights import ReceiveRight, SendOnceRight, SendRight

        try:
            if isinstance(right, ReceiveRight):
                for _ in range(8):
                    destroy_message(right.receive(timeout=0))
            elif isinstance(right, SendOnceRight):
                right.send(Message(1), timeout=0)
            elif isinstance(right, SendRight):
                right.send(Message(1, bytes(100)), timeout=0)
                with right.copy():
                    os.close(fileport_fd(right))
        except MachrvError:
            pass


def seeds() -> list[bytes]:
    """Where to begin."""
    return [b"", bytes(40), bytes([0, 1] + [0, 0, 0, 1, 1] * 8), bytes(range(100)), bytes([8, 3, 0, 0, 2, 0, 1] * 12)]
