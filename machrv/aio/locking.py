"""The lock of a server on a loop: held by a task, across awaits if need be."""

# What must never happen here: a wait that keeps the loop from going on; a task that could wait says `async with`.

from __future__ import annotations

import asyncio
from collections import deque

from machrv.rendezvous.registry import CheckedLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable
    from types import TracebackType


class LoopLock(CheckedLock):
    """As the lock of `machrv.RendezvousServer`, for the tasks of one loop. While it is held, nobody's claim is answered.

    `with server.lock:` where nothing is awaited inside (RuntimeError if another task holds it), `async with server.lock:`
    otherwise. Not reentrant. From the loop's thread only.

        async with server.lock:
            child = await asyncio.create_subprocess_exec(*command)
            server.register_ports_for_pid(child.pid, ports)
    """

    __slots__ = ("_loop", "_holder", "_waiting", "_when_free")

    def __init__(self, loop: AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._holder: object = None
        self._waiting: deque[Future[None]] = deque()
        self._when_free: list[Callable[[], None]] = []

    def _caller(self) -> object:
        """The task that calls; in a callback, and where the loop does not run, the loop."""
        try:
            return asyncio.current_task() or self._loop
        except RuntimeError:
            if self._loop.is_running():
                raise RuntimeError("this server's lock is for the thread of its event loop") from None
            return self._loop

    def locked(self) -> bool:
        """Whether anybody holds it."""
        return self._holder is not None

    def held(self) -> bool:
        """Whether the calling task holds it."""
        return self._holder is not None and self._holder is self._caller()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it, without a wait. RuntimeError if that is not possible; not `blocking`: False if another task has it."""
        if self.held():
            raise RuntimeError("this task holds the rendezvous lock already: do not take it twice")
        if self._holder is None:
            self._holder = self._caller()
            return True
        if blocking:
            raise RuntimeError("another task holds the rendezvous lock: wait for it with `async with server.lock:`")
        return False

    def release(self) -> None:
        """Give it up; LockNotHeldError if this task does not have it."""
        self.check()
        self._holder = None
        if self._loop.is_closed():
            return
        callbacks, self._when_free = self._when_free, []
        for callback in callbacks:
            self._loop.call_soon(callback)
        self._wake_next()

    def when_free(self, callback: Callable[[], None]) -> None:
        """Call back soon after it was given up, before whoever waits for it gets it. It may be held again by then."""
        self._when_free.append(callback)

    async def free(self) -> None:
        """Until nobody holds it, and nobody who came before waits for it. What comes before the next await has it free."""
        if self.held():
            raise RuntimeError("this task holds the rendezvous lock already: it would wait for itself")
        while self._holder is not None:
            future: Future[None] = self._loop.create_future()
            self._waiting.append(future)
            try:
                await future
            except BaseException:
                if future.done() and not future.cancelled() and self._holder is None:
                    self._wake_next()  # It was this one's turn.
                raise

    def _wake_next(self) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return

    async def __aenter__(self) -> LoopLock:
        await self.free()
        self.acquire()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
