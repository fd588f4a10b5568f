"""The event source: one thread per kernel that waits for ports and for process exits, and calls back."""

# The thread, what it watches, and what it does when a callback fails. What must never happen here: a callback's exception
# ending the thread, one source starving or stopping another, or knowledge of what a message means.
#
# Theory of operation. Callbacks run on the dispatch thread, one at a time, while no lock of the dispatcher is held, so a
# callback may watch and unwatch. `unwatch_port` returns only when the callback is not running (unless it is the callback
# that calls), so what the callback uses may be released right after: do not call it with a lock that the callback
# takes. A port stays ready until its messages are received: a callback that fails is called again, after a pause that doubles
# each time up to a second, so that a lasting failure (no descriptor left, say) neither spins nor holds the other sources up.

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from time import monotonic

from machrv.kernel import current
from machrv.log import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from machrv.kernel import EventQueue, Kernel, Process

_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 1.0

#: The shared dispatcher of each kernel that has one.
_shared: dict[Kernel, Dispatcher] = {}
_shared_lock = threading.Lock()


class EventSource(ABC):
    """What calls back when ports have something to receive and when processes exit. See `Dispatcher` for each method."""

    @abstractmethod
    def watch_port(self, name: int, callback: Callable[[], None]) -> None: ...

    @abstractmethod
    def unwatch_port(self, name: int) -> None: ...

    @abstractmethod
    def watch_process(self, process: Process, callback: Callable[[], None]) -> None: ...

    @abstractmethod
    def unwatch_process(self, process: Process) -> None: ...

    @abstractmethod
    def release(self) -> None: ...

    @property
    @abstractmethod
    def closed(self) -> bool: ...


class _Port:
    """A watched port: its callback, and how often in a row the callback has failed."""

    __slots__ = ("callback", "failures")

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.failures = 0


