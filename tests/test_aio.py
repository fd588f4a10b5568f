"""Receiving and sending on an event loop: asyncio's own and uvloop's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from machrv import MachError, Message, PortSet, ReceiveRight, ReceiveTimeout, RightError, SendRight, SendTimeout, aio
from machrv import take_rights
from machrv.message import MACH_RCV_PORT_DIED, MACH_SEND_INVALID_DEST

from .conftest import PATIENCE, SLACK, idles
from .loops import Run, fill, run, turns, warm_uvloop  # noqa: F401 (fixtures)


@pytest.fixture
def port() -> Iterator[ReceiveRight]:
    with ReceiveRight.allocate() as port:
        yield port


@pytest.fixture
def right(port: ReceiveRight) -> Iterator[SendRight]:
    with port.make_send() as right:
        yield right


# -- receiving --------------------------------------------------------------------------------------------------------


def test_a_message_that_is_there_and_one_that_comes(run: Run[None], port: ReceiveRight, right: SendRight) -> None:
    """Both are what `receive` gives, and the loop goes on while there is none."""

    async def main() -> None:
        right.send(Message(1, b"four"))
        message = await aio.receive(port)
        assert (message.id, message.body) == (1, b"four") and message.audit_token is not None
        waiting = asyncio.ensure_future(aio.receive(port))
        await turns(5)
        assert not waiting.done()
        right.send(Message(2))
        assert (await waiting).id == 2

    run(main())


def test_async_for_over_a_port_and_a_set(run: Run[None], port: ReceiveRight, right: SendRight) -> None:
    """In order; leaving the loop leaves the rest; it ends when the right is closed."""

    async def main() -> None:
        for number in range(10):
            right.send(Message(number))
        got = []
        async for message in port:
            got.append(message.id)
            if len(got) == 3:
                break
        with PortSet.allocate() as ports:
            ports.insert(port)
            async for message in aio.messages(ports):
                got.append(message.id)
                if len(got) == 6:
                    break
        asyncio.get_running_loop().call_later(0.05, port.close)
        async for message in port:
            got.append(message.id)
        assert got == list(range(10))
        with pytest.raises(StopAsyncIteration):
            await aio.messages(port).__anext__()

    run(main())


def test_timeouts(run: Run[None], port: ReceiveRight, right: SendRight) -> None:
    """0 does not wait; what comes just in time is received; a message that comes later waits."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for timeout in (0, 0.05):
            began = loop.time()
            with pytest.raises(ReceiveTimeout) as caught:
                await aio.receive(port, timeout)
            assert isinstance(caught.value, TimeoutError)
            assert timeout <= loop.time() - began + 0.002 < timeout + SLACK
        right.send(Message(1))
        assert (await aio.receive(port, 0)).id == 1
        loop.call_later(0.02, right.send, Message(2))
        assert (await aio.receive(port, PATIENCE)).id == 2

    run(main())


def test_several_who_wait_are_served_in_order(run: Run[None], port: ReceiveRight, right: SendRight) -> None:
    """Each gets one message; one that was cancelled gets none, and costs none."""

    async def main() -> None:
        waiting = [asyncio.ensure_future(aio.receive(port)) for _ in range(6)]
        await turns(2)
        waiting[1].cancel()
        for number in range(5):
            right.send(Message(number))
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(done.pop(1), asyncio.CancelledError)
        assert [message.id for message in done if isinstance(message, Message)] == list(range(5))

    run(main())


@pytest.mark.parametrize("where", ["task", "thread"])
def test_a_right_that_is_closed_while_somebody_waits(run: Run[None], where: str) -> None:
    """Everybody who waits is told."""

    async def main() -> None:
        port = ReceiveRight.allocate()
        waiting = [asyncio.ensure_future(aio.receive(port)) for _ in range(3)]
        await turns(2)
        if where == "task":
            port.close()
        else:
            thread = threading.Thread(target=port.close)
            thread.start()
            thread.join()
        for task in waiting:
            with pytest.raises(MachError) as caught:
                await task
            assert caught.value.code == MACH_RCV_PORT_DIED
        with pytest.raises(RightError):
            await aio.receive(port)

    run(main())


def test_a_right_that_comes_back_is_waited_for_again(run: Run[None], port: ReceiveRight, right: SendRight) -> None:
    """Somebody tries to send the receive right away, in vain: who waits on it goes on waiting."""

    async def main() -> None:
        waiting = asyncio.ensure_future(aio.receive(port))
        await turns(2)
        with ReceiveRight.allocate() as gone:
            to = gone.make_send()
        with to, pytest.raises(MachError):
            to.send(Message(descriptors=[port]))
        await turns(5)
        assert not waiting.done()
        right.send(Message(1))
        assert (await waiting).id == 1

    run(main())


