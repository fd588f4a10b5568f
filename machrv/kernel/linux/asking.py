"""Asking: a whole rendezvous in one call of C, and giving up what came of it.

What belongs here: that short way, for the usual case in a process that has all of a kernel; `Begun` is the one of most
children. What must never happen here: the unusual case. Methods with a leading underscore expect the space's lock to be held
unless they say otherwise.
"""

from __future__ import annotations

from time import monotonic

from machrv._mach import ffi, lib

from machrv.kernel.linux import link_of
from machrv.kernel.linux.buffer import ARRIVED, BEFORE_ID, BODY, KEYED, PORTS, RIGHTS, Buffer
from machrv.kernel.linux.entry import UREFS_MAX
from machrv.kernel.linux.space import SEND, SEND_ONCE, Space

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from machrv.kernel.linux.entry import Entry
    from machrv.kernel.linux.transit import Creator, Right

_PORT_SEND = lib.MACH_MSG_TYPE_PORT_SEND
_SEND_ONCE = lib.MACH_MSG_TYPE_PORT_SEND_ONCE
_ask = lib.machrv_ask
_close = lib.machrv_close
#: the 32-bit word of a message where its descriptors begin, behind their count
_DESCRIPTORS = BODY // 4 + 1
_ONE_SOCKET = (SEND, SEND_ONCE)
_NOTHING = bytes(24)
_MOST = int(lib.MACHRV_MAX_FDS)
#: a reply with one port: header, count, descriptor and key, length of additional data, trailer
_ONE_PORT = BODY + 4 + 16 + 8 + 52


