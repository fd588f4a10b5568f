"""Waiting for several things at once: ports with something to receive, processes that have exited.

What belongs here: the event queue. What must never happen here: receiving.
"""

from __future__ import annotations

from _thread import allocate_lock

from machrv._mach import lib as constants

from machrv.errors import MachError
from machrv.kernel.interface import EventQueue, Process
from machrv.kernel.darwin.kqueue import Kqueue
from machrv.kernel.darwin.process import DarwinProcess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MACHPORT = constants.EVFILT_MACHPORT
_READ = constants.EVFILT_READ
_USER = constants.EVFILT_USER
_ADD = constants.EV_ADD
_DELETE = constants.EV_DELETE


class DarwinEventQueue(EventQueue):
    """A kqueue over ports, over the kqueues of processes, and with an event of its own that wakes it.

    Each process that is added gets a mark, which its event bears: between an event and the look at it, a descriptor may
    have been closed, and its number given to another process's kqueue.
    """

    def __init__(self, lib: Any, ffi: Any) -> None:
        self._kqueue = Kqueue(lib, ffi)
        self._lock = allocate_lock()
        self._last_mark = 0
        self._processes: dict[int, DarwinProcess] = {}
        try:
            self._kqueue.change(0, _USER, _ADD | constants.EV_CLEAR)
        except BaseException:
            self._kqueue.close()
            raise

    def add_port(self, name: int) -> None:
        """See `EventQueue.add_port`. Any receive right will do since macOS 10.12; before, it took a port set."""
        try:
            self._kqueue.change(name, _MACHPORT, _ADD)
        except OSError as error:
            raise MachError(constants.KERN_INVALID_RIGHT, "EventQueue.add_port") from error

    def remove_port(self, name: int) -> None:
        """See `EventQueue.remove_port`."""
        try:
            self._kqueue.change(name, _MACHPORT, _DELETE)
        except OSError:
            pass  # It has died, and what watched it with it.

    def add_process(self, process: Process) -> None:
        """See `EventQueue.add_process`."""
        if not isinstance(process, DarwinProcess):
            raise TypeError(f"{process!r} is not of this kernel: open it with the kernel's open_process")
        with self._lock:
            self._last_mark += 1
            mark = self._last_mark
            self._processes[mark] = process
        try:
            self._kqueue.change(process.fileno(), _READ, _ADD, mark=mark)
        except OSError as error:
            with self._lock:
                self._processes.pop(mark, None)
            code = constants.KERN_RESOURCE_SHORTAGE
            raise MachError(code, f"EventQueue.add_process ({error.strerror})") from error

    def remove_process(self, process: Process) -> None:
        """See `EventQueue.remove_process`."""
        with self._lock:
            marks = [mark for mark, known in self._processes.items() if known is process]
        for mark in marks:
            self._take(mark)

    def _take(self, mark: int) -> Process | None:
        """Stop watching a process; None if it is not watched."""
        with self._lock:
            process = self._processes.pop(mark, None)
            if process is not None:
                try:
                    self._kqueue.change(process.fileno(), _READ, _DELETE)
                except OSError:
                    pass  # It was closed, against the rule, and its filter has gone with it.
            return process

    def wait(self, timeout: float | None = None) -> tuple[list[int], list[Process]]:
        """See `EventQueue.wait`."""
        ports: list[int] = []
        processes: list[Process] = []
        for ident, kind, mark in self._kqueue.wait(timeout):
            if kind == _MACHPORT:
                ports.append(ident)
            elif kind == _READ:
                process = self._processes.get(mark)
                # A kqueue may be readable for an event that proves to be none.
                if process is not None and not process.is_running() and self._take(mark) is not None:
                    processes.append(process)
        return ports, processes

    def wake(self) -> None:
        """See `EventQueue.wake`."""
        if self._kqueue.fileno() >= 0:
            self._kqueue.change(0, _USER, 0, constants.NOTE_TRIGGER)

    def close(self) -> None:
        """See `EventQueue.close`."""
        self._kqueue.close()
