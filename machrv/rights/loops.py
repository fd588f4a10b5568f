"""Event loops: waiting until a descriptor is readable, and what ends with a loop."""

# What the loop is told, and takes back. What must never happen here: receiving or sending, or a descriptor that is closed
# while a loop still watches it: its number may be another one's by then, and the loop would not notice.

from __future__ import annotations

import asyncio
from collections import deque
from itertools import count
from weakref import WeakKeyDictionary, WeakSet

from machrv.kernel import Readiness

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import AsyncGenerator
    from typing import Protocol

    class Closable(Protocol):
        def close(self) -> None: ...


#: How many messages may go in a row before others on the loop get their turn.
_BURST = 32

_steps = count(1)


async def take_turn() -> None:
    """Let the loop go on from time to time, where messages come and go without a wait. Before anything is taken."""
    if next(_steps) % _BURST == 0:
        await asyncio.sleep(0)


def is_running(loop: AbstractEventLoop) -> bool:
    """Whether this is the loop's thread, and the loop runs in it."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


class Watch(Readiness):
    """Who waits on one loop until a right's descriptor is readable: in the order in which they came, one at a time.

    It owns the readiness, and is closed by the right that it belongs to, or with the loop. As long as the descriptor is
    readable, each turn of the loop wakes another one; who is cancelled between being woken and running has taken nothing.
    """

    def __init__(self, loop: AbstractEventLoop, readiness: Readiness) -> None:
        self._loop = loop
        self._readiness = readiness
        self._waiting: deque[Future[None]] = deque()
        self._watched = -1
        close_with(loop, self)

    def fileno(self) -> int:
        """See `Readiness.fileno`."""
        return self._readiness.fileno()

    async def wait(self, deadline: float | None) -> None:
        """Until it is readable or closed, or until `deadline` (the loop's time); nothing tells which."""
        future: Future[None] = self._loop.create_future()
        self._waiting.append(future)
        if self._watched < 0:
            self._watched = self._readiness.fileno()
            self._loop.add_reader(self._watched, self._readable)
        timer = None if deadline is None else self._loop.call_at(deadline, _wake, future)
        try:
            await future
        finally:
            if timer is not None:
                timer.cancel()
            try:
                self._waiting.remove(future)
            except ValueError:
                pass

    def _readable(self) -> None:
        while self._waiting:
            if _wake(self._waiting.popleft()):
                return
        self._unwatch()  # Nobody waits: what is there is taken by whoever comes next.

    def _unwatch(self) -> None:
        fd, self._watched = self._watched, -1
        if fd >= 0 and not self._loop.is_closed():
            self._loop.remove_reader(fd)

    def close(self) -> None:
        """Stop watching, and wake everybody. From another thread than the loop's it happens a little later."""
        if self._loop.is_running() and not is_running(self._loop):
            try:
                self._loop.call_soon_threadsafe(self._close)
                return
            except RuntimeError:
                pass  # The loop was closed meanwhile.
        self._close()

    def _close(self) -> None:
        self._unwatch()
        self._readiness.close()
        while self._waiting and not self._loop.is_closed():
            _wake(self._waiting.popleft())


def _wake(future: Future[None]) -> bool:
    """Whether somebody was there to be woken."""
    if future.done():
        return False
    future.set_result(None)
    return True


async def wait_readable(readiness: Readiness, deadline: float | None) -> None:
    """Until a descriptor that nobody else watches is readable, or until `deadline` (the loop's time)."""
    loop = asyncio.get_running_loop()
    future: Future[None] = loop.create_future()
    fd = readiness.fileno()
    loop.add_reader(fd, _wake, future)
    timer = None if deadline is None else loop.call_at(deadline, _wake, future)
    try:
        await future
    finally:
        loop.remove_reader(fd)
        if timer is not None:
            timer.cancel()


# -- what ends with a loop --------------------------------------------------------------------------------------------

#: For each loop, what is closed with it, and the generator that does it.
_closed_with: WeakKeyDictionary[AbstractEventLoop, tuple[WeakSet[Closable], AsyncGenerator[None, None]]]
_closed_with = WeakKeyDictionary()


def close_with(loop: AbstractEventLoop, what: Closable) -> None:
    """Have `what` closed when the loop, which runs, shuts its asynchronous generators down, as asyncio.run() does.

    A loop has no other hook for its end. Where nobody shuts it down, that is made up for when the next loop comes.
    """
    for other in [other for other in list(_closed_with) if other.is_closed()]:
        _close_all(_closed_with.pop(other)[0])
    if loop not in _closed_with:
        closing: WeakSet[Closable] = WeakSet()
        generator = _until_shutdown(loop, closing)
        try:
            generator.__anext__().send(None)  # As far as its yield: from here on the loop knows it.
        except StopIteration:
            pass
        _closed_with[loop] = closing, generator
    _closed_with[loop][0].add(what)


async def _until_shutdown(loop: AbstractEventLoop, closing: WeakSet[Closable]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        _closed_with.pop(loop, None)
        _close_all(closing)


def _close_all(closing: WeakSet[Closable]) -> None:
    for what in list(closing):
        what.close()
