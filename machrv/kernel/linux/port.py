"""A receive right as this process holds it: the receiving ends of the rights made for it, and the order among them.

One made right is one socketpair, so a port's queue lies in as many sockets as it has rights. What belongs here: which
end comes next, what an end's end-of-file means, how many senders there are. What must never happen here: names, or
belief in anything that a packet says. The caller holds the space's lock; nothing here waits.
"""

from __future__ import annotations

import select
from errno import EAGAIN, EMFILE, ENFILE
from heapq import heappop, heappush
from time import time_ns

from machrv._mach import ffi, lib

from machrv.kernel.linux.transit import PREFIX, new_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from machrv.kernel.linux.bootstrap import BootstrapName
    from machrv.kernel.linux.pset import PortSet
    from machrv.kernel.linux.transit import Right

PORT_SEND = lib.MACH_MSG_TYPE_PORT_SEND
PORT_SEND_ONCE = lib.MACH_MSG_TYPE_PORT_SEND_ONCE
LISTENER = 0

_READABLE = select.EPOLLIN | select.EPOLLRDHUP


class End:
    """The receiving end of one right: `kind` is PORT_SEND, PORT_SEND_ONCE, or LISTENER for a bootstrap name."""

    __slots__ = ("fd", "kind", "address", "queued", "accepted", "trusted")

    def __init__(self, fd: int, kind: int, address: bytes, accepted: bool = False, trusted: bool = True) -> None:
        self.fd = fd
        self.kind = kind
        self.address = address
        #: it stands in its port's heap
        self.queued = False
        #: what was sent before accept() bears no time stamp of the kernel's
        self.accepted = accepted
        #: the other end has never left this space
        self.trusted = trusted

    def __lt__(self, other: End) -> bool:
        return self.fd < other.fd


