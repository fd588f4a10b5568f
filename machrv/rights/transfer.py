"""Rights and memory into and out of messages: what `send` and `receive` do, for whatever right they are called on."""

# What must never happen here: a right lost, or given up twice, whatever a send does before it fails.
#
# Theory of operation. An owned right among the descriptors is taken from its object for the time of the call. A send that
# fails has mostly taken nothing; but where a descriptor is at fault (MACH_SEND_INVALID_RIGHT), Mach has destroyed the
# rights before it by then (xnu-11417, osfmk/ipc/ipc_kmsg.c, ipc_kmsg_clean_partial). So port descriptors are looked at
# before rights are put beside them, and after a failure an object holds its right again only if it is still there. That
# can be told of receive and send-once rights, whose names belong to them alone. A send right's name may have many owners:
# beside a descriptor that cannot be looked at (memory at an address, an array of names), a send right is not moved but
# copied, and its reference given up once the message is sent.

from __future__ import annotations

from machrv.constants import MACH_MSG_TYPE_PORT_RECEIVE, MACH_MSG_TYPE_PORT_SEND, MACH_MSG_TYPE_PORT_SEND_ONCE
from machrv.errors import MachError, MessageFormatError, ReceiveTimeout, RightError, SendTimeout
from machrv.kernel import current
from machrv.message import (
    MACH_PORT_DEAD,
    MACH_PORT_NULL,
    MACH_PORT_RIGHT_RECEIVE,
    MACH_PORT_RIGHT_SEND,
    MACH_PORT_RIGHT_SEND_ONCE,
    MACH_RCV_MSG,
    MACH_RCV_TIMED_OUT,
    MACH_RCV_TRAILER_AUDIT,
    MACH_SEND_MSG,
    MACH_SEND_TIMED_OUT,
    Disposition,
    GuardedPortDescriptor,
    Message,
    OutOfLineDescriptor,
    OutOfLinePortsDescriptor,
    PortDescriptor,
    trailer_request,
)
from machrv.rights.incoming import ReceivedMessage
from machrv.rights.right import Right, holds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from machrv.kernel import Kernel

_MOVE_SEND_ONCE = int(Disposition.MOVE_SEND_ONCE)  # A plain number costs less, each time that it is looked at.
RECEIVE_OPTIONS = MACH_RCV_MSG | trailer_request(MACH_RCV_TRAILER_AUDIT)

#: The MACH_PORT_RIGHT_* that a name must have for each disposition.
NEEDED_RIGHT: dict[int, int] = {
    Disposition.MOVE_RECEIVE: MACH_PORT_RIGHT_RECEIVE,
    Disposition.MOVE_SEND: MACH_PORT_RIGHT_SEND,
    Disposition.MOVE_SEND_ONCE: MACH_PORT_RIGHT_SEND_ONCE,
    Disposition.COPY_SEND: MACH_PORT_RIGHT_SEND,
    Disposition.MAKE_SEND: MACH_PORT_RIGHT_RECEIVE,
    Disposition.MAKE_SEND_ONCE: MACH_PORT_RIGHT_RECEIVE,
}


def send_message(
    kernel: Kernel, message: Message, name: int, disposition: int, timeout: float | None, reply_port: int = 0
) -> None:
    """Send `message` to the right under `name`, used as `disposition` says; to be answered to `reply_port`, if one is given.

    Owned rights among the descriptors are moved, and spent on success; `data` and `names` of out-of-line descriptors are
    laid out in memory. Raises SendTimeout, MachError, RightError or MessageFormatError; then the rights are still held.
    """
    try:
        descriptors = message.descriptors
    except AttributeError:
        descriptors = ()
        check_message(message)
    try:
        if descriptors:
            _send_descriptors(kernel, message, name, disposition, timeout, reply_port)
        else:
            image = message.encode_to(name, disposition, (), reply_port)
            kernel.mach_msg(image, MACH_SEND_MSG, None, 0, timeout)
    except MachError as error:
        if error.code == MACH_SEND_TIMED_OUT:
            raise SendTimeout(error.code, error.operation, None, timeout, f"sending to port {name:#x}") from None
        raise


def check_message(message: Any) -> None:
    """Raises MessageFormatError, which says what to write, for what is no message."""
    if not isinstance(message, Message):
        raise MessageFormatError(f"a Message is sent, not {type(message).__name__}: send(Message(body=b'...'))")


def _send_descriptors(
    kernel: Kernel, message: Message, name: int, disposition: int, timeout: float | None, reply_port: int
) -> None:
    moved: list[tuple[Right, int]] = []
    memory: list[object] = []  # Holds the memory until the kernel has copied it.
    laid_out: list[Any] = []
    borrowed: list[PortDescriptor] = []
    copied = any(map(_cannot_be_checked, message.descriptors))
    try:
        for descriptor in message.descriptors:
            if type(descriptor) is PortDescriptor:
                laid_out.append(descriptor)
                borrowed.append(descriptor)
            else:
                laid_out.append(_laid_out(kernel, descriptor, moved, memory, copied))
        if borrowed and (moved or disposition == _MOVE_SEND_ONCE):
            _check_borrowed(kernel, borrowed)
        image = message.encode_to(name, disposition, tuple(laid_out), reply_port)
        kernel.mach_msg(image, MACH_SEND_MSG, None, 0, timeout)
    except BaseException as error:
        renamed: dict[int, int] = getattr(error, "renamed", {})  # macOS may give a right back under another name
        for right, held in moved:
            held = renamed.get(held, held)
            if held not in (MACH_PORT_NULL, MACH_PORT_DEAD) and holds(kernel, held, right.right):
                right.restore(held)
        raise
    if copied:
        for right, held in moved:
            if right.move == Disposition.MOVE_SEND:
                kernel.mach_port_deallocate(held)


