"""A descriptor that is readable while a port has a message, or as long as it is told to be."""

# What must never happen here: a message received. The set is only watched.

from __future__ import annotations

from machrv.kernel import Readiness
from machrv.message import Message
from machrv.rights.kinds import ReceiveRight
from machrv.rights.sets import PortSet


class Bell(Readiness):
    """A descriptor of a set of two: the port, which stays its owner's, and one that has a message until `hush`.

    An end of a channel that holds messages which it has taken in already has one in place of the port's own descriptor.
    """

    __slots__ = ("_both", "_ringing")

    def __init__(self, port: ReceiveRight) -> None:
        """Raises MachError where the system lacks room."""
        self._both = PortSet.allocate(port.kernel)
        self._ringing: ReceiveRight | None = None
        try:
            self._ringing = ReceiveRight.allocate(kernel=port.kernel)
            with self._ringing.make_send_once() as once:
                once.send(Message(), timeout=0)
            for member in (port, self._ringing):
                # Not `insert`: nobody receives from the set, so what the kernel tells the port comes to the port.
                port.kernel.mach_port_insert_member(member.name, self._both.name)
            self._both.fileno()
        except BaseException:
            self.close()
            raise

    def hush(self) -> None:
        """From now on, readable for what is in the port alone. Idempotent."""
        if self._ringing is not None:
            self._ringing.close()

    def fileno(self) -> int:
        """See `Readiness.fileno`."""
        return -1 if self._both.closed else self._both.fileno()

    def close(self) -> None:
        """See `Readiness.close`."""
        self.hush()
        self._both.close()
