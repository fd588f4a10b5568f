"""A receive right as this process holds it: the receiving ends of the rights made for it, and the order among them.

One made right is one socketpair, so a port's queue lies in as many sockets as it has rights. What belongs here: which
end comes next, what an end's end-of-file means, how many senders there are. What must never happen here: names, or
belief in anything that a packet says. The caller holds the space's lock; nothing here waits.
"""

from __future__ import annotations

import select
from _heapq import heappop, heappush  # Not from heapq, whose other half nobody uses: a child pays for it.
from errno import EADDRINUSE, EAGAIN
from time import time_ns

from machrv._mach import ffi, lib

from machrv.kernel.linux.answers import OUT_OF_ROOM, check, close, hangups, spent
from machrv.kernel.linux.end import LISTENER, End
from machrv.kernel.linux.transit import PREFIX, new_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from machrv.kernel.linux.bootstrap import BootstrapName
    from machrv.kernel.linux.pset import PortSet
    from machrv.kernel.linux.transit import Right

PORT_SEND = lib.MACH_MSG_TYPE_PORT_SEND
PORT_SEND_ONCE = lib.MACH_MSG_TYPE_PORT_SEND_ONCE

#: as soon as a port has so many ends, it is looked which are of no use any more
_CROWD = 16
#: how many look-ups are taken in at a time: others may have sent messages
_AT_ONCE = 64
_READABLE = select.EPOLLIN | select.EPOLLRDHUP


#: the ports of this process that found no descriptor to accept with
starving: set[Port] = set()


