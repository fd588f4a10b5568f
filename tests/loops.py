"""Running a coroutine to its end, on each kind of loop; and what a test of cancellation looks at."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from machrv import Message, NoSenders, ReceiveRight, SendRight, SendTimeout, aio

from .conftest import PATIENCE

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]


@pytest.fixture(scope="session", autouse=True)
def warm_uvloop() -> Any:
    """The module, with the descriptors that libuv keeps once it has had a loop; None if it is not installed."""
    try:
        import uvloop
    except ImportError:
        return None
    uvloop.run(asyncio.sleep(0))
    return uvloop


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, warm_uvloop: Any) -> Iterator[Run[Any]]:
    """As asyncio.run(), on this kind of loop. No thread is left, and none was started."""
    threads, tasks = threading.enumerate(), set(os.listdir("/proc/self/task"))
    if request.param == "asyncio":
        yield lambda coroutine: asyncio.run(asyncio.wait_for(coroutine, PATIENCE))
    else:
        uvloop = warm_uvloop or pytest.skip("uvloop is not installed")
        yield lambda coroutine: uvloop.run(asyncio.wait_for(coroutine, PATIENCE))
    assert threading.enumerate() == threads
    if request.param == "asyncio":  # libuv's own pool stays
        deadline = time.monotonic() + PATIENCE
        while not set(os.listdir("/proc/self/task")) <= tasks:  # what has been joined may take its time to go
            assert time.monotonic() < deadline, "a thread was started, and is still there"
            time.sleep(0.001)


def fill(right: SendRight, id: int = 0) -> int:
    """Send until there is no room; how many went."""
    count = 0
    while True:
        try:
            right.send(Message(id, bytes(4096)), timeout=0)
        except SendTimeout:
            return count
        count += 1


async def turns(count: int) -> None:
    """Let the loop go round so often."""
    for _ in range(count):
        await asyncio.sleep(0)


async def no_senders(port: ReceiveRight) -> None:
    """Until the last send right to `port` is gone, wherever it was."""
    with pytest.raises(NoSenders):
        await aio.receive(port, PATIENCE)
