"""Port sets: receiving from many ports at once."""

# What must never happen here: a member that a set takes from its owner.

from __future__ import annotations

from machrv.constants import MACH_PORT_RIGHT_PORT_SET
from machrv.kernel import current
from machrv.rights.incoming import ReceivedMessage
from machrv.rights.kinds import ReceiveRight, _Receiver, received

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

    from machrv.kernel import Kernel


class PortSet(_Receiver):
    """A port set: receives from every member. The members stay their owners'."""

    __slots__ = ()
    right: ClassVar[int] = MACH_PORT_RIGHT_PORT_SET

    def receive(self, timeout: float | None = None) -> ReceivedMessage:
        """The next message, with an audit trailer; out-of-line memory is copied in and given back.

        `timeout` in seconds; None waits for ever, 0 does not wait. The message owns the rights that it brought, in
        `rights` and `reply_right`: use it in a `with`. Raises ReceiveTimeout, and MachError (MACH_RCV_PORT_DIED or
        MACH_RCV_PORT_CHANGED if the right goes away meanwhile).
        """
        return received(self._kernel, self.name, timeout)

    @classmethod
    def allocate(cls, kernel: Kernel | None = None) -> PortSet:
        """A new, empty set."""
        kernel = kernel if kernel is not None else current()
        return cls(kernel.mach_port_allocate(MACH_PORT_RIGHT_PORT_SET), kernel)

    def insert(self, member: ReceiveRight) -> None:
        """Add a port, which may be in other sets too. Raises MachError (KERN_ALREADY_IN_SET)."""
        self._kernel.mach_port_insert_member(member.name, self.name)
        member._shared = True  # What the kernel tells the member may come out here.

    def extract(self, member: ReceiveRight) -> None:
        """Take a port out. Raises MachError (KERN_NOT_IN_SET)."""
        self._kernel.mach_port_extract_member(member.name, self.name)
