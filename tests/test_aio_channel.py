"""Channels on a loop: the same as without, with a real process on the other side; a cancellation loses nothing."""

from __future__ import annotations

import asyncio

import pytest

from machrv import ChannelClosedError, ReceiveRight, ReceiveTimeout, RendezvousServer, SendTimeout, aio, launch

from .conftest import PATIENCE, Program, finish
from .loops import Run, run, warm_uvloop  # noqa: F401 (fixtures)


def test_a_child_on_the_other_side(run: Run[None], server: RendezvousServer, program: Program) -> None:
    """Everything once; in the end it dies, and that is heard."""
    ours, theirs = aio.Channel.pair()
    child = launch(program("talker"), {"chan": theirs})
    assert theirs.closed

    async def main() -> None:
        async with ours:
            await ours.send(b"echo 1", timeout=PATIENCE)
            message = await ours.receive(PATIENCE)
            assert message.data == b"echo 1" and message.audit_token.pid == child.pid
            asked = [b"answer %d" % number for number in range(20)]
            answers = await asyncio.gather(*(ours.request(question, timeout=PATIENCE) for question in asked))
            assert [answer.data for answer in answers] == asked
            await ours.send_object("echo")
            with pytest.raises(ReceiveTimeout):
                await ours.receive_object(timeout=0.01)
            await ours.send(b"die")
            assert [message.data async for message in ours] == []
            with pytest.raises(ChannelClosedError):
                await ours.send(b"echo")
            with pytest.raises(EOFError):
                await ours.request(b"answer", timeout=PATIENCE)

    run(main())
    finish(child)


def test_objects_rights_and_iteration(run: Run[None]) -> None:
    """Between two tasks."""

    async def main() -> None:
        left, right = aio.Channel.pair()
        async with left, right:
            with ReceiveRight.allocate() as inbox:
                await left.send_object([1], rights=[inbox.make_send()])
                with await right.receive(PATIENCE) as message:
                    assert message.object() == [1] and len(message.rights) == 1
            await left.send_object({"a": 1})
            assert await right.receive_object(timeout=PATIENCE) == {"a": 1}
            assert left.fileno() != right.fileno()
            reading = asyncio.create_task(_all(right))
            for number in range(100):
                await left.send(b"%d" % number)
            left.close()
            assert left.closed and await reading == [b"%d" % number for number in range(100)]

    run(main())


async def _all(channel: aio.Channel) -> list[bytes]:
    return [message.data async for message in channel]


def test_a_cancellation_loses_nothing(run: Run[None]) -> None:
    """Neither a message nor a right; and back-pressure holds the sender, not the loop."""

    async def main() -> None:
        left, right = aio.Channel.pair()
        async with left, right:
            receiving = asyncio.create_task(right.receive())
            await asyncio.sleep(0.01)
            receiving.cancel()
            await left.send(b"first")
            with pytest.raises(asyncio.CancelledError):
                await receiving
            count = 1
            with pytest.raises(SendTimeout):
                while True:
                    await left.send(bytes(4096), timeout=0)
                    count += 1
            with ReceiveRight.allocate() as moved, ReceiveRight.allocate() as inbox, inbox.make_send() as held:
                sending = asyncio.create_task(left.send(b"", [moved, held]))
                await asyncio.sleep(0.01)
                assert not sending.done()
                first = await right.receive(PATIENCE)
                assert first.data == b"first"
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
                left.close()
                seen = [message async for message in right]
                for message in seen:
                    message.close()
                assert len(seen) - count + 1 in (0, 1)
                assert moved.closed == held.closed == (len(seen) == count)

    run(main())
