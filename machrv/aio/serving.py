"""Servers on the loop: requests and exits call back from descriptors; there is no thread."""

# The loop as an event source, and the servers on it. What a request means is the business of `machrv.rendezvous.server`,
# whose rules all hold.

from __future__ import annotations

import asyncio
import atexit
import os

import machrv.rendezvous.server as threaded
from machrv.aio.locking import LoopLock
from machrv.errors import RendezvousError
from machrv.log import log
from machrv.rendezvous.dispatch import EventSource, pause_after
from machrv.rendezvous.registry import Registry
from machrv.rights.loops import close_with, is_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from machrv.kernel import Kernel, Process, Readiness


class _Port:
    """A watched port: its descriptor, its callback, and how often in a row that has failed."""

    __slots__ = ("readiness", "callback", "failures", "pause")

    def __init__(self, readiness: Readiness, callback: Callable[[], None]) -> None:
        self.readiness = readiness
        self.callback = callback
        self.failures = 0
        self.pause: TimerHandle | None = None


class LoopEventSource(EventSource):
    """As `Dispatcher`, on a loop: callbacks run in its thread. While `lock` is held they wait, as a thread's would."""

    def __init__(self, kernel: Kernel, lock: LoopLock | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._kernel = kernel
        self._lock = lock
        self._pid = os.getpid()
        self._released = False
        self._ports: dict[int, _Port] = {}
        self._processes: dict[Process, Callable[[], None]] = {}

    def watch_port(self, name: int, callback: Callable[[], None]) -> None:
        """See `Dispatcher.watch_port`."""
        port = self._ports[name] = _Port(self._kernel.readiness(name), callback)
        self._resume(name, port)

    def _resume(self, name: int, port: _Port) -> None:
        port.pause = None
        if self._ports.get(name) is port:
            self._loop.add_reader(port.readiness.fileno(), self._port_ready, name, port)

    def _port_ready(self, name: int, port: _Port) -> None:
        if self._ports.get(name) is not port:
            return
        if self._lock is not None and self._lock.locked():
            self._stop_reading(port.readiness.fileno())
            self._lock.when_free(lambda: self._after_lock(name, port))
            return
        try:
            port.callback()
            port.failures = 0
        except Exception:
            log().exception(f"handling port {name:#x} failed")
            port.failures += 1
            if self._ports.get(name) is port:
                self._stop_reading(port.readiness.fileno())
                port.pause = self._loop.call_later(pause_after(port.failures), self._resume, name, port)

    def _after_lock(self, name: int, port: _Port) -> None:
        self._resume(name, port)
        self._port_ready(name, port)  # Now: the lock may be taken again before the loop looks at descriptors.

    def unwatch_port(self, name: int) -> None:
        """See `Dispatcher.unwatch_port`."""
        port = self._ports.pop(name, None)
        if port is None:
            return
        if port.pause is not None:
            port.pause.cancel()
        if self._loop.is_running() and not is_running(self._loop):
            try:
                self._loop.call_soon_threadsafe(self._close_port, port)
                return
            except RuntimeError:
                pass  # The loop was closed meanwhile.
        self._close_port(port)

    def _close_port(self, port: _Port) -> None:
        self._stop_reading(port.readiness.fileno())
        port.readiness.close()

    def _stop_reading(self, fd: int) -> None:
        if fd >= 0 and not self._loop.is_closed():
            self._loop.remove_reader(fd)

    def watch_process(self, process: Process, callback: Callable[[], None]) -> None:
        """See `Dispatcher.watch_process`."""
        self._processes[process] = callback
        self._loop.add_reader(process.fileno(), self._process_exited, process)

    def _process_exited(self, process: Process) -> None:
        callback = self._processes.get(process)
        if callback is None or process.is_running():
            return
        self._stop_reading(process.fileno())
        if self._lock is not None and self._lock.locked():
            self._lock.when_free(lambda: self._process_exited(process))
            return
        del self._processes[process]
        try:
            callback()
        except Exception:
            log().exception(f"handling the exit of process {process.pid} failed")

    def unwatch_process(self, process: Process) -> None:
        """See `Dispatcher.unwatch_process`."""
        if self._processes.pop(process, None) is not None:
            self._stop_reading(process.fileno())

    def release(self) -> None:
        """Watch nothing any more."""
        self._released = True
        for name in list(self._ports):
            self.unwatch_port(name)
        for process in list(self._processes):
            self.unwatch_process(process)

    @property
    def closed(self) -> bool:
        """See `Dispatcher.closed`."""
        return self._released or os.getpid() != self._pid


class RendezvousServerBase(threaded.RendezvousServerBase):
    """As `machrv.RendezvousServerBase`, on the loop that runs where it is made: its hooks are called there.

    Hooks are plain functions, and the loop waits for them. Make and close it in the loop's thread; `async with` closes it,
    and so does the end of the loop under asyncio.run().
    """

    def _event_source(self, kernel: Kernel) -> EventSource:
        close_with(asyncio.get_running_loop(), self)
        return LoopEventSource(kernel, None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class DirectRendezvousServer(RendezvousServerBase, threaded.DirectRendezvousServer):
    """As `machrv.DirectRendezvousServer`, on the loop that runs where it is made."""


class RendezvousServer(RendezvousServerBase, threaded.RendezvousServer):
    """As `machrv.RendezvousServer`, on the loop that runs where it is made. Its lock is a `LoopLock`.

    A process has one service name, and so one server: this or `machrv.RendezvousServer`.

        async with aio.RendezvousServer() as server:
            child = await aio.launch(command, ports, server=server)
            await child.wait()
    """

    _lock: LoopLock

    def _event_source(self, kernel: Kernel) -> EventSource:
        close_with(asyncio.get_running_loop(), self)
        return LoopEventSource(kernel, self._lock)

    def _new_registry(self, kernel: Kernel) -> Registry:
        self._lock = LoopLock(asyncio.get_running_loop())
        return Registry(kernel, self._lock, LoopEventSource(kernel, self._lock))

    @property
    def lock(self) -> LoopLock:
        """Hold it from before a child is started until its ports are registered, so that it cannot ask in between."""
        return self._lock

    @classmethod
    def get_instance(cls, *, nameless: bool = False) -> threaded.RendezvousServer:
        """The server of this process: what there is already (`machrv.RendezvousServer`'s too), else one on this loop.

        `nameless`: one that has no name will do.

        One that was made here is closed when its loop ends under asyncio.run(), or by `close()`. Raises RendezvousError
        if it serves on another loop that runs, or as the constructor.
        """
        global _instance
        loop = asyncio.get_running_loop()
        if threaded.RendezvousServer._instance is not None:
            return threaded.RendezvousServer._instance
        if _instance is not None:
            known, other = _instance
            if known is loop and (nameless or other.service_name):
                return other
            if known is not loop and known.is_running():
                raise RendezvousError(
                    "the rendezvous server of this process serves on another event loop: launch from there"
                )
            if known is not loop:
                other.close()
        _instance = loop, cls(nameless=nameless)
        return _instance[1]

    def close(self) -> None:
        """Stop serving, give the name up and end every registration. Idempotent. The lock must not be held."""
        global _instance
        if _instance is not None and _instance[1] is self:
            _instance = None
        super().close()


_instance: tuple[AbstractEventLoop, RendezvousServer] | None = None


def _close_instance() -> None:
    """At exit, where the loop was never shut down: give the name up, and what no child has claimed."""
    if _instance is not None:
        _instance[1].close()


def _forget_instance() -> None:
    """In the child of a fork: the server and its rights are the parent's."""
    global _instance
    _instance = None


atexit.register(_close_instance)
os.register_at_fork(after_in_child=_forget_instance)
