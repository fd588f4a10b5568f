"""Waiting for several things at once: ports with something to receive, processes that have exited.

What belongs here: the event queue, and processes. What must never happen here: receiving, or a process taken for the one
that had its number before.

macOS has no descriptor for a process. What comes nearest is a kqueue that was told of the process while it lived: the
filter stays with that process (xnu-11417, bsd/kern/kern_event.c filt_procattach), whoever is given the number later. A
kqueue is itself something that a kqueue can wait for.
"""

from __future__ import annotations

import os
from errno import ESRCH
from threading import Lock

from machrv._mach import lib as constants

from machrv.errors import MachError
from machrv.kernel import EventQueue, Process
from machrv.kernel.darwin.kqueue import Kqueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Self

    from machrv.audit import AuditToken

_MACHPORT = constants.EVFILT_MACHPORT
_PROC = constants.EVFILT_PROC
_READ = constants.EVFILT_READ
_USER = constants.EVFILT_USER
_ADD = constants.EV_ADD
_DELETE = constants.EV_DELETE


class DarwinProcess(Process):
    """A process pinned by a kqueue that hears of its exit. It owns a descriptor: close it."""

    def __init__(self, lib: Any, ffi: Any, pid: int) -> None:
        self.pid = pid
        self._pidversion: int | None = None
        self._exited = False
        self._lock = Lock()
        if pid <= 0:
            raise ProcessLookupError(ESRCH, f"there is no process {pid}")
        self._kqueue = Kqueue(lib, ffi)
        try:
            self._watch()
        except BaseException:
            self._kqueue.close()
            raise

    def _watch(self) -> None:
        try:
            self._kqueue.change(self.pid, _PROC, _ADD, constants.NOTE_EXIT)
        except ProcessLookupError:
            # Either there is none, or it has exited and nobody has waited for it.
            try:
                os.kill(self.pid, 0)
            except PermissionError:
                pass
            except ProcessLookupError:
                raise ProcessLookupError(ESRCH, f"there is no process {self.pid}") from None
            self._has_exited()

    def _has_exited(self) -> None:
        self._exited = True
        # Taking the event has made the kqueue unreadable, but who waits for it is still to be told.
        self._kqueue.change(0, _USER, _ADD, constants.NOTE_TRIGGER)

    def fileno(self) -> int:
        """The kqueue: readable once the process has exited."""
        return self._kqueue.fileno()

    def matches(self, token: AuditToken) -> bool:
        """Same number and, from the first message on, the same pidversion.

        The kernel tells a pidversion in messages only, and gives out a new one with each exec, so it cannot be pinned
        when the process is: it is when the first message is looked at, while the process still runs. A process that
        execs after that is another one.
        """
        if token.pid != self.pid:
            return False
        if self._pidversion is None and self.is_running():
            self._pidversion = token.pidversion
        return token.pidversion == self._pidversion

    def is_running(self) -> bool:
        """False once the process has exited, reaped or not."""
        with self._lock:
            if self._kqueue.fileno() < 0:
                return False
            if not self._exited and self._kqueue.wait(0):
                self._has_exited()
            return not self._exited

    def close(self) -> None:
        """Close the kqueue."""
        self._kqueue.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class DarwinEventQueue(EventQueue):
    """A kqueue over ports, over the kqueues of processes, and with an event of its own that wakes it.

    Each process that is added gets a mark, which its event bears: between an event and the look at it, a descriptor may
    have been closed, and its number given to another process's kqueue.
    """

    def __init__(self, lib: Any, ffi: Any) -> None:
        self._kqueue = Kqueue(lib, ffi)
        self._lock = Lock()
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
