"""A received message, which owns the rights that it brought."""

# Who owns what arrived, until it is taken or given up. What must never happen here: a right that only a name in a message
# stands for. What is made of what arrived is in `kinds`.

from __future__ import annotations

from machrv.errors import RightError
from machrv.message import Message
from machrv.rights.closing import Closing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

    from machrv.message import AuditToken
    from machrv.rights.kinds import OwnedRight, SendOnceRight, SendRight
    from machrv.rights.sender import Sender

#: Of a received message it is never None: every receive asks for an audit trailer.
_token_of: Any = Message.audit_token.fget  # type: ignore[attr-defined]


class ReceivedMessage(Message, Closing):
    """A message as `receive` gives it. It owns the rights that it brought, as objects.

    Use it in a `with`: at its end, what nobody took out of `rights` and `reply_right` is given up. Without one, each
    right is an object like any other, and one that is forgotten is closed with a ResourceWarning.

        with port.receive() as message:
            right = message.rights.pop(0)   # mine from here on
    """

    __slots__ = ("rights", "reply_right")

    #: What the descriptors brought, in their order; None for a right whose port died on the way. Pop what you keep.
    rights: list[OwnedRight | None]
    #: The right to answer with; None if the message asks for no answer.
    reply_right: SendRight | SendOnceRight | None

    @property
    def audit_token(self) -> AuditToken:
        """Who sent the message, in the kernel's words."""
        return _token_of(self)  # type: ignore[no-any-return]

    @property
    def sender(self) -> Sender:
        """What the kernel knows of the process that sent the message, while that lives: see `Sender`."""
        from machrv.rights.sender import Sender  # Late: few look.

        return Sender(self.audit_token)

    def reply(self, answer: Message) -> None:
        """Answer: send `answer` to whoever waits for it. Its descriptors may hold owned rights, as with `send`.

        It never waits for a receiver that asked with `request`. Raises RightError if the message asks for no answer, or has
        been answered; MachError (MACH_SEND_INVALID_DEST) if nobody waits any more. If it fails, the right to answer is
        still held.
        """
        right = self.reply_right
        if right is None:
            raise RightError("this message asks for no answer, or its right to answer was taken: use `request` to ask")
        right.send(answer, timeout=0)
        if right.closed:
            self.reply_right = None

    def close(self) -> None:
        """Give up the rights that nobody took. Whoever waits for an answer is told. Idempotent."""
        for right in [*self.rights, self.reply_right]:
            if right is not None:
                right.close()
        self.rights.clear()
        self.reply_right = None

    __hash__: ClassVar[None]  # type: ignore[assignment]  # As a message.
