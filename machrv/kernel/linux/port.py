"""A receive right as this process holds it: the order among the messages to it, and how many senders there are.

A port's queue lies in the ends of its rights (`machrv.kernel.linux.ends`). What belongs here: which end comes next, what
an end's end-of-file means, who is taken in that has looked the port up. What must never happen here: names, or belief in
anything that a packet says. The caller holds the space's lock; nothing here waits.
"""

from __future__ import annotations

from _heapq import heappush  # Not from heapq, whose other half nobody uses: a child pays for it.
from errno import EAGAIN
from time import time_ns

from machrv._mach import lib

from machrv.kernel.linux.answers import OUT_OF_ROOM, check, close, hangups
from machrv.kernel.linux.end import LISTENER, End
from machrv.kernel.linux.ends import PORT_SEND as PORT_SEND, READABLE, Ends

PORT_SEND_ONCE = lib.MACH_MSG_TYPE_PORT_SEND_ONCE

#: how many look-ups are taken in at a time: others may have sent messages
_AT_ONCE = 64


#: the ports of this process that found no descriptor to accept with
starving: set[Port] = set()


class Port(Ends):
    """The receive right's side of a port, in a space or on its way between two."""

    __slots__ = ()

    # -- order --------------------------------------------------------------------------------------------------------

    def next(self) -> tuple[int, End] | None:
        """The end whose head is the oldest message of the port, with its time; None if nothing waits.

        An end at end-of-file whose right was send-once counts as the message that it stands for: SEND_ONCE.
        """
        # What becomes readable after a scan is younger than anything sent before it, so heads from before the last scan
        # need no other. Twice: what came during the scan may have come out of order. Not more: the clock may be set
        # back.
        for _ in range(2):
            if self.queued and self.queued[0][0] <= self._scanned:
                return self.queued[0]
            before = time_ns()
            for end in self._ready():
                self._look(end)
            self._scanned = before
        return self.queued[0] if self.queued else None

    def next_end(self) -> End | None:
        """As `next`, without the time: if only one end has anything, nobody needs to know when it was sent."""
        if not self.queued:
            ready = self._ready()
            if len(ready) < 2:
                return ready[0] if ready else None
            for end in ready:
                self._look(end)
        head = self.next()
        return None if head is None else head[1]

    def _ready(self) -> list[End]:
        """The ends with something to read that do not stand in the heap. Takes in who has looked the port up."""
        ends = self.ends
        if self.epoll is None and len(ends) < 2:
            found = list(ends.values())
        else:
            found = [ends[fd] for fd, _ in self.watch().poll(0, len(ends) + 1) if fd in ends]
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
        if self.queued:
            self._look(end)

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
        heappush(self.queued, (stamp, end))

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
                self.epoll.modify(listener.fd, 0 if out_of_room else READABLE)
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
        starving.discard(self)
        super().close()


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
