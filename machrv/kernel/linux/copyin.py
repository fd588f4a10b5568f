"""Rights going out of names and into a message, by the rules of XNU's `osfmk/ipc/ipc_right.c` (xnu-7195).

What belongs here: `_copyin`, and taking it back. What must never happen here: sending. Methods with a leading
underscore expect the space's lock to be held.

Copying in is revocable: a message that cannot be sent after all has taken nothing. So sockets are only borrowed until
`_commit`, which closes those that have left, frees the names and tells who asked about them.
"""

from __future__ import annotations

from _operator import attrgetter  # Not from operator, whose other half nobody uses.

from machrv._mach import lib

from machrv.kernel.linux.entry import Entry
from machrv.kernel.linux.answers import close
from machrv.kernel.linux.end import End
from machrv.kernel.linux.port import PORT_SEND, PORT_SEND_ONCE, Port
from machrv.kernel.linux.held import Held
from machrv.kernel.linux.space import DEAD_NAME, RECEIVE, SEND, SEND_ONCE, SEND_RIGHTS
from machrv.kernel.linux.transit import DEAD_RIGHT, Right

PORT_RECEIVE = lib.MACH_MSG_TYPE_PORT_RECEIVE
MOVE_RECEIVE = lib.MACH_MSG_TYPE_MOVE_RECEIVE
MOVE_SEND = lib.MACH_MSG_TYPE_MOVE_SEND
MOVE_SEND_ONCE = lib.MACH_MSG_TYPE_MOVE_SEND_ONCE
COPY_SEND = lib.MACH_MSG_TYPE_COPY_SEND
MAKE_SEND = lib.MACH_MSG_TYPE_MAKE_SEND
MAKE_SEND_ONCE = lib.MACH_MSG_TYPE_MAKE_SEND_ONCE

#: what a disposition becomes on the way (ipc_object_copyin_type)
KIND_OF: dict[int, int] = {
    MOVE_RECEIVE: PORT_RECEIVE,
    MOVE_SEND: PORT_SEND,
    COPY_SEND: PORT_SEND,
    MAKE_SEND: PORT_SEND,
    MOVE_SEND_ONCE: PORT_SEND_ONCE,
    MAKE_SEND_ONCE: PORT_SEND_ONCE,
}


_saved = attrgetter(*Entry.__slots__)


class Taken:
    """What one call has taken out of names so far."""

    __slots__ = ("entries", "made", "mscounts", "leaving", "deleted", "moved", "announced")

    def __init__(self) -> None:
        #: the touched entries as they were before
        self.entries: dict[Entry, tuple[object, ...]] = {}
        #: rights made, each with its receiving end and the descriptor that leaves
        self.made: list[tuple[Port, End, int]] = []
        self.mscounts: dict[Port, int] = {}
        #: descriptors that have left their names
        self.leaving: list[int] = []
        #: PORT_DELETED notifications due
        self.deleted: list[tuple[Right, int]] = []
        #: ports whose receive right is leaving
        self.moved: list[Port] = []
        self.announced: bool = False

    def save(self, entry: Entry) -> None:
        """Remember an entry before its first change."""
        if entry not in self.entries:
            self.entries[entry] = _saved(entry)


