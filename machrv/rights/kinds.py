"""Owned rights, each kind with the operations that are legal for it: send, send-once and receive rights, and port sets."""

# What must never happen here: a right made that nobody owns. How ownership works is in `right`, how rights travel in
# `transfer`.

from __future__ import annotations

from machrv.constants import (
    MACH_PORT_DEAD,
    MACH_PORT_LIMITS_INFO,
    MACH_PORT_NULL,
    MACH_PORT_RIGHT_PORT_SET,
    MACH_PORT_RIGHT_RECEIVE,
    MACH_PORT_RIGHT_SEND,
    MACH_PORT_RIGHT_SEND_ONCE,
    Disposition,
)
from machrv.kernel import current
from machrv.rights.right import Right, holds
from machrv.rights.transfer import receive_message, send_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar, Union

    from machrv.kernel import Kernel, Readiness
    from machrv.message import Message
    from machrv.rights.awaiting import Messages

    OwnedRight = Union["ReceiveRight", "SendRight", "SendOnceRight"]

#: a plain number costs less than one with a name, each time that it is looked at
_COPY_SEND = int(Disposition.COPY_SEND)


class SendRight(Right):
    """A send right: the power to send to a port, any number of times."""

    __slots__ = ()
    right: ClassVar[int] = MACH_PORT_RIGHT_SEND
    move: ClassVar[Disposition] = Disposition.MOVE_SEND

    def copy(self) -> SendRight:
        """Another reference of the same right. Raises MachError if the port has died."""
        name = self.name
        self._kernel.mach_port_mod_refs(name, MACH_PORT_RIGHT_SEND, 1)
        return SendRight(name, self._kernel)

    def send(self, message: Message, timeout: float | None = None) -> None:
        """Send `message`; its destination is filled in, the right stays held.

        `message.descriptors` may hold owned rights beside descriptors: each is moved to the receiver and spent once the
        message is sent. `timeout` in seconds, None waits for room in the queue for ever. Raises SendTimeout, MachError
        (MACH_SEND_INVALID_DEST once the port has died) or RightError; then nothing has been moved.
        """
        send_message(self._kernel, message, self.name, _COPY_SEND, timeout)


class SendOnceRight(Right):
    """A send-once right: the power to send one message. Given up unused, its receiver gets a SEND_ONCE notification."""

    __slots__ = ()
    right: ClassVar[int] = MACH_PORT_RIGHT_SEND_ONCE
    move: ClassVar[Disposition] = Disposition.MOVE_SEND_ONCE

    def send(self, message: Message, timeout: float | None = None) -> None:
        """As `SendRight.send`, but sending spends this right. If the send fails, it is still held."""
        name = self.release()
        try:
            send_message(self._kernel, message, name, Disposition.MOVE_SEND_ONCE, timeout)
        except BaseException:
            if holds(self._kernel, name, self.right):
                self.restore(name)
            raise


class _Receiver(Right):
    """What can be received from: a receive right or a port set."""

    __slots__ = ("_attachments",)

    #: What is closed with this right, each under the key of whoever wanted it. Unset where nobody did.
    _attachments: dict[object, Readiness]

    def receive(self, timeout: float | None = None) -> Message:
        """The next message, with an audit trailer; out-of-line memory is copied in and given back.

        `timeout` in seconds; None waits for ever, 0 does not wait. The rights in the message belong to the caller, as
        names: see `machrv.take_rights`, which makes owned objects of them, or gives them up. Raises ReceiveTimeout, and
        MachError (MACH_RCV_PORT_DIED or MACH_RCV_PORT_CHANGED if the right goes away meanwhile).
        """
        return receive_message(self._kernel, self.name, timeout)

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
        try:
            attachments = self._attachments
        except AttributeError:
            attachments = self._attachments = {}
        found = attachments.get(key)
        if found is None or found.fileno() < 0:
            for other in [other for other, what in attachments.items() if what.fileno() < 0]:
                attachments.pop(other, None)
            attachments[key] = found = make(self._kernel.readiness(self.name))
        return found

    def release(self) -> int:
        """See `Right.release`. What `fileno` gave is closed."""
        name = super().release()
        self._detach()
        return name

    def _detach(self) -> None:
        attachments = getattr(self, "_attachments", None)
        while attachments:
            attachments.popitem()[1].close()

    def __aiter__(self) -> Messages:
        """`async for message in port`: see `machrv.aio.messages`."""
        from machrv.rights.awaiting import messages  # Late: whoever does not wait so does not pay for asyncio.

        return messages(self)  # type: ignore[arg-type]

    def close(self) -> None:
        """See `Right.close`. What `fileno` gave is closed."""
        try:
            name = 0 if self.closed else self._held.pop()
        except IndexError:
            name = 0  # Another thread was first.
        if not name:
            return
        self._detach()
        self._kernel.mach_port_mod_refs(name, self.right, -1)


class ReceiveRight(_Receiver):
    """A receive right: the port itself. When it is closed, every right to the port dies."""

    __slots__ = ()
    right: ClassVar[int] = MACH_PORT_RIGHT_RECEIVE
    move: ClassVar[Disposition] = Disposition.MOVE_RECEIVE

    @classmethod
    def allocate(cls, queue_limit: int | None = None, kernel: Kernel | None = None) -> ReceiveRight:
        """A new port. `queue_limit`: how many messages may wait before a sender has to, 0 to 1024 (default: 5). On Linux it
        is stored, not enforced: each right has room for some 80 messages of any size, or more of small ones."""
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


class PortSet(_Receiver):
    """A port set: receives from every member. The members stay their owners'."""

    __slots__ = ()
    right: ClassVar[int] = MACH_PORT_RIGHT_PORT_SET

    @classmethod
    def allocate(cls, kernel: Kernel | None = None) -> PortSet:
        """A new, empty set."""
        kernel = kernel if kernel is not None else current()
        return cls(kernel.mach_port_allocate(MACH_PORT_RIGHT_PORT_SET), kernel)

    def insert(self, member: ReceiveRight) -> None:
        """Add a port, which may be in other sets too. Raises MachError (KERN_ALREADY_IN_SET)."""
        self._kernel.mach_port_insert_member(member.name, self.name)

    def extract(self, member: ReceiveRight) -> None:
        """Take a port out. Raises MachError (KERN_NOT_IN_SET)."""
        self._kernel.mach_port_extract_member(member.name, self.name)


#: The kinds of right that can arrive.
KINDS: dict[int, type[ReceiveRight] | type[SendRight] | type[SendOnceRight]] = {
    Disposition.PORT_RECEIVE: ReceiveRight,
    Disposition.PORT_SEND: SendRight,
    Disposition.PORT_SEND_ONCE: SendOnceRight,
}


def take_right(name: int, disposition: int, kernel: Kernel | None = None) -> OwnedRight | None:
    """The right that arrived under `name` as an owned object; None for MACH_PORT_NULL and MACH_PORT_DEAD."""
    if name == MACH_PORT_NULL or name == MACH_PORT_DEAD:
        return None
    kind = KINDS.get(disposition)
    return None if kind is None else kind(name, kernel)
