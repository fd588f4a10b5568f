"""The calls of <mach/mach_port.h> on one space: `osfmk/ipc/mach_port.c` and `ipc_right.c` (xnu-7195), call by call.

What belongs here: what each call checks, and in which order. What must never happen here: messages, waiting, sockets.
Every method takes the space's lock itself, as a `Call`.
"""

from __future__ import annotations

from machrv._mach import lib

from machrv.errors import MachError, ReentryError
from machrv.kernel.linux.copyin import COPY_SEND, KIND_OF, MAKE_SEND, Taken
from machrv.kernel.linux.entry import Entry
from machrv.kernel.linux.port import PORT_SEND_ONCE, Port
from machrv.kernel.linux.pset import PortSet
from machrv.kernel.linux.members import Members
from machrv.kernel.linux.space import (
    DEAD,
    DEAD_NAME,
    NULL,
    PORT_SET,
    RECEIVE,
    SEND,
    SEND_RIGHTS,
)
from machrv.kernel.linux.transit import Right

_RIGHT_SEND = lib.MACH_PORT_RIGHT_SEND
_RIGHT_RECEIVE = lib.MACH_PORT_RIGHT_RECEIVE
_RIGHT_SEND_ONCE = lib.MACH_PORT_RIGHT_SEND_ONCE
_RIGHT_PORT_SET = lib.MACH_PORT_RIGHT_PORT_SET
_RIGHT_DEAD_NAME = lib.MACH_PORT_RIGHT_DEAD_NAME
_RIGHTS = 6  # MACH_PORT_RIGHT_NUMBER
_UREFS_MAX = lib.MACH_PORT_UREFS_MAX


