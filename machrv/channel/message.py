"""What arrives over a channel."""

# What must never happen here: a thing that arrived and is nobody's.

from __future__ import annotations

from machrv.channel.encoding import decoded, encoded
from machrv.channel.parcel import packed
from machrv.errors import RightError
from machrv.rights.closing import Closing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from typing_extensions import Buffer

    from machrv.channel.encoding import Encoding
    from machrv.channel.parcel import Arrived, Thing
    from machrv.message import AuditToken
    from machrv.rights.kinds import SendOnceRight, SendRight
    from machrv.rights.sender import Sender


class ChannelMessage(Closing):
    """What `Channel.receive` gives: `data`, `rights`, `audit_token`; `reply` answers a request.

    It owns what came with it. Use it in a `with`: at its end, what nobody took out of `rights` is closed. Without one, each
    of them is an object like any other, and one that is forgotten is closed with a ResourceWarning.

        with channel.receive() as message:
            log = open(fileport_fd(message.rights[0]))
    """

    __slots__ = ("data", "rights", "audit_token", "reply_right")

    #: The bytes that were sent, as many as were sent.
    data: bytes
    #: What came along, in the order in which it was sent: owned rights, MemoryObjects, Channels; a file as the SendRight that
    #: `machrv.fileport_fd` opens; None for a right whose port has died on the way. Pop what you keep.
    rights: list[Any]
    #: Who sent it, in the kernel's words.
    audit_token: AuditToken
    #: The right to answer with; None if no answer is waited for.
    reply_right: SendRight | SendOnceRight | None

    def __init__(
        self,
        data: bytes,
        rights: list[Arrived],
        audit_token: AuditToken,
        reply_right: SendRight | SendOnceRight | None = None,
    ) -> None:
        self.data = data
        self.rights = rights
        self.audit_token = audit_token
        self.reply_right = reply_right

    @property
    def sender(self) -> Sender:
        """What the kernel knows of the process that sent the message, while that lives: see `Sender`."""
        from machrv.rights.sender import Sender  # Late: few look.

        return Sender(self.audit_token)

    def object(self, encoding: Encoding = "json") -> Any:
        """The object that `send_object` made these bytes of. Raises what the encoding raises."""
        return decoded(self.data, encoding)

    def reply(self, data: Buffer = b"", rights: Iterable[Thing] = ()) -> None:
        """Answer a request, once; `data` and `rights` as in `Channel.send`. It does not wait.

        Raises RightError if no answer is waited for, or one was given; MachError (MACH_SEND_INVALID_DEST) if whoever asked
        is gone. Then everything is as it was.
        """
        right = self.reply_right
        if right is None:
            raise RightError("no answer is waited for: this was sent with `send`, not with `request`, or was answered")
        message, made = packed(data, rights, right.kernel)
        try:
            right.send(message, timeout=0)
        finally:
            for temporary in made:
                temporary.close()
        right.close()
        self.reply_right = None

    def reply_object(self, thing: Any, encoding: Encoding = "json") -> None:
        """Answer a request with an object. Raises as `reply`, and what the encoding raises."""
        self.reply(encoded(thing, encoding))

    def close(self) -> None:
        """Close what nobody took. Whoever waits for an answer is told that there will be none. Idempotent."""
        for thing in self.rights:
            if thing is not None:
                thing.close()
        self.rights.clear()
        if self.reply_right is not None:
            self.reply_right.close()
            self.reply_right = None

    def __repr__(self) -> str:
        shown = f"{self.data[:32]!r}{'...' if len(self.data) > 32 else ''}"
        asks = ", asks for an answer" if self.reply_right is not None else ""
        return f"<ChannelMessage of {len(self.data)} bytes {shown}, {len(self.rights)} rights{asks}>"
