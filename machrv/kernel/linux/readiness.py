"""Descriptors for event loops: one that is readable while something may be received, one while there may be room to send.

What belongs here: what such a descriptor has to be made of, so that it is readable whenever a receive would not have to
wait. What must never happen here: receiving, sending, or a thread.

A message waits in the sockets of its port, and stays there until it is received, peeked at or not; so the port's own
epoll tells of it, and a set's of its members. Three things lie elsewhere. A notification is sent only when somebody calls
the space: what makes it due is in the space's watcher, which is part of every descriptor, and receiving sends it. Who
looks a name up while no descriptor is free cannot be taken in, and a listener that is left in the epoll would make it
readable without end: it is tried again when a timer, in the watcher too, has run out. And a port that has gone has no
sockets: its descriptors become readable for ever, and receiving says what has happened.
"""

from __future__ import annotations

import os
import select
from _weakref import ref

from machrv._mach import lib

from machrv.kernel.interface import Readiness
from machrv.kernel.linux.answers import check, close
from machrv.kernel.linux.notify import Notifications
from machrv.kernel.linux.port import starving

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.kernel.linux.port import Port
    from machrv.kernel.linux.pset import PortSet

#: how often it is tried again to take look-ups in, in milliseconds
_RETRY = 100


class Readers(Notifications):
    """A space whose ports may be watched by event loops. The caller holds the lock, unless it says otherwise."""

    def _furnish(self) -> None:
        super()._furnish()
        #: by id; each takes itself out when it is closed, or forgotten
        self._readers: dict[int, ref[LinuxReadiness]] = {}

    def _add_reader(self, reader: LinuxReadiness) -> None:
        if self._retry < 0:
            timer = check(lib.machrv_timer())
            try:
                self._watcher().register(timer, select.EPOLLIN)
            except BaseException:
                close(timer)
                raise
            self._retry = timer
        self._readers[id(reader)] = ref(reader)
        self._retry_later()

    def _drop_reader(self, reader: LinuxReadiness) -> None:
        self._readers.pop(id(reader), None)
        if not self._readers:
            self._close_retry()

    def _end_readers(self, source: Port | PortSet) -> None:
        """A port or set has gone from its name."""
        if self._retry >= 0:
            for reader in self._living_readers():
                if reader.source is source:
                    reader.end()

    def _living_readers(self) -> list[LinuxReadiness]:
        return [reader for known in list(self._readers.values()) if (reader := known()) is not None]

    def _forget_readers(self) -> None:
        """In the child of a fork: the parent's descriptors are none of ours."""
        for reader in self._living_readers():
            reader.forget()
        self._readers.clear()

    # -- look-ups that no descriptor was free for ---------------------------------------------------------------------

    def _kick(self) -> None:
        super()._kick()
        if self._retry >= 0:
            self._retry_later()

    def _retry_later(self) -> None:
        """If a port of this space has found no descriptor to accept with, look again after a while."""
        waits = bool(starving) and any(port.out_of_room for port in self._ports.values())
        if waits != (self._retry in self._watched):
            if waits:
                self._watched[self._retry] = None
            else:
                del self._watched[self._retry]
            lib.machrv_timer_set(self._retry, _RETRY if waits else 0)

    def _try_again(self) -> None:
        for port in list(self._ports.values()):
            if port.out_of_room:
                port.accept_pending()
        self._watched.pop(self._retry, None)
        lib.machrv_timer_set(self._retry, 0)
        self._retry_later()

    def _close_retry(self) -> None:
        if self._retry >= 0:
            self._watched.pop(self._retry, None)
            close(self._retry)
            self._retry = -1

    def _close_watch(self) -> None:
        self._close_retry()
        super()._close_watch()


class LinuxReadiness(Readiness):
    """An epoll over what a port or set is watched with, and over the space's watcher."""

    __slots__ = ("source", "_space", "_epoll", "_ended", "__weakref__")

    def __init__(self, space: Readers, source: Port | PortSet) -> None:
        """With the space's lock held. Raises OSError."""
        self.source: Port | PortSet = source
        self._space: Readers | None = None
        self._ended = -1
        self._epoll = select.epoll()
        try:
            self._epoll.register(source.watch(), select.EPOLLIN)
            self._epoll.register(space._watcher(), select.EPOLLIN)
            space._add_reader(self)
        except BaseException:
            self._epoll.close()
            raise
        self._space = space

    def fileno(self) -> int:
        """See `Readiness.fileno`."""
        return -1 if self._space is None else self._epoll.fileno()

    def end(self) -> None:
        """The port has gone: readable for ever."""
        if self._ended < 0:
            try:
                self._ended = os.eventfd(1, os.EFD_CLOEXEC)
                self._epoll.register(self._ended, select.EPOLLIN)
            except (OSError, ValueError):
                pass  # no descriptor is free

    def close(self) -> None:
        """See `Readiness.close`."""
        space, self._space = self._space, None
        if space is None:
            return
        with space._lock:  # no call: a finaliser may come here in the middle of one
            if space._inside:
                space._deferred.append((space._drop_reader, (self,)))
            else:
                space._drop_reader(self)
        self._close()

    def forget(self) -> None:
        """As `close`, where the space is a new one."""
        self._space = None
        self._close()

    def _close(self) -> None:
        self._epoll.close()
        ended, self._ended = self._ended, -1
        if ended >= 0:
            os.close(ended)

    def __del__(self) -> None:
        if getattr(self, "_space", None) is not None:
            self.close()


class Room(Readiness):
    """An epoll over the socket that a message would go into: the loop sees no errors of it, only that it is time."""

    __slots__ = ("_epoll", "_socket")

    def __init__(self, fd: int) -> None:
        """`fd` is borrowed. Raises OSError."""
        self._socket = -1
        self._epoll = select.epoll()
        try:
            self._socket = check(lib.machrv_dup(fd))
            self._epoll.register(self._socket, select.EPOLLOUT)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """See `Readiness.fileno`."""
        return -1 if self._epoll.closed else self._epoll.fileno()

    def close(self) -> None:
        """See `Readiness.close`."""
        self._epoll.close()
        socket, self._socket = self._socket, -1
        if socket >= 0:
            close(socket)

    def __del__(self) -> None:
        if getattr(self, "_socket", -1) >= 0:
            self.close()
