"""Cancellation: at every await, while messages flow, every message and every right is accounted for.

The grids let a task run for a number of turns of the loop and cancel it then, while what it waits for happens at every
other turn: before, at the same time, after.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from machrv import Message, ReceiveRight, ReceiveTimeout, SendRight, aio, take_rights

from .conftest import PATIENCE
from .loops import Run, fill, no_senders, run, turns, warm_uvloop  # noqa: F401 (fixtures)

TURNS = range(7)
GRID = list(itertools.product(TURNS, TURNS))


async def cancelled_at(task: asyncio.Task[object], turn: int) -> bool:
    """Whether the task was cancelled, and not over before."""
    await turns(turn)
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


def how(port: ReceiveRight, kind: str) -> asyncio.Task[Message]:
    """The ways to receive."""
    if kind == "receive":
        return asyncio.ensure_future(aio.receive(port))
    if kind == "timeout":
        return asyncio.ensure_future(aio.receive(port, PATIENCE))
    if kind == "async for":
        return asyncio.ensure_future(aio.messages(port).__anext__())

    async def wait_for() -> Message:
        return await asyncio.wait_for(aio.receive(port), PATIENCE)

    return asyncio.ensure_future(wait_for())


@pytest.mark.parametrize("kind", ["receive", "timeout", "async for", "wait_for"])
def test_a_receive_that_is_cancelled_leaves_the_message(run: Run[None], kind: str) -> None:
    """Either the task has the message, or the port has it still, with its right."""

    async def send_at(turn: int, right: SendRight) -> None:
        await turns(turn)
        with ReceiveRight.allocate() as travels:
            right.send(Message(7, descriptors=[travels]))

    async def main() -> None:
        outcomes = set()
        with ReceiveRight.allocate() as port, port.make_send() as right:
            for arrives, cancelled in GRID:
                task = how(port, kind)
                sender = asyncio.ensure_future(send_at(arrives, right))
                gone = await cancelled_at(task, cancelled)
                await sender
                message = port.receive(timeout=0) if gone else task.result()
                assert message.id == 7
                (travelled,) = take_rights(message)
                assert travelled is not None
                travelled.close()
                with pytest.raises(ReceiveTimeout):
                    port.receive(timeout=0)
                outcomes.add(gone)
        assert outcomes == {True, False}

    run(main())


def test_receives_that_have_their_message_at_once_are_cancelled(run: Run[None]) -> None:
    """A hundred with a message waiting, each cancelled after one turn: no message is lost, whenever others have theirs."""

    async def main() -> None:
        got = []
        with ReceiveRight.allocate() as port, port.make_send() as right:
            for number in range(100):
                right.send(Message(number))
                task = asyncio.ensure_future(aio.receive(port))
                if not await cancelled_at(task, 1):
                    got.append(task.result().id)
            left = 100 - len(got)
            assert got + [port.receive(timeout=0).id for _ in range(left)] == list(range(100))
            assert 0 < left < 10  # Some were cancelled: those at which the loop goes on.
            with pytest.raises(ReceiveTimeout):
                port.receive(timeout=0)

    run(main())


def test_receives_that_time_out_leave_nothing_behind(run: Run[None]) -> None:
    """Two hundred in vain, and two hundred that are cancelled, with one that goes on waiting: nothing of them is held."""

    def futures() -> int:
        gc.collect()
        return sum(isinstance(thing, asyncio.Future) for thing in gc.get_objects())

    async def main() -> None:
        with ReceiveRight.allocate() as port, port.make_send() as right:
            waits = asyncio.ensure_future(aio.receive(port))
            await turns(3)
            before = futures()
            for _ in range(200):
                with pytest.raises(ReceiveTimeout):
                    await aio.receive(port, 0.0001)
                assert await cancelled_at(asyncio.ensure_future(aio.receive(port)), 2)
            await turns(3)
            assert futures() <= before + 5
            right.send(Message(7))
            assert (await waits).id == 7

    run(main())


def test_a_send_that_is_cancelled_has_sent_or_has_not(run: Run[None]) -> None:
    """Sent: the message is in the queue, and its right with it. Cancelled: the caller has the right, the queue nothing."""

    async def main() -> None:
        outcomes = set()
        for drained, cancelled in GRID:
            with ReceiveRight.allocate() as port, port.make_send() as right, ReceiveRight.allocate() as travels:
                count = fill(right)
                task = asyncio.ensure_future(aio.send(right, Message(7, descriptors=[travels])))

                async def drain() -> None:
                    await turns(drained)
                    for _ in range(count):
                        assert port.receive(timeout=0).id == 0

                drainer = asyncio.ensure_future(drain())
                gone = await cancelled_at(task, cancelled)
                await drainer
                assert travels.closed is not gone
                if gone:
                    with pytest.raises(ReceiveTimeout):
                        port.receive(timeout=0)
                else:
                    (travelled,) = take_rights(port.receive(timeout=0))
                    assert travelled is not None
                    travelled.close()
                outcomes.add(gone)
        assert outcomes == {True, False}

    run(main())


def test_both_ends_are_cancelled_again_and_again_while_messages_flow(run: Run[None]) -> None:
    """Each message brings a send-once right, over which it is acknowledged: each number is, exactly once."""
    chance = random.Random(8)
    count = 400

    async def produce(right: object, acks: ReceiveRight) -> list[int]:
        sent = []
        for number in range(count):
            receipt = acks.make_send_once()
            while True:
                message = Message(number, bytes(3000), [receipt])
                task = asyncio.ensure_future(aio.send(right, message))  # type: ignore[arg-type]
                if not await cancelled_at(task, chance.randrange(60)):
                    break
                assert not receipt.closed
            assert receipt.closed
            sent.append(number)
        return sent

    async def consume(port: ReceiveRight) -> list[int]:
        got = []
        while len(got) < count:
            task = asyncio.ensure_future(aio.receive(port))
            if await cancelled_at(task, chance.randrange(4)):
                continue
            message = task.result()
            (receipt,) = take_rights(message)
            await aio.send(receipt, Message(message.id))  # type: ignore[arg-type]
            got.append(message.id)
        return got

    async def main() -> None:
        with ReceiveRight.allocate() as port, port.make_send() as right, ReceiveRight.allocate() as acks:
            producer, consumer = (
                asyncio.ensure_future(produce(right, acks)),
                asyncio.ensure_future(consume(port)),
            )
            acknowledged = [(await aio.receive(acks, PATIENCE)).id for _ in range(count)]
            assert acknowledged == list(range(count)) == await producer == await consumer
            with pytest.raises(ReceiveTimeout):
                acks.receive(timeout=0)

    run(main())


def test_a_rendezvous_that_is_cancelled(run: Run[None]) -> None:
    """Before the request was sent the registration stands; after it the rights that come are destroyed. Nothing leaks."""

    async def main() -> None:
        outcomes, claims = set(), []
        async with aio.RendezvousServer() as server:
            for turn in range(12):
                with ReceiveRight.allocate() as port:
                    with server.lock:
                        server.register_ports_for_pid(os.getpid(), {"port": port.make_send()})
                    task = asyncio.ensure_future(aio.connect(server.service_name))
                    gone = await cancelled_at(task, turn)
                    if not gone:
                        with task.result() as rights:
                            taken = rights.take_send_right("port")
                            assert taken is not None and rights.port_count == 0
                            taken.close()
                    else:  # Requests are handled in turn: either this one finds the claim, or the cancelled one spent it.
                        with await aio.connect(server.service_name) as rights:
                            claims.append(rights.port_count)
                    # What has been asked for is answered, and destroyed with the port that it was to come to.
                    await no_senders(port)
                    assert server.registration_count == 0
                outcomes.add(gone)
        assert outcomes == {True, False} and claims[0] == 1 and 0 in claims

    run(main())


def children() -> set[str]:
    """The child processes of this one, zombies too: other tests may have left a nursery running."""
    found: set[str] = set()
    for thread in os.listdir("/proc/self/task"):
        found.update(Path(f"/proc/self/task/{thread}/children").read_text().split())
    return found


def test_a_launch_that_is_cancelled(run: Run[None]) -> None:
    """Wherever it is: no child is left, the registration has ended, and every right that it was to get is given up."""

    before = children()

    async def main() -> None:
        outcomes = set()
        async with aio.RendezvousServer() as server:
            for turn in (0, 1, 2, 3, 4, 6, 10, 30):
                with ReceiveRight.allocate() as port:
                    command = [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"]
                    launched = aio.launch(
                        command,
                        {"port": port.make_send()},
                        server=server,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE,
                    )
                    task = asyncio.ensure_future(launched)
                    await turns(1 if turn == 0 else 0)
                    gone = await cancelled_at(task, turn)
                    if not gone:
                        child = task.result()
                        assert child.stdin is not None
                        child.stdin.close()
                        assert await child.wait() == 0
                    await no_senders(port)
                    assert server.registration_count == 0
                    assert children() == before
                outcomes.add(gone)
        assert outcomes == {True, False}

    run(main())


def test_a_launch_that_waits_for_the_lock_is_cancelled(run: Run[None]) -> None:
    """There is no child yet; the rights that it was to get are given up."""

    before = children()

    async def main() -> None:
        async with aio.RendezvousServer() as server:
            with ReceiveRight.allocate() as port:
                async with server.lock:
                    task = asyncio.ensure_future(
                        aio.launch([sys.executable, "-c", ""], {"port": port.make_send()}, server=server)
                    )
                    assert await cancelled_at(task, 3)
                await no_senders(port)
                assert children() == before

    run(main())