class Port:
    """The receive right's side of a port, in a space or on its way between two."""

    __slots__ = (
        "id",
        "name",
        "ends",
        "loop",
        "mscount",
        "seqno",
        "qlimit",
        "context",
        "nsrequest",
        "ns_since",
        "pdrequest",
        "sets",
        "bootstrap",
        "epoll",
        "out_of_room",
        "waiters",
        "alive",
        "single",
        "_heap",
        "_scanned",
        "_head",
        "__weakref__",
    )

    def __init__(self, id: bytes | None = None) -> None:
        self.id = id or new_id()
        self.name = 0
        self.ends: dict[int, End] = {}
        #: the sending half of the pair that this space's own messages to the port go through; it never leaves
        self.loop = -1
        self.mscount = 0
        self.seqno = 0
        self.qlimit = int(lib.MACH_PORT_QLIMIT_DEFAULT)
        self.context = 0
        self.nsrequest: Right | None = None
        #: NO_SENDERS is due once there are no senders and mscount has passed this; -1: there have been senders
        self.ns_since = -1
        self.pdrequest: Right | None = None
        self.sets: list[PortSet] = []
        #: the name that it was checked in under, to be removed with the port
        self.bootstrap: BootstrapName | None = None
        self.epoll: select.epoll | None = None
        #: accept() found no free descriptor: the listener is not asked again before one is freed
        self.out_of_room = False
        self.waiters = 0
        self.alive = True
        #: the only end, if it is a right's socket and nothing is watched: then there is no order
        self.single: End | None = None
        self._heap: list[tuple[int, End]] = []
        self._scanned = 0
        self._head = ffi.new("machrv_head *")

    # -- ends ---------------------------------------------------------------------------------------------------------

    def add(self, end: End) -> None:
        """Take an end in; the port owns its descriptor from here on."""
        self.ends[end.fd] = end
        self.single = end if len(self.ends) == 1 and self.epoll is None and end.kind != LISTENER else None
        if self.epoll is not None:
            self.epoll.register(end.fd, _READABLE)
        elif len(self.ends) > 1:
            self.watch()

    def drop(self, end: End) -> None:
        """Close an end: its right is dead, or used up."""
        del self.ends[end.fd]
        self.single = None
        if self.epoll is not None:
            self.epoll.unregister(end.fd)
        if end.queued:
            self._heap = [item for item in self._heap if item[1] is not end]
            self._heap.sort()
        close(end.fd)

    def watch(self) -> select.epoll:
        """The descriptor that becomes readable with the port."""
        if self.epoll is None:
            self.epoll = select.epoll()
            self.single = None
            for fd in self.ends:
                self.epoll.register(fd, _READABLE)
        return self.epoll

    def make(self, kind: int, serial: str, trusted: bool = False) -> tuple[int, End]:
        """A new right: (the descriptor to give away, its receiving end). Raises OSError."""
        address = PREFIX + self.id + (b"/s" if kind == PORT_SEND else b"/o") + serial.encode()
        ends = ffi.new("int[2]")
        check(lib.machrv_pair(ends, address, len(address), not trusted))
        end = End(ends[0], kind, address, trusted=trusted)
        try:
            self.add(end)
        except OSError:
            self.ends.pop(end.fd, None)
            close(ends[0])
            close(ends[1])
            raise
        return ends[1], end

    # -- order --------------------------------------------------------------------------------------------------------

    def next(self) -> tuple[int, End] | None:
        """The end whose head is the oldest message of the port, with its time; None if nothing waits.

        An end at end-of-file whose right was send-once counts as the message that it stands for: SEND_ONCE.
        """
        # What becomes readable after a scan is younger than anything sent before it, so heads from before the last scan
        # need no other. Twice: what came during the scan may have come out of order. Not more: the clock may be set back.
        if self.out_of_room:
            self.accept_pending()
        for _ in range(2):
            if self._heap and self._heap[0][0] <= self._scanned:
                return self._heap[0]
            before = time_ns()
            if self.epoll is None:
                for end in list(self.ends.values()):
                    if not end.queued:
                        self._look(end)
            else:
                self._scan(self.epoll)
            self._scanned = before
        return self._heap[0] if self._heap else None

    def taken(self, end: End) -> None:
        """The head of `end` has been received: look at what stands behind it."""
        if end.queued:
            end.queued = False
            if self._heap[0][1] is end:
                heappop(self._heap)
            else:
                self._heap = sorted(item for item in self._heap if item[1] is not end)
        if self._heap:
            self._look(end)

    def _scan(self, epoll: select.epoll) -> None:
        for fd, _ in epoll.poll(0, len(self.ends) + 1):
            end = self.ends.get(fd)
            if end is not None and not end.queued:
                self._look(end)

    def _look(self, end: End) -> None:
        if end.kind == LISTENER:
            self._accept(end)
            return
        head = self._head
        result = lib.machrv_peek(end.fd, head)
        if result < 0:
            if result == -EAGAIN:
                return
            self.drop(end)  # a reset connection: its right is as gone as at end-of-file
            return
        if head.length == 0:
            if end.kind == PORT_SEND:
                self.drop(end)
                return
            stamp = time_ns()
        else:
            stamp = head.stamp
            if end.accepted and stamp >= head.before:
                # Sent before accept(): the kernel has just stamped it. The sender's word only orders its own messages.
                stamp = min(stamp, max(0, head.header.sent))
        end.queued = True
        heappush(self._heap, (stamp, end))

    def _accept(self, listener: End) -> None:
        while True:
            fd = lib.machrv_accept(listener.fd)
            if fd < 0:
                # Without a free descriptor the listener stays readable: nobody may wait on it before one is free.
                if self.out_of_room != (fd in (-EMFILE, -ENFILE)):
                    self.out_of_room = not self.out_of_room
                    if self.epoll is not None:
                        self.epoll.modify(listener.fd, 0 if self.out_of_room else _READABLE)
                return
            self.mscount = self.mscount + 1 & 0xFFFFFFFF
            end = End(fd, PORT_SEND, listener.address, accepted=True, trusted=False)
            try:
                self.add(end)
            except OSError:
                self.ends.pop(fd, None)
                close(fd)
                return
            self._look(end)

    def accept_pending(self) -> None:
        """Take in who has looked the port up: each is a send right made."""
        for end in list(self.ends.values()):
            if end.kind == LISTENER:
                self._accept(end)

    # -- counting -----------------------------------------------------------------------------------------------------

    def has_senders(self, in_space: bool) -> bool:
        """Whether any send right exists; `in_space`: the space itself holds one under the port's own name.

        A message that waits still holds the right that it was sent with, as in XNU.
        """
        self.accept_pending()
        if in_space:
            return True
        ends = [end for end in self.ends.values() if end.kind == PORT_SEND]
        gone = hangups([end.fd for end in ends])
        for end, hung in zip(ends, gone):
            if end.trusted:
                if lib.machrv_waiting(end.fd) > 0:
                    return True
            elif not hung or lib.machrv_waiting(end.fd) > 0:
                return True
        return False

    def close(self) -> None:
        """Close everything: every holder of a right sees the port die. The requests are not touched."""
        for fd in self.ends:
            close(fd)
        self.ends.clear()
        self.single = None
        self._heap.clear()
        if self.loop >= 0:
            close(self.loop)
            self.loop = -1
        epoll, self.epoll = self.epoll, None
        if epoll is not None:
            close_epoll(epoll, self.waiters)


_wakers: dict[int, int] = {}


def close_epoll(epoll: select.epoll, waiters: int) -> None:
    """Close an epoll; if threads wait on it, they are woken, and the last one closes it."""
    ends = ffi.new("int[2]")
    if waiters and lib.machrv_bundle(ends) == 0:
        close(ends[1])  # an end-of-file is always readable, for all of them
        epoll.register(ends[0], select.EPOLLIN)
        _wakers[id(epoll)] = ends[0]
    else:
        epoll.close()


def last_waiter_left(epoll: select.epoll) -> None:
    """Close an epoll that outlived its port because threads waited on it."""
    fd = _wakers.pop(id(epoll), -1)
    if fd >= 0:
        close(fd)
        epoll.close()


def hangups(fds: list[int]) -> Iterable[int]:
    """For each socket, whether its other end is gone."""
    if not fds:
        return ()
    into = ffi.new("char[]", len(fds))
    check(lib.machrv_hangups(fds, len(fds), into))
    return bytes(ffi.buffer(into))


def check(result: int) -> int:
    """The result of a primitive, or the OSError that it stands for."""
    if result < 0:
        import os

        raise OSError(-result, os.strerror(-result))
    return result


def close(fd: int) -> None:
    """Close a descriptor that we own; there is nothing to be done about an error."""
    lib.machrv_close(fd)
