"""kqueue and kevent of the stand-in: an epoll, over what stands for each filter.

EVFILT_MACHPORT is what event loops get for a port, EVFILT_PROC a pidfd, EVFILT_USER an eventfd, EVFILT_READ whatever
descriptor it is on. The number of a kqueue is that of its epoll, so that one can wait for another.
"""

from __future__ import annotations

import os
import select
from errno import EBADF, EINTR, EINVAL, ENOENT, ESRCH
from typing import Any

from machrv._mach import ffi, lib
from machrv.errors import MachError
from machrv.kernel import Process, Readiness
from machrv.kernel.linux import LinuxKernel

SUPPORTED = (lib.EVFILT_READ, lib.EVFILT_PROC, lib.EVFILT_MACHPORT, lib.EVFILT_USER)


class Kqueue:
    """One kqueue. Failures are OSError."""

    def __init__(self, kernel: LinuxKernel) -> None:
        self._kernel = kernel
        self._epoll = select.epoll()
        #: what watches each port, by its name
        self._ports: dict[int, Readiness] = {}
        #: epoll's descriptor -> (ident, filter, whether it is reported once only)
        self._watched: dict[int, tuple[int, int, bool]] = {}
        self._processes: dict[int, Process] = {}
        #: the caller's word with each filter
        self._udata: dict[tuple[int, int], Any] = {}
        #: ident -> (eventfd, whether EV_CLEAR)
        self._user: dict[int, tuple[int, bool]] = {}

    def fileno(self) -> int:
        return self._epoll.fileno()

    def change(self, event: Any) -> None:
        ident, kind = event.ident, event.filter
        if kind not in SUPPORTED:
            raise OSError(EINVAL, f"filter {kind}")
        if event.flags & lib.EV_DELETE:
            self._delete(ident, kind)
            return
        if event.flags & lib.EV_ADD:
            self._udata[ident, kind] = event.udata
        if kind == lib.EVFILT_USER:
            self._change_user(ident, event)
        elif event.flags & lib.EV_ADD:
            self._add(ident, kind, event)

    def _add(self, ident: int, kind: int, event: Any) -> None:
        if kind == lib.EVFILT_MACHPORT:
            self._add_port(ident)
        elif kind == lib.EVFILT_PROC:
            assert event.fflags == lib.NOTE_EXIT
            process = self._kernel.open_process(ident)  # ProcessLookupError is ESRCH
            if not process.is_running():
                process.close()
                raise OSError(ESRCH, "a process that has exited cannot be watched")
            self._processes[process.fileno()] = process
            self._watch(process.fileno(), ident, kind, once=True)
        else:
            self._watch(ident, ident, kind, once=bool(event.flags & lib.EV_ONESHOT))

    def _watch(self, fd: int, ident: int, kind: int, once: bool = False) -> None:
        self._epoll.register(fd, select.EPOLLIN)
        self._watched[fd] = ident, kind, once

    def _add_port(self, name: int) -> None:
        if name in self._ports:
            return
        try:
            self._ports[name] = self._kernel.readiness(name)
        except MachError as error:
            raise OSError(ENOENT, str(error)) from None
        self._watch(self._ports[name].fileno(), name, lib.EVFILT_MACHPORT)

    def _change_user(self, ident: int, event: Any) -> None:
        if event.flags & lib.EV_ADD and ident not in self._user:
            fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._user[ident] = fd, bool(event.flags & lib.EV_CLEAR)
            self._watch(fd, ident, lib.EVFILT_USER)
        if ident not in self._user:
            raise OSError(ENOENT, "no such user event")
        if event.fflags & lib.NOTE_TRIGGER:
            os.eventfd_write(self._user[ident][0], 1)

    def _delete(self, ident: int, kind: int) -> None:
        for fd, watched in self._watched.items():
            if watched[:2] == (ident, kind):
                self._forget(fd)
                return
        raise OSError(ENOENT, "not watched")

    def _forget(self, fd: int) -> None:
        self._epoll.unregister(fd)
        ident, kind, _ = self._watched.pop(fd)
        process = self._processes.pop(fd, None)
        if process is not None:
            process.close()
        if kind == lib.EVFILT_MACHPORT:
            self._ports.pop(ident).close()

    def wait(self, most: int, timeout: float | None) -> list[tuple[int, int, Any]]:
        """Up to `most` events, as (ident, filter, udata)."""
        found = self._taken(self._epoll.poll(timeout, most))
        return [(*event, self._udata.get(event, ffi.NULL)) for event in found]

    def _taken(self, events: list[tuple[int, int]]) -> list[tuple[int, int]]:
        found = []
        for fd, _ in events:
            watched = self._watched.get(fd)
            if watched is None:
                continue  # the ports, or deleted meanwhile
            ident, kind, once = watched
            found.append((ident, kind))
            if once:
                self._forget(fd)
            elif kind == lib.EVFILT_USER and self._user[ident][1]:
                os.eventfd_read(fd)
        return found

    def close(self) -> None:
        for process in self._processes.values():
            process.close()
        for fd, _ in self._user.values():
            os.close(fd)
        for port in self._ports.values():
            port.close()
        self._epoll.close()


class Kqueues:
    """The kqueues of a task, by descriptor."""

    kernel: LinuxKernel

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.kqueues: dict[int, Kqueue] = {}
        #: how many of the next waits a signal interrupts
        self.interrupted_waits = 0

    @staticmethod
    def _failed(error: OSError) -> int:
        ffi.errno = error.errno
        return -1

    def kqueue(self) -> int:
        try:
            queue = Kqueue(self.kernel)
        except OSError as error:
            return self._failed(error)
        self.kqueues[queue.fileno()] = queue
        return queue.fileno()

    def kevent(self, kq: int, changes: Any, count: int, events: Any, most: int, timeout: Any) -> int:
        queue = self.kqueues.get(kq)
        if queue is None:
            return self._failed(OSError(EBADF, "no kqueue"))
        try:
            for index in range(count):
                queue.change(changes[index])
            if not most:
                return 0
            if self.interrupted_waits:
                self.interrupted_waits -= 1
                raise InterruptedError(EINTR, "a signal")
            wait = timeout.tv_sec + timeout.tv_nsec / 1e9 if timeout else None
            found = queue.wait(most, wait)
        except OSError as error:
            return self._failed(error)
        for index, (ident, kind, udata) in enumerate(found):
            events[index] = [ident, kind, 0, 0, 0, udata]
        return len(found)

    def close(self, fd: int) -> int:
        queue = self.kqueues.pop(fd, None)
        if queue is None:
            return self._failed(OSError(EBADF, "not a kqueue"))
        queue.close()
        return 0

    def forget_kqueues(self) -> None:
        """In the child of a fork there are none."""
        for queue in self.kqueues.values():
            queue.close()
        self.kqueues.clear()
