"""What arrives over a channel."""

# What must never happen here: a thing that arrived and is nobody's.

from __future__ import annotations

from machrv.channel.encoding import decoded, encoded
from machrv.channel.parcel import listed, packed
from machrv.errors import RightError
from machrv.rights.closing import Closing
from machrv.rights.files import opened
from machrv.rights.kinds import ReceiveRight, SendRight
from machrv.rights.memory import MemoryObject
from machrv.rights.right import Movable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from io import TextIOWrapper
    from socket import socket
    from typing import IO, Any, BinaryIO, TypeVar, overload

    from _typeshed import OpenBinaryMode, OpenTextMode
    from typing_extensions import Buffer

    from machrv.channel.encoding import Encoding
    from machrv.channel.end import Channel
    from machrv.channel.parcel import Arrived, Thing
    from machrv.message import AuditToken
    from machrv.rights.kinds import SendOnceRight, SendRight
    from machrv.rights.sender import Sender

    T = TypeVar("T")


class ChannelMessage(Closing):
    """What `Channel.receive` gives: `data`, `rights`, `audit_token`; `reply` answers a request.

    It owns what came with it. Use it in a `with`: at its end, what nobody took out of `rights` is closed. Without one, each
    of them is an object like any other, and one that is forgotten is closed with a ResourceWarning.

        with channel.receive() as message:
            log = message.take_file(0, "a")
            settings = message.take_memory(1)
    """

    __slots__ = ("data", "rights", "audit_token", "reply_right")

    #: The bytes that were sent, as many as were sent.
    data: bytes
    #: What came along, in the order in which it was sent: owned rights, MemoryObjects, Channels; a file as the SendRight that
    #: `machrv.fileport_fd` opens; None for a right whose port has died on the way, or that was taken. Pop what you keep, or use
    #: `take_...`, which leave the others where they are.
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

    # -- taking what came along ---------------------------------------------------------------------------------------

    def take(self, index: int, kind: type[T]) -> T:
        """What is in `rights` at `index`, which is to be a `kind`: SendRight, MemoryObject, Channel. It is yours from now on.

        None stays in its place. Raises RightError if it is of another kind, was taken, or is not there; then it stays.

            port = message.take(0, ReceiveRight)
        """
        return self._taken(index, kind, kind.__name__)

    def _taken(self, index: int, kind: type[T], name: str) -> T:
        try:
            found = self.rights[index]
        except IndexError:
            raise RightError(
                f"there is nothing at {index}: {len(self.rights)} rights came with this message, or it was closed"
            ) from None
        if found is None:
            raise RightError(f"there is nothing at {index}: it was taken, or its port had died on the way")
        if not isinstance(found, kind):
            raise RightError(f"what is at {index} is a {type(found).__name__}, and not a {name}")
        self.rights[index] = None
        return found

    def take_send_right(self, index: int = 0) -> SendRight:
        """The send right at `index`. Raises as `take`."""
        return self.take(index, SendRight)

    def take_receive_right(self, index: int = 0) -> ReceiveRight:
        """The receive right at `index`. Raises as `take`."""
        return self.take(index, ReceiveRight)

    def take_memory(self, index: int = 0) -> MemoryObject:
        """The memory at `index`. Raises as `take`."""
        return self.take(index, MemoryObject)

    def take_channel(self, index: int = 0) -> Channel:
        """The end of a channel at `index`. Raises as `take`."""
        return self._taken(index, Movable, "Channel")  # type: ignore[return-value]  # That is what `unpacked` makes.

    if TYPE_CHECKING:

        @overload
        def take_file(
            self,
            index: int = 0,
            mode: OpenTextMode = "r",
            buffering: int = -1,
            encoding: str | None = None,
            errors: str | None = None,
            newline: str | None = None,
        ) -> TextIOWrapper: ...

        @overload
        def take_file(self, index: int, mode: OpenBinaryMode, buffering: int = -1) -> BinaryIO: ...

        @overload
        def take_file(self, index: int = 0, *, mode: OpenBinaryMode, buffering: int = -1) -> BinaryIO: ...

    def take_file(
        self,
        index: int = 0,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """The file at `index`, as `open` gives it, yours to close. The other arguments are those of `open`.

        What the sender opened decides what can be done with it; nothing is cut off by "w". Raises as `take`, if it is no file
        too, and what `open` raises; then it stays to be taken.
        """
        return self._opened(index, lambda fd: open(fd, mode, buffering, encoding, errors, newline))

    def take_socket(self, index: int = 0) -> socket:
        """The socket at `index`, yours to close. Raises as `take_file`."""
        from socket import socket  # Late: who takes none does not pay for it.

        return self._opened(index, lambda fd: socket(fileno=fd))

    def take_fd(self, index: int = 0) -> int:
        """A descriptor of the file or socket at `index`, close-on-exec, yours to close. Raises as `take_file`."""
        return self._opened(index, int)

    def _opened(self, index: int, make: Callable[[int], T]) -> T:
        """What `make` makes of the descriptor that is at `index`."""
        right = self.take(index, SendRight)
        try:
            return opened(right, make, f"at {index}")
        except BaseException:
            self.rights[index] = right
            raise

    # -- answering ----------------------------------------------------------------------------------------------------

    def reply(self, data: Buffer = b"", rights: Iterable[Thing] = ()) -> None:
        """Answer a request, once; `data` and `rights` as in `Channel.send`. It does not wait.

        Raises RightError if no answer is waited for, or one was given; MachError (MACH_SEND_INVALID_DEST) if whoever asked
        is gone. Then everything is as it was.
        """
        right = self.reply_right
        if right is None:
            raise RightError("no answer is waited for: this was sent with `send`, not with `request`, or was answered")
        message, made = packed(data, listed(rights), right.kernel)
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
