"""`Channel`: one end of a channel."""

# The receive right of one direction and the send right of the other, kept together. What must never happen here: an end
# that loses a message or a right because it is moved, or because a send fails.
#
# Theory of operation. An end that travels is its receive right and nothing else: the send right of the other direction lies
# in its queue, in a HELLO, and is taken out when the end is first used. An end that was used and is then moved puts the
# HELLO there before. What lay before the HELLO, because the other side had sent already, is kept in `_early`. A HELLO without
# a right, or with one that has died, is of another side that is gone: what it had sent is still received.

from __future__ import annotations

import sys
from _thread import allocate_lock
from _warnings import warn
from collections import deque
from time import monotonic

from machrv.channel.bell import Bell
from machrv.channel.encoding import encoded
from machrv.channel.message import ChannelMessage
from machrv.channel.parcel import HELLO_ID, listed, packed, unpacked
from machrv.constants import (
    MACH_PORT_RIGHT_SEND,
    MACH_RCV_LARGE,
    MACH_RCV_MSG,
    MACH_RCV_TIMED_OUT,
    MACH_RCV_TOO_LARGE,
    MACH_SEND_INVALID_DEST,
)
from machrv.errors import (
    ChannelClosedError,
    MachError,
    MessageFormatError,
    NoSenders,
    ReceiveTimeout,
    RequestDropped,
    RightError,
)
from machrv.kernel import current
from machrv.message import Message
from machrv.rights.kinds import ReceiveRight, SendRight, answered, ask
from machrv.rights.right import Movable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeVar

    from typing_extensions import Buffer

    from machrv.channel.encoding import Encoding
    from machrv.channel.parcel import Thing
    from machrv.kernel import Kernel, Readiness
    from machrv.rights.incoming import ReceivedMessage

    T = TypeVar("T")

_SPENT = "this end of a channel is spent: it was closed, given away, or made before fork"
_GONE = "the other end of this channel is gone: it was closed, or its process has ended"