class Port:
    """The receive right's side of a port, in a space or on its way between two."""

    __slots__ = (
        "id",
        "name",
        "ends",
        "loop",
        "mscount",
        "made",
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
        "alive",
        "ordered",
        "single",
        "listener",
        "kick",
        "_heap",
        "_scanned",
        "_crowded",
        "_head",
        "__weakref__",
    )

    def __init__(self, id: bytes | None = None) -> None:
        self.id: bytes = id or new_id()
        self.name: int = 0
        self.ends: dict[int, End] = {}
        #: the sending half of the pair that this space's own messages to the port go through; it never leaves
        self.loop: int = -1
        self.mscount: int = 0
        #: as mscount, but never set back
        self.made: int = 0
        self.seqno: int = 0
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
        #: accept() found no free descriptor: the listener is not asked again before one is freed
        self.out_of_room: bool = False
        self.alive: bool = True
        #: the messages to every end are stamped
        self.ordered: bool = False
        #: the only end, if it is a right's socket and nothing is watched: then there is no order
        self.single: End | None = None
        #: where those who look a bootstrap name up connect
        self.listener: End | None = None
        #: wakes whoever waits in the space that receives from the port
        self.kick: Callable[[], None] | None = None
        self._heap: list[tuple[int, End]] = []
        self._scanned = 0
        #: with so many ends, it is time to look which are of no use any more
        self._crowded = _CROWD
        self._head = ffi.new("machrv_head *")

    # -- ends ---------------------------------------------------------------------------------------------------------

    def add(self, end: End) -> None:
        """Take an end in; the port owns its descriptor from here on. Raises OSError; then it does not."""
        self.ends[end.fd] = end
        single, self.single = self.single, None
        try:
            if self.epoll is not None:
                self.epoll.register(end.fd, _READABLE)
            elif len(self.ends) > 1:
                self.watch()  # Now, and not when somebody waits: there may be no descriptor for it then.
            elif end.kind != LISTENER and not self.sets:
                self.single = end
            if self.ordered:
                end.stamp()  # The others are stamped. However many there are, one more costs no more.
            elif len(self.ends) > 1 or self.sets:
                self.stamp()
        except OSError:
            del self.ends[end.fd]
            raise
        if end.kind == LISTENER:
            self.listener = end
        if single is not None and self.kick is not None:
            self.kick()  # whoever waits on that end alone

    def stamp(self) -> None:
        """The order among the ends, or against other ports, matters from now on."""
        if self.sets:
            self.single = None  # a set keeps its own order, and is told before anything is taken
        if not self.ordered and (self.sets or sum(end.kind != LISTENER for end in self.ends.values()) > 1):
            for end in self.ends.values():
                end.stamp()
            self.ordered = True

    def drop(self, end: End) -> None:
        """Close an end: its right is dead, or used up."""
        self._remove(end)
        close(end.fd)

    def _remove(self, end: End) -> None:
        del self.ends[end.fd]
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

    def watch(self) -> select.epoll:
        """The descriptor that becomes readable with the port."""
        if self.epoll is None:
            epoll = select.epoll()
            try:
                for end in self.ends.values():
                    epoll.register(end.fd, 0 if end.kind == LISTENER and self.out_of_room else _READABLE)
            except OSError:
                epoll.close()  # One that lacks an end would never tell of what waits there.
                raise
            self.epoll = epoll
            self.single = None
        return self.epoll

    def make(self, kind: int, serial: str, trusted: bool = False) -> tuple[int, End]:
        """A new right: (the descriptor to give away, its receiving end). Raises OSError."""
        if len(self.ends) >= self._crowded:
            self._reap()
        ends = ffi.new("int[2]")
        stamped = len(self.ends) > 0 or bool(self.sets)
        while True:
            address = PREFIX + self.id + (b"/s" if kind == PORT_SEND else b"/o") + serial.encode()
            result = lib.machrv_pair(ends, address, len(address), not trusted, stamped)
            if result != -EADDRINUSE:
                break
            serial = new_id().decode()[:16]  # somebody who knows the port's id has squatted the address
        check(result)
        end = End(ends[0], kind, address, trusted, stamped)
        try:
            self.add(end)
        except OSError:
            close(ends[0])
            close(ends[1])
            raise
        return ends[1], end

    def take_in(self, fds: list[int]) -> list[End]:
        """Ends of new send rights, which bear stamps. Owns `fds`, also when it raises OSError: then they are closed."""
        if len(self.ends) + len(fds) > self._crowded:
            self._reap()
        ends = [End(fd, PORT_SEND, b"", False, True) for fd in fds]
        for number, end in enumerate(ends):
            try:
                self.add(end)
            except OSError:
                for added in ends[:number]:
                    self.drop(added)
                lib.machrv_close_all(fds[number:], len(fds) - number)
                raise
        return ends

    def _reap(self) -> None:
        """Close ends whose send rights are gone and that hold no message: nobody may ever receive from this port."""
        ends = [end for end in self.ends.values() if end.kind == PORT_SEND and not end.queued]
        fds = [end.fd for end, is_spent in zip(ends, spent([end.fd for end in ends])) if is_spent]
        for fd in fds:
            self._remove(self.ends[fd])
        lib.machrv_close_all(fds, len(fds))
        self._crowded = max(_CROWD, 2 * len(self.ends))

    # -- order --------------------------------------------------------------------------------------------------------

    def next(self) -> tuple[int, End] | None:
        """The end whose head is the oldest message of the port, with its time; None if nothing waits.

        An end at end-of-file whose right was send-once counts as the message that it stands for: SEND_ONCE.
        """
        # What becomes readable after a scan is younger than anything sent before it, so heads from before the last scan
        # need no other. Twice: what came during the scan may have come out of order. Not more: the clock may be set
        # back.
        for _ in range(2):
            if self._heap and self._heap[0][0] <= self._scanned:
                return self._heap[0]
            before = time_ns()
            for end in self._ready():
                self._look(end)
            self._scanned = before
        return self._heap[0] if self._heap else None

    def next_end(self) -> End | None:
        """As `next`, without the time: if only one end has anything, nobody needs to know when it was sent."""
        if not self._heap:
            ready = self._ready()
            if len(ready) < 2:
                return ready[0] if ready else None
            for end in ready:
                self._look(end)
        head = self.next()
        return None if head is None else head[1]

    @property
    def in_order(self) -> bool:
        """Whether nothing was looked at and left, and no set keeps an order of its own."""
        return not (self._heap or self.sets or self.out_of_room)

    def _ready(self) -> list[End]:
        """The ends with something to read that do not stand in the heap. Takes in who has looked the port up."""
        if self.epoll is None:
            found = list(self.ends.values())
        else:
            found = [self.ends[fd] for fd, _ in self.epoll.poll(0, len(self.ends) + 1) if fd in self.ends]
        accepted = self.accept_pending() if self.out_of_room else []
        ready = []
        for end in found:
            if end.kind == LISTENER:
                accepted += self._accept(end)
            elif not end.queued:
                ready.append(end)
        return ready + accepted

    def taken(self, end: End) -> None:
        """The head of `end` has been received: look at what stands behind it."""
        self._unqueue(end)
        if self._heap:
            self._look(end)

    def _unqueue(self, end: End) -> None:
        if end.queued:
            end.queued = False
            if self._heap[0][1] is end:
                heappop(self._heap)
            else:
                self._heap = sorted(item for item in self._heap if item[1] is not end)

    def _look(self, end: End) -> None:
        """Put an end with something to read into the heap; close it if it is at its end."""
        head = self._head
        result = lib.machrv_peek(end.fd, head)
        if result < 0:
            if result in OUT_OF_ROOM:
                check(result)
            elif result != -EAGAIN:
                self.drop(end)  # a reset connection, or no connection at all: its right is as gone as at end-of-file
            return
        if head.length == 0:
            if end.kind == PORT_SEND:
                self.drop(end)
                return
            stamp = time_ns()
        else:
            # What was sent before there were stamps: the sender's word, which only orders what it sent before.
            stamp = min(head.before, max(0, head.header.sent)) if end.late or not head.stamp else head.stamp
        end.queued = True
        heappush(self._heap, (stamp, end))

    def _accept(self, listener: End) -> list[End]:
        """Take in everybody who waits at a bootstrap name: each is a send right made."""
        accepted: list[End] = []
        for _ in range(_AT_ONCE):
            fd = lib.machrv_accept(listener.fd)
            if fd < 0:
                # Without a free descriptor the listener stays readable: nobody may wait on it before one is free.
                self._set_out_of_room(listener, fd in OUT_OF_ROOM)
                if fd != -EAGAIN and fd not in OUT_OF_ROOM:
                    self.drop(listener)
                return accepted
            self.count_made()
            end = End(fd, PORT_SEND, listener.address)
            try:
                self.add(end)
            except OSError:
                close(fd)
                return accepted
            accepted.append(end)
        return accepted

    def _set_out_of_room(self, listener: End, out_of_room: bool) -> None:
        if self.out_of_room != out_of_room:
            self.out_of_room = out_of_room
            if self.epoll is not None:
                self.epoll.modify(listener.fd, 0 if out_of_room else _READABLE)
            if out_of_room:
                starving.add(self)
                if self.kick is not None:
                    self.kick()
                _warn_of_starvation(listener.address)
            else:
                starving.discard(self)

    def accept_pending(self) -> list[End]:
        """Take in who has looked the port up: their ends."""
        return [
            end for listener in list(self.ends.values()) if listener.kind == LISTENER for end in self._accept(listener)
        ]

    # -- counting -----------------------------------------------------------------------------------------------------

    def count_made(self) -> None:
        """One more send right has been made."""
        self.mscount = self.mscount + 1 & 0xFFFFFFFF
        self.made += 1

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
        starving.discard(self)
        self._heap.clear()
        if self.loop >= 0:
            close(self.loop)
            self.loop = -1
        if self.epoll is not None:
            self.epoll.close()
            self.epoll = None


def _warn_of_starvation(address: bytes) -> None:
    """Once for each time that it begins: the log says why nobody gets an answer."""
    try:
        import logging
    except (ImportError, OSError):
        return  # A module is a file, and no descriptor is free.

    logging.getLogger("machrv").warning(
        "no descriptor is free: whoever looks up the port behind %s waits until one is (raise `ulimit -n`, or close rights)",
        address.decode(errors="replace"),
    )
