"""Every public method of a channel, of its twin on a loop and of a message, with a real process on the other side.

The functions named `<class>_<method>` below are the tests; what is to be there is read off the classes.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import select
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from machrv import (
    Channel,
    ChannelClosedError,
    ChannelMessage,
    MemoryObject,
    Message,
    ReceiveRight,
    ReceiveTimeout,
    RendezvousServer,
    RightError,
    SendRight,
    aio,
    launch,
)

from .conftest import PATIENCE, Program, finish
from .test_multiprocessing import helpers  # noqa: F401 (a fixture)


def public(cls: type) -> list[str]:
    """The names that users call, with the protocols of `for` and `with`."""
    protocols = {"__iter__", "__aiter__", "__aenter__", "__enter__"}
    names = {name for base in cls.__mro__[:-1] for name in vars(base) if base.__module__.startswith("machrv")}
    slots = set(getattr(cls, "__slots__", ()))
    return sorted(name for name in names - slots if not name.startswith("_") or name in protocols)


def lookup(kind: str, name: str) -> Any:
    found = globals().get(f"{kind}_{name.strip('_')}")
    assert found is not None, f"{name} of {kind} has no test: write {kind}_{name.strip('_')}"
    return found


@pytest.fixture
def talker(program: Program, server: RendezvousServer) -> Iterator[tuple[Channel, Any]]:
    """An end, and the child that has the other one."""
    ours, theirs = Channel.pair()
    with launch(program("talker"), {"chan": theirs}) as child, ours:
        yield ours, child
        ours.close()
        assert finish(child) in (0, -9)


@pytest.mark.parametrize("name", public(Channel))
def test_a_channel(talker: tuple[Channel, Any], name: str) -> None:
    """Each method of `Channel`."""
    lookup("channel", name)(*talker)


@pytest.mark.parametrize("name", public(aio.Channel))
def test_a_channel_on_a_loop(talker: tuple[Channel, Any], name: str) -> None:
    """Each method of `aio.Channel`."""
    test = lookup("aio", name)
    ours, child = talker

    async def main() -> None:
        await test(aio.Channel(ours), child)

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


@pytest.mark.parametrize("name", public(ChannelMessage))
def test_a_message(talker: tuple[Channel, Any], name: str) -> None:
    """Each method of `ChannelMessage`; what is sent with it comes from the child."""
    with talker[0].request(b"give", timeout=PATIENCE) as message:
        assert message.data == b"given" and message.audit_token.pid == talker[1].pid
        lookup("message", name)(message, talker[0])
        if message.rights and message.rights[3] is not None:
            message.rights[3].send(Message())  # The child goes on.


def test_the_two_have_the_same_names() -> None:
    """But for the words of `for` and `with`."""
    assert {name for name in public(Channel) if name[0] != "_"} == {
        name for name in public(aio.Channel) if name[0] != "_"
    }


# -- Channel ----------------------------------------------------------------------------------------------------------


def channel_send(ours: Channel, child: Any) -> None:
    ours.send(b"echo \0", timeout=PATIENCE)
    assert ours.receive(PATIENCE).data == b"echo \0"


def channel_receive(ours: Channel, child: Any) -> None:
    with pytest.raises(ReceiveTimeout):
        ours.receive(timeout=0)
    ours.send(b"echo ")
    message = ours.receive()
    assert message.data == b"echo " and message.audit_token.pid == child.pid


def channel_request(ours: Channel, child: Any) -> None:
    assert ours.request(b"answer 1", timeout=PATIENCE).data == b"answer 1"


def channel_send_object(ours: Channel, child: Any) -> None:
    with ReceiveRight.allocate() as port:
        ours.send_object("echo", Echoing(), [port.make_send()], PATIENCE)
        with ours.receive(PATIENCE) as message:
            assert message.data == b"echo 1" and len(message.rights) == 1


class Echoing:
    """An encoding of what the child sends back."""

    def dumps(self, thing: object) -> str:
        return f"{thing} 1"

    def loads(self, data: bytes) -> str:
        return data.decode()


def channel_receive_object(ours: Channel, child: Any) -> None:
    ours.send(b'echo {"a": 1}')
    assert ours.receive_object(Echoing(), PATIENCE) == 'echo {"a": 1}'


def channel_iter(ours: Channel, child: Any) -> None:
    for number in range(3):
        ours.send(b"echo %d" % number)
    ours.send(b"die")
    assert [message.data for message in ours] == [b"echo 0", b"echo 1", b"echo 2"]


def channel_poll(ours: Channel, child: Any) -> None:
    assert not ours.poll()
    ours.send(b"echo")
    assert ours.poll(PATIENCE) and ours.receive(0).data == b"echo" and not ours.poll(0.01)
    ours.send(b"die")
    assert ours.poll(None)


def channel_fileno(ours: Channel, child: Any) -> None:
    assert not select.select([ours], [], [], 0)[0]
    ours.send(b"echo")
    assert select.select([ours], [], [], PATIENCE)[0] and ours.receive(0).data == b"echo"


def channel_closed(ours: Channel, child: Any) -> None:
    assert not ours.closed
    ours.send(b"die")
    child.wait(PATIENCE)
    assert not ours.closed  # It is the other one that is.
    ours.close()
    assert ours.closed


def channel_close(ours: Channel, child: Any) -> None:
    ours.close()
    assert child.wait(PATIENCE) == 0  # Its loop has ended.


def channel_enter(ours: Channel, child: Any) -> None:
    with ours as same:
        assert same is ours
    assert ours.closed and child.wait(PATIENCE) == 0


def channel_pair(ours: Channel, child: Any) -> None:
    mine, yours = Channel.pair()
    with mine:
        ours.send(b"over", [yours])
        assert mine.receive(PATIENCE).data == b"over another channel"


def channel_moving_right(ours: Channel, child: Any) -> None:
    mine, yours = Channel.pair()
    right = yours.moving_right()
    with mine, Channel(right) as taken_over:
        assert isinstance(right, ReceiveRight) and yours.closed
        ours.send(b"over", [taken_over])
        assert mine.receive(PATIENCE).data == b"over another channel"


# -- aio.Channel ------------------------------------------------------------------------------------------------------


async def aio_send(ours: aio.Channel, child: Any) -> None:
    await ours.send(b"echo \0", timeout=PATIENCE)
    assert (await ours.receive(PATIENCE)).data == b"echo \0"


async def aio_receive(ours: aio.Channel, child: Any) -> None:
    with pytest.raises(ReceiveTimeout):
        await ours.receive(timeout=0)
    await ours.send(b"echo ")
    message = await ours.receive()
    assert message.data == b"echo " and message.audit_token.pid == child.pid


async def aio_request(ours: aio.Channel, child: Any) -> None:
    assert (await ours.request(b"answer 1", timeout=PATIENCE)).data == b"answer 1"


async def aio_send_object(ours: aio.Channel, child: Any) -> None:
    await ours.send_object("echo", Echoing(), timeout=PATIENCE)
    assert (await ours.receive(PATIENCE)).data == b"echo 1"


async def aio_receive_object(ours: aio.Channel, child: Any) -> None:
    await ours.send(b"echo 2")
    assert await ours.receive_object(Echoing(), PATIENCE) == "echo 2"


async def aio_aiter(ours: aio.Channel, child: Any) -> None:
    for number in range(3):
        await ours.send(b"echo %d" % number)
    await ours.send(b"die")
    assert [message.data async for message in ours] == [b"echo 0", b"echo 1", b"echo 2"]


async def aio_poll(ours: aio.Channel, child: Any) -> None:
    assert not await ours.poll()
    polling = asyncio.create_task(ours.poll(None))
    await ours.send(b"echo")
    assert await polling and (await ours.receive(0)).data == b"echo" and not await ours.poll(0.01)
    await ours.send(b"die")
    assert await ours.poll(PATIENCE)


async def aio_fileno(ours: aio.Channel, child: Any) -> None:
    readable = asyncio.Event()
    asyncio.get_running_loop().add_reader(ours, readable.set)
    await ours.send(b"echo")
    await readable.wait()
    asyncio.get_running_loop().remove_reader(ours)
    assert (await ours.receive(0)).data == b"echo"


async def aio_closed(ours: aio.Channel, child: Any) -> None:
    assert not ours.closed
    ours.close()
    assert ours.closed


async def aio_close(ours: aio.Channel, child: Any) -> None:
    receiving = asyncio.create_task(ours.receive())
    await asyncio.sleep(0.01)
    ours.close()
    with pytest.raises(Exception):
        await receiving
    assert await asyncio.to_thread(child.wait, PATIENCE) == 0


async def aio_aenter(ours: aio.Channel, child: Any) -> None:
    async with ours as same:
        assert same is ours
    assert ours.closed and await asyncio.to_thread(child.wait, PATIENCE) == 0


async def aio_enter(ours: aio.Channel, child: Any) -> None:
    with ours:
        pass
    assert ours.closed


async def aio_pair(ours: aio.Channel, child: Any) -> None:
    mine, yours = aio.Channel.pair()
    async with mine:
        await ours.send(b"over", [yours])
        assert (await mine.receive(PATIENCE)).data == b"over another channel"


async def aio_moving_right(ours: aio.Channel, child: Any) -> None:
    mine, yours = aio.Channel.pair()
    async with mine, aio.Channel(yours.moving_right()) as taken_over:  # type: ignore[arg-type]
        assert yours.closed
        await ours.send(b"over", [taken_over])
        assert (await mine.receive(PATIENCE)).data == b"over another channel"


# -- ChannelMessage ---------------------------------------------------------------------------------------------------


def message_take(message: ChannelMessage, ours: Channel) -> None:
    with message.take(4, ReceiveRight) as port:
        assert message.rights[4] is None and port.receive(PATIENCE).id == 3
    for wrong, kind in ((0, MemoryObject), (2, SendRight), (4, ReceiveRight), (6, SendRight), (-7, SendRight)):
        with pytest.raises(RightError):
            message.take(wrong, kind)
    assert [right is None for right in message.rights] == [False] * 4 + [True, False]


def message_take_send_right(message: ChannelMessage, ours: Channel) -> None:
    with message.take_send_right(3) as right:
        right.send(Message())
    with pytest.raises(RightError, match="SendRight"):
        message.take_send_right(4)


def message_take_receive_right(message: ChannelMessage, ours: Channel) -> None:
    with message.take_receive_right(4) as port:
        assert port.receive(PATIENCE).id == 3
    with pytest.raises(RightError, match="was taken"):
        message.take_receive_right(4)


def message_take_memory(message: ChannelMessage, ours: Channel) -> None:
    with message.take_memory(2) as memory, memory.map() as view:
        assert bytes(view) == b"given"
    with pytest.raises(RightError, match="not a MemoryObject"):
        message.take_memory()


def message_take_channel(message: ChannelMessage, ours: Channel) -> None:
    with message.take_channel(5) as channel:
        assert channel.receive(PATIENCE).data == b"given"
    with pytest.raises(RightError, match="not a Channel"):
        message.take_channel()


def message_take_file(message: ChannelMessage, ours: Channel) -> None:
    with pytest.raises(ValueError):
        message.take_file(0, "nonsense")
    with pytest.raises(RightError, match="not an open file"):
        message.take_file(3)
    with pytest.raises(RightError, match="MemoryObject"):
        message.take_file(2)
    with message.take_file() as file:
        assert file.read() == "given"
    assert message.rights[3] is not None


def message_take_socket(message: ChannelMessage, ours: Channel) -> None:
    with pytest.raises(OSError):
        message.take_socket(0)  # A file is none, and stays.
    with message.take_socket(1) as sock:
        assert sock.recv(9) == b"given"
    message.take_file(0).close()


def message_take_fd(message: ChannelMessage, ours: Channel) -> None:
    fd = message.take_fd(0)
    assert os.read(fd, 9) == b"given" and not os.get_inheritable(fd)
    os.close(fd)


def message_object(message: ChannelMessage, ours: Channel) -> None:
    assert message.object(Echoing()) == "given"


def message_sender(message: ChannelMessage, ours: Channel) -> None:
    assert message.sender.pid == message.audit_token.pid != os.getpid()


def message_close(message: ChannelMessage, ours: Channel) -> None:
    message.rights[3].send(Message())
    rights = list(message.rights)
    message.close()
    assert all(right.closed for right in rights)
    message.close()
    with pytest.raises(RightError, match="or it was closed"):
        message.take_fd()


def message_enter(message: ChannelMessage, ours: Channel) -> None:
    rights = list(message.rights)
    rights[3].send(Message())
    with message as same:
        assert same is message
    assert all(right.closed for right in rights)


def _asked(message: ChannelMessage, ours: Channel, answer: Callable[[ChannelMessage], None]) -> ChannelMessage:
    """What another process gets that asks this one; `answer` answers."""
    message.rights[3].send(Message())
    mine, yours = Channel.pair()
    told, telling = Channel.pair()
    with mine, told:
        asking = multiprocessing.get_context("spawn").Process(target=ask, args=(yours, telling))
        asking.start()
        with mine.receive(PATIENCE) as question:
            answer(question)
            with pytest.raises(RightError):
                question.reply(b"")
        result = told.receive(PATIENCE)
        asking.join()
        asking.close()
    message.close()
    return result


def ask(channel: Channel, telling: Channel) -> None:
    with channel, telling, channel.request(b"?", timeout=PATIENCE) as answer:
        telling.send(answer.data, answer.rights)


def message_reply(message: ChannelMessage, ours: Channel) -> None:
    with ReceiveRight.allocate() as port:
        with _asked(message, ours, lambda question: question.reply(b"yes\0", [port.make_send()])) as answer:
            assert answer.data == b"yes\0" and isinstance(answer.rights[0], SendRight)


def message_reply_object(message: ChannelMessage, ours: Channel) -> None:
    assert _asked(message, ours, lambda question: question.reply_object([1])).object() == [1]


def test_an_end_of_a_loop_is_an_argument_of_a_process(helpers: None) -> None:
    """As that of `machrv.Channel` is; and it is copied as little."""
    ours, theirs = aio.Channel.pair()
    with ours:
        process = multiprocessing.get_context("spawn").Process(target=run, args=(theirs,))
        process.start()

        async def main() -> None:
            assert (await ours.request(b"?", timeout=PATIENCE)).data == b"?"
            with pytest.raises(ChannelClosedError):
                await ours.receive(PATIENCE)

        asyncio.run(main())
        process.join()
        process.close()


def run(channel: aio.Channel) -> None:
    async def main() -> None:
        async with channel:
            (await channel.receive(PATIENCE)).reply(b"?")

    asyncio.run(main())
