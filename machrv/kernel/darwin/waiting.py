"""Waiting on macOS: kqueues over ports, over processes, and over one another.

What belongs here: the event queue, a descriptor for event loops, and telling a process from others that have or had its
number. What must never happen here: receiving, an event taken that somebody else waits for, a number taken for a process, or
identity from anything that a peer wrote.

macOS has no descriptor for a process. What comes nearest is a kqueue that was told of the process while it lived: the
filter stays with that process (xnu-11417, bsd/kern/kern_event.c filt_procattach), whoever is given the number later.
"""

from __future__ import annotations

import os
from errno import ESRCH
from _thread import RLock, allocate_lock

from machrv._mach import lib as constants

from machrv.message.audit import AuditToken
from machrv.errors import MachError
from machrv.kernel.darwin.kqueue import Kqueue
from machrv.kernel.waiting import EventQueue, Process, Readiness

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MACHPORT = constants.EVFILT_MACHPORT
_PROC = constants.EVFILT_PROC
_READ = constants.EVFILT_READ
_USER = constants.EVFILT_USER
_ADD = constants.EV_ADD
_DELETE = constants.EV_DELETE


def task_audit_token(lib: Any, ffi: Any, task: int) -> AuditToken:
    """The token that the messages of a task bear. Raises MachError."""
    token = ffi.new("audit_token_t *")
    count = ffi.new("mach_msg_type_number_t *", constants.TASK_AUDIT_TOKEN_COUNT)
    code = lib.task_info(task, constants.TASK_AUDIT_TOKEN, ffi.cast("integer_t *", token), count)
    if code:
        raise MachError(code, "task_info")
    return AuditToken(*token.val)


def pidversion_of(lib: Any, ffi: Any, pid: int) -> int | None:
    """The pidversion of a process; None where the system does not tell."""
    name = ffi.new("mach_port_name_t *")
    if lib.task_name_for_pid(lib.mach_task_self(), pid, name) or not name[0]:
        return None
    try:
        token = task_audit_token(lib, ffi, name[0])
    except MachError:
        return None
    finally:
        lib.mach_port_deallocate(lib.mach_task_self(), name[0])
    return token.pidversion if token.pid == pid else None


class DarwinProcess(Process):
    """A process pinned by a kqueue that hears of its exit. It owns a descriptor: close it."""

    def __init__(self, lib: Any, ffi: Any, pid: int) -> None:
        self.pid = pid
        #: the pidversion at this moment, None where the system does not tell: another user's process, a sandbox
        self.pidversion: int | None = None
        self._pinned: int | None = None
        self._exited = False
        self._lock = RLock()
        if pid <= 0:
            raise ProcessLookupError(ESRCH, f"there is no process {pid}")
        self._kqueue = Kqueue(lib, ffi)
        try:
            self._watch()
            # In this order: if what is watched still runs when a message comes, this has been its pidversion.
            self.pidversion = pidversion_of(lib, ffi, pid)
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
        return self._kqueue.fileno()

    def matches(self, token: AuditToken) -> bool:
        """Same number and, from the first message on, the same pidversion.

        Each exec gives a process a new pidversion, and an interpreter may exec once more when it starts; so the one
        that counts is that of the first message that is looked at, while the process still runs. It cannot be older
        than the one that the process had when it was opened: that would be a process that had the number before. A
        process that execs after its first message is another one.

        A token without a pidversion (0) is of no process in particular: it matches nothing and pins nothing.
        """
        if token.pid != self.pid or not token.pidversion:
            return False
        if self._pinned is None and self.is_running() and not self._is_older(token.pidversion):
            self._pinned = token.pidversion
        return token.pidversion == self._pinned

    def _is_older(self, pidversion: int) -> bool:
        """All processes of the system draw from one 32-bit counter (xnu-11417, bsd/kern/kern_fork.c, kern_exec.c)."""
        return self.pidversion is not None and bool(pidversion - self.pidversion & 0x80000000)

    def is_running(self) -> bool:
        with self._lock:
            if self._kqueue.fileno() < 0:
                return False
            if not self._exited and self._kqueue.wait(0):
                self._has_exited()
            return not self._exited

    def close(self) -> None:
        """Close the kqueue, but not under somebody who is asking it."""
        with self._lock:
            self._kqueue.close()


class DarwinReadiness(Readiness):
    """Readable while a message waits: EVFILT_MACHPORT without MACH_RCV_MSG tells, and leaves it there (kqueue(2))."""

    __slots__ = ("_kqueue",)

    def __init__(self, lib: Any, ffi: Any, name: int) -> None:
        """Raises OSError."""
        self._kqueue = Kqueue(lib, ffi)
        try:
            self._kqueue.change(name, constants.EVFILT_MACHPORT, constants.EV_ADD)
        except BaseException:
            self._kqueue.close()
            raise

    def fileno(self) -> int:
        return self._kqueue.fileno()

    def close(self) -> None:
        self._kqueue.close()


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
        """Any receive right will do since macOS 10.12; before, it took a port set."""
        try:
            self._kqueue.change(name, _MACHPORT, _ADD)
        except OSError as error:
            raise MachError(constants.KERN_INVALID_RIGHT, "EventQueue.add_port") from error

    def remove_port(self, name: int) -> None:
        try:
            self._kqueue.change(name, _MACHPORT, _DELETE)
        except OSError:
            pass  # It has died, and what watched it with it.

    def add_process(self, process: Process) -> None:
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
        if self._kqueue.fileno() >= 0:
            self._kqueue.change(0, _USER, 0, constants.NOTE_TRIGGER)

    def close(self) -> None:
        self._kqueue.close()
