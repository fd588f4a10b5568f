"""Port sets: which receive rights are received from together.

What belongs here: membership, and the set's readiness. What must never happen here: names, messages. The caller holds
the space's lock.
"""

from __future__ import annotations

import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.kernel.linux.port import End, Port


class PortSet:
    """A set of ports of one space. A port may be in several sets; it leaves them all when its receive right moves."""

    __slots__ = ("members", "epoll")

    def __init__(self) -> None:
        self.members: list[Port] = []
        self.epoll: select.epoll | None = None

    def insert(self, port: Port) -> None:
        """Put a port in that is not a member yet."""
        self.members.append(port)
        port.sets.append(self)
        port.stamp()
        if self.epoll is not None:
            self.epoll.register(port.watch(), select.EPOLLIN)

    def remove(self, port: Port) -> None:
        """Take a member out."""
        self.members.remove(port)
        port.sets.remove(self)
        if self.epoll is not None and port.epoll is not None:
            self.epoll.unregister(port.epoll)

    def watch(self) -> select.epoll:
        """The descriptor that becomes readable with any member."""
        if self.epoll is None:
            self.epoll = select.epoll()
            for port in self.members:
                self.epoll.register(port.watch(), select.EPOLLIN)
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

    def next(self) -> tuple[int, End, Port] | None:
        """The oldest message of any member: (its time, its end, its port)."""
        best: tuple[int, End, Port] | None = None
        for port in self.members:
            head = port.next()
            if head is not None and (best is None or head[0] < best[0]):
                best = (*head, port)
        return best
