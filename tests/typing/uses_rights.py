"""Rights: made, moved, given up, and what comes of it."""

from __future__ import annotations

from typing_extensions import assert_type

from machrv import (
    Disposition,
    Kernel,
    Message,
    PortSet,
    ReceivedMessage,
    ReceiveRight,
    ReceiveTimeout,
    RightError,
    SendOnceRight,
    SendRight,
    SendTimeout,
    current,
    destroy_message,
    fileport,
    fileport_fd,
    take_reply_right,
    take_right,
    take_rights,
)


def ports(kernel: Kernel) -> None:
    """A port, with and without a queue limit and a kernel."""
    assert_type(ReceiveRight.allocate(), ReceiveRight)
    assert_type(ReceiveRight.allocate(16, kernel), ReceiveRight)
    with ReceiveRight.allocate(queue_limit=16, kernel=kernel) as port:
        assert_type(port, ReceiveRight)
        assert_type(port.make_send(), SendRight)
        assert_type(port.make_send_once(), SendOnceRight)
        assert_type(port.receive(), ReceivedMessage)
        assert_type(port.receive(timeout=0), ReceivedMessage)
        assert_type(port.name, int)
        assert_type(port.kernel, Kernel)
        assert_type(port.closed, bool)
        assert_type(port.right, int)
        assert_type(port.move, Disposition)
        assert_type(port.release(), int)
    port.close()


def sending(right: SendRight, once: SendOnceRight, message: Message) -> None:
    """What is sent may wait, and what is sent once is spent."""
    right.send(message)
    right.send(message, timeout=1.5)
    once.send(message, 0)
    assert_type(right.copy(), SendRight)
    assert_type(right.move, Disposition)
    assert_type(SendRight.adopt(0x103), SendRight)
    assert_type(SendOnceRight.adopt(0x103, current()), SendOnceRight)
    with right as same, once as that:
        assert_type(same, SendRight)
        assert_type(that, SendOnceRight)
    name = right.release()
    right.restore(name)


def sets(first: ReceiveRight, second: ReceiveRight) -> None:
    """Several ports, one wait."""
    with PortSet.allocate() as ports:
        assert_type(ports, PortSet)
        ports.insert(first)
        ports.insert(second)
        ports.extract(first)
        assert_type(ports.receive(1.0), ReceivedMessage)
        assert_type(ports.move, "Disposition | None")
    assert_type(PortSet.allocate(current()), PortSet)


def taking(message: Message) -> None:
    """What came in a message becomes somebody's."""
    for right in take_rights(message):
        assert_type(right, "ReceiveRight | SendRight | SendOnceRight | None")
        if isinstance(right, ReceiveRight):
            assert_type(right.receive(), ReceivedMessage)
        elif right is not None:
            right.send(Message())
    assert_type(take_right(0x103, Disposition.PORT_SEND), "ReceiveRight | SendRight | SendOnceRight | None")
    assert_type(take_reply_right(message, current()), "SendRight | SendOnceRight | None")
    destroy_message(message)


def files(fd: int) -> None:
    """A descriptor as a right, and back."""
    with fileport(fd) as right:
        assert_type(right, SendRight)
        assert_type(fileport_fd(right), int)
    assert_type(fileport(fd, current()), SendRight)


def failures(port: ReceiveRight, right: SendRight) -> None:
    """Each is what Python's own is as well."""
    try:
        port.receive(timeout=1)
    except ReceiveTimeout as late:
        assert_type(late.symbol, str)
        assert_type(late.errno, int)
        timeout: TimeoutError = late
        print(timeout)
    try:
        right.send(Message(), timeout=1)
    except SendTimeout as full:
        assert_type(full.code, int)
        assert_type(full.operation, str)
        assert_type(full.size, "int | None")
    except RightError as error:
        print(error)
