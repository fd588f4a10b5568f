"""Port sets: which receive rights are received from together, and in which order.

What belongs here: membership, order among members, the set's readiness. What must never happen here: names, messages.
The caller holds the space's lock.
"""

from __future__ import annotations

import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.kernel.linux.end import End
    from machrv.kernel.linux.port import Port

# With more members than this, the set's epoll is asked which of them have anything.
_FEW = 4


class PortSet:
    """A set of ports of one space. A port may be in several sets; it leaves them all when its receive right moves.

    As in XNU (osfmk/kern/waitq.c, xnu-7195), a set is served member by member: the one that first had something to
    receive comes first, and stays first until it is seen to be empty.
    """

    __slots__ = ("members", "epoll", "_order")

    def __init__(self) -> None:
        self.members: list[Port] = []
        self.epoll: select.epoll | None = None
        #: the members that have had something to receive, in the order in which they began to
        self._order: list[Port] = []

    def insert(self, port: Port) -> None:
        """Put a port in that is not a member yet."""
        self.refresh()
        if self.epoll is not None:
            self.epoll.register(port.watch(), select.EPOLLIN)  # first: a member that fails here would never be heard of
        self.members.append(port)
        port.sets.append(self)
        try:
            port.stamp()
            self.refresh()
        except BaseException:
            self.remove(port)
            raise

    def remove(self, port: Port) -> None:
        """Take a member out."""
        self.members.remove(port)
        port.sets.remove(self)
        if port in self._order:
            self._order.remove(port)
        if self.epoll is not None and port.epoll is not None:
            self.epoll.unregister(port.epoll)

    def watch(self) -> select.epoll:
        """The descriptor that becomes readable with any member."""
        if self.epoll is None:
            epoll = select.epoll()
            try:
                for port in self.members:
                    epoll.register(port.watch(), select.EPOLLIN)
            except OSError:
                epoll.close()  # One that lacks a member would never tell of what waits there.
                raise
            self.epoll = epoll
        return self.epoll

    @property
    def out_of_room(self) -> bool:
        """Whether a member has found no descriptor to accept with."""
        return any(port.out_of_room for port in self.members)

    def close(self) -> None:
        """The set is gone; its members have been removed."""
        if self.epoll is not None:
            self.epoll.close()
            self.epoll = None

    def refresh(self) -> None:
        """Take note of who has something to receive. Before anything is received from a member in another way, too."""
        candidates = self.members
        if len(candidates) > _FEW:
            ready = {fd for fd, _ in self.watch().poll(0, len(candidates) + 1)}
            candidates = [port for port in candidates if port.epoll is not None and port.epoll.fileno() in ready]
        waiting = [port for port in candidates if port not in self._order]
        fresh = [(head[0], index) for index, port in enumerate(waiting) if (head := port.next()) is not None]
        self._order += [waiting[index] for _, index in sorted(fresh)]

    def next(self) -> tuple[End, Port] | None:
        """The next message of the set: (the end where it waits, its port)."""
        self.refresh()
        while self._order:
            port = self._order[0]
            head = port.next()
            if head is not None:
                return head[1], port
            del self._order[0]
        return None
