"""The names of a port space: what each one stands for, and which are free.

What belongs here: entries, and giving names out and taking them back. What must never happen here: a system call, or
anything that knows what a right does. The caller holds the space's lock.
"""

from __future__ import annotations

from machrv._mach import lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from machrv.kernel.linux import Beginning
    from machrv.kernel.linux.port import Port
    from machrv.kernel.linux.pset import PortSet
    from machrv.kernel.linux.transit import Creator, Right

#: at this count, references are no longer counted (MACH_PORT_UREFS_MAX)
UREFS_MAX = int(lib.MACH_PORT_UREFS_MAX)


class Entry:
    """One name: its MACH_PORT_TYPE_* bits, its user references, and the objects behind it."""

    __slots__ = ("name", "type", "urefs", "port", "fd", "id", "creator", "is_file", "request", "pset", "native")

    def __init__(self, name: int) -> None:
        self.name: int = name
        self.type: int = 0
        self.urefs: int = 0
        #: the receive right's port
        self.port: Port | None = None
        #: the socket of a send or send-once right (or the file of a fileport); -1: none (yet)
        self.fd: int = -1
        #: the id of the port that the send right says it is for, b"" where it says none
        self.id: bytes = b""
        #: who made the socket, once somebody wanted to know
        self.creator: Creator | None = None
        self.is_file: bool = False
        #: where the DEAD_NAME notification goes
        self.request: Right | None = None
        self.pset: PortSet | None = None
        #: what C sends to again (machrv_port *), once somebody has sent to another space's port
        self.native: Any = None

    def add_urefs(self, count: int = 1) -> None:
        """So many user references more; at the limit the count stays where it is, for ever (osfmk/ipc/ipc_right.c)."""
        self.urefs = min(self.urefs + count, UREFS_MAX)

    def drop_uref(self) -> None:
        """One user reference less, of more than one; a count at the limit has been lost track of and stays."""
        if self.urefs < UREFS_MAX:
            self.urefs -= 1


class NameTable:
    """The entries of one space by name."""

    __slots__ = ("entries", "take", "give_back", "_space")

    def __init__(self, space: Beginning) -> None:
        self.entries: dict[int, Entry] = {}
        self._space = space
        #: a fresh name, which has no entry yet
        self.take: Callable[[], int] = space._next_name
        #: take a name back that has no entry
        self.give_back: Callable[[int], None] = space._give_back

    def allocate(self) -> Entry:
        """An entry under a fresh name."""
        name = self.take()
        entry = self.entries[name] = Entry(name)
        return entry

    def allocate_name(self, name: int) -> Entry:
        """An entry under a name that the caller chose and that is free."""
        index = name >> 8
        space = self._space
        if index >= space._next_index:
            space._next_index = index + 1
        else:
            space._freed = [freed for freed in space._freed if freed >> 8 != index]
        entry = Entry(name)
        self.entries[name] = entry
        return entry

    def free(self, entry: Entry) -> None:
        """Take the name back. What stood behind it is the caller's business."""
        del self.entries[entry.name]
        entry.type = 0
        self.give_back(entry.name)
