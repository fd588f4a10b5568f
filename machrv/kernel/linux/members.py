"""Port sets and the attributes of ports, call by call: `osfmk/ipc/mach_port.c` (xnu-7195).

What belongs here: what each of these calls checks, and in which order. What must never happen here: rights. Every method
without a leading underscore takes the space's lock itself, as a `Call`.
"""

from __future__ import annotations

from machrv._mach import lib

from machrv.errors import MachError
from machrv.kernel.linux.entry import Entry
from machrv.kernel.linux.port import PORT_SEND_ONCE, Port
from machrv.kernel.linux.pset import PortSet
from machrv.kernel.linux.receiving import Receiving
from machrv.kernel.linux.space import DEAD, NULL
from machrv.kernel.status import PortStatus


class Members(Receiving):
    """A space with port sets, whose ports have attributes."""

    # -- sets ---------------------------------------------------------------------------------------------------------

    def _port_and_set(self, member: int, pset: int, operation: str) -> tuple[Port, PortSet]:
        entry = self._lookup(member, operation)
        other = self._lookup(pset, operation)
        if entry.port is None or other.pset is None:
            raise MachError(lib.KERN_INVALID_RIGHT, operation)
        return entry.port, other.pset

    def mach_port_move_member(self, member: int, after: int) -> None:
        """See `Kernel.mach_port_move_member`."""
        operation = "mach_port_move_member"
        with self._call:
            if member in (NULL, DEAD) or after == DEAD:
                raise MachError(lib.KERN_INVALID_RIGHT, operation)
            pset = None
            if after == NULL:
                port = self._receive_right(member, operation)
            else:
                if self._lookup(after, operation).pset is None:
                    raise MachError(lib.KERN_INVALID_RIGHT, operation)
                port, pset = self._port_and_set(member, after, operation)
            for old in list(port.sets):
                old.remove(port)
            if pset is not None:
                pset.insert(port)

    def mach_port_insert_member(self, name: int, pset: int) -> None:
        """See `Kernel.mach_port_insert_member`."""
        operation = "mach_port_insert_member"
        with self._call:
            if name in (NULL, DEAD) or pset in (NULL, DEAD):
                raise MachError(lib.KERN_INVALID_RIGHT, operation)
            if self._lookup(pset, operation).pset is None:
                raise MachError(lib.KERN_INVALID_RIGHT, operation)
            port, into = self._port_and_set(name, pset, operation)
            if into in port.sets:
                raise MachError(lib.KERN_ALREADY_IN_SET, operation)
            into.insert(port)

    def mach_port_extract_member(self, name: int, pset: int) -> None:
        """See `Kernel.mach_port_extract_member`."""
        operation = "mach_port_extract_member"
        with self._call:
            if name in (NULL, DEAD) or pset in (NULL, DEAD):
                raise MachError(lib.KERN_INVALID_RIGHT, operation)
            port, out_of = self._port_and_set(name, pset, operation)
            if out_of not in port.sets:
                raise MachError(lib.KERN_NOT_IN_SET, operation)
            out_of.remove(port)

    # -- attributes ---------------------------------------------------------------------------------------------------

    def mach_port_get_attributes(self, name: int, flavor: int) -> PortStatus | int:
        """See `Kernel.mach_port_get_attributes`."""
        operation = "mach_port_get_attributes"
        with self._call:
            if flavor not in (lib.MACH_PORT_LIMITS_INFO, lib.MACH_PORT_RECEIVE_STATUS):
                raise MachError(lib.KERN_INVALID_ARGUMENT, operation)
            port = self._receive_right(name, operation)
            if flavor == lib.MACH_PORT_LIMITS_INFO:
                return port.qlimit
            srights = self._has_senders(port)
            sorights = sum(end.kind == PORT_SEND_ONCE for end in port.ends.values())
            return PortStatus(
                len(port.sets),
                port.seqno,
                port.mscount,
                port.qlimit,
                int(port.next() is not None),
                sorights,
                srights,
                port.pdrequest is not None,
                port.nsrequest is not None,
                0,
            )

    def mach_port_set_attributes(self, name: int, flavor: int, value: int) -> None:
        """See `Kernel.mach_port_set_attributes`."""
        operation = "mach_port_set_attributes"
        with self._call:
            if flavor != lib.MACH_PORT_LIMITS_INFO:
                raise MachError(lib.KERN_INVALID_ARGUMENT, operation)
            if not 0 <= value <= lib.MACH_PORT_QLIMIT_MAX:
                raise MachError(lib.KERN_INVALID_VALUE, operation)
            self._receive_right(name, operation).qlimit = value

    def mach_port_get_context(self, name: int) -> int:
        """See `Kernel.mach_port_get_context`."""
        with self._call:
            return self._receive_right(name, "mach_port_get_context").context

    def mach_port_set_context(self, name: int, context: int) -> None:
        """See `Kernel.mach_port_set_context`."""
        with self._call:
            port = self._receive_right(name, "mach_port_set_context")
            port.context, port.aimed = context & 0xFFFFFFFFFFFFFFFF, None

    def _destroy_set(self, entry: Entry) -> None:
        pset, entry.pset = entry.pset, None
        assert pset is not None
        self._kick()
        for port in list(pset.members):
            pset.remove(port)
        self._end_readers(pset)
        pset.close()
        self._free(entry)
