"""What stands behind the names of a space: looking at it, finding out that a port has died, giving it up.

What belongs here: entries. What must never happen here: messages and waiting. Methods with a leading underscore expect the
space's lock to be held.

Rights are sockets. A send right under a name of its own keeps one; a space's send rights to a port that it receives
from itself are only a count, until one leaves.
"""

from __future__ import annotations

import os

from machrv._mach import lib

from machrv.errors import MachError
from machrv.kernel.linux.answers import close, hangups
from machrv.kernel.linux.asking import Asking
from machrv.kernel.linux.entry import Entry
from machrv.kernel.linux.identity import Identity
from machrv.kernel.linux.port import PORT_SEND, PORT_SEND_ONCE, Port
from machrv.kernel.linux.space import DEAD, DEAD_NAME, NULL, RECEIVE, SEND, SEND_ONCE
from machrv.kernel.linux.transit import Right

#: where receive rights are on their way to, for the ports that this process knows: a right sent to itself, or to a port
#: whose own right waits in its queue, could never be received again (ipc_port_check_circularity)
destinations: dict[bytes, bytes] = {}


class Held(Asking):
    """A space that knows what it holds."""

    def _furnish(self) -> None:
        super()._furnish()
        self._identity = Identity(self._number, self._native)
        self._serials = 0
        self._serial_prefix = os.urandom(4).hex().encode()

    # -- provided by the layers above ---------------------------------------------------------------------------------

    def _notify_dead_name(self, to: Right, name: int) -> None:
        raise NotImplementedError

    def _notify_port_deleted(self, to: Right, name: int) -> None:
        raise NotImplementedError

    def _unwatch(self, fd: int) -> None:
        raise NotImplementedError

    def _watch_entry(self, entry: Entry) -> None:
        raise NotImplementedError

    def _check_senders(self, port: Port) -> None:
        raise NotImplementedError

    def _destroy_port(self, port: Port) -> None:
        raise NotImplementedError

    # -- looking ------------------------------------------------------------------------------------------------------

    def _lookup(self, name: int, operation: str) -> Entry:
        entry = self._entries.get(name)
        if entry is None:
            raise MachError(lib.KERN_INVALID_NAME, operation)
        return entry

    def _receive_right(self, name: int, operation: str) -> Port:
        if name in (NULL, DEAD):
            raise MachError(lib.KERN_INVALID_RIGHT, operation)
        port = self._lookup(name, operation).port
        if port is None:
            raise MachError(lib.KERN_INVALID_RIGHT, operation)
        return port

    def _died(self, entry: Entry) -> bool:
        """Whether the port of a send or send-once right has died; if so the entry is a dead name from now on."""
        if entry.fd < 0 or entry.is_file or entry.type & RECEIVE or not any(hangups([entry.fd])):
            return False
        self._bury(entry)
        return True

    def _check_all(self) -> None:
        """Find all send rights whose ports have died."""
        entries = [e for e in self._entries.values() if e.fd >= 0 and not e.is_file and not e.type & RECEIVE]
        for entry, gone in zip(entries, hangups([e.fd for e in entries])):
            if gone:
                self._bury(entry)

    def _bury(self, entry: Entry) -> None:
        """Make a dead name of an entry whose port has died; a request for it brings a reference more."""
        request = entry.request
        self._forget_id(entry)
        self._close_socket(entry)
        entry.type, entry.request, entry.port = DEAD_NAME, None, None
        if request is not None:
            entry.add_urefs()
            self._notify_dead_name(request, entry.name)

    # -- making and giving up -----------------------------------------------------------------------------------------

    def _serial(self) -> bytes:
        self._serials += 1
        return b"%b%x" % (self._serial_prefix, self._serials)

    def _give_socket(self, entry: Entry, port: Port) -> None:
        """The first right to leave a port's own name: from here on that has a socket, which the copies share."""
        if entry.fd < 0:
            entry.fd = port.make(PORT_SEND, self._serial())[0]
            entry.id = port.id
            entry.creator = None

    def _close_socket(self, entry: Entry) -> None:
        fd, entry.fd = entry.fd, -1
        if fd >= 0:
            if entry.request is not None:
                self._unwatch(fd)
            if entry.type & SEND_ONCE:
                self._destroy_once(fd)
            else:
                close(fd)

    def _release(self, right: Right) -> None:
        """Destroy a right that was on its way."""
        if right.port is not None:
            self._destroy_port(right.port)
        elif right.fd >= 0 and not right.borrowed:
            if right.kind == PORT_SEND_ONCE:
                self._destroy_once(right.fd)
            else:
                close(right.fd)
            right.fd = -1

    def _free(self, entry: Entry) -> None:
        """Give a name up with what it still has of its own, and tell who asked about it."""
        request = entry.request
        self._forget_id(entry)
        self._close_socket(entry)
        entry.request = None
        self._table.free(entry)
        if request is not None:
            self._notify_port_deleted(request, entry.name)

    def _end_send(self, entry: Entry) -> None:
        """The last send reference of an entry is gone."""
        port = entry.port
        if port is None:
            self._free(entry)
            return
        entry.urefs = 0
        entry.type &= ~SEND
        self._close_socket(entry)
        self._check_senders(port)
