"""What a kernel tells of a receive right: `PortStatus`.

What belongs here: that value. What must never happen here: an import of this module by anybody who does not ask for one;
what it is made of costs a child as much as the rest of the interface.
"""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    class _PortStatus(NamedTuple):
        pset: int
        seqno: int
        mscount: int
        qlimit: int
        msgcount: int
        sorights: int
        srights: int
        pdrequest: int
        nsrequest: int
        flags: int

else:  # The same without `typing`.
    _PortStatus = namedtuple(
        "PortStatus", "pset seqno mscount qlimit msgcount sorights srights pdrequest nsrequest flags"
    )


class PortStatus(_PortStatus):
    """What mach_port_get_attributes(MACH_PORT_RECEIVE_STATUS) tells of a receive right.

    `pset` counts the sets that the port is in, `seqno` is the next message's, `mscount` the send rights made since it
    was last reset, `msgcount` the messages waiting (where the kernel can tell; otherwise 0 or 1), `sorights` the
    send-once rights in existence; `srights`, `pdrequest` and `nsrequest` are 0 or 1, as in <mach/port.h>.
    """

    __slots__ = ()
