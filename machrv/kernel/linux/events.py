"""Waiting for several things at once: ports with something to receive, processes that have exited.

What belongs here: the event queue. What must never happen here: receiving.
"""

from __future__ import annotations

import os
import select
from _thread import allocate_lock

from machrv._mach import lib

from machrv.errors import MachError
from machrv.kernel.interface import EventQueue
from machrv.kernel.linux.identity import LinuxProcess
from machrv.kernel.linux.answers import shortage
from machrv.kernel.linux.port import starving
from machrv.kernel.linux import LONGEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.kernel import Process
    from machrv.kernel.linux.kernel import LinuxKernel


class LinuxEventQueue(EventQueue):
    """An epoll over the ports' own, over pidfds, and over an eventfd that wakes it."""

    def __init__(self, kernel: LinuxKernel) -> None:
        self._kernel = kernel
        self._lock = allocate_lock()
        #: watched ports by the descriptor that they are watched with, and the other way round
        self._ports: dict[int, int] = {}
        self._fds: dict[int, int] = {}
        self._processes: dict[int, Process] = {}
        #: notifications of this space become due while nobody calls it
        with kernel._call:
            self._watcher = kernel._watcher().fileno()
        self._epoll = select.epoll()
        self._epoll.register(self._watcher, select.EPOLLIN)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            self._epoll.register(self._wake, select.EPOLLIN)
        except BaseException:
            os.close(self._wake)
            raise

    def add_port(self, name: int) -> None:
        """See `EventQueue.add_port`."""
        with self._kernel._call:
            entry = self._kernel._entries.get(name)
            source = None if entry is None else entry.port or entry.pset
            if source is None:
                raise MachError(lib.KERN_INVALID_RIGHT, "EventQueue.add_port")
            fd = source.watch().fileno()
            with self._lock:
                try:
                    self._epoll.register(fd, select.EPOLLIN)
                except FileExistsError:
                    pass
                self._processes.pop(fd, None)  # that one was closed without being removed
                self._ports[fd] = name
                self._fds[name] = fd

    def remove_port(self, name: int) -> None:
        """See `EventQueue.remove_port`."""
        with self._lock:
            fd = self._fds.pop(name, -1)
            if fd >= 0 and self._ports.get(fd) == name:
                del self._ports[fd]
                self._unregister(fd)

    def _unregister(self, fd: int) -> None:
        try:
            self._epoll.unregister(fd)
        except (OSError, ValueError):
            pass  # what it stood for has gone, and its descriptor with it

    def add_process(self, process: Process) -> None:
        """See `EventQueue.add_process`."""
        assert isinstance(process, LinuxProcess)
        with self._lock, shortage("EventQueue.add_process"):
            self._epoll.register(process.fileno(), select.EPOLLIN | select.EPOLLONESHOT)
            self._ports.pop(process.fileno(), None)
            self._processes[process.fileno()] = process

    def remove_process(self, process: Process) -> None:
        """See `EventQueue.remove_process`."""
        assert isinstance(process, LinuxProcess)
        with self._lock:
            fd = process.fileno()
            if self._processes.get(fd) is process:
                del self._processes[fd]
                self._unregister(fd)

    def wait(self, timeout: float | None = None) -> tuple[list[int], list[Process]]:
        """See `EventQueue.wait`."""
        ports = self._out_of_room() if starving else []
        if ports:
            timeout = 0.1 if timeout is None else min(timeout, 0.1)
        try:
            events = self._epoll.poll(-1 if timeout is None else min(max(0.0, timeout), LONGEST / 1000))
        except OSError as error:
            raise MachError(lib.KERN_RESOURCE_SHORTAGE, f"EventQueue.wait ({error.strerror})") from error
        processes: list[Process] = []
        noticed = False
        with self._lock:
            for fd, _ in events:
                port = self._ports.get(fd, 0)
                if port:
                    if port not in ports:
                        ports.append(port)
                elif fd == self._watcher:
                    noticed = True
                elif fd == self._wake:
                    try:
                        os.eventfd_read(self._wake)
                    except BlockingIOError:
                        pass
                elif fd in self._processes:
                    processes.append(self._processes[fd])
        if noticed:
            with self._kernel._call:
                self._kernel._pump()
        return ports, processes

    def _out_of_room(self) -> list[int]:
        """The ports that found no descriptor to accept with: nothing wakes us for them, so they are tried again."""
        with self._kernel._call:
            entries = [self._kernel._entries.get(name) for name in self._ports.values()]
            sources = [(entry.name, entry.port or entry.pset) for entry in entries if entry is not None]
            return [name for name, source in sources if source is not None and source.out_of_room]

    def wake(self) -> None:
        """See `EventQueue.wake`."""
        with self._lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """See `EventQueue.close`."""
        with self._lock:
            if self._wake >= 0:
                os.close(self._wake)
                self._wake = -1
                self._epoll.close()

    def forked(self) -> None:
        """In the child of a fork: the parent's queue is none of ours."""
        self._lock = allocate_lock()
        self._ports.clear()
        self._fds.clear()
        self._processes.clear()
        self.close()