class CopyIn(Held):
    """A space that rights can be taken out of."""

    def _copyin(
        self, entry: Entry, disposition: int, taken: Taken, dead_ok: bool = True, alive: bool = False
    ) -> Right | None:
        """Take a right out of a name. None stands for KERN_INVALID_RIGHT. Raises OSError where no socket can be made.

        The order of the checks is ipc_right_copyin's. Without `dead_ok` a dead name is invalid too;
        with `alive` the caller finds out in another way whether the port has died.
        """
        port = entry.port
        if disposition == MAKE_SEND or disposition == MAKE_SEND_ONCE:
            return None if port is None else self._make(port, KIND_OF[disposition], taken)
        if disposition == MOVE_RECEIVE:
            return None if port is None else self._take_receive(entry, port, taken)
        if disposition not in KIND_OF:
            return None
        if entry.type & SEND_RIGHTS and not alive and entry not in taken.entries:
            self._died(entry)  # Not once something was taken out of it: what was taken is its socket.
        if entry.type & DEAD_NAME:
            if not dead_ok:
                return None
            if disposition != COPY_SEND:
                taken.save(entry)
                if entry.urefs == 1:
                    entry.type = 0
                entry.drop_uref()
            return DEAD_RIGHT
        if disposition == MOVE_SEND_ONCE:
            if not entry.type & SEND_ONCE:
                return None
            taken.save(entry)
            right = Right(PORT_SEND_ONCE, entry.fd, borrowed=True, id=entry.id)
            taken.leaving.append(entry.fd)
            self._empty(entry, taken)
            return right
        return self._take_send(entry, disposition, taken) if entry.type & SEND else None

    def _make(self, port: Port, kind: int, taken: Taken) -> Right:
        """A right of its own for a port that is received from here."""
        fd, end = port.make(kind, self._serial())
        taken.made.append((port, end, fd))
        if kind == PORT_SEND:
            taken.mscounts.setdefault(port, port.mscount)
            port.count_made()
        taken.leaving.append(fd)
        return Right(kind, fd, borrowed=True, id=port.id)

    def _take_send(self, entry: Entry, disposition: int, taken: Taken) -> Right:
        if entry.port is not None:
            self._give_socket(entry, entry.port)
        taken.save(entry)
        right = Right(PORT_SEND, entry.fd, is_file=entry.is_file, borrowed=True, id=entry.id)
        if disposition == MOVE_SEND:
            if entry.urefs > 1:
                entry.drop_uref()
            else:
                taken.leaving.append(entry.fd)
                if entry.port is None:
                    self._empty(entry, taken)
                else:
                    entry.urefs, entry.fd = 0, -1
                    entry.type &= ~SEND
        return right

    def _take_receive(self, entry: Entry, port: Port, taken: Taken) -> Right:
        port.accept_pending()  # who has looked it up has made a right before it moved
        if entry.type & SEND:
            self._give_socket(entry, port)
        taken.save(entry)
        taken.moved.append(port)
        del self._ports[port.id]
        if entry.type & SEND:
            entry.type &= ~RECEIVE
            entry.port = None
            self._remember_id(entry)
            self._watch_entry(entry)
        else:
            self._empty(entry, taken)
        return Right(PORT_RECEIVE, port=port, id=port.id)

    def _empty(self, entry: Entry, taken: Taken) -> None:
        """The name has nothing left; who asked about it will be told if it comes to that."""
        if entry.request is not None:
            taken.deleted.append((entry.request, entry.name))
        self._forget_id(entry)
        entry.type = entry.urefs = 0
        entry.fd, entry.port, entry.request = -1, None, None

    def _reap(self, entry: Entry) -> None:
        """An emptied name no longer exists, even before the message has gone (ipc_object_copyin)."""
        if not entry.type:
            self._entries.pop(entry.name, None)

    def _announce(self, taken: Taken) -> None:
        """The names that were emptied are gone, and who asked about them is told: before anything else comes of it."""
        for entry in taken.entries:
            if not entry.type and not taken.announced:
                self._entries[entry.name] = entry
                self._table.free(entry)
        taken.announced = True
        for right, name in taken.deleted:
            self._notify_port_deleted(right, name)
        taken.deleted.clear()

    def _commit(self, taken: Taken) -> None:
        """The message has gone, or its rights were destroyed."""
        self._announce(taken)
        self._unwatch_leaving(taken)
        for fd in taken.leaving:
            close(fd)
        for entry in taken.entries:
            if entry.port is not None:
                self._check_senders(entry.port)
        for port, end, _ in taken.made:
            if end.kind == PORT_SEND and port.name:
                self._check_senders(port)

    def _unwatch_leaving(self, taken: Taken) -> None:
        for saved in taken.entries.values():
            if saved[_REQUEST] is not None and saved[_FD] in taken.leaving:
                self._unwatch(saved[_FD])  # type: ignore[arg-type]

    def _revoke(self, taken: Taken) -> None:
        """The message stays: everything is as it was before."""
        for port, end, fd in taken.made:
            if end.fd in port.ends:
                port.drop(end)
            close(fd)
        for port, mscount in taken.mscounts.items():
            port.mscount = mscount
        for port in taken.moved:
            self._ports[port.id] = port
        for entry, saved in taken.entries.items():
            self._forget_id(entry)
            for slot, value in zip(Entry.__slots__, saved):
                setattr(entry, slot, value)
            self._entries[entry.name] = entry
            if entry.port is None:
                self._remember_id(entry)


_FD = Entry.__slots__.index("fd")
_REQUEST = Entry.__slots__.index("request")
