"""`LinuxKernel`: one port space with everything a task asks of its kernel.

What belongs here: the whole, put together: messages both ways, reply ports, bootstrap names, fileports, memory,
processes, and what fork does. What must never happen here: the rules of rights (below), policy (above).
"""

from __future__ import annotations

import atexit
import os
from _weakref import ref
from time import monotonic

from machrv._mach import ffi, lib

from machrv.kernel.direct import direct
from machrv.errors import MachError
from machrv.kernel.interface import Kernel
from machrv.kernel.linux import Beginning, next_number
from machrv.kernel.linux.bootstrap import BootstrapDirectory
from machrv.kernel.linux.calls import Calls
from machrv.kernel.linux.events import LinuxEventQueue
from machrv.kernel.linux.identity import LinuxProcess
from machrv.kernel.linux.answers import check, close, shortage
from machrv.kernel.linux.end import LISTENER, End
from machrv.kernel.linux.held import destinations
from machrv.kernel.linux.port import PORT_SEND, starving
from machrv.kernel.linux.space import SEND, SEND_ONCE, SEND_RIGHTS, all_spaces
from machrv.kernel.linux.readiness import LinuxReadiness, Room
from machrv.kernel.linux.transit import Right, describe, id_of, new_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from machrv.message.audit import AuditToken
    from machrv.kernel.linux.memory import LinuxMemory
    from machrv.kernel import Process

_SEND_MSG = int(lib.MACH_SEND_MSG)
_RCV_MSG = int(lib.MACH_RCV_MSG)
#: to receive, with an audit trailer
_RECEIVE = _RCV_MSG | lib.MACH_RCV_TRAILER_AUDIT << 24
_receive_again = direct.receive_again
_send_again = direct.send_again
_send_bare_again = direct.send_bare_again