class Asking(Space):
    """A space that can ask at a rendezvous."""

    if TYPE_CHECKING:  # provided by the rooms above, which are loaded when one of these is needed: see `Begun`
        _gate: Any

        def _receive_answer(self, fd: int, result: int, buffer: Buffer, deadline: float) -> bytes: ...
        def _copyout(self, right: Right) -> int: ...
        def _come_home(self, fd: int, id: bytes) -> Entry | None: ...
        def _deallocate(self, name: int) -> None: ...

    def ask(self, service_name: str, message_id: int, timeout: float) -> bytes | None:
        """See `Kernel.ask`."""
        return self.claim(service_name, message_id, timeout, False)  # type: ignore[return-value]  # Not without `ports`.

    def claim(
        self, service_name: str, message_id: int, timeout: float, ports: bool = True
    ) -> bytes | tuple[dict[int, int], bytes | list[int]] | None:
        """See `Kernel.claim`. One call of C, as long as no notification may become due meanwhile.

        `ports`: take a usual reply apart. The answer comes to a socket that is no port's. Takes the lock itself, and not
        while it waits.
        """
        link = None if self._watched else link_of(service_name)
        if link is None:
            return None
        try:
            buffer = self._spare.pop()
        except IndexError:
            buffer = Buffer(self._native, self._gate)
        exchange = buffer.exchange
        owned = True
        try:
            result = _ask(exchange, link, message_id, self._number, timeout)
            if result <= 0:
                if exchange.fd < 0:
                    return None  # Nothing was sent.
                owned = False  # From here on the socket, and what came to it, is looked after there.
                return self._receive_answer(exchange.fd, result, buffer, monotonic() + timeout - exchange.waited)
            # All that it says, at once.
            said = buffer.said_at_once.tolist()
            if result > _ONE_PORT:  # A port is 16 bytes in the message, and two words here.
                said = buffer.said[: KEYED + 2 + (result - _ONE_PORT >> 3)].tolist()
            usual = ports and 0 < said[PORTS] <= _MOST
            if usual or buffer.received.nfds:
                with self._lock:
                    if self._inside:
                        self._call.__enter__()  # which says why not
                    self._inside, owned = True, False
                    try:
                        if usual:
                            names = self._name_ports(buffer, said)
                        else:
                            self._name_rights(buffer, buffer.received.nfds)
                    finally:
                        self._inside = False
            answer: Any = (names, said) if usual else buffer.laid_out[0:result]
        except BaseException:
            if owned:  # a signal handler has raised
                buffer.close()
                if exchange.fd >= 0:
                    lib.machrv_close(exchange.fd)
            raise
        finally:
            if self._deferred:
                self._settle()
        self._spare.append(buffer)
        return answer  # type: ignore[no-any-return]

    def _hand_over(
        self, came: dict[int, Any], token: bytes, timeout: float
    ) -> bytes | tuple[dict[int, int], bytes | list[int]] | None:
        """What `Begun.claim` got, where only all of a kernel can tell what it is. Takes the lock itself."""
        if token:
            from machrv.kernel.linux.transit import Right

            id = ffi.new("char[32]")
            with self._call:
                names = {}
                for key in list(came):
                    fd = came.pop(key)
                    claimed = bytes(ffi.buffer(id)) if lib.machrv_port_id(fd, id) else b""
                    names[key] = self._copyout(Right(_PORT_SEND, fd, id=claimed))
                return names, token
        result, answer, waited, told, message = came.pop(-1)
        buffer = Buffer(self._native, self._gate)
        if result <= 0:
            ffi.memmove(buffer.received, told, len(told))
            return self._receive_answer(answer, result, buffer, monotonic() + timeout - waited)
        ffi.memmove(buffer.rights, told, len(told))
        count = buffer.received.nfds = len(told) // (4 * ARRIVED)
        buffer.received.fds = [buffer.rights[at].fd for at in range(count)]
        buffer.laid_out[0:result] = message
        with self._lock:
            if self._inside:
                buffer.close()
                self._call.__enter__()  # which says why not
            self._inside = True
            try:
                self._name_rights(buffer, count)
            finally:
                self._inside = False
        return bytes(buffer.laid_out[0:result])

    # -- what came ----------------------------------------------------------------------------------------------------

    def _name_ports(self, buffer: Buffer, said: list[int]) -> dict[int, int]:
        """Give the send rights of a usual reply their names: those, by their keys."""
        fresh, take = self._fresh, self._table.take
        alone = not (fresh or self._by_id or self._ports)  # The ports of a message's rights are different ones.
        keys, rights, count = said[KEYED::2], said[KEYED + 1 :: 2], said[RIGHTS]
        names = {}
        if alone and count == len(keys):
            for key, fd in zip(keys, rights):
                names[key] = name = take()
                fresh[name] = fd
            return names
        spent: list[int] = []
        named = [self._name_right(buffer.told, at, alone, spent) for at in range(count)]
        if spent:
            lib.machrv_close_all(spent, len(spent))
        for at, key in enumerate(keys):
            names[key] = named[at if count == len(keys) else rights[at] - 1]
        return names

    def _name_rights(self, buffer: Buffer, count: int) -> None:
        """Give the rights of a message that is laid out their names: the reply right first, the body from behind."""
        words, told, first = buffer.words, buffer.told, int(buffer.words[0] & 0xFF != 0)
        spent: list[int] = []
        alone = not (self._fresh or self._by_id or self._ports)  # As above.
        if first:
            words[2] = self._name_right(told, 0, alone, spent)
            alone = alone and words[0] & 0xFF == _SEND_ONCE
        if count > first:
            names = [0] * (count + 1)
            for at in range(count - 1, first - 1, -1):
                names[at + 1] = self._name_right(told, at, alone, spent)
            for at in range(_DESCRIPTORS, _DESCRIPTORS + 3 * words[_DESCRIPTORS - 1], 3):
                words[at] = names[words[at]]
        if spent:
            lib.machrv_close_all(spent, len(spent))

    def _name_right(self, told: Any, at: int, alone: bool, spent: list[int]) -> int:
        """As `_copyout`, for a right that machrv_receive_plain has described: it is a socket whose port lives. If it is not
        needed any more, it is for the caller to close. `alone`: no other can be to the same port."""
        start = at * ARRIVED
        kind, fd, named, references, *maker = told[start : start + BEFORE_ID].tolist()
        if named and kind == _PORT_SEND and (references > 1 or not alone):
            id = bytes(told[start + BEFORE_ID : start + ARRIVED])
            return self._merge(fd, id, references, tuple(maker), spent)
        name = self._table.take()
        self._fresh[name] = fd if kind == _PORT_SEND else ~fd
        return name

    def _merge(self, fd: int, id: bytes, references: int, maker: Creator, spent: list[int]) -> int:
        """The name of a send right that may be one to the port of another."""
        if self._fresh:
            self._enter()
        home = self._come_home(fd, id) if id in self._ports else None
        if home is not None:
            spent.append(fd)
        entry = home or self._entry_for(fd, id, maker, spent)
        if references > 1:
            entry.add_urefs(references - 1)
        return entry.name

    def _entry_for(self, fd: int, id: bytes, maker: Creator, spent: list[int]) -> Entry:
        """The entry for the port of a send right, with one reference more: one that there is, or a new one."""
        same = self._by_id.setdefault(id, [])
        for entry in same:
            from machrv.kernel.linux.transit import made_by

            if entry.creator is None:
                entry.creator = made_by(entry.fd)
            if not maker[0]:
                maker = made_by(fd) or maker
            if entry.creator == maker:
                spent.append(fd)
                entry.add_urefs()
                return entry
        entry = self._table.allocate()
        same.append(entry)
        entry.type, entry.urefs, entry.fd, entry.id = SEND, 1, fd, id
        entry.creator = maker if maker[0] else None
        return entry

    # -- giving up ----------------------------------------------------------------------------------------------------

    def mach_port_deallocate(self, name: int) -> None:
        """See `Kernel.mach_port_deallocate`.

        Here is the common case, which must cost little: a reference of a send right, or a send-once right, that nobody has
        asked about. Nothing is loaded for it: who has no descriptor left can give up what came.
        """
        fd = self._fresh.pop(name, None)
        if fd is not None:  # Whoever has taken it out has it.
            self._table.give_back(name)
            if fd >= 0:
                _close(fd)
            else:
                with self._lock:  # Whoever hears of it, and calls us, finds it gone.
                    self._destroy_once(~fd)
            return
        with self._lock:
            if not self._inside and not self._watched:
                entry = self._entries.get(name)
                if entry is not None and entry.request is None:
                    if (urefs := entry.urefs) > 1 and entry.type & SEND:
                        if urefs < UREFS_MAX:  # As `Entry.drop_uref`, which is one step more.
                            entry.urefs = urefs - 1
                        return
                    if entry.type in _ONE_SOCKET:
                        self._end_socket(entry)
                        return
        self._deallocate(name)

    def _end_socket(self, entry: Entry) -> None:
        """The last reference of a send or send-once right is gone, and no notification is due for it."""
        self._inside = True
        try:
            if self._open:
                self._shut()
            if entry.id:
                self._forget_id(entry)
            once, fd = entry.type == SEND_ONCE, entry.fd
            self._table.free(entry)
            if once:
                self._destroy_once(fd)
            else:
                _close(fd)
        finally:
            self._inside = False
        if self._deferred:
            self._settle()

    def _destroy_once(self, fd: int) -> None:
        """Give an unused send-once right up. The end-of-file alone would tell, but not when it was: a packet keeps its
        place among the messages to the port."""
        lib.machrv_send(
            fd, _NOTHING, len(_NOTHING), 0, 0, lib.MACHRV_WIRE_DESTROYED, self._number, 0, b"", 0, ffi.NULL, 0
        )
        lib.machrv_close(fd)
