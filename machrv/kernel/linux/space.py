"""The port space: its names, its lock, and what is put off until nobody is inside.

What belongs here: what every room needs, and a child that only asks needs too. What must never happen here: messages and
waiting. Methods with a leading underscore expect the space's lock to be held.
"""

from __future__ import annotations

from machrv._mach import ffi, lib

from machrv.kernel.linux import Beginning, all_begun
from machrv.kernel.linux.entry import Entry, NameTable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from machrv.kernel.linux.buffer import Buffer
    from machrv.kernel.linux.port import Port

SEND = lib.MACH_PORT_TYPE_SEND
RECEIVE = lib.MACH_PORT_TYPE_RECEIVE
SEND_ONCE = lib.MACH_PORT_TYPE_SEND_ONCE
PORT_SET = lib.MACH_PORT_TYPE_PORT_SET
DEAD_NAME = lib.MACH_PORT_TYPE_DEAD_NAME
SEND_RIGHTS = SEND | SEND_ONCE
NULL = lib.MACH_PORT_NULL
DEAD = lib.MACH_PORT_DEAD


def all_spaces() -> list[Space]:
    """The port spaces of this process, oldest first, but for one that nothing was wanted of yet."""
    return [space for space in all_begun() if isinstance(space, Space)]


class Call:
    """A call on a space: its lock is held, nobody else is inside, notifications that have become due have been sent.

    Where no descriptor is free, KERN_RESOURCE_SHORTAGE. Raises ReentryError if this very thread is inside already.
    """

    __slots__ = ("_space",)

    def __init__(self, space: Space) -> None:
        self._space = space

    def __enter__(self) -> None:
        space = self._space
        space._lock.acquire()
        if space._inside:
            space._lock.release()
            from machrv.errors import ReentryError  # Here, as below: a child where nothing fails has no use for them.

            raise ReentryError(
                "a signal handler has called the kernel in the middle of another call on it: act after the call"
            )
        space._inside = True
        if space._open:
            space._shut()
        if space._fresh:
            space._enter()
        if space._watched:
            try:
                space._pump()
            except BaseException:
                space._inside = False
                space._lock.release()
                raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        space = self._space
        space._inside = False
        space._lock.release()
        if space._deferred:
            space._settle()
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, TimeoutError):
            from machrv.errors import MachError

            raise MachError(lib.KERN_RESOURCE_SHORTAGE, "a mach_port call") from error


class Space(Beginning):
    """The names of one task, and the ports that it receives from."""

    def _furnish(self) -> None:
        """What this room and those above it keep, beyond what there is in a space from the beginning."""
        self._call = Call(self)
        #: plain messages may be sent and received without the lock, and without a look: see `_shut`
        self._open = False
        self._table = NameTable(self)
        self._entries = self._table.entries
        #: entries with a send right and a socket, by the port id that the socket claims
        self._by_id: dict[bytes, list[Entry]] = {}
        #: ports whose receive right is here
        self._ports: dict[bytes, Port] = {}
        #: what deaths are waited for: sockets of entries with a request, ports with one (edge-triggered)
        self._watched: dict[int, Entry | Port | None] = {}
        #: this process, for machrv_receive_plain; of no uid until the first message has told
        self._native: Any = ffi.new("machrv_identity *")
        #: for whoever asks, and takes one out meanwhile. After a fork there are others: these know who this process is
        self._spare: list[Buffer] = []

    if TYPE_CHECKING:  # provided by the rooms above: nothing is watched before they are there

        def _pump(self) -> None: ...

        def _shut(self) -> None: ...

    def _settle(self) -> None:
        """Give up what finalisers wanted to give up in the middle of a call.

        Each is a call, at whose end it is settled again: there only one of all does the work, whatever there is to do.
        """
        while self._deferred and self._settling.acquire(False):
            try:
                while self._deferred:
                    call, arguments = self._deferred.pop(0)
                    try:
                        call(*arguments)
                    except Exception as error:
                        from machrv.errors import MachError

                        if not isinstance(error, MachError):
                            raise  # but for those, as in the finaliser, there is nobody to tell
            finally:
                self._settling.release()

    def _enter(self) -> None:
        """Give every right that nobody has looked at yet the entry that its name stands for."""
        id = ffi.new("char[32]")
        for name in list(self._fresh):
            fd = self._fresh.pop(name, None)
            if fd is None:
                continue  # given up meanwhile
            entry = self._entries[name] = Entry(name)
            entry.type, entry.urefs, entry.fd = SEND_ONCE if fd < 0 else SEND, 1, ~fd if fd < 0 else fd
            if lib.machrv_port_id(entry.fd, id):
                entry.id = bytes(ffi.buffer(id))
            self._remember_id(entry)

    def _remember_id(self, entry: Entry) -> None:
        if entry.id and entry.fd >= 0 and entry.type & SEND:
            self._by_id.setdefault(entry.id, []).append(entry)

    def _forget_id(self, entry: Entry) -> None:
        same = self._by_id.get(entry.id)
        if same is not None and entry in same:
            same.remove(entry)
            if not same:
                del self._by_id[entry.id]

    def _forked(self) -> None:
        """In the child of a fork: rights are not inherited. Nothing may be sent, the parent's rights live on."""
        self._enter()
        for entry in self._entries.values():
            if entry.fd >= 0:
                lib.machrv_close(entry.fd)
        Beginning.__init__(self, self._number)
        self._furnish()