class LinuxKernel(Calls, Kernel):
    """A port space of its own in this process; the first is number 0. `close()` destroys everything in it."""

    name = "linux"

    def __init__(self) -> None:
        super().__init__(next_number())
        self._furnish()

    def _furnish(self) -> None:
        super()._furnish()
        self._queues: list[ref[LinuxEventQueue]] = []

    # -- messages -----------------------------------------------------------------------------------------------------

    def mach_msg(
        self,
        message: bytes | bytearray | memoryview | None,
        option: int,
        receive_size: int | None = None,
        receive_name: int = 0,
        timeout: float | None = None,
    ) -> bytes | None:
        """See `Kernel.mach_msg`."""
        if self._open and not self._inside:
            if message is None:
                if option == _RECEIVE and receive_size is None:
                    try:
                        received = _receive_again(self._taken_at, receive_name)
                    except OverflowError:
                        received = -1  # The name of no port.
                    if type(received) is bytes:
                        return received
                    if received >= 0 and (other := self._received_again(received, receive_name)) is not None:
                        return other
            elif option == _SEND_MSG and type(message) is bytes:
                if _send_again(self._gate_at, message):
                    return None
        return self._mach_msg(message, option, receive_size, receive_name, timeout)

    def _mach_msg(
        self,
        message: bytes | bytearray | memoryview | None,
        option: int,
        receive_size: int | None,
        receive_name: int,
        timeout: float | None,
    ) -> bytes | None:
        """As `mach_msg`, with the lock."""
        if option & _SEND_MSG:
            if message is None:
                raise MachError(lib.MACH_SEND_INVALID_DATA, "mach_msg")
            deadline = monotonic() + timeout if timeout else timeout
            if type(message) is not bytes or not self._send_at_once(message):
                self._send_message(message, deadline)
            if self._deferred:
                self._settle()
            if not option & _RCV_MSG:
                return None
            if deadline:
                timeout = max(0.0, deadline - monotonic())
        elif not option & _RCV_MSG:
            return None
        try:
            return self._receive_message(receive_name, receive_size, option, timeout)
        finally:
            if self._deferred:
                self._settle()

    def send_bare(self, name: int, id: int, body: bytes) -> bool:
        """See `Kernel.send_bare`. Only to a port of this space that has been sent to: see again.c."""
        if not self._open or self._inside:
            return False
        try:
            return _send_bare_again(self._gate_at, name, id, body)  # type: ignore[no-any-return]
        except (OverflowError, TypeError):
            return False

    def mach_reply_port(self) -> int:
        """See `Kernel.mach_reply_port`. On Linux a receive right like any other."""
        return self.mach_port_allocate(lib.MACH_PORT_RIGHT_RECEIVE)

    # -- memory -------------------------------------------------------------------------------------------------------

    def vm_read(self, address: int, size: int) -> bytes:
        """See `Kernel.vm_read`."""
        return bytes(ffi.buffer(ffi.cast("char *", address), size)) if size else b""

    def vm_deallocate(self, address: int, size: int) -> None:
        """See `Kernel.vm_deallocate`."""
        if size and lib.machrv_unmap(address, size) < 0:
            raise MachError(lib.KERN_INVALID_ADDRESS, "vm_deallocate")

    # -- bootstrap ----------------------------------------------------------------------------------------------------

    def bootstrap_check_in(self, service_name: str) -> int:
        """See `Kernel.bootstrap_check_in`."""
        try:
            import logging  # noqa: F401  # Not needed here, but when there is no descriptor left to import it with.
        except (ImportError, OSError):
            pass  # There is none left now: checking in will say so.
        id = new_id()
        with shortage("bootstrap_check_in"):
            fd, address, name = BootstrapDirectory.current("bootstrap_check_in").check_in(service_name, id)
        try:
            with self._call:
                entry = self._table.allocate()
                port = self._new_port(entry, id)
                port.add(End(fd, LISTENER, address))
                port.bootstrap = name
                return entry.name
        except BaseException:
            name.remove()
            close(fd)
            raise

    def bootstrap_look_up(self, service_name: str, timeout: float = 10.0) -> int:
        """See `Kernel.bootstrap_look_up`."""
        with shortage("bootstrap_look_up"):
            fd, id = BootstrapDirectory.current("bootstrap_look_up").look_up(service_name, timeout)
        with self._call:
            return self._copyout(Right(PORT_SEND, fd, id=id))

    # -- descriptors, processes ---------------------------------------------------------------------------------------

    def fileport_makeport(self, fd: int) -> int:
        """See `Kernel.fileport_makeport`."""
        with shortage("fileport_makeport"):
            copy = check(lib.machrv_dup(fd))
        with self._call:
            return self._copyout(Right(PORT_SEND, copy, is_file=True))

    def fileport_makefd(self, name: int) -> int:
        """See `Kernel.fileport_makefd`."""
        with self._call:
            entry = self._lookup(name, "fileport_makefd")
            if not entry.is_file or not entry.type & SEND:
                raise MachError(lib.KERN_INVALID_RIGHT, "fileport_makefd")
            return check(lib.machrv_dup(entry.fd))

    def memory(self) -> LinuxMemory:
        """See `Kernel.memory`."""
        from machrv.kernel.linux.memory import LinuxMemory

        return LinuxMemory(self)

    def audit_token(self) -> AuditToken:
        """See `Kernel.audit_token`."""
        with self._call:
            return self._identity.self_token()

    def open_process(self, pid: int) -> Process:
        """See `Kernel.open_process`."""
        try:
            return LinuxProcess(pid)
        except ProcessLookupError:
            raise
        except OSError as error:
            raise MachError(lib.KERN_RESOURCE_SHORTAGE, f"open_process ({error.strerror})") from error

    def answer(
        self, reply_right: int, ports: Sequence[tuple[int, int, int]], data: bytes = b"", more: bool = False
    ) -> bool:
        """See `Kernel.answer`. In one call, if the right has just come."""
        with self._lock:
            fd = self._fresh.get(reply_right, 0)
            if fd < 0 and not self._inside and not self._watched:
                self._inside = True
                try:
                    if self._open:
                        self._shut()
                    if self._answer(self._buffer.exchange, ~fd, ports, data):
                        del self._fresh[reply_right]
                        self._table.give_back(reply_right)
                        if not more:
                            lib.machrv_settle(self._buffer.exchange)
                        return True
                except OSError:
                    pass  # The general case says what is missing.
                finally:
                    self._inside = False
        return False

    def event_queue(self) -> LinuxEventQueue:
        """See `Kernel.event_queue`."""
        with shortage("event_queue"):
            queue = LinuxEventQueue(self)
        self._queues = [known for known in self._queues if known() is not None] + [ref(queue)]
        return queue

    # -- looking on ---------------------------------------------------------------------------------------------------

    def port_identity(self, name: int) -> tuple[str, int]:
        """See `Kernel.port_identity`. Without the lock: one look at one entry."""
        entry = self._entries.get(name)
        if entry is None:
            fd = self._fresh.get(name)
            if fd is None:
                return "", 0
            peer = describe(~fd if fd < 0 else fd)
            id = b"" if peer is None else id_of(peer.address)
            return id[:16].decode("ascii", "replace"), SEND_ONCE if fd < 0 else SEND
        port = entry.port
        id = b"file" if entry.is_file else entry.id if port is None else port.id
        return id[:16].decode("ascii", "replace"), entry.type

    def readiness(self, name: int) -> LinuxReadiness:
        """See `Kernel.readiness`."""
        with self._call:
            entry = self._lookup(name, "readiness")
            source = entry.port or entry.pset
            if source is None:
                raise MachError(lib.KERN_INVALID_RIGHT, "readiness")
            return LinuxReadiness(self, source)

    def room(self, name: int) -> Room:
        """See `Kernel.room`."""
        with self._call:
            entry = self._lookup(name, "room")
            if entry.is_file or not entry.type & SEND_RIGHTS:
                raise MachError(lib.KERN_INVALID_RIGHT, "room")
            port = entry.port
            return Room(entry.fd if port is None else port.loop if port.loop >= 0 else self._loop(port))

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Destroy every name, as the end of a task does. The space may be used again, empty."""
        for name in [*self._entries, *self._fresh]:
            try:
                self.mach_port_destroy(name)
            except MachError:
                pass  # it went with another one
        with self._call:
            if not self._waiting:
                self._close_watch()

    def _forked(self) -> None:
        """In the child of a fork: rights are not inherited. Nothing may be sent, the parent's rights live on."""
        self._open = False  # Another thread of the parent may have been inside the gate: nobody will leave it here.
        self._enter()
        entries = list(self._entries.values())
        ports = list(self._ports.values())
        for known in self._queues:
            queue = known()
            if queue is not None:
                queue.forked()
        self._forget_readers()
        self._close_watch()
        for entry in entries:
            if entry.fd >= 0:
                close(entry.fd)
            if entry.request is not None:
                close(entry.request.fd)
            if entry.pset is not None:
                entry.pset.close()
        self._asking.close()
        lib.machrv_settle(self._buffer.exchange)
        for port in ports:
            port.bootstrap = None
            self._discard(port)
        Beginning.__init__(self, self._number)
        self._furnish()


def _at_exit() -> None:
    """The names of a process that ends should not have to be swept by others; everything else the kernel closes."""
    for space in all_spaces():
        for port in list(space._ports.values()):
            if port.bootstrap is not None:
                port.bootstrap.remove()


def _after_fork_in_child() -> None:
    destinations.clear()
    starving.clear()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork_in_child)
