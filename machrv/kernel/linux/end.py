"""The receiving end of one right.

What belongs here: what is known of the socket, and whether its messages bear time stamps. What must never happen here:
an order among ends, which is their port's.
"""

from __future__ import annotations

from machrv._mach import lib

from machrv.kernel.linux.answers import check
from machrv.kernel.linux.transit import own_address

LISTENER = 0


class End:
    """The receiving end of one right: `kind` is PORT_SEND, PORT_SEND_ONCE, or LISTENER for a bootstrap name."""

    __slots__ = ("fd", "kind", "address", "queued", "stamped", "late", "trusted")

    def __init__(self, fd: int, kind: int, address: bytes = b"", trusted: bool = False, stamped: bool = False) -> None:
        self.fd: int = fd
        self.kind: int = kind
        #: what its socket is bound to (a listener's: the path), b"" as long as nobody has asked
        self.address: bytes = address
        #: it stands in its port's heap
        self.queued: bool = False
        #: the kernel stamps what is sent to it
        self.stamped: bool = stamped or kind == LISTENER
        #: how many of the bytes that wait were sent before it did
        self.late: int = 0
        #: the other end has never left this space
        self.trusted: bool = trusted

    def bound_to(self) -> bytes:
        """The address of its socket."""
        if not self.address:
            self.address = own_address(self.fd)
        return self.address

    def __lt__(self, other: End) -> bool:
        return self.fd < other.fd

    def stamp(self) -> None:
        """From now on the kernel stamps the messages to this end."""
        if not self.stamped:
            check(lib.machrv_stamp(self.fd))
            self.stamped = True
            self.late = max(0, lib.machrv_waiting(self.fd))

    def received(self, length: int) -> None:
        """A packet of `length` bytes has been taken from this end."""
        if self.late:
            self.late = max(0, self.late - length)
