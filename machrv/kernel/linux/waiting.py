"""Waiting on Linux: an epoll over ports' descriptors, over pidfds, and over an eventfd that wakes it.

What belongs here: descriptors, and who closes them. What must never happen here: receiving, or a number taken for a process.

A `Descriptor` of the parent is closed in the child of a fork: it is an open file that both would share.
"""

from __future__ import annotations

import os
import select
from _thread import allocate_lock
from _weakrefset import WeakSet

from machrv._mach import lib

from machrv.errors import MachError
from machrv.kernel.kernel import failed
from machrv.kernel.waiting import EventQueue, Process, Readiness

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.message.audit import AuditToken
    from machrv.kernel.linux.kernel import LinuxKernel

_forked: WeakSet[LinuxReadiness | LinuxEventQueue] = WeakSet()
#: The longest wait of one poll, in seconds.
_LONGEST = 2**31 // 1000
_RECEIVES = int(lib.MACH_PORT_TYPE_RECEIVE | lib.MACH_PORT_TYPE_PORT_SET)


def _after_fork_in_child() -> None:
    for each in list(_forked):
        if isinstance(each, LinuxEventQueue):
            each._lock = allocate_lock()  # Whoever held it is not there.
        each.close()


os.register_at_fork(after_in_child=_after_fork_in_child)


class LinuxReadiness(Readiness):
    """A descriptor that C gave for it: owned."""

    __slots__ = ("_fd", "__weakref__")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        _forked.add(self)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


class Room(LinuxReadiness):
    """An epoll over the socket that a message would go into: a loop sees no errors of it, only that it is time."""

    __slots__ = ("_socket",)

    def __init__(self, socket: int) -> None:
        """Owns `socket`. Raises OSError."""
        self._fd, self._socket = -1, socket
        try:
            epoll = select.epoll()
            epoll.register(socket, select.EPOLLOUT)
            super().__init__(os.dup(epoll.fileno()))
            epoll.close()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        super().close()
        socket, self._socket = self._socket, -1
        if socket >= 0:
            os.close(socket)


class LinuxProcess(Process):
    """A process pinned by a pidfd. Raises ProcessLookupError, and MachError where no descriptor is free.

    `pidversion` is the inode of the pidfd, which is never given out again (Linux 6.9), else the start time in ticks since
    boot: its lower half, as tokens have it; 0 where it cannot be told.
    """

    pid: int
    pidversion: int

    def __init__(self, pid: int) -> None:
        self._fd = -1
        fd = lib.machrv_pidfd_open(pid)
        if fd < 0:
            import errno

            if fd in (-errno.ESRCH, -errno.EINVAL, -errno.ENOENT):
                raise ProcessLookupError(errno.ESRCH, f"there is no process {pid}")
            raise failed("open_process", -fd)
        self.pid, self._fd = pid, fd
        self.pidversion = lib.machrv_process(pid, fd) & 0xFFFFFFFF

    def fileno(self) -> int:
        return self._fd

    def matches(self, token: AuditToken) -> bool:
        """Same number, and the same process behind it; never where the kernel could not tell which (pidversion 0)."""
        return token.pid == self.pid and token.pidversion == self.pidversion != 0

    def is_running(self) -> bool:
        if self._fd < 0:
            return False
        # Not by select.poll: where a signal interrupts one that does not wait, that says "not yet" (CPython, select_poll_poll).
        return bool(lib.machrv_has_exited(self._fd) <= 0)

    def is_beyond(self) -> bool:
        try:
            if os.readlink("/proc/self") != str(os.getpid()):
                return False  # It is another namespace's /proc: its numbers are of other processes.
            return os.stat(f"/proc/{self.pid}/ns/pid").st_ino != os.stat("/proc/self/ns/pid").st_ino
        except OSError:
            return False  # It is gone, or another user's, or there is no /proc: nobody knows.

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


