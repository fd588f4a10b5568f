"""What goes into a channel comes out, in order, once, whatever is cancelled, killed, full or moved in between."""

from __future__ import annotations

import asyncio
import os
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machrv import (
    Channel,
    ChannelMessage,
    ReceiveRight,
    RendezvousServer,
    RightError,
    SendTimeout,
    aio,
    launch,
)

from .conftest import PATIENCE, Program, finish
from .loops import turns

DATA = st.one_of(st.binary(max_size=9), st.sampled_from([0, 1, 3, 4, 65_535, 65_536, 65_537]).map(bytes))
STEP = st.one_of(
    st.tuples(st.just("send"), DATA),
    st.tuples(st.just("send, cancelled"), DATA, st.integers(0, 3)),
    st.tuples(st.just("fill"), st.binary(min_size=1, max_size=4096)),
    st.tuples(st.just("receive"), st.integers(1, 5)),
    st.tuples(st.just("receive, cancelled"), st.integers(0, 3)),
    st.tuples(st.just("move"), st.sampled_from(["sender", "receiver"])),
)


class Model:
    """Two ends on a loop, and what is on its way from the first to the second."""

    def __init__(self, port: ReceiveRight) -> None:
        self.sender, self.receiver = aio.Channel.pair()
        self.port = port
        self.waiting: list[bytes] = []

    async def run(self, step: tuple[Any, ...]) -> None:
        kind, *rest = step
        if kind == "send":
            await self.send(rest[0])
        elif kind == "fill":
            while await self.send(rest[0]):
                pass
        elif kind == "send, cancelled":
            await self.send(*rest)
        elif kind == "receive":
            for _ in range(min(rest[0], len(self.waiting))):
                self.came(await self.receiver.receive(PATIENCE))
        elif kind == "receive, cancelled":
            receiving = asyncio.create_task(self.receiver.receive())
            await turns(rest[0])
            receiving.cancel()
            (result,) = await asyncio.gather(receiving, return_exceptions=True)
            if isinstance(result, ChannelMessage):
                self.came(result)
        else:
            setattr(self, rest[0], self.moved(getattr(self, rest[0])))

    async def send(self, data: bytes, cancelled_after: int | None = None) -> bool:
        """Whether it was sent, which the right that went along tells."""
        right = self.port.make_send()
        if cancelled_after is None:
            sending = asyncio.create_task(self.sender.send(data, [right], timeout=0))
        else:
            sending = asyncio.create_task(self.sender.send(data, [right]))
            await turns(cancelled_after)
            sending.cancel()
        (result,) = await asyncio.gather(sending, return_exceptions=True)
        assert result is None or isinstance(result, (SendTimeout, asyncio.CancelledError))
        sent = right.closed
        assert sent or result is not None
        right.close()
        if sent:
            self.waiting.append(data)
        return sent

    def came(self, message: ChannelMessage) -> None:
        with message:
            assert message.data == self.waiting.pop(0) and message.audit_token.pid == os.getpid()
            message.take_send_right().close()

    def moved(self, end: aio.Channel) -> aio.Channel:
        left, right = Channel.pair()
        with left, right:
            try:
                left.send(b"", [end], PATIENCE)
            except (
                RightError
            ) as refused:  # Of messages that it has taken in already nobody else could say who sent them.
                assert "receive them before it is moved" in str(refused)
                return end
            with right.receive(PATIENCE) as message:
                return aio.Channel(message.take_channel())


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=25))
def test_what_goes_in_comes_out_whatever_is_cancelled_full_or_moved(steps: list[tuple[Any, ...]]) -> None:
    """At the end the sender closes, and what is left is received."""

    async def main() -> None:
        with ReceiveRight.allocate() as port:
            model = Model(port)
            try:
                for step in steps:
                    await model.run(step)
                model.sender.close()
                async for message in model.receiver:
                    model.came(message)
                assert model.waiting == []
            finally:
                model.sender.close()
                model.receiver.close()

    asyncio.run(main())


@pytest.mark.parametrize("size", [1, 3, 4096, 65_537])
@pytest.mark.parametrize("received", [0, 1, 40, 200])
def test_what_a_killed_child_has_sent_is_a_beginning_of_it(
    program: Program, server: RendezvousServer, size: int, received: int
) -> None:
    """Whole, in order, without a hole; and then its end is heard. It is killed while it sends."""
    ours, theirs = Channel.pair()
    with ours:
        child = launch([*program("talker"), "flood", str(size)], {"chan": theirs})
        found = [ours.receive(PATIENCE).data for _ in range(received)]
        child.kill()
        found += [message.data for message in ours]
        assert finish(child) == -9
    assert len(found) >= received
    assert all(data == number.to_bytes(4, "big") + bytes(size) for number, data in enumerate(found))


def test_a_sender_that_outruns_the_receiver_waits() -> None:
    """A child's `receive` frees it; meanwhile nothing piles up in the sender."""
    ours, theirs = Channel.pair()
    with ours, theirs:
        tracemalloc.start()
        try:
            count = 0
            with pytest.raises(SendTimeout):
                while True:
                    ours.send(bytes(1 << 20), timeout=0.01)
                    count += 1
            assert count < 1000 and tracemalloc.get_traced_memory()[0] < 1 << 20
        finally:
            tracemalloc.stop()
        for _ in range(count):
            assert len(theirs.receive(PATIENCE).data) == 1 << 20
        ours.send(b"goes on", timeout=PATIENCE)
        assert theirs.receive(PATIENCE).data == b"goes on"


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_long_data_is_copied_once_on_either_side(kind: Any) -> None:
    """100 MiB: into memory that is handed over, and out of it."""
    size = 100 << 20
    data = kind(size)
    ours, theirs = Channel.pair()
    with ours, theirs:
        tracemalloc.start()
        try:
            ours.send(data, timeout=PATIENCE)
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
            message = theirs.receive(PATIENCE)
            assert size <= tracemalloc.get_traced_memory()[1] < size + (1 << 20)
        finally:
            tracemalloc.stop()
        assert message.data == data


def test_a_thousand_receives_that_are_cancelled() -> None:
    """Each after one turn, while messages come: every message is received once, in order."""

    async def main() -> None:
        left, right = aio.Channel.pair()
        async with left, right:
            found: list[bytes] = []
            for number in range(1000):
                receiving = asyncio.create_task(right.receive())
                if number % 3 == 0:
                    await left.send(b"%d" % number, timeout=PATIENCE)
                await turns(1)
                receiving.cancel()
                (result,) = await asyncio.gather(receiving, return_exceptions=True)
                if isinstance(result, ChannelMessage):
                    found.append(result.data)
            left.close()
            found += [message.data async for message in right]
            assert found == [b"%d" % number for number in range(0, 1000, 3)]

    asyncio.run(main())