def _cannot_be_checked(descriptor: Any) -> bool:
    """Whether the kernel may find fault with a descriptor that `_check_borrowed` finds none with."""
    if isinstance(descriptor, OutOfLineDescriptor):
        return descriptor.data is None
    return not isinstance(descriptor, (Right, PortDescriptor))


def _check_borrowed(kernel: Kernel, borrowed: list[PortDescriptor]) -> None:
    """Raises RightError for a descriptor that names a right which is not there: the kernel would take others with it."""
    for descriptor in dict.fromkeys(borrowed):  # The same one many times is looked at once.
        if descriptor.name not in (MACH_PORT_NULL, MACH_PORT_DEAD):
            needed = NEEDED_RIGHT.get(descriptor.disposition)
            if needed is None or not holds(kernel, descriptor.name, needed):
                raise RightError(f"{descriptor!r} cannot be sent: the name does not stand for such a right")


def _laid_out(
    kernel: Kernel, descriptor: Any, moved: list[tuple[Right, int]], memory: list[object], copied: bool
) -> Any:
    """The descriptor as the kernel takes it. What it takes from rights is put into `moved`, its memory into `memory`."""
    if isinstance(descriptor, Right):
        if descriptor.move is None:
            raise RightError(
                f"a {type(descriptor).__name__} cannot be moved in a message: move the receive rights that are in it"
            )
        name = descriptor._moved_away("moved away in a message")
        moved.append((descriptor, name))
        copied = copied and descriptor.move == Disposition.MOVE_SEND
        return PortDescriptor(name, Disposition.COPY_SEND if copied else descriptor.move)
    if isinstance(descriptor, OutOfLineDescriptor) and descriptor.data is not None:
        lent, address = kernel.lent(descriptor.data)
        memory.append(lent)
        kind, size = descriptor.type, len(descriptor.data)
        return OutOfLineDescriptor(address=address, size=size, copy=descriptor.copy, type=kind, pad1=descriptor.pad1)
    if isinstance(descriptor, OutOfLinePortsDescriptor) and descriptor.names is not None:
        from array import array  # Late: most messages have none.

        names = array("I", descriptor.names)
        lent, address = kernel.lent(names)
        memory.append(lent)
        return OutOfLinePortsDescriptor(
            disposition=descriptor.disposition, address=address, count=len(names), copy=descriptor.copy
        )
    return descriptor


def receive_message(kernel: Kernel, name: int, timeout: float | None) -> Message:
    """The next message that waits under `name`, with an audit trailer, its out-of-line memory copied in.

    Whoever calls this owns the rights in it, as names.
    """
    try:
        message: Message = kernel.mach_msg(None, RECEIVE_OPTIONS, None, name, timeout, Message.decode)  # type: ignore[assignment]
    except MachError as error:
        raise not_received(error, name, timeout) from None
    copy_in(kernel, message)
    return message


def not_received(error: MachError, name: int, timeout: float | None) -> MachError:
    """What a receive raises that failed so: a ReceiveTimeout, if that is what it was."""
    if error.code == MACH_RCV_TIMED_OUT:
        return ReceiveTimeout(error.code, error.operation, None, timeout, f"receiving from port {name:#x}")
    return error


def copy_in(kernel: Kernel, message: Message) -> None:
    """Put the contents of out-of-line memory into the descriptors. If that fails, the message is destroyed."""
    for descriptor in message.descriptors:
        if type(descriptor) is not PortDescriptor:
            break
    else:
        return
    waiting = list(message.descriptors)
    copied: list[Any] = []
    try:
        while waiting:
            copied.append(copied_in(kernel, waiting.pop(0)))
    except BaseException:
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
        from array import array  # Late, as above.

        names = array("I", _vm_take(kernel, descriptor.address, descriptor.count * array("I").itemsize))
        return OutOfLinePortsDescriptor(names.tolist(), descriptor.disposition, copy=descriptor.copy)
    return descriptor


def _vm_take(kernel: Kernel, address: int, size: int) -> bytes:
    try:
        return kernel.vm_read(address, size)
    finally:
        kernel.vm_deallocate(address, size)


def destroy_message(message: Message, kernel: Kernel | None = None) -> None:
    """Give up every right that a received message brought, as mach_msg_destroy() does.

    For a message that was decoded by hand, of which nothing was taken; its memory is given back too. One from `receive`
    is closed.
    """
    if isinstance(message, ReceivedMessage) and hasattr(message, "rights"):
        message.close()
        return
    kernel = kernel if kernel is not None else current()
    _give_up(kernel, message.remote_port, message.remote_disposition)
    _give_up(kernel, message.voucher_port, message.voucher_disposition)
    for descriptor in message.descriptors:
        if isinstance(descriptor, (PortDescriptor, GuardedPortDescriptor)):
            _give_up(kernel, descriptor.name, descriptor.disposition)
        elif isinstance(descriptor, OutOfLinePortsDescriptor):
            for name in copied_in(kernel, descriptor).names:
                _give_up(kernel, name, descriptor.disposition)
        elif isinstance(descriptor, OutOfLineDescriptor) and descriptor.data is None:
            kernel.vm_deallocate(descriptor.address, descriptor.size)


def _give_up(kernel: Kernel, name: int, disposition: int) -> None:
    """Give up what arrived under a name."""
    if name == MACH_PORT_NULL or name == MACH_PORT_DEAD:
        return
    if disposition == MACH_MSG_TYPE_PORT_RECEIVE:
        kernel.mach_port_mod_refs(name, MACH_PORT_RIGHT_RECEIVE, -1)
    elif disposition in (MACH_MSG_TYPE_PORT_SEND, MACH_MSG_TYPE_PORT_SEND_ONCE):
        kernel.mach_port_deallocate(name)