class LinuxEventQueue(EventQueue):
    """An epoll, and what each descriptor in it stands for. Raises OSError.

    A port is watched by a descriptor of the queue's own. Once its name has gone that is readable for ever: the name is
    reported once more, as kqueue does, and then it is no longer watched.
    """

    def __init__(self, kernel: LinuxKernel) -> None:
        self._kernel = kernel
        self._lock = allocate_lock()
        self._ports: dict[int, int] = {}  # by descriptor
        self._processes: dict[int, Process] = {}  # by descriptor
        self._wake = self._due = -1
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._due = kernel._readable(lib.MACH_PORT_NULL, "event_queue")  # notifications may be due, to whatever port
        self._epoll.register(self._due, select.EPOLLIN)
        _forked.add(self)

    def add_port(self, name: int) -> None:
        try:
            if name == lib.MACH_PORT_NULL:
                raise MachError(lib.KERN_INVALID_NAME, "EventQueue.add_port")
            fd = self._kernel._readable(name, "EventQueue.add_port")
        except MachError as error:
            if error.code != lib.KERN_INVALID_NAME:
                raise
            raise MachError(lib.KERN_INVALID_RIGHT, "EventQueue.add_port") from None
        self.remove_port(name)  # If it was watched, that may have been another port's name.
        with self._lock:
            try:
                self._epoll.register(fd, select.EPOLLIN)
            except OSError as error:
                os.close(fd)
                raise failed("EventQueue.add_port", error.errno or 0) from error
            self._processes.pop(fd, None)  # That one was closed without being removed.
            self._ports[fd] = name

    def remove_port(self, name: int) -> None:
        with self._lock:
            for fd in [fd for fd, watched in self._ports.items() if watched == name]:
                del self._ports[fd]
                self._unregister(fd)  # A close alone would not: it is a copy.
                os.close(fd)

    def add_process(self, process: Process) -> None:
        if not isinstance(process, LinuxProcess):
            raise TypeError(f"{process!r} is not of this kernel: open it with the kernel's open_process")
        with self._lock:
            try:
                self._epoll.register(process.fileno(), select.EPOLLIN | select.EPOLLONESHOT)
            except OSError as error:
                raise failed("EventQueue.add_process", error.errno or 0) from error
            self._processes[process.fileno()] = process

    def remove_process(self, process: Process) -> None:
        with self._lock:
            fd = process.fileno()
            if self._processes.get(fd) is process:
                del self._processes[fd]
                self._unregister(fd)

    def _unregister(self, fd: int) -> None:
        try:
            self._epoll.unregister(fd)
        except (OSError, ValueError):
            pass  # It was closed, against the rule.

    def _is_there(self, name: int) -> bool:
        try:
            return self._kernel.mach_port_type(name) & _RECEIVES != 0
        except MachError as error:  # A call that lacked room says nothing of the name.
            return error.code not in (lib.KERN_INVALID_NAME, lib.KERN_INVALID_TASK)

    def wait(self, timeout: float | None = None) -> tuple[list[int], list[Process]]:
        try:
            events = self._epoll.poll(-1 if timeout is None else min(max(0.0, timeout), _LONGEST))
            if self._due in dict(events):
                self._kernel.mach_port_get_refs(
                    lib.MACH_PORT_NULL, lib.MACH_PORT_RIGHT_SEND
                )  # Any call sends what is due.
                exits = [event for event in events if event[0] in self._processes]  # told once
                events = exits + [event for event in self._epoll.poll(0) if event not in exits]
        except OSError as error:
            raise MachError(lib.KERN_RESOURCE_SHORTAGE, f"EventQueue.wait ({error.strerror})") from error
        self._kernel._interrupted()
        ports: list[int] = []
        processes: list[Process] = []
        with self._lock:
            for fd, _ in events:
                if fd == self._wake:
                    try:
                        os.eventfd_read(fd)
                    except BlockingIOError:
                        pass
                elif fd in self._processes:
                    if not self._processes[fd].is_running():  # It may be another's number by now.
                        processes.append(self._processes[fd])
                elif fd in self._ports:
                    ports.append(self._ports[fd])
                    if not self._is_there(self._ports[fd]):
                        del self._ports[fd]
                        self._unregister(fd)
                        os.close(fd)
        return ports, processes

    def wake(self) -> None:
        with self._lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        # Without the lock: in the child of a fork, nobody is left to give it back.
        wake, self._wake = self._wake, -1
        due, self._due = self._due, -1
        ports, self._ports, self._processes = self._ports, {}, {}
        self._epoll.close()
        for fd in (wake, due, *ports):
            if fd >= 0:
                os.close(fd)

    def __del__(self) -> None:
        if getattr(self, "_wake", -1) >= 0:
            self.close()
