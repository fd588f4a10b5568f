"""Receiving and sending on an event loop: what `machrv.aio` offers, and what `async for message in port` does."""

# Trying, and waiting until it is worth another try. What must never happen here: an await between a message taken and its
# return, or one while a message's rights are neither the caller's nor sent: there a cancellation would lose them.

from __future__ import annotations

import asyncio

from machrv.constants import MACH_RCV_PORT_DIED
from machrv.errors import MachError, NoSenders, ReceiveTimeout, RightError, SendTimeout, UnsupportedError
from machrv.rights.loops import Watch, take_turn, wait_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from machrv.message import Message
    from machrv.rights.incoming import ReceivedMessage
    from machrv.rights.kinds import ReceiveRight, SendOnceRight, SendRight
    from machrv.rights.sets import PortSet

    T = TypeVar("T")

#: Seconds between two tries where the kernel has no descriptor that tells of room: at first, and at most.
_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.1


async def receive(
    port: ReceiveRight | PortSet, timeout: float | None = None, wait_for_senders: bool = False
) -> ReceivedMessage:
    """The next message of a port or set, as `port.receive` gives it; the loop goes on meanwhile.

    `timeout` in seconds; None waits for ever, 0 does not wait. Several may wait for one port: each gets a message of its
    own, in the order in which they came. Raises NoSenders once nobody is left who could send (`wait_for_senders`: waits
    for somebody to come), ReceiveTimeout, RightError (the right is spent) and MachError (MACH_RCV_PORT_DIED if it goes
    away meanwhile). Who is cancelled has received nothing: the message stays in the port.

        message = await aio.receive(port, timeout=5)
    """
    waiting = {"wait_for_senders": True} if wait_for_senders else {}
    return await received(port, lambda: port.receive(timeout=0, **waiting), timeout)


async def received(port: Any, attempt: Callable[[], T], timeout: float | None) -> T:
    """What `attempt` gives once it does not raise ReceiveTimeout; tried again whenever `port` may have something."""
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    waited = False
    await take_turn()
    while True:
        try:
            return attempt()
        except ReceiveTimeout as error:
            if deadline is not None and loop.time() >= deadline:
                raise ReceiveTimeout(error.code, error.operation, None, timeout, error.on) from None
        except RightError:
            if not waited:
                raise
            raise MachError(MACH_RCV_PORT_DIED, "mach_msg") from None
        watch = port._attached(loop, lambda readiness: Watch(loop, readiness))
        assert isinstance(watch, Watch)
        waited = True
        await watch.wait(deadline)


class Messages:
    """The messages of a port, for `async for`; see `messages`."""

    __slots__ = ("_port",)

    def __init__(self, port: ReceiveRight | PortSet) -> None:
        self._port = port

    def __aiter__(self) -> Messages:
        return self

    async def __anext__(self) -> ReceivedMessage:
        try:
            return await receive(self._port)
        except NoSenders:
            raise StopAsyncIteration from None
        except (MachError, RightError):
            if self._port.closed:
                raise StopAsyncIteration from None
            raise


def messages(port: ReceiveRight | PortSet) -> Messages:
    """The messages of a port or set as they come; `async for message in port` is the same.

    Ends when nobody is left who could send, and when the right is closed, released or sent away. Raises as `receive`; the iteration may go on after that.
    Leaving it, by `break` or by being cancelled, leaves in the port what has not come yet.
    """
    return Messages(port)


async def send(right: SendRight | SendOnceRight, message: Message, timeout: float | None = None) -> None:
    """Send `message` as `right.send` does; while the receiver's queue is full, the loop goes on.

    `timeout` in seconds; None waits for room for ever, 0 does not wait. The right, and the rights in the message, have to
    be left alone until this returns. Raises as `right.send`. Cancelled or failed, it has sent nothing, and the caller
    owns what it owned before; once it returns, the message is in the queue.

        await aio.send(port, Message(body=b"four", descriptors=[right]), timeout=5)
    """
    await sent(right, lambda: right.send(message, timeout=0), timeout)


async def sent(right: SendRight | SendOnceRight, attempt: Callable[[], T], timeout: float | None) -> T:
    """What `attempt` gives once it does not raise SendTimeout; tried again whenever `right` may have room."""
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    pause = _FIRST_PAUSE
    await take_turn()
    while True:
        try:
            return attempt()
        except SendTimeout as error:
            if deadline is not None and loop.time() >= deadline:
                raise SendTimeout(error.code, error.operation, None, timeout, error.on) from None
        try:
            room = right.kernel.room(right.name)
        except UnsupportedError:
            await asyncio.sleep(pause if deadline is None else max(0.0, min(pause, deadline - loop.time())))
            pause = min(_LONGEST_PAUSE, 2 * pause)
            continue
        try:
            await wait_readable(room, deadline)
        finally:
            room.close()