class Calls(Members):
    """A space with its calls."""

    # -- names --------------------------------------------------------------------------------------------------------

    def mach_port_allocate(self, right: int) -> int:
        """See `Kernel.mach_port_allocate`."""
        with self._call:
            if right not in (_RIGHT_RECEIVE, _RIGHT_PORT_SET, _RIGHT_DEAD_NAME):
                raise MachError(lib.KERN_INVALID_VALUE, "mach_port_allocate")
            entry = self._table.allocate()
            if right == _RIGHT_RECEIVE:
                self._new_port(entry)
            elif right == _RIGHT_PORT_SET:
                entry.type, entry.pset = PORT_SET, PortSet()
            else:
                entry.type, entry.urefs = DEAD_NAME, 1
            return entry.name

    def _new_port(self, entry: Entry, id: bytes | None = None) -> Port:
        port = Port(id)
        entry.type, entry.port, port.name, port.kick = RECEIVE, port, entry.name, self._kick
        self._ports[port.id] = port
        return port

    def mach_port_type(self, name: int) -> int:
        """See `Kernel.mach_port_type`."""
        with self._call:
            if name == DEAD:
                return int(DEAD_NAME)
            entry = self._lookup(name, "mach_port_type")
            try:
                self._died(entry)
            except OSError:
                pass  # There is no memory to look with: it is what it was. This call has no such answer to give.
            return self._type_of(entry)

    @staticmethod
    def _type_of(entry: Entry) -> int:
        return entry.type | (int(lib.MACH_PORT_TYPE_DNREQUEST) if entry.request is not None else 0)

    def mach_port_names(self) -> list[tuple[int, int]]:
        """See `Kernel.mach_port_names`."""
        with self._call:
            self._check_all()
            return [(name, self._type_of(entry)) for name, entry in self._entries.items()]

    def mach_port_get_refs(self, name: int, right: int) -> int:
        """See `Kernel.mach_port_get_refs`."""
        operation = "mach_port_get_refs"
        with self._call:
            if not 0 <= right < _RIGHTS:
                raise MachError(lib.KERN_INVALID_VALUE, operation)
            if name in (NULL, DEAD):
                if right in (_RIGHT_SEND, _RIGHT_SEND_ONCE):
                    return 1
                raise MachError(lib.KERN_INVALID_NAME, operation)
            entry = self._lookup(name, operation)
            self._died(entry)
            if not entry.type & 1 << 16 + right:
                return 0
            return entry.urefs if right in (_RIGHT_SEND, _RIGHT_DEAD_NAME) else 1

    # -- giving up ----------------------------------------------------------------------------------------------------

    def _deallocate(self, name: int) -> None:
        try:
            self._deallocate_now(name)
        except ReentryError:
            self._deferred.append((self.mach_port_deallocate, (name,)))

    def _deallocate_now(self, name: int) -> None:
        with self._call:
            if name in (NULL, DEAD):
                return
            entry = self._lookup(name, "mach_port_deallocate")
            if entry.type == PORT_SET:
                self._destroy_set(entry)
                return
            if entry.request is not None:
                self._died(entry)  # else a dead name and a live right give up a reference in the same way
            if not entry.type & (DEAD_NAME | SEND_RIGHTS):
                raise MachError(lib.KERN_INVALID_RIGHT, "mach_port_deallocate")
            if entry.urefs > 1:
                entry.drop_uref()
            elif entry.type & SEND:
                self._end_send(entry)
            else:
                self._free(entry)

    def mach_port_destroy(self, name: int) -> None:
        """See `Kernel.mach_port_destroy`."""
        try:
            self._destroy(name)
        except ReentryError:
            self._deferred.append((self.mach_port_destroy, (name,)))

    def _destroy(self, name: int) -> None:
        with self._call:
            if name in (NULL, DEAD):
                return
            entry = self._lookup(name, "mach_port_destroy")
            if entry.type == PORT_SET:
                self._destroy_set(entry)
                return
            if entry.request is not None:
                self._died(entry)
            self._give_up(entry, bool(entry.type & SEND))

    def _give_up(self, entry: Entry, check_senders: bool) -> None:
        """A name and all that it stands for. PORT_DELETED comes last (ipc_right_destroy)."""
        port, request = entry.port, entry.request
        if request is not None and entry.fd >= 0:
            self._unwatch(entry.fd)
        entry.port = entry.request = None
        self._free(entry)
        if port is not None:
            nsrequest, mscount = None, port.mscount
            if (
                check_senders
                and port.nsrequest is not None
                and port.ns_since != port.made
                and not self._has_senders(port)
            ):
                nsrequest, port.nsrequest = port.nsrequest, None
            self._destroy_port(port)
            if nsrequest is not None:
                self._notify_no_senders(nsrequest, mscount)
        if request is not None:
            self._notify_port_deleted(request, entry.name)

    def mach_port_mod_refs(self, name: int, right: int, delta: int) -> None:
        """See `Kernel.mach_port_mod_refs`."""
        try:
            self._mod_refs(name, right, delta)
        except ReentryError:
            self._deferred.append((self.mach_port_mod_refs, (name, right, delta)))

    def _mod_refs(self, name: int, right: int, delta: int) -> None:
        operation = "mach_port_mod_refs"
        with self._call:
            if not 0 <= right < _RIGHTS:
                raise MachError(lib.KERN_INVALID_VALUE, operation)
            if name in (NULL, DEAD):
                if right in (_RIGHT_SEND, _RIGHT_SEND_ONCE):
                    return
                raise MachError(lib.KERN_INVALID_NAME, operation)
            entry = self._lookup(name, operation)
            self._died(entry)
            if right > _RIGHT_DEAD_NAME or not entry.type & 1 << 16 + right:
                raise MachError(lib.KERN_INVALID_RIGHT, operation)
            if right in (_RIGHT_SEND, _RIGHT_DEAD_NAME):
                self._add_urefs(entry, right, delta)
            elif delta not in (0, -1):
                raise MachError(lib.KERN_INVALID_VALUE, operation)
            elif delta == -1:
                self._end_single(entry, right)

    def _add_urefs(self, entry: Entry, right: int, delta: int) -> None:
        """User references stay between 1 and the limit; at the limit they stick, but for giving up all at once."""
        urefs = entry.urefs
        if not -_UREFS_MAX <= delta <= _UREFS_MAX:
            raise MachError(lib.KERN_INVALID_VALUE, "mach_port_mod_refs")
        if urefs == _UREFS_MAX:
            if delta != -_UREFS_MAX:
                return
        elif urefs + delta < 0:
            raise MachError(lib.KERN_INVALID_VALUE, "mach_port_mod_refs")
        urefs = min(urefs + delta, _UREFS_MAX)
        if urefs:
            entry.urefs = urefs
        elif right == _RIGHT_SEND:
            self._end_send(entry)
        else:
            self._free(entry)

    def _end_single(self, entry: Entry, right: int) -> None:
        if right == _RIGHT_PORT_SET:
            self._destroy_set(entry)
        elif right == _RIGHT_SEND_ONCE:
            self._free(entry)
        else:
            self._end_receive(entry)

    def _end_receive(self, entry: Entry) -> None:
        """Give the receive right up; a send right under the same name is one to a dead port then."""
        port = entry.port
        assert port is not None
        if not entry.type & SEND:
            self._give_up(entry, False)
            return
        if port.pdrequest is not None:
            # The port lives on in the notification, and the name keeps its send right to it.
            try:
                self._give_socket(entry, port)
            except OSError as error:
                raise MachError(lib.KERN_RESOURCE_SHORTAGE, "mach_port_mod_refs") from error
            entry.type &= ~RECEIVE
            entry.port = None
            self._remember_id(entry)
            self._watch_entry(entry)
            self._destroy_port(port)
            return
        entry.port = None
        request, entry.request = entry.request, None
        self._close_socket(entry)
        entry.type = DEAD_NAME
        if request is not None:
            entry.add_urefs()
        self._destroy_port(port)
        if request is not None:
            self._notify_dead_name(request, entry.name)

    # -- moving within the space --------------------------------------------------------------------------------------

    def mach_port_insert_right(self, name: int, poly: int, disposition: int) -> None:
        """See `Kernel.mach_port_insert_right`."""
        operation = "mach_port_insert_right"
        with self._call:
            if name == poly and disposition in (MAKE_SEND, COPY_SEND):
                self._insert_send(name, disposition)
                return
            entry = self._lookup(poly, operation)
            right, kind = self._extract(entry, disposition, operation)
            try:
                self._copyout_name(right, kind, name)
            except MachError:
                self._release(right)
                raise

    def _insert_send(self, name: int, disposition: int) -> None:
        """ipc_object_insert_send_right: one user reference more where the right stands already."""
        operation = "mach_port_insert_right"
        entry = self._lookup(name, operation)
        if self._died(entry) or entry.type == DEAD_NAME:
            raise MachError(lib.KERN_INVALID_CAPABILITY, operation)
        if disposition == MAKE_SEND:
            port = entry.port
            if port is None:
                raise MachError(lib.KERN_INVALID_RIGHT, operation)
            port.count_made()
            entry.type |= SEND
        elif not entry.type & SEND:
            raise MachError(lib.KERN_INVALID_RIGHT, operation)
        entry.add_urefs()

    def _extract(self, entry: Entry, disposition: int, operation: str) -> tuple[Right, int]:
        taken = Taken()
        try:
            right = self._copyin(entry, disposition, taken)
        except OSError as error:
            self._revoke(taken)
            raise MachError(lib.KERN_RESOURCE_SHORTAGE, operation) from error
        if right is None:
            raise MachError(lib.KERN_INVALID_RIGHT, operation)
        if right.port is not None:
            self._detach_port(right.port)
        return self._own(right, taken), KIND_OF[disposition]

    def _copyout_name(self, right: Right, kind: int, name: int) -> None:
        """ipc_object_copyout_name: under this name or not at all."""
        operation = "mach_port_insert_right"
        if name in (NULL, DEAD):
            raise MachError(lib.KERN_INVALID_VALUE, operation)
        if right.fd < 0 and right.port is None:
            raise MachError(lib.KERN_INVALID_CAPABILITY, operation)
        entry = self._entries.get(name)
        holder = self._holder(right) if kind != PORT_SEND_ONCE else None
        if holder is not None and holder.name != name:
            raise MachError(lib.KERN_RIGHT_EXISTS, operation)
        if holder is None and entry is not None:
            raise MachError(lib.KERN_NAME_EXISTS, operation)
        if holder is None:
            self._table.allocate_name(name)
        self._copyout(right, name)

    def mach_port_extract_right(self, name: int, disposition: int) -> tuple[int, int]:
        """See `Kernel.mach_port_extract_right`."""
        operation = "mach_port_extract_right"
        with self._call:
            if disposition not in KIND_OF:
                raise MachError(lib.KERN_INVALID_VALUE, operation)
            if name in (NULL, DEAD):
                raise MachError(lib.KERN_INVALID_RIGHT, operation)
            right, kind = self._extract(self._lookup(name, operation), disposition, operation)
            return self._copyout(right), kind
