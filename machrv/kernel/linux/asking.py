"""Asking: a whole rendezvous in one call of C, and giving up what came of it. Most children want nothing else of a kernel.

What belongs here: that short way, for the usual case. What must never happen here: the unusual case, or an import that
only that one needs: a child pays for every module before it does anything useful. Methods with a leading underscore
expect the space's lock to be held unless they say otherwise.
"""

from __future__ import annotations

from time import monotonic

from machrv._mach import ffi, lib

from machrv.kernel.linux.buffer import ARRIVED, BEFORE_ID, BODY, KEYED, PORTS, RIGHTS, Buffer
from machrv.kernel.linux.directory import link_of
from machrv.kernel.linux.space import SEND, SEND_ONCE, Space, next_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from machrv.kernel.linux.entry import Entry
    from machrv.kernel.linux.transit import Creator

_PORT_SEND = lib.MACH_MSG_TYPE_PORT_SEND
_SEND_ONCE = lib.MACH_MSG_TYPE_PORT_SEND_ONCE
#: the C functions take no longer time, in milliseconds
LONGEST = 2**31 - 1
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

        def _receive_answer(self, fd: int, result: int, buffer: Buffer, deadline: float) -> bytes: ...
        def _come_home(self, fd: int, id: bytes) -> Entry | None: ...
        def _deallocate(self, name: int) -> None: ...

    def ask(self, service_name: str, message_id: int, timeout: float) -> bytes | None:
        """See `Kernel.ask`."""
        return self.claim(service_name, message_id, timeout, False)  # type: ignore[return-value]  # Not without `ports`.

    def claim(
        self, service_name: str, message_id: int, timeout: float, ports: bool = True
    ) -> bytes | tuple[dict[int, int], list[int]] | None:
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
            buffer = Buffer(self._native)
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

    # -- what came ----------------------------------------------------------------------------------------------------

    def _name_ports(self, buffer: Buffer, said: list[int]) -> dict[int, int]:
        """Give the send rights of a usual reply their names: those, by their keys."""
        fresh, take = self._fresh, self._table.take
        alone = not (fresh or self._by_id or self._ports)  # The ports of a message's rights are different ones.
        if alone and said[PORTS] == 1:
            name = take()
            fresh[name] = said[KEYED + 1]
            return {said[KEYED]: name}
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
                    if entry.urefs > 1 and entry.type & SEND:
                        entry.drop_uref()
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


class Begun(Asking):
    """The kernel of this process as long as nothing was wanted of it but what is above.

    Whatever else is asked of it, it turns into a `LinuxKernel` first, and stays one: the same object, with the same names.
    So a child pays for the other rooms if it goes into them.
    """

    def __init__(self) -> None:
        super().__init__(next_number())

    def complete(self) -> None:
        """Become all of a kernel. Without the lock, or with it."""
        # Imported without the lock of ours: whoever is importing it may be waiting for that.
        try:
            from machrv.kernel.linux.kernel import LinuxKernel
        except (ImportError, OSError) as error:
            from machrv.errors import MachError

            raise MachError(
                lib.KERN_RESOURCE_SHORTAGE,
                f"loading the rest of machrv ({error}; machrv.preload() does so before a process gives up reading files)",
            ) from error
        with self._lock:
            if type(self) is not Begun:
                return  # Another thread was first.
            inside, self._inside = self._inside, True  # to signal handlers; other threads wait for the lock
            self.__class__ = LinuxKernel  # type: ignore[assignment]
            try:
                LinuxKernel._furnish(self)  # type: ignore[arg-type]
            except BaseException:
                self.__class__ = Begun
                raise
            finally:
                self._inside = inside
        if self._deferred and not inside:
            self._settle()


class _Later:
    """What only all of a kernel can do: it becomes that first. (A `__getattr__` would make every attribute slow.)"""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, kernel: Begun | None, owner: object) -> object:
        if kernel is None:
            return self
        kernel.complete()
        return getattr(kernel, self._name)


#: what there is of a kernel, but for what is above, and what that calls itself
_LATER = (
    "answer audit_token bootstrap_check_in bootstrap_look_up close event_queue fileport_makefd fileport_makeport mach_msg "
    "mach_port_allocate mach_port_destroy mach_port_extract_member mach_port_extract_right mach_port_get_attributes "
    "mach_port_get_context mach_port_get_refs mach_port_insert_member mach_port_insert_right mach_port_mod_refs "
    "mach_port_move_member mach_port_names mach_port_request_notification mach_port_set_attributes mach_port_set_context "
    "mach_port_type mach_reply_port memory name open_process port_identity readiness room send_bare take_request vm_deallocate "
    "vm_read _come_home _deallocate _receive_answer"
)
for _name in _LATER.split():
    setattr(Begun, _name, _Later(_name))
