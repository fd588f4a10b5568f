"""Asking: a whole rendezvous in one call of C, and giving up what came of it. Most children want nothing else of a kernel.

What belongs here: that short way, for the usual case. What must never happen here: the unusual case, or an import that
only that one needs: a child pays for every module before it does anything useful. Methods with a leading underscore
expect the space's lock to be held unless they say otherwise.
"""

from __future__ import annotations

from time import monotonic

from machrv._mach import ffi, lib

from machrv.kernel.linux.buffer import ARRIVED, BEFORE_ID, Buffer
from machrv.kernel.linux.directory import link_of
from machrv.kernel.linux.space import SEND, SEND_ONCE, Space, next_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from machrv.kernel.linux.transit import Creator, Right

_PORT_SEND = lib.MACH_MSG_TYPE_PORT_SEND
#: the C functions take no longer time, in milliseconds
LONGEST = 2**31 - 1
_ask = lib.machrv_ask
_ONE_SOCKET = (SEND, SEND_ONCE)
_NOTHING = bytes(24)


class Asking(Space):
    """A space that can ask at a rendezvous."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        #: for whoever asks
        self._spare: list[Buffer] = []

    if TYPE_CHECKING:  # provided by the rooms above, which are loaded when one of these is needed: see `Begun`

        def _receive_answer(self, fd: int, result: int, buffer: Buffer, deadline: float) -> bytes: ...
        def _copyout(self, right: Right) -> int: ...
        def _deallocate(self, name: int) -> None: ...

    def ask(self, service_name: str, message_id: int, timeout: float) -> bytes | None:
        """See `Kernel.ask`. One call of C, as long as no notification may become due meanwhile."""
        if self._watched:
            return None
        link = link_of(service_name)
        if link is None:
            return None
        message = self._ask(link, message_id, timeout)
        if self._deferred:
            self._settle()
        return message

    def _ask(self, link: bytes, id: int, timeout: float) -> bytes | None:
        """Look up, request and receive the answer, at a socket that is no port's. None: nothing was sent. Takes the lock
        itself, and not while it waits."""
        try:
            buffer = self._spare.pop()
        except IndexError:
            buffer = Buffer()
        deadline = monotonic() + timeout
        milliseconds = int(timeout * 1000) if 0 < timeout < LONGEST / 1000 else LONGEST if timeout > 0 else 0
        received, answer = buffer.received, buffer.answer
        received.nfds, answer[0] = 0, -1
        named = False
        try:
            result = _ask(link, id, self._number, milliseconds, received, buffer.rights, self._native, answer)
            if answer[0] >= 0:
                named = True  # from here on the socket, and what came to it, is looked after there
                return self._receive_answer(answer[0], result, buffer, deadline)
            if result < 0:
                return None
            if received.nfds:
                with self._call:
                    named = True
                    self._name_rights(buffer, received.nfds)
            message: bytes = buffer.laid_out[0:result]
        except BaseException:
            if not named:  # a signal handler has raised
                buffer.close()
                if answer[0] >= 0:
                    lib.machrv_close(answer[0])
            raise
        self._spare.append(buffer)
        return message

    # -- what came ----------------------------------------------------------------------------------------------------

    def _name_rights(self, buffer: Buffer, count: int) -> None:
        """Give the rights of a message that is laid out their names: the reply right first, the body from behind."""
        told, words, first = buffer.told, buffer.words, 0
        spent: list[int] = []
        if words[0] & 0xFF:
            first = 1
            words[2] = self._copyout_described(told, 0, spent)
        for at in range(count - 1, first - 1, -1):
            words[7 + 3 * (at - first)] = self._copyout_described(told, at, spent)
        if spent:
            lib.machrv_close_all(spent, len(spent))

    def _copyout_described(self, told: Any, at: int, spent: list[int]) -> int:
        """As `_copyout`, for a right that machrv_receive_plain has described: it is a socket whose port lives. If it is not
        needed any more, it is for the caller to close."""
        start = at * ARRIVED
        kind, fd, named, *maker = told[start : start + BEFORE_ID].tolist()
        id = bytes(told[start + BEFORE_ID : start + ARRIVED]) if named else b""
        if kind == _PORT_SEND and named:
            if id in self._ports:  # It may have come home.
                from machrv.kernel.linux.transit import Right

                return self._copyout(Right(kind, fd, id=id))
            creator: Creator = tuple(maker)
            same = self._by_id.get(id)
            if same is None:
                same = self._by_id[id] = []
            for entry in same:
                if entry.creator is None:
                    from machrv.kernel.linux.transit import made_by

                    entry.creator = made_by(entry.fd)
                if entry.creator == creator:
                    spent.append(fd)
                    entry.add_uref()
                    return entry.name
            entry = self._table.allocate()
            same.append(entry)
            entry.creator, entry.id = creator, id
        else:
            entry = self._table.allocate()
            entry.id = id
        entry.type = SEND if kind == _PORT_SEND else SEND_ONCE
        entry.urefs, entry.fd = 1, fd
        return entry.name

    # -- giving up ----------------------------------------------------------------------------------------------------

    def mach_port_deallocate(self, name: int) -> None:
        """See `Kernel.mach_port_deallocate`."""
        if self._watched or not self._deallocate_at_once(name):
            self._deallocate(name)

    def _deallocate_at_once(self, name: int) -> bool:
        """The common case, which must cost little: a reference of a send right, or a send-once right, that nobody has asked
        about. Takes the lock itself. Nothing is loaded for it: who has no descriptor left can give up what came."""
        with self._lock:
            entry = self._entries.get(name)
            if self._inside or entry is None or entry.type not in _ONE_SOCKET or entry.request is not None:
                return False
            if entry.urefs > 1:
                entry.drop_uref()
                return True
            self._inside = True
            try:
                if entry.id:
                    self._forget_id(entry)
                once, fd = entry.type == SEND_ONCE, entry.fd
                self._table.free(entry)
                if once:
                    self._destroy_once(fd)
                else:
                    lib.machrv_close(fd)
            finally:
                self._inside = False
        if self._deferred:
            self._settle()
        return True

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

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)  # What Python looks for is in the class, or nowhere.
            self.complete()
            return getattr(self, name)
