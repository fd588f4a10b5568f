"""Owned rights, each kind with the operations that are legal for it: send, send-once and receive rights. Port sets
are in `sets`."""

# What must never happen here: a right made that nobody owns. How ownership works is in `right`, how rights travel in
# `transfer`.

from __future__ import annotations

from time import monotonic

from machrv.constants import (
    MACH_NOTIFY_NO_SENDERS,
    MACH_NOTIFY_SEND_ONCE,
    MACH_PORT_DEAD,
    MACH_PORT_LIMITS_INFO,
    MACH_PORT_NULL,
    MACH_PORT_RECEIVE_STATUS,
    MACH_PORT_RIGHT_RECEIVE,
    MACH_PORT_RIGHT_SEND,
    MACH_PORT_RIGHT_SEND_ONCE,
    Disposition,
)
from machrv.errors import MachError, NoSenders, RequestDropped, RightError
from machrv.kernel import current
from machrv.message import GuardedPortDescriptor, Message, OutOfLinePortsDescriptor, PortDescriptor
from machrv.rights.incoming import ReceivedMessage
from machrv.rights.right import Right, holds
from machrv.rights.no_senders import ask_for_word, is_word
from machrv.rights.transfer import RECEIVE_OPTIONS, check_message, copied_in, copy_in, destroy_message, not_received
from machrv.rights.transfer import send_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, ClassVar, Union

    from machrv.kernel import Kernel, Readiness
    from machrv.rights.awaiting import Messages

    OwnedRight = Union["ReceiveRight", "SendRight", "SendOnceRight"]

_NOBODY = "nobody is left who could send to this port: every right to send was closed, or its process has ended. "
_NOBODY += "Where one is still to be made, receive with wait_for_senders=True"
#: How many ports for answers are kept for a right.
_MOST_KEPT = 16
_WORDS = int(MACH_NOTIFY_NO_SENDERS), int(MACH_NOTIFY_SEND_ONCE)
_decode = ReceivedMessage.decode
_COPY_SEND = int(Disposition.COPY_SEND)  # A plain number costs less, each time that it is looked at.


class SendRight(Right):
    """A send right: the power to send to a port, any number of times."""

    __slots__ = ()
    right: ClassVar[int] = MACH_PORT_RIGHT_SEND
    move: ClassVar[Disposition] = Disposition.MOVE_SEND

    def copy(self) -> SendRight:
        """Another reference of the same right. Raises MachError if the port has died."""
        self._kernel.mach_port_mod_refs(name := self.name, MACH_PORT_RIGHT_SEND, 1)
        return SendRight(name, self._kernel)

    def send(self, message: Message, timeout: float | None = None) -> None:
        """Send `message`; its destination is filled in, the right stays held.

        `message.descriptors` may hold owned rights beside descriptors: each is moved to the receiver and spent once the
        message is sent. `timeout` in seconds, None waits for room in the queue for ever. Raises SendTimeout, MachError
        (MACH_SEND_INVALID_DEST once the port has died) or RightError; then nothing has been moved.
        """
        send_message(self._kernel, message, self.name, _COPY_SEND, timeout)

    def request(self, message: Message, timeout: float | None = None) -> ReceivedMessage:
        """Send `message`, and wait for the answer, which the receiver gives with `message.reply(answer)`.

        `timeout` in seconds covers both; None waits for ever. Raises RequestDropped if the receiver gives the request up
        unanswered or ends; ReceiveTimeout if no answer came in time: one that comes later is destroyed; and as `send`,
        if it could not be sent.

            answer = port.request(Message(body=b"2+3 "), timeout=5)
        """
        deadline = None if timeout is None else monotonic() + timeout
        answers = ask(self, message, timeout)
        try:
            answer = answers.receive(None if deadline is None else max(0.0, deadline - monotonic()))
        except BaseException:
            answers.close()  # An answer may still come: it is not to be taken for another's.
            raise
        return answered(self, answers, answer)


