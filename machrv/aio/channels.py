"""A channel's end on the loop."""

# The waits of a channel. What must never happen here: an await between a message taken and its return. What is sent, and what
# a message must be, is the business of `machrv.channel`.

from __future__ import annotations

import asyncio

from machrv.channel import Channel as BlockingChannel
from machrv.channel.encoding import encoded
from machrv.channel.parcel import listed
from machrv.constants import MACH_RCV_TIMED_OUT
from machrv.errors import ChannelClosedError, ReceiveTimeout
from machrv.rights.awaiting import received, sent
from machrv.rights.kinds import ReceiveRight
from machrv.rights.right import Movable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Any

    from typing_extensions import Buffer, Self

    from machrv.channel import ChannelMessage
    from machrv.channel.encoding import Encoding
    from machrv.channel.parcel import Thing
    from machrv.kernel import Kernel


class Channel(Movable):
    """One end of a channel, as `machrv.Channel`; whoever waits lets the loop go on. The other end need have no loop.

    Each method is that of `machrv.Channel`, with `await` where it may wait. Who is cancelled while receiving has taken
    nothing, and while sending has sent nothing and owns what it owned.

        async with aio.Channel(rights.take_channel("chan")) as channel:
            async for message in channel:
                message.reply(message.data)
    """

    __slots__ = ("_end",)

    def __init__(self, end: BlockingChannel | ReceiveRight) -> None:
        """Take over an end that was made or taken elsewhere. Let nobody use it but by this object."""
        self._end = BlockingChannel(end) if isinstance(end, ReceiveRight) else end

    @classmethod
    def pair(cls, kernel: Kernel | None = None) -> tuple[Channel, Channel]:
        """The two ends of a new channel. `launch` takes them, and `machrv.launch` too."""
        left, right = BlockingChannel.pair(kernel)
        return cls(left), cls(right)

    async def send(self, data: Buffer = b"", rights: Iterable[Thing] = (), timeout: float | None = None) -> None:
        """Send bytes and rights; wait for room where there is none. See `machrv.Channel.send`."""
        rights = list(rights)
        await sent(self._end._open(), lambda: self._end.send(data, rights, timeout=0), timeout)

    async def receive(self, timeout: float | None = None) -> ChannelMessage:
        """The next message. See `machrv.Channel.receive`."""
        return await received(self._end._port, lambda: self._end.receive(timeout=0), timeout)

    async def request(
        self, data: Buffer = b"", rights: Iterable[Thing] = (), timeout: float | None = None
    ) -> ChannelMessage:
        """Send, and wait for the answer. See `machrv.Channel.request`. Cancelled, the answer is dropped when it comes."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        rights = listed(rights)
        peer = self._end._open()
        answers = await sent(peer, lambda: self._end._ask(peer, data, rights, 0), timeout)
        try:
            left = None if deadline is None else max(0.0, deadline - loop.time())
            answer = await received(answers, lambda: answers.receive(timeout=0), left)
        except BaseException:
            answers.close()
            raise
        return self._end._answered(peer, answers, answer)

    async def send_object(
        self, thing: Any, encoding: Encoding = "json", rights: Iterable[Thing] = (), timeout: float | None = None
    ) -> None:
        """Send an object. See `machrv.Channel.send_object`."""
        await self.send(encoded(thing, encoding), rights, timeout)

    async def receive_object(self, encoding: Encoding = "json", timeout: float | None = None) -> Any:
        """The object in the next message. See `machrv.Channel.receive_object`."""
        with await self.receive(timeout) as message:
            return message.object(encoding)

    def __aiter__(self) -> Self:
        """The messages as they come, until the other end is gone or this one is closed."""
        return self

    async def __anext__(self) -> ChannelMessage:
        try:
            return await self.receive()
        except ChannelClosedError:
            raise StopAsyncIteration from None
        except Exception:
            if self.closed:
                raise StopAsyncIteration from None
            raise

    async def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether `receive` has something to give, or to say, within so many seconds. See `machrv.Channel.poll`."""

        def told() -> bool:
            if self._end.poll(0):
                return True
            raise ReceiveTimeout(MACH_RCV_TIMED_OUT, "mach_msg")

        try:
            return await received(self._end._port, told, timeout)
        except ReceiveTimeout:
            return False

    def fileno(self) -> int:
        """See `machrv.Channel.fileno`."""
        return self._end.fileno()

    @property
    def closed(self) -> bool:
        """Whether this end was closed or given away, or was made before fork."""
        return self._end.closed

    def close(self) -> None:
        """Close this end. Who waits on it here gets an error. Idempotent."""
        self._end.close()

    def __reduce_ex__(self, protocol: object) -> Any:
        """As `machrv.Channel`: an argument of a `multiprocessing.Process`, and nothing else."""
        self._end.__reduce_ex__(protocol)  # Raises, where it is none.
        return Channel, (self._end,)

    def moving_right(self) -> ReceiveRight:
        """See `machrv.Channel.moving_right`."""
        return self._end.moving_right()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<aio.Channel {'spent' if self.closed else hex(self._end._port.name)}>"
