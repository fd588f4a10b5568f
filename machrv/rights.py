"""Owned rights: objects that hold one user reference of a port name, and give it up exactly once.

What belongs here: who owns a name, and how ownership moves into and out of messages. What must never happen here: a
right given up twice (on macOS that can kill the process, and a name may stand for another port by then), or a right
lost on a path that fails.

A right is *held* until it is closed, released, or moved away in a message that was sent. While it is being moved it is
nobody's to use; if the send fails it is held again. Taking the name out of the one-element list `_held` is atomic, with
and without the GIL, so two threads can never both give up the same right. Rights do not survive fork, as on Mach: in
the child their objects are spent.
"""

from __future__ import annotations

import os
from array import array
from errno import ETIMEDOUT

from machrv.errors import MachError, RightError
from machrv.kernel import current
from machrv.message import (
    MACH_PORT_LIMITS_INFO,
    MACH_PORT_RIGHT_PORT_SET,
    MACH_PORT_RIGHT_RECEIVE,
    MACH_PORT_RIGHT_SEND,
    MACH_PORT_RIGHT_SEND_ONCE,
    MACH_RCV_MSG,
    MACH_RCV_TIMED_OUT,
    MACH_RCV_TRAILER_AUDIT,
    MACH_SEND_MSG,
    MACH_SEND_TIMED_OUT,
    AuditToken,
    Disposition,
    Message,
    OutOfLineDescriptor,
    OutOfLinePortsDescriptor,
    PortDescriptor,
    Trailer,
    trailer_request,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, ClassVar

    from typing_extensions import Self

    from machrv.kernel import Kernel

_TRAILER_SIZE = Trailer(0, (0, 0), AuditToken.KERNEL).size
_RECEIVE_OPTIONS = MACH_RCV_MSG | trailer_request(MACH_RCV_TRAILER_AUDIT)

#: Replaced in the child of a fork: a right of another epoch names nothing here.
_epoch = object()


def _new_epoch() -> None:
    global _epoch
    _epoch = object()


os.register_at_fork(after_in_child=_new_epoch)


class _TimedOut(MachError, TimeoutError):
    def __init__(self, code: int, operation: str, size: int | None = None) -> None:
        super().__init__(code, operation, size)
        self.errno = ETIMEDOUT  # OSError takes a first argument for one.


class SendTimeout(_TimedOut):
    """MACH_SEND_TIMED_OUT: the receiver's queue stayed full. The message was not sent; its rights are still held."""


class ReceiveTimeout(_TimedOut):
    """MACH_RCV_TIMED_OUT: no message came in time. One that comes later waits."""


class Right:
    """One user reference of a port name, owned. See the subclasses; `adopt` and their makers are the ways to get one.

    A context manager that closes on exit. Forgotten without `close()`, it is closed and a ResourceWarning is given.
    """

    __slots__ = ("_held", "_kernel", "_epoch", "__weakref__")

    #: MACH_PORT_RIGHT_* that this class holds, and the disposition that moves it away.
    right: ClassVar[int]
    move: ClassVar[Disposition | None] = None

    def __init__(self, name: int, kernel: Kernel | None = None) -> None:
        """Take over one reference of `name` without looking at it. `adopt` looks."""
        self._kernel = kernel if kernel is not None else current()
        self._epoch = _epoch
        self._held = [name]

    @classmethod
    def adopt(cls, name: int, kernel: Kernel | None = None) -> Self:
        """Take over one user reference that the caller owns.

        Raises RightError, and takes nothing, if the name stands for no such right.
        """
        kernel = kernel if kernel is not None else current()
        try:
            found = kernel.mach_port_type(name)
        except MachError as error:
            raise RightError(f"{name:#x} cannot be adopted as a {cls.__name__}: {error}") from error
        if not found & _type_bit(cls.right):
            raise RightError(
                f"{name:#x} cannot be adopted as a {cls.__name__}: it has the type bits {found:#x}, without "
                f"{_type_bit(cls.right):#x}"
            )
        return cls(name, kernel)

    @property
    def name(self) -> int:
        """The port name, borrowed: it stays this object's. Raises RightError once the right is spent."""
        if self._epoch is _epoch:
            for name in self._held:
                return name
        raise RightError(
            f"this {type(self).__name__} is spent: it was closed, released, moved away, or made before fork"
        )

    @property
    def closed(self) -> bool:
        """Whether the right is spent."""
        return not self._held or self._epoch is not _epoch

    @property
    def kernel(self) -> Kernel:
        """The kernel whose port space the name belongs to."""
        return self._kernel

    def release(self) -> int:
        """Give the bare name up to the caller, who then owns the reference. The object is spent."""
        try:
            if self._epoch is _epoch:
                return self._held.pop()
        except IndexError:
            pass
        return self.name

    def restore(self, name: int) -> None:
        """Hold again what `release` gave up, after a move that failed."""
        self._held.append(name)

    def close(self) -> None:
        """Give the right up. Idempotent."""
        if not self.closed:
            try:
                name = self.release()
            except RightError:
                return
            self._destroy(name)

    def _destroy(self, name: int) -> None:
        # A send or send-once right whose port has died is a dead name by now: this covers all three.
        self._kernel.mach_port_deallocate(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_held", None) and not self.closed:
            import warnings

            warnings.warn(f"{self!r} was forgotten: close it, or use `with`", ResourceWarning, source=self)
            self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'spent' if self.closed else hex(self._held[0])}>"


class SendRight(Right):
    """A send right: the power to send to a port, any number of times."""

    __slots__ = ()
    right = MACH_PORT_RIGHT_SEND
    move = Disposition.MOVE_SEND

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
        send_message(self._kernel, message, self.name, Disposition.COPY_SEND, timeout)


class SendOnceRight(Right):
    """A send-once right: the power to send one message. Given up unused, its receiver gets a SEND_ONCE notification."""

    __slots__ = ()
    right = MACH_PORT_RIGHT_SEND_ONCE
    move = Disposition.MOVE_SEND_ONCE

    def send(self, message: Message, timeout: float | None = None) -> None:
        """As `SendRight.send`, but sending spends this right. If the send fails, it is still held."""
        name = self.release()
        try:
            send_message(self._kernel, message, name, Disposition.MOVE_SEND_ONCE, timeout)
        except BaseException:
            self.restore(name)
            raise


class _Receiver(Right):
    """What can be received from: a receive right or a port set."""

    __slots__ = ()

    def receive(self, timeout: float | None = None) -> Message:
        """The next message, with an audit trailer; out-of-line memory is copied in and given back.

        `timeout` in seconds; None waits for ever, 0 does not wait. The rights in the message belong to the caller, as
        names: see `machrv.received`, which makes owned objects of them, or gives them up. Raises ReceiveTimeout, and
        MachError (MACH_RCV_PORT_DIED or MACH_RCV_PORT_CHANGED if the right goes away meanwhile).
        """
        return receive_message(self._kernel, self.name, timeout)

    def _destroy(self, name: int) -> None:
        self._kernel.mach_port_mod_refs(name, self.right, -1)


class ReceiveRight(_Receiver):
    """A receive right: the port itself. When it is closed, every right to the port dies."""

    __slots__ = ()
    right = MACH_PORT_RIGHT_RECEIVE
    move = Disposition.MOVE_RECEIVE

    @classmethod
    def allocate(cls, queue_limit: int | None = None, kernel: Kernel | None = None) -> ReceiveRight:
        """A new port. `queue_limit`: how many messages may wait before a sender has to, 0 to 1024 (default: 5)."""
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
    right = MACH_PORT_RIGHT_PORT_SET

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


def _type_bit(right: int) -> int:
    """MACH_PORT_TYPE(right), the macro of <mach/port.h>."""
    return 1 << (right + 16)


# -- rights and memory into and out of messages -----------------------------------------------------------------------


def send_message(kernel: Kernel, message: Message, name: int, disposition: int, timeout: float | None) -> None:
    """Send `message` to the right under `name`, used as `disposition` says.

    Owned rights among the descriptors are moved, and spent on success; `data` and `names` of out-of-line descriptors are
    laid out in memory. On failure (SendTimeout, MachError, RightError, MessageFormatError) everything is as before.
    """
    moved: list[tuple[Right, int]] = []
    memory: list[array[int]] = []  # Holds the memory until the kernel has copied it.
    try:
        if message.descriptors:
            message = Message(
                message.id,
                message.body,
                [_laid_out(descriptor, moved, memory) for descriptor in message.descriptors],
                bits=message.bits,
                local_port=message.local_port,
                voucher_port=message.voucher_port,
            )
        kernel.mach_msg(message.encode_to(name, disposition), MACH_SEND_MSG, timeout=timeout)
    except BaseException as error:
        for right, held in moved:
            right.restore(held)
        if isinstance(error, MachError) and error.code == MACH_SEND_TIMED_OUT:
            raise SendTimeout(error.code, error.operation) from None
        raise


def _laid_out(descriptor: Any, moved: list[tuple[Right, int]], memory: list[array[int]]) -> Any:
    """The descriptor as the kernel takes it. What it takes from rights is put into `moved`, its memory into `memory`."""
    if isinstance(descriptor, Right):
        if descriptor.move is None:
            raise RightError(f"a {type(descriptor).__name__} cannot be moved in a message")
        moved.append((descriptor, descriptor.release()))
        return PortDescriptor(moved[-1][1], descriptor.move)
    if isinstance(descriptor, OutOfLineDescriptor) and descriptor.data is not None:
        memory.append(array("B", descriptor.data))
        address, size = memory[-1].buffer_info()
        kind = descriptor.type
        return OutOfLineDescriptor(address=address, size=size, copy=descriptor.copy, type=kind, pad1=descriptor.pad1)
    if isinstance(descriptor, OutOfLinePortsDescriptor) and descriptor.names is not None:
        memory.append(array("I", descriptor.names))
        address, count = memory[-1].buffer_info()
        return OutOfLinePortsDescriptor(
            disposition=descriptor.disposition, address=address, count=count, copy=descriptor.copy
        )
    return descriptor


def receive_message(kernel: Kernel, name: int, timeout: float | None, largest: int | None = None) -> Message:
    """The next message that waits under `name`, with an audit trailer, its out-of-line memory copied in.

    A message of more than `largest` bytes is destroyed, with everything in it: MachError (MACH_RCV_TOO_LARGE).
    """
    size = None if largest is None else largest + _TRAILER_SIZE
    try:
        received = kernel.mach_msg(None, _RECEIVE_OPTIONS, size, name, timeout)
    except MachError as error:
        if error.code == MACH_RCV_TIMED_OUT:
            raise ReceiveTimeout(error.code, error.operation) from None
        raise
    message = Message.decode(received or b"")
    for descriptor in message.descriptors:
        if type(descriptor) is not PortDescriptor:
            _copy_in(kernel, message)
            break
    return message


def _copy_in(kernel: Kernel, message: Message) -> None:
    """Put the contents of out-of-line memory into the descriptors. If that fails, the message is destroyed."""
    waiting = list(message.descriptors)
    copied: list[Any] = []
    try:
        while waiting:
            copied.append(copied_in(kernel, waiting.pop(0)))
    except BaseException:
        from machrv.received import destroy_message

        message.descriptors = (*copied, *waiting)
        destroy_message(message, kernel)
        raise
    message.descriptors = tuple(copied)


def copied_in(kernel: Kernel, descriptor: Any) -> Any:
    """The descriptor with its memory's contents; the memory is given back, whatever happens."""
    if isinstance(descriptor, OutOfLineDescriptor) and descriptor.data is None:
        data = _vm_take(kernel, descriptor.address, descriptor.size)
        return OutOfLineDescriptor(data, copy=descriptor.copy, type=descriptor.type)
    if isinstance(descriptor, OutOfLinePortsDescriptor) and descriptor.names is None:
        names = array("I", _vm_take(kernel, descriptor.address, descriptor.count * array("I").itemsize))
        return OutOfLinePortsDescriptor(names.tolist(), descriptor.disposition, copy=descriptor.copy)
    return descriptor


def _vm_take(kernel: Kernel, address: int, size: int) -> bytes:
    try:
        return kernel.vm_read(address, size)
    finally:
        kernel.vm_deallocate(address, size)