def test_who_receives_without_a_pause_lets_others_run(run: Run[None], port: ReceiveRight, right: SendRight) -> None:
    """A flood on one port does not keep the loop from its other tasks; nor does one who sends without a pause."""

    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticker = asyncio.ensure_future(tick())
        await turns(1)
        for number in range(100):
            await aio.send(right, Message(number))
        assert 2 <= ticks
        ticks = 0
        for number in range(100):
            assert (await aio.receive(port)).id == number
        assert 2 <= ticks
        ticker.cancel()

    run(main())


def test_waiting_costs_nothing(run: Run[None], port: ReceiveRight) -> None:
    """Nothing is polled: who waits for a message, or for room, uses no processor."""

    with ReceiveRight.allocate() as full, full.make_send() as right:
        fill(right)

        async def receives(seconds: float) -> None:
            with pytest.raises(ReceiveTimeout):
                await aio.receive(port, seconds)

        async def sends(seconds: float) -> None:
            with pytest.raises(SendTimeout):
                await aio.send(right, Message(), seconds)

        assert idles(lambda seconds: run(receives(seconds)))
        assert idles(lambda seconds: run(sends(seconds)))


def test_two_loops_receive_from_one_port(port: ReceiveRight, right: SendRight) -> None:
    """In two threads: every message goes to one of them."""
    got: list[int] = []

    async def main() -> None:
        while not (message := await aio.receive(port, PATIENCE)).id < 0:
            got.append(message.id)

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(100):
        right.send(Message(number), timeout=PATIENCE)
    for _ in threads:
        right.send(Message(-1), timeout=PATIENCE)
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(got) == list(range(100))


def test_a_right_outlives_loops(port: ReceiveRight, right: SendRight) -> None:
    """One asyncio.run() after the other: nothing of a loop is left on the right."""

    async def main() -> None:
        with pytest.raises(ReceiveTimeout):
            await aio.receive(port, 0.001)

    for _ in range(3):
        asyncio.run(main())
        assert all(what.fileno() < 0 for what in port._attachments.values())
    assert len(port._attachments) == 1


def test_a_loop_that_nobody_shut_down(port: ReceiveRight, right: SendRight) -> None:
    """What it left is closed with the right, or when the next loop comes."""

    async def main() -> None:
        with pytest.raises(ReceiveTimeout):
            await aio.receive(port, 0.001)

    for _ in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
    assert sum(what.fileno() >= 0 for what in port._attachments.values()) == 1
    asyncio.run(main())
    assert all(what.fileno() < 0 for what in port._attachments.values())


# -- sending ----------------------------------------------------------------------------------------------------------


def test_a_full_queue_suspends_the_sender(run: Run[None], port: ReceiveRight, right: SendRight) -> None:
    """Until there is room; the loop goes on; every message arrives, in order, with its right."""

    async def main() -> None:
        sent = 0

        async def produce() -> None:
            nonlocal sent
            for number in range(500):
                with ReceiveRight.allocate() as travels:
                    await aio.send(right, Message(number, bytes(2000), [travels]))
                    assert travels.closed
                sent += 1

        producer = asyncio.ensure_future(produce())
        while sent < 10 or producer.done():
            await turns(1)
        await turns(200)
        before = sent
        await turns(50)
        assert sent == before < 500, "nothing holds the sender back"
        for number in range(500):
            message = await aio.receive(port)
            assert message.id == number
            for travelled in take_rights(message):
                assert travelled is not None
                travelled.close()
        await producer

    run(main())


def test_several_senders_and_a_dead_receiver(run: Run[None]) -> None:
    """Everybody who waits for room learns that there will be none, and keeps what he wanted to send."""

    async def main() -> None:
        port = ReceiveRight.allocate()
        with port.make_send() as right:
            fill(right)
            travels = [ReceiveRight.allocate() for _ in range(3)]
            senders = [asyncio.ensure_future(aio.send(right, Message(descriptors=[one]))) for one in travels]
            await turns(3)
            port.close()
            for task, one in zip(senders, travels):
                with pytest.raises(MachError) as caught:
                    await task
                assert caught.value.code == MACH_SEND_INVALID_DEST
                one.close()

    run(main())


def test_a_send_that_takes_too_long(run: Run[None], port: ReceiveRight, right: SendRight) -> None:
    """SendTimeout; the rights are still the sender's, and nothing was sent."""

    async def main() -> None:
        count = fill(right)
        with ReceiveRight.allocate() as travels:
            for timeout in (0, 0.02):
                with pytest.raises(SendTimeout):
                    await aio.send(right, Message(9, descriptors=[travels]), timeout)
            assert not travels.closed
        for _ in range(count):
            assert (await aio.receive(port, 0)).id == 0
        with pytest.raises(ReceiveTimeout):
            await aio.receive(port, 0)

    run(main())


def test_a_send_once_right_is_spent(run: Run[None], port: ReceiveRight) -> None:
    """As by its own `send`."""

    async def main() -> None:
        right = port.make_send_once()
        await aio.send(right, Message(4))
        assert right.closed
        assert (await aio.receive(port)).id == 4
        with pytest.raises(RightError):
            await aio.send(right, Message(5))

    run(main())