class SendOnceRight(Right):
    """A send-once right: the power to send one message. Given up unused, its receiver gets a SEND_ONCE notification."""

    __slots__ = ()
    right: ClassVar[int] = MACH_PORT_RIGHT_SEND_ONCE
    move: ClassVar[Disposition] = Disposition.MOVE_SEND_ONCE

    def send(self, message: Message, timeout: float | None = None) -> None:
        """As `SendRight.send`, but sending spends this right. If the send fails, it is still held."""
        name = self._moved_away("used: it sends one message")
        try:
            send_message(self._kernel, message, name, Disposition.MOVE_SEND_ONCE, timeout)
        except BaseException:
            if holds(self._kernel, name, self.right):
                self.restore(name)
            raise


class _Receiver(Right):
    """What can be received from: a receive right or a port set."""

    __slots__ = ()

    def receive(self, timeout: float | None = None) -> ReceivedMessage:
        """The next message."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[ReceivedMessage]:
        """The messages as they come. Ends where `receive` raises NoSenders, and when the right is closed."""
        while not self.closed:
            try:
                message = self.receive()
            except NoSenders:
                return
            except (MachError, RightError):
                if self.closed:
                    return  # By another thread.
                raise
            yield message

    def fileno(self) -> int:
        """A descriptor that is readable as long as a receive may give something: for any event loop.

        That is a message, a notification, or an error, such as that the port has died. Once it is readable, call
        `receive(timeout=0)`, and take a ReceiveTimeout for "not yet"; never read from the descriptor.

        It belongs to this right, which closes it when it is closed, released or sent away, even if sending fails: take it
        out of every loop before that, and do not close it. It is the same one as long as it lives. Raises RightError,
        MachError (KERN_RESOURCE_SHORTAGE) and UnsupportedError.

            selector.register(port, selectors.EVENT_READ)         # selectors
            loop.add_reader(port, on_readable)                    # asyncio, uvloop; but see machrv.aio
            await trio.lowlevel.wait_readable(port)               # trio
        """
        return self._attached(None, lambda readiness: readiness).fileno()

    def _attached(self, key: object, make: Callable[[Readiness], Readiness]) -> Readiness:
        """What `make` has made, under this key, of a readiness of this right, which it owns; it is closed with the right.

        For event loops: the key is the loop, and what is made takes its descriptor out of the loop when it is closed. Made
        anew if it was closed.
        """
        attachments = self._attachments
        if attachments is None:
            attachments = self._attachments = {}
        found: Readiness | None = attachments.get(key)
        if found is None or found.fileno() < 0:
            for other in [other for other, what in attachments.items() if what.fileno() < 0]:
                attachments.pop(other, None)
            self._listen()
            attachments[key] = found = make(self._kernel.readiness(self.name))
        return found

    def _listen(self) -> None:
        """Have the kernel tell when the last sender goes, where that matters."""

    def __aiter__(self) -> Messages:
        """`async for message in port`: see `machrv.aio.messages`."""
        from machrv.rights.awaiting import messages  # Late: whoever does not wait so does not pay for asyncio.

        return messages(self)  # type: ignore[arg-type]

    def _given_up(self, name: int) -> None:
        try:
            self._kernel.mach_port_mod_refs(name, self.right, -1)
        except BaseException as error:
            if not isinstance(error, MachError) and holds(self._kernel, name, self.right):  # It was a signal handler's.
                self._kernel.mach_port_mod_refs(name, self.right, -1)
            raise


class ReceiveRight(_Receiver):
    """A receive right: the port itself. When it is closed, every right to the port dies.

    `for message in port` and `async for message in port` give its messages until nobody is left who could send any.
    """

    __slots__ = ("_asked", "_listens", "_came", "_shared")
    right: ClassVar[int] = MACH_PORT_RIGHT_RECEIVE
    move: ClassVar[Disposition] = Disposition.MOVE_RECEIVE

    #: Whether the kernel was ever asked for NO_SENDERS, and whether it is still to tell, which it does once; whether this right
    #: came in a message, so that senders were made elsewhere; whether somebody else may receive what the kernel tells.
    _asked: bool
    _listens: bool
    _came: bool
    _shared: bool

    def __init__(self, name: int = -1, kernel: Kernel | None = None) -> None:
        """See `Right`."""
        self._asked = self._listens = self._came = self._shared = False
        super().__init__(name, kernel)

    def receive(self, timeout: float | None = None, wait_for_senders: bool = False) -> ReceivedMessage:
        """The next message, with an audit trailer; out-of-line memory is copied in and given back.

        `timeout` in seconds; None waits for ever, 0 does not wait. The message owns the rights that it brought, in
        `rights` and `reply_right`: use it in a `with`.

        Raises NoSenders, which is an EOFError, once every message was received and the last right to send is gone, those
        of processes that have died too. A port to which no right was ever made here just waits. `wait_for_senders`: wait
        in any case, since somebody is going to make one. Raises ReceiveTimeout, and MachError (MACH_RCV_PORT_DIED or
        MACH_RCV_PORT_CHANGED if the right goes away meanwhile).
        """
        deadline = None if timeout is None else monotonic() + timeout
        kernel, name, told = self._kernel, self.name, False
        while True:
            if not wait_for_senders and (self._shared or not self._listens):
                ask_for_word(self)
            message = received(kernel, name, timeout)
            word = message.id in _WORDS and is_word(self, message)
            if not word or message.id == MACH_NOTIFY_SEND_ONCE:  # It could not be told: the next receive asks again.
                return message
            if not wait_for_senders and not kernel.mach_port_get_attributes(name, MACH_PORT_RECEIVE_STATUS).srights:  # type: ignore[union-attr]
                # Told at once, once more: for others who wait here, in other threads, and behind what a sender has sent that
                # came and went after the kernel told it first.
                ask_for_word(self)
                if told:
                    raise NoSenders(_NOBODY)
                told = True
            if deadline is not None:
                timeout = max(0.0, deadline - monotonic())

    def _listen(self) -> None:
        if not self._listens or self._shared:
            ask_for_word(self)

    @classmethod
    def allocate(cls, queue_limit: int | None = None, kernel: Kernel | None = None) -> ReceiveRight:
        """A new port. `queue_limit`: how many messages may wait before a sender has to, 0 to 1024 (default: 5). On Linux that
        is the least: each right has room for some 80 of any size, or for as many as the limit says if that is more."""
        kernel = kernel if kernel is not None else current()
        right = cls(kernel.mach_port_allocate(MACH_PORT_RIGHT_RECEIVE), kernel)
        if queue_limit is not None:
            try:
                kernel.mach_port_set_attributes(right.name, MACH_PORT_LIMITS_INFO, queue_limit)
            except BaseException:
                right.close()
                raise
        return right

    def make_send(self) -> SendRight:
        """A new send right to this port. It has the same name; each owns its own reference."""
        name = self.name
        self._kernel.mach_port_insert_right(name, name, Disposition.MAKE_SEND)
        return SendRight(name, self._kernel)

    def make_send_once(self) -> SendOnceRight:
        """A new send-once right to this port, under a name of its own."""
        name, _ = self._kernel.mach_port_extract_right(self.name, Disposition.MAKE_SEND_ONCE)
        return SendOnceRight(name, self._kernel)


#: The kinds of right that can arrive.
KINDS: dict[int, type[ReceiveRight] | type[SendRight] | type[SendOnceRight]] = {
    Disposition.PORT_RECEIVE: ReceiveRight,
    Disposition.PORT_SEND: SendRight,
    Disposition.PORT_SEND_ONCE: SendOnceRight,
}


def take_right(name: int, disposition: int, kernel: Kernel | None = None) -> OwnedRight | None:
    """The right that arrived under `name` as an owned object; None for MACH_PORT_NULL and MACH_PORT_DEAD."""
    kind = None if name == MACH_PORT_NULL or name == MACH_PORT_DEAD else KINDS.get(disposition)
    if kind is None:
        return None
    right = kind(MACH_PORT_NULL, kernel)
    if kind is ReceiveRight:
        right._came = True  # type: ignore[union-attr]
    right._held[:] = (name,)  # Last, and no call: a signal handler that raises finds it either owned or not.
    return right


def rights_of(descriptor: Any, kernel: Kernel) -> list[OwnedRight | None]:
    """The rights that arrived in one descriptor, owned."""
    if isinstance(descriptor, (PortDescriptor, GuardedPortDescriptor)):
        return [take_right(descriptor.name, descriptor.disposition, kernel)]
    if isinstance(descriptor, OutOfLinePortsDescriptor):
        names = copied_in(kernel, descriptor).names
        return [take_right(name, descriptor.disposition, kernel) for name in names]
    return []


def received(kernel: Kernel, name: int, timeout: float | None) -> ReceivedMessage:
    """The next message that waits under `name`, which owns what it brought."""

    def take(image: memoryview) -> ReceivedMessage:
        """The message: its rights have owners before anything else can happen, unless memory is to be copied in first."""
        message = _decode(image)
        for descriptor in message.descriptors:
            if type(descriptor) is not PortDescriptor:
                return message
        message.rights, message.reply_right = [], None
        if message.descriptors or message.remote_port:
            _own(message, kernel)
        return message

    try:
        message: ReceivedMessage = kernel.mach_msg(None, RECEIVE_OPTIONS, None, name, timeout, take)  # type: ignore[assignment]
    except MachError as error:
        raise not_received(error, name, timeout) from None
    if not hasattr(message, "rights"):
        copy_in(kernel, message)
        message.rights, message.reply_right = [], None
        try:
            _own(message, kernel)
        except BaseException:
            del message.rights
            destroy_message(message, kernel)
            raise
    return message


def _own(message: ReceivedMessage, kernel: Kernel) -> None:
    """Owners for the rights in a message. If this fails, it owns none of them."""
    rights = message.rights
    try:
        for descriptor in message.descriptors:
            if type(descriptor) is PortDescriptor:  # Most of them.
                name, _, _, disposition = descriptor
                rights.append(take_right(name, disposition, kernel))
            else:
                rights += rights_of(descriptor, kernel)
        right = take_right(message.remote_port, message.remote_disposition, kernel)
        if not isinstance(right, ReceiveRight):
            message.reply_right = right
    except BaseException:
        for taken in filter(None, rights):
            taken.release()
        rights.clear()
        raise


def reply_port(kernel: Kernel) -> ReceiveRight:
    """A port for one answer. It only ever has send-once rights, of which the kernel tells by itself."""
    port = ReceiveRight._owning(kernel, kernel.mach_reply_port)
    port._listens = True
    return port


def ask(right: SendRight, message: Message, timeout: float | None) -> ReceiveRight:
    """Send `message` with a right to answer it, and return the port that the answer comes to: the caller's, to be given to
    `answered` with the answer, or closed."""
    check_message(message)
    if message.local_port:
        raise RightError("a request brings its own right to answer with: leave local_port and local_disposition alone")
    try:
        answers: ReceiveRight = (right._attachments or {}).popitem()[1]
    except KeyError:
        answers = reply_port(right._kernel)
    try:
        send_message(right._kernel, message, right.name, _COPY_SEND, timeout, answers.name)
    except BaseException:
        answers.close()
        raise
    return answers


def answered(right: SendRight, answers: ReceiveRight, answer: ReceivedMessage) -> ReceivedMessage:
    """The answer, which has come to the port that `ask` gave. Nobody has a right to that any more: it is kept for the next
    request, and closed with `right`. Raises RequestDropped if this is the word that there will be no answer."""
    if right._attachments is None:
        right._attachments = {}
    right._attachments[answers] = answers
    if right.closed or len(right._attachments) > _MOST_KEPT:
        right._detach()
    if answer.id == MACH_NOTIFY_SEND_ONCE and answer.audit_token.is_kernel:
        raise RequestDropped(
            "the request was not answered: whoever had it gave the right to answer up, or its process has ended"
        )
    return answer