class Dispatcher(EventSource):
    """A daemon thread that waits on one kernel's event queue and calls back.

    Owns the thread and the queue, not the ports and processes that it watches. Use `Dispatcher.shared(kernel)` and
    `release()` to have one per kernel; `Dispatcher(kernel)` and `close()` for one of one's own.
    """

    def __init__(self, kernel: Kernel | None = None) -> None:
        self._kernel = kernel if kernel is not None else current()
        self._queue: EventQueue = self._kernel.event_queue()
        self._lock = threading.RLock()
        self._condition = threading.Condition(self._lock)
        #: how many wait for a callback to return
        self._waiting = 0
        self._ports: dict[int, _Port] = {}
        self._paused: dict[int, float] = {}
        self._processes: dict[Process, Callable[[], None]] = {}
        self._running = 0
        self._closing = False
        self._ended = False
        self._users = 1
        self._thread = threading.Thread(target=self._run, name="machrv-dispatch", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._queue.close()
            raise
        _live.append(self)

    @classmethod
    def shared(cls, kernel: Kernel) -> Dispatcher:
        """The dispatcher of this kernel, started on first use. Call `release()` once for every call of this."""
        with _shared_lock:
            dispatcher = _shared.get(kernel)
            if dispatcher is None:
                dispatcher = _shared[kernel] = cls(kernel)
            else:
                dispatcher._users += 1
            return dispatcher

    def release(self) -> None:
        """Give up one use of a shared dispatcher; the last one closes it."""
        with _shared_lock:
            self._users -= 1
            if self._users > 0:
                return
            _shared.pop(self._kernel, None)
        self.close()

    def watch_port(self, name: int, callback: Callable[[], None]) -> None:
        """Call `callback` whenever the receive right or port set may have a message: receive with timeout 0."""
        with self._condition:
            self._check_open()
            self._queue.add_port(name)
            self._ports[name] = _Port(callback)

    def unwatch_port(self, name: int) -> None:
        """Stop; on return the callback is not running, unless it is the caller. Nothing happens if not watched."""
        with self._condition:
            self._paused.pop(name, None)
            if self._ports.pop(name, None) is not None:
                self._queue.remove_port(name)
            if self._thread is not threading.current_thread():
                self._waiting += 1
                try:
                    while self._running == name:
                        self._condition.wait()
                finally:
                    self._waiting -= 1

    def watch_process(self, process: Process, callback: Callable[[], None]) -> None:
        """Call `callback` once, when the process has exited, even if that is already so."""
        with self._condition:
            self._check_open()
            self._queue.add_process(process)
            self._processes[process] = callback

    def unwatch_process(self, process: Process) -> None:
        """Stop. Call it before `process.close()`. The callback, if it is running, goes on: this does not wait for it."""
        with self._condition:
            self._processes.pop(process, None)
            if not self._ended:
                self._queue.remove_process(process)  # Also where its exit was reported: the queue knows it still.

    def close(self) -> None:
        """Stop the thread and wait for its end, unless called on it. Idempotent."""
        with self._condition:
            self._closing = True
            self._ports.clear()
            self._paused.clear()
            self._processes.clear()
            self._condition.notify_all()
            if not self._ended:
                self._queue.wake()
        if self._thread is not threading.current_thread():
            self._thread.join()

    @property
    def closed(self) -> bool:
        """Whether nothing can be watched any more: after `close()`, and in the child of a fork."""
        return self._closing

    def _check_open(self) -> None:
        if self._closing:
            raise RuntimeError("this dispatcher is closed: take a new one with Dispatcher.shared(kernel)")

    # -- on the dispatch thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        try:
            while True:
                try:
                    timeout = self._resume_paused() if self._paused else None  # Only this thread puts anything in.
                    if self._closing:
                        return
                    self._serve(timeout)
                    failures = 0
                except Exception:
                    log().exception("waiting for ports and processes failed; trying again")
                    failures += 1
                    with self._condition:
                        if not self._closing:
                            self._condition.wait(pause_after(failures))
        finally:
            with self._condition:
                self._ended = True
                self._queue.close()
                if self in _live:
                    _live.remove(self)

    def _serve(self, timeout: float | None) -> None:
        """Wait once, and call back. (A frame of its own: the thread does not hold on to what it was told last.)"""
        ports, processes = self._queue.wait(timeout)
        for name in ports:
            self._port_ready(name)
        for process in processes:
            self._process_exited(process)

    def _resume_paused(self) -> float | None:
        """Watch those again whose pause is over; how long the next wait may last."""
        with self._lock:
            now = monotonic()
            for name in [name for name, end in self._paused.items() if end <= now]:
                del self._paused[name]
                self._queue.add_port(name)
            return max(0.0, min(self._paused.values()) - now) if self._paused else None

    def _port_ready(self, name: int) -> None:
        with self._lock:
            source = self._ports.get(name)
            if source is None or name in self._paused:
                return
            self._running = name
        try:
            source.callback()
            source.failures = 0
        except Exception:
            source.failures += 1
            log().exception(f"handling port {name:#x} failed")
            with self._lock:
                if self._ports.get(name) is source:
                    self._paused[name] = monotonic() + pause_after(source.failures)
                    self._queue.remove_port(name)
        finally:
            with self._lock:
                self._running = 0
                if self._waiting:
                    self._condition.notify_all()

    def _process_exited(self, process: Process) -> None:
        with self._condition:
            callback = self._processes.pop(process, None)
            if callback is None:
                return
        try:
            callback()
        except Exception:
            log().exception(f"handling the exit of process {process.pid} failed")


def pause_after(failures: int) -> float:
    """How long a callback is left alone that has failed so often in a row, in seconds."""
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(failures, 10))


#: Every dispatcher whose thread runs, for the child of a fork: there the threads are gone.
_live: list[Dispatcher] = []


def _forget_after_fork() -> None:
    global _shared_lock
    _shared_lock = threading.Lock()
    _shared.clear()
    for dispatcher in _live:
        dispatcher._lock = threading.RLock()
        dispatcher._condition = threading.Condition(dispatcher._lock)
        dispatcher._closing = dispatcher._ended = True
        dispatcher._ports.clear()
        dispatcher._paused.clear()
        dispatcher._processes.clear()
        dispatcher._queue.close()
    _live.clear()


os.register_at_fork(after_in_child=_forget_after_fork)
