"""Owned rights: receive, send and send-once rights, and port sets, as objects.

What belongs here: the operations, each on the kind of right that it is legal for; those of receive rights and port sets are
in `machrv.receivers`, which is loaded when one is asked for. What must never happen here: a right made that nobody owns. How ownership works is in `machrv.ownership`; how rights travel, in `machrv.transfer`.
"""

# Without `from __future__ import annotations`, which loads a module that a child does without.

from machrv.constants import (
    MACH_PORT_DEAD,
    MACH_PORT_NULL,
    MACH_PORT_RIGHT_SEND,
    MACH_PORT_RIGHT_SEND_ONCE,
    Disposition,
)
from machrv.ownership import Right, holds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Union

    from machrv.kernel import Kernel
    from machrv.message import Message
    from machrv.receivers import PortSet as PortSet, ReceiveRight as ReceiveRight
    from machrv.transfer import send_message

    OwnedRight = Union["ReceiveRight", "SendRight", "SendOnceRight"]

else:  # A child that only takes its rights does not pay for what moves messages: it puts itself there when it is needed.

    def send_message(*arguments):
        global send_message
        from machrv.transfer import send_message

        return send_message(*arguments)


class SendRight(Right):
    """A send right: the power to send to a port, any number of times."""

    __slots__ = ()
    right: "ClassVar[int]" = MACH_PORT_RIGHT_SEND
    move: "ClassVar[Disposition]" = Disposition.MOVE_SEND

    def copy(self) -> "SendRight":
        """Another reference of the same right. Raises MachError if the port has died."""
        name = self.name
        self._kernel.mach_port_mod_refs(name, MACH_PORT_RIGHT_SEND, 1)
        return SendRight(name, self._kernel)

    def send(self, message: "Message", timeout: "float | None" = None) -> None:
        """Send `message`; its destination is filled in, the right stays held.

        `message.descriptors` may hold owned rights beside descriptors: each is moved to the receiver and spent once the
        message is sent. `timeout` in seconds, None waits for room in the queue for ever. Raises SendTimeout, MachError
        (MACH_SEND_INVALID_DEST once the port has died) or RightError; then nothing has been moved.
        """
        send_message(self._kernel, message, self.name, Disposition.COPY_SEND, timeout)


class SendOnceRight(Right):
    """A send-once right: the power to send one message. Given up unused, its receiver gets a SEND_ONCE notification."""

    __slots__ = ()
    right: "ClassVar[int]" = MACH_PORT_RIGHT_SEND_ONCE
    move: "ClassVar[Disposition]" = Disposition.MOVE_SEND_ONCE

    def send(self, message: "Message", timeout: "float | None" = None) -> None:
        """As `SendRight.send`, but sending spends this right. If the send fails, it is still held."""
        name = self.release()
        try:
            send_message(self._kernel, message, name, Disposition.MOVE_SEND_ONCE, timeout)
        except BaseException:
            if holds(self._kernel, name, self.right):
                self.restore(name)
            raise


#: The kinds of right that can arrive, but for receive rights.
_KINDS: "dict[int, type[SendRight] | type[SendOnceRight]]" = {
    Disposition.PORT_SEND: SendRight,
    Disposition.PORT_SEND_ONCE: SendOnceRight,
}


def take_right(name: int, disposition: int, kernel: "Kernel | None" = None) -> "OwnedRight | None":
    """The right that arrived under `name` as an owned object; None for MACH_PORT_NULL and MACH_PORT_DEAD."""
    kind: type[OwnedRight] | None = _KINDS.get(disposition)
    if disposition == Disposition.PORT_RECEIVE:
        from machrv.receivers import ReceiveRight

        kind = ReceiveRight
    return None if kind is None or name in (MACH_PORT_NULL, MACH_PORT_DEAD) else kind(name, kernel)


if not TYPE_CHECKING:  # A checker knows what there is.

    def __getattr__(name: str) -> object:
        if name not in ("PortSet", "ReceiveRight"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from machrv import receivers

        globals()[name] = value = getattr(receivers, name)
        return value
