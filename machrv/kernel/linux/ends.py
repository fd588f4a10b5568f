"""The receiving ends of the rights that are made for a port.

One made right is one socketpair, so a port's queue lies in as many sockets as it has rights. What belongs here: making
and closing ends, what they are watched with, and whether their messages bear stamps. What must never happen here: names,
receiving, an order among messages (`machrv.kernel.linux.port`). The caller holds the space's lock; nothing here waits.
"""

from __future__ import annotations

import select
from _heapq import heappop  # Not from heapq, whose other half nobody uses.
from errno import EADDRINUSE

from machrv._mach import ffi, lib

from machrv.kernel.linux.answers import check, close, spent
from machrv.kernel.linux.end import LISTENER, End
from machrv.kernel.linux.transit import PREFIX, new_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from machrv.kernel.linux.bootstrap import BootstrapName
    from machrv.kernel.linux.pset import PortSet
    from machrv.kernel.linux.transit import Right

PORT_SEND = lib.MACH_MSG_TYPE_PORT_SEND

#: as soon as a port has so many ends, it is looked which are of no use any more
_CROWD = 16
READABLE = select.EPOLLIN | select.EPOLLRDHUP


class Ends:
    """A port as the ends of its rights."""

    __slots__ = (
        "id",
        "name",
        "given",
        "room",
        "coming",
        "loop",
        "mscount",
        "made",
        "qlimit",
        "context",
        "nsrequest",
        "ns_since",
        "pdrequest",
        "sets",
        "bootstrap",
        "epoll",
        "out_of_room",
        "alive",
        "ordered",
        "single",
        "listener",
        "kick",
        "native",
        "aimed",
        "_ends",
        "_reserve",
        "queued",
        "_scanned",
        "_crowded",
        "_head",
        "__weakref__",
    )

    def __init__(self, id: bytes | None = None) -> None:
        self.id: bytes = id or new_id()
        self.name: int = 0
        self._ends: dict[int, End] = {}
        #: ends of send rights that have left, which nobody has looked at: they bear stamps, and `epoll`, if there is one,
        #: knows them. Many rights are given up without a message: for those, this is all there is
        self.given: list[int] = []
        #: how many more may be given before anything must be looked at: see `expect`
        self.room: int = 0
        #: how many are being made: they are `given` once they have been sent
        self.coming: int = 0
        #: the sending half of the pair that this space's own messages to the port go through; it never leaves
        self.loop: int = -1
        self.mscount: int = 0
        #: as mscount, but never set back
        self.made: int = 0
        self.qlimit: int = int(lib.MACH_PORT_QLIMIT_DEFAULT)
        self.context: int = 0
        self.nsrequest: Right | None = None
        #: NO_SENDERS is due once there are no senders and `made` has passed this; -1: there were senders at first
        self.ns_since: int = -1
        self.pdrequest: Right | None = None
        self.sets: list[PortSet] = []
        #: the name that it was checked in under, to be removed with the port
        self.bootstrap: BootstrapName | None = None
        self.epoll: select.epoll | None = None
        #: what becomes `epoll`, made while there is a descriptor for it
        self._reserve: select.epoll | None = None
        #: accept() found no free descriptor: the listener is not asked again before one is freed
        self.out_of_room: bool = False
        self.alive: bool = True
        #: the messages to every end are stamped
        self.ordered: bool = False
        #: the only end, if it is a right's socket and the port is in no set: then there is no order
        self.single: End | None = None
        #: where those who look a bootstrap name up connect
        self.listener: End | None = None
        #: wakes whoever waits in the space that receives from the port
        self.kick: Callable[[], None] | None = None
        #: the port as C sees it, and the end that it receives from there; None: see `aim`
        self.native: Any = ffi.new("machrv_port *")
        self.aimed: End | None = None
        #: ends whose heads were looked at and left, by time: a heap
        self.queued: list[tuple[int, End]] = []
        self._scanned = 0
        #: with so many ends, it is time to look which are of no use any more
        self._crowded = _CROWD
        self._head = ffi.new("machrv_head *")

    # -- receiving ----------------------------------------------------------------------------------------------------

    @property
    def seqno(self) -> int:
        """How many messages have been received."""
        return int(self.native.seqno)

    @seqno.setter
    def seqno(self, seqno: int) -> None:
        self.native.seqno = seqno

    def aim(self, end: End) -> None:
        """C receives from `end` next. Again when the name or the context is another one."""
        native = self.native
        native.fd, native.kind, native.trusted = end.fd, end.kind, end.trusted
        native.name, native.context = self.name, self.context
        self.aimed = end

    # -- ends ---------------------------------------------------------------------------------------------------------

    @property
    def ends(self) -> dict[int, End]:
        """Every end, by its descriptor."""
        self.room = 0
        if self.given:
            given, self.given = self.given, []
            self._ends.update([(fd, End(fd, PORT_SEND, b"", False, True)) for fd in given])
            if len(self._ends) == 1 and not self.sets:
                self.single = self._ends[given[0]]
        return self._ends

    def add(self, end: End) -> None:
        """Take an end in; the port owns its descriptor from here on. Raises OSError; then it does not."""
        ends = self.ends
        ends[end.fd] = end
        single, self.single = self.single, None
        try:
            if self.epoll is not None:
                self.epoll.register(end.fd, READABLE)
            elif len(ends) > 1:
                self._provide()
            if self.ordered:
                end.stamp()  # The others are stamped. However many there are, one more costs no more.
            elif len(ends) > 1 or self.sets:
                self.stamp()
        except OSError:
            del ends[end.fd]
            raise
        if end.kind == LISTENER:
            self.listener = end
        elif len(ends) == 1 and not self.sets:
            self.single = end
        if single is not None and self.kick is not None:
            self.kick()  # whoever waits on that end alone

    def _provide(self) -> None:
        """So many ends must be waited for together: now, and not when somebody waits, there is a descriptor for it."""
        if self._reserve is None and self.epoll is None:
            self._reserve = select.epoll()

    def expect(self) -> None:
        """One more end will be put among those that are `given`, or as many as there is `room` for then. Raises OSError."""
        have = len(self._ends) + len(self.given) + self.coming
        if have >= self._crowded:
            self._reap()
        if self.single is not None:
            self.single = None
            if self.kick is not None:
                self.kick()  # as above
        self.room = 1
        if have > 0:
            self._provide()
            self._stamp_all()
            self.room = max(1, self._crowded - have)

    def stamp(self) -> None:
        """The order among the ends, or against other ports, matters from now on."""
        if self.sets:
            self.single = None  # a set keeps its own order, and is told before anything is taken
        if not self.ordered and (self.sets or sum(end.kind != LISTENER for end in self.ends.values()) > 1):
            self._stamp_all()

    def _stamp_all(self) -> None:
        if not self.ordered:
            for end in self._ends.values():  # Those that are `given` bear stamps.
                end.stamp()
            self.ordered = True

    def drop(self, end: End) -> None:
        """Close an end: its right is dead, or used up."""
        self._remove(end)
        close(end.fd)

    def _remove(self, end: End) -> None:
        del self._ends[end.fd]
        if end is self.listener:
            self.listener = None
        if self.single is not None:
            self.single = None
            if self.kick is not None:
                self.kick()
        if self.epoll is not None:
            self.epoll.unregister(end.fd)
        self._unqueue(end)
        if end.trusted and self.loop >= 0:
            close(self.loop)  # the next message of this space's own makes another
            self.loop = -1
        if len(self._ends) == 1 and not self.given and not self.sets:
            self.single = next((left for left in self._ends.values() if left.kind != LISTENER), None)

    def watch(self) -> select.epoll:
        """The descriptor that becomes readable with the port."""
        if self.epoll is None:
            epoll = self._reserve if self._reserve is not None else select.epoll()
            self._reserve = None
            try:
                for end in self.ends.values():
                    epoll.register(end.fd, 0 if end.kind == LISTENER and self.out_of_room else READABLE)
            except OSError:
                epoll.close()  # One that lacks an end would never tell of what waits there.
                raise
            self.epoll = epoll
        return self.epoll

    def make(self, kind: int, serial: bytes, trusted: bool = False) -> tuple[int, End]:
        """A new right: (the descriptor to give away, its receiving end). Raises OSError."""
        if len(self._ends) + len(self.given) >= self._crowded:
            self._reap()
        ends = ffi.new("int[2]")
        stamped = len(self.ends) > 0 or bool(self.sets)
        while True:
            address = PREFIX + self.id + (b"/s" if kind == PORT_SEND else b"/o") + serial
            result = lib.machrv_pair(ends, address, len(address), not trusted, stamped)
            if result != -EADDRINUSE:
                break
            serial = new_id()[:16]  # somebody who knows the port's id has squatted the address
        check(result)
        end = End(ends[0], kind, address, trusted, stamped)
        try:
            self.add(end)
        except OSError:
            close(ends[0])
            close(ends[1])
            raise
        return ends[1], end

    def _reap(self) -> None:
        """Close ends whose send rights are gone and that hold no message: nobody may ever receive from this port."""
        ends = [end for end in self._ends.values() if end.kind == PORT_SEND and not end.queued]
        fds = [end.fd for end, is_spent in zip(ends, spent([end.fd for end in ends])) if is_spent]
        for fd in fds:
            self._remove(self._ends[fd])
        lib.machrv_close_all(fds, len(fds))
        if self.given:
            given = ffi.new("int[]", self.given)
            self.given = ffi.unpack(given, lib.machrv_reap(given, len(given)))
        self._crowded = max(_CROWD, 2 * (len(self._ends) + len(self.given) + self.coming))

    def _unqueue(self, end: End) -> None:
        if end.queued:
            end.queued = False
            if self.queued[0][1] is end:
                heappop(self.queued)
            else:
                self.queued = sorted(item for item in self.queued if item[1] is not end)

    def count_made(self) -> None:
        """One more send right has been made."""
        self.mscount = self.mscount + 1 & 0xFFFFFFFF
        self.made += 1

    def close(self) -> None:
        """Close everything: every holder of a right sees the port die. The requests are not touched."""
        for fd in self.ends:
            close(fd)
        self.ends.clear()
        self.single = None
        self.queued.clear()
        if self.loop >= 0:
            close(self.loop)
            self.loop = -1
        for epoll in (self.epoll, self._reserve):
            if epoll is not None:
                epoll.close()
        self.epoll = self._reserve = None