class Channel(Movable):
    """One end of a channel: what is sent into one end comes out of the other, whole, in order, with its sender's name.

    `Channel.pair()` makes both ends; one of them is given away, under a key with `launch` (the child has it with
    `client.take_channel(key)`) or over another channel. An end has one holder: giving it away spends it here.

        ours, theirs = Channel.pair()
        with ours, launch([sys.executable, "child.py"], {"chan": theirs}):
            ours.send(b"hello")
            print(ours.receive(timeout=30).data)

    Safe to use from several threads. A context manager that closes on exit. As long as nobody receives, a few messages are
    kept, then `send` waits: two ends that only send wait for each other.
    """

    __slots__ = ("_port", "_peer", "_met", "_early", "_bell", "_lock", "_gone", "__weakref__")

    def __init__(self, right: ReceiveRight) -> None:
        """Take an end over that came as a receive right. `pair` and `client.take_channel` are the usual ways."""
        if not isinstance(right, ReceiveRight):
            raise RightError(f"an end of a channel comes as a ReceiveRight, not as {right!r}")
        self._port = ReceiveRight(right._moved_away("moved into a Channel"), right.kernel)
        self._port._came = True  # Whoever has the other end has been there before.
        #: The right to send to the other end, and whether the HELLO that brings it was taken out; the right may be dead by then.
        self._peer: SendRight | None = None
        self._met = False
        self._early: deque[ReceivedMessage] = deque()
        self._bell: Bell | None = None
        self._lock = allocate_lock()
        #: The other end's right to send here is gone. A process that ends may still be about to close its other descriptors.
        self._gone = False

    @classmethod
    def pair(cls, kernel: Kernel | None = None) -> tuple[Channel, Channel]:
        """The two ends of a new channel."""
        with ReceiveRight.allocate(kernel=kernel) as left, ReceiveRight.allocate(kernel=kernel) as right:
            with left.make_send() as to_left, right.make_send() as to_right:
                _greet(right, to_left)
                ends = cls(left), cls(right)
                ends[0]._peer, ends[0]._met = SendRight(to_right.release(), to_right.kernel), True
                return ends

    # -- sending and receiving ----------------------------------------------------------------------------------------

    def send(self, data: Buffer = b"", rights: Iterable[Thing] = (), timeout: float | None = None) -> None:
        """Send bytes, as many as there are, and with them `rights`.

        Those may be owned rights and ends of channels, which are moved; MemoryObjects, and anything with `fileno()` (files,
        sockets), which stay yours and are shared. `timeout` in seconds; None waits until there is room. Raises SendTimeout;
        ChannelClosedError, which is an EOFError, once the other end is gone; RightError for what cannot be sent. Then
        nothing was sent, and everything is still yours.
        """
        peer = self._open()
        self._sent(data, rights, lambda message: peer.send(message, timeout))

    def receive(self, timeout: float | None = None) -> ChannelMessage:
        """The next message: its `data`, its `rights`, and in `audit_token` who sent it.

        `timeout` in seconds; None waits for ever, 0 does not wait. Raises ReceiveTimeout, which is a TimeoutError;
        ChannelClosedError, which is an EOFError, once the other end is gone and all that it sent was received;
        MessageFormatError if the other end sends what is no message of a channel: that one is given up.
        """
        self._meet()
        try:
            message = self._early.popleft()
        except IndexError:
            try:
                message = self._port.receive(timeout)
            except NoSenders:
                self._gone = True
                raise ChannelClosedError(_GONE) from None
        if self._bell is not None and not self._early:
            self._bell.hush()
        return _arrived(message)

    def request(self, data: Buffer = b"", rights: Iterable[Thing] = (), timeout: float | None = None) -> ChannelMessage:
        """Send, and wait for the answer that the other side gives with `message.reply(...)`.

        `timeout` in seconds covers both. Several threads may ask at once: each gets its own answer. Raises as `send`;
        ReceiveTimeout if no answer came in time (it is dropped when it comes); RequestDropped, an EOFError, if the other
        side gave the request up unanswered; ChannelClosedError if it is gone.
        """
        deadline = None if timeout is None else monotonic() + timeout
        peer = self._open()
        answers = self._ask(peer, data, rights, timeout)
        try:
            answer = answers.receive(None if deadline is None else max(0.0, deadline - monotonic()))
        except BaseException:
            answers.close()  # An answer may still come: it is not to be taken for another's.
            raise
        return self._answered(peer, answers, answer)

    def send_object(
        self, thing: Any, encoding: Encoding = "json", rights: Iterable[Thing] = (), timeout: float | None = None
    ) -> None:
        """Send an object, as `encoding` puts it into bytes: "json", or what has `dumps` and `loads`; "pickle" if you say so.

        Raises as `send`, and what the encoding raises.
        """
        self.send(encoded(thing, encoding), rights, timeout)

    def receive_object(self, encoding: Encoding = "json", timeout: float | None = None) -> Any:
        """The object in the next message. Rights that came with it are closed: use `receive().object()` to have both.

        Unpickling does whatever the sender wants: "pickle" is for a peer that you trust as yourself. Raises as `receive`,
        and what the encoding raises; the message is gone then.
        """
        with self.receive(timeout) as message:
            return message.object(encoding)

    def __iter__(self) -> Iterator[ChannelMessage]:
        """The messages as they come, until the other end is gone or this one is closed."""
        while not self.closed:
            try:
                message = self.receive()
            except ChannelClosedError:
                return
            except Exception:
                if self.closed:
                    return  # By another thread.
                raise
            yield message

    # -- waiting ------------------------------------------------------------------------------------------------------

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether `receive` has something to give, or to say, within so many seconds; None waits until it has."""
        self._meet(heard=True)
        if self._gone or self._early:
            return True
        self._port._listen()
        try:  # There is no room for any message: it stays where it is.
            self._port.kernel.mach_msg(None, MACH_RCV_MSG | MACH_RCV_LARGE, 0, self._port.name, timeout)
        except MachError as error:
            if error.code == MACH_RCV_TIMED_OUT:
                return False
            if error.code != MACH_RCV_TOO_LARGE:
                raise
        return True

    def fileno(self) -> int:
        """A descriptor that is readable when `receive(timeout=0)` may have something: for select and event loops.

        It belongs to this end, and is closed with it, or when it is given away. Never read from it.
        """
        self._meet(heard=True)
        if self._early or self._bell is not None:
            return self._port._attached(Bell, self._rung).fileno()
        return self._port.fileno()

    def _rung(self, readiness: Readiness) -> Bell:
        """A descriptor that is readable as long as messages wait here, too."""
        readiness.close()
        self._bell = Bell(self._port)
        if not self._early:
            self._bell.hush()
        return self._bell

    # -- holding ------------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether this end was closed or given away, or was made before fork."""
        return self._port.closed

    def close(self) -> None:
        """Close this end. What was sent is still received; then the other side hears of it. Idempotent."""
        for right in (self._peer, self._port):
            if right is not None:
                right.close()
        while self._early:
            self._early.popleft().close()

    def moving_right(self) -> ReceiveRight:
        """For whoever moves this end: the receive right that it travels as. Until that has gone, the end works on."""
        if self.closed:
            raise RightError(_SPENT)
        if self._early:
            raise RightError("messages wait here that this end has taken in already: receive them before it is moved")
        with self._lock:
            if self._met:
                _greet(self._port, self._peer)
                self._peer, self._met = None, False
        return self._port

    def _held_again(self, right: ReceiveRight) -> None:
        """In the child of a fork, to which it was handed over: the end as if it had just come."""
        self._port._held_again(right)
        self._peer, self._lock, self._gone = None, allocate_lock(), False

    def __reduce_ex__(self, protocol: object) -> Any:
        """An end can be an argument of a `multiprocessing.Process`; anywhere else, it cannot be pickled or copied."""
        context = sys.modules.get("multiprocessing.context")
        if context is not None and context.get_spawning_popen() is not None:
            return Channel, (self.moving_right(),)
        return super().__reduce_ex__(protocol)

    def __del__(self) -> None:
        if not getattr(self, "_port", None) or self.closed:
            return
        text = f"{self!r} was forgotten: close it, or use `with`"
        self.close()  # First: where warnings are errors, the next line raises.
        warn(text, ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        return f"<Channel {'spent' if self.closed else hex(self._port.name)}>"

    # -- step by step, for `machrv.aio` as well -----------------------------------------------------------------------

    def _open(self) -> SendRight:
        """The right to send to the other end."""
        self._meet()
        peer = self._peer
        if peer is None:
            raise ChannelClosedError(_GONE)
        return peer

    def _meet(self, heard: bool = False) -> None:
        """The first time, take the right to send to the other end out of the own queue, where it is or never will be.

        Raises RightError if this end is spent; ChannelClosedError if the other end's end was received, unless `heard`.
        """
        if self.closed:
            raise RightError(_SPENT)
        if self._gone and not heard:
            raise ChannelClosedError(_GONE)
        if self._met:
            return
        with self._lock:
            while not self._met:
                try:
                    message = self._port.receive(timeout=0)
                except (NoSenders, ReceiveTimeout):
                    raise MessageFormatError(
                        "this receive right is no end of a channel: make ends with Channel.pair(), and take one with "
                        "take_channel(key)"
                    ) from None
                if message.id != HELLO_ID:
                    self._early.append(message)
                    continue
                with message:
                    found = message.rights[0] if message.rights else None
                    if isinstance(found, SendRight):
                        self._peer = found
                        message.rights.clear()
                    self._met = True

    def _sent(self, data: Buffer, rights: Iterable[Thing], send: Callable[[Message], T]) -> T:
        """What `send` gives, once it was given the message with these."""
        rights = listed(rights)
        for thing in rights:
            if isinstance(thing, Movable) and self._is_of_this(thing):
                raise RightError("an end of a channel cannot be sent over that channel: give it to somebody else")
        message, made = packed(data, rights, self._port.kernel)
        try:
            return send(message)
        except MachError as error:
            if error.code == MACH_SEND_INVALID_DEST:
                raise ChannelClosedError(_GONE) from error
            raise
        finally:
            for right in made:
                right.close()

    def _is_of_this(self, thing: Movable) -> bool:
        """Whether it is this end, or the other one: that would lie in its own queue, and nobody could ever receive it."""
        end = getattr(thing, "_end", thing)  # That of `machrv.aio` has one.
        if not isinstance(end, Channel) or end.closed or self._peer is None:
            return end is self
        return end is self or end._port.kernel is self._port.kernel and end._port.name == self._peer.name

    def _ask(self, peer: SendRight, data: Buffer, rights: Iterable[Thing], timeout: float | None) -> ReceiveRight:
        """Send a request. What the answer comes to is the caller's: for `_answered`, or to be closed."""
        return self._sent(data, rights, lambda message: ask(peer, message, timeout))

    def _answered(self, peer: SendRight, answers: ReceiveRight, answer: ReceivedMessage) -> ChannelMessage:
        try:
            return _arrived(answered(peer, answers, answer))
        except RequestDropped:
            raise self._dropped() from None

    def _dropped(self) -> ChannelClosedError | RequestDropped:
        """What it means that a request was not answered."""
        peer = self._peer
        try:
            if peer is not None and peer.kernel.mach_port_get_refs(peer.name, MACH_PORT_RIGHT_SEND):
                return RequestDropped("the other side gave the request up unanswered: it closed or forgot the message")
        except (MachError, RightError):
            pass
        return ChannelClosedError(_GONE)


def _greet(port: ReceiveRight, peer: SendRight | None) -> None:
    """Put the right to send the other way into the queue of an end. It is moved there. There is room for it in any case."""
    with port.make_send_once() as once:
        once.send(Message(HELLO_ID, descriptors=[] if peer is None else [peer]), timeout=0)


def _arrived(message: ReceivedMessage) -> ChannelMessage:
    reply_right, message.reply_right = message.reply_right, None
    try:
        data, rights = unpacked(message, Channel)
        return ChannelMessage(data, rights, message.audit_token, reply_right)
    except BaseException:
        if reply_right is not None:
            reply_right.close()
        raise
