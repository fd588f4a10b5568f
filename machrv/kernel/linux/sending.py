"""Sending: the one place that writes packets, and waits for room.

What belongs here: what becomes of a message once its rights are copied in. What must never happen here: receiving.
Methods with a leading underscore expect the space's lock to be held unless they say otherwise.
"""

from __future__ import annotations

import select
from errno import EAGAIN, EMSGSIZE
from struct import Struct
from time import monotonic

from machrv._mach import ffi, lib

from machrv.errors import MachError, ReentryError
from machrv.kernel.linux import wire
from machrv.kernel.linux import LONGEST
from machrv.kernel.linux.copyin import COPY_SEND, MAKE_SEND, Taken
from machrv.kernel.linux.entry import Entry
from machrv.kernel.linux.outgoing import Outgoing, Parcel
from machrv.kernel.linux.answers import GONE, close, shortage
from machrv.kernel.linux.port import PORT_SEND, PORT_SEND_ONCE, Port
from machrv.kernel.linux.space import DEAD, SEND, SEND_ONCE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

HEADER = Struct("=5Ii")
#: bits, remote port, local port
_PLAIN = Struct("=I4xII")
_plain = _PLAIN.unpack_from
_send = lib.machrv_send
_send_plain = lib.machrv_send_plain
_open_gate = lib.machrv_open_gate
_close_gate = lib.machrv_close_gate
_SEND_AGAIN = int(lib.MACHRV_AGAIN_SEND)
_answer = lib.machrv_answer
_COMPLEX = int(lib.MACH_MSGH_BITS_COMPLEX)
_USER_BITS = _COMPLEX | 0x001F1F1F
#: the largest message: XNU's limit on what it copies in (ipc_kmsg_max_body_space)
MAX_SIZE = 64 * 1024 * 1024 - 68
_NOT_SENT = 1
#: a message so small goes out from one buffer
_SMALL = 2048
_OPERATION = "mach_msg"


class Sending(Outgoing):
    """A space that sends."""

    def _furnish(self) -> None:
        super()._furnish()
        #: what may be done without the lock
        self._gate: Any = ffi.new("machrv_gate *")
        self._gate.space = self._number
        self._gate_at = int(ffi.cast("uintptr_t", self._gate))
        #: where machrv_answer puts the ends of the rights that it makes
        self._receiving = ffi.new("int[]", lib.MACHRV_MAX_FDS)

    def _send_at_once(self, message: bytes) -> bool:
        """Send if it is as simple as can be: no rights, to a port of this space, and there is room. Takes the lock itself.

        This must cost little, so it does what `_send_message` does, without what it has not got to look at.
        """
        size = len(message)
        if size < 24 or size & 3:
            return False
        bits, remote, local = _plain(message)
        if bits != COPY_SEND or local or size > _SMALL:
            return False
        with self._lock:
            if self._inside:
                return False
            self._inside = True
            try:
                entry = self._entries.get(remote)
                if entry is None or (port := entry.port) is None or port.loop < 0 or not entry.type & SEND:
                    return False
                if _send_plain(port.loop, message, size, self._number) < 0:
                    return False
                self._may_send_again(entry, port.native, port.loop)
                return True
            finally:
                self._inside = False

    # -- again --------------------------------------------------------------------------------------------------------

    def _may_again(self, native: Any, what: int) -> None:
        """What has just been done in the usual way may be done again without the lock, until `_shut`: see again.c."""
        self._open = True
        _open_gate(self._gate, native, what)

    def _may_send_again(self, entry: Entry, native: Any, fd: int) -> None:
        native.name, native.loop = entry.name, fd
        self._may_again(native, _SEND_AGAIN)

    def _shut(self) -> None:
        """From here on everybody takes the lock. Before an end is closed, or is another one, or a send right is given up."""
        _close_gate(self._gate)
        self._open = False

    def _answer(self, exchange: Any, fd: int, ports: Sequence[tuple[int, int, int]], data: bytes) -> bool:
        """Answer at a rendezvous with rights that are made of ports of this space, on a send-once right that is spent then.

        `ports` are as for `Kernel.answer`. False, or OSError: nothing has happened.
        """
        keys: list[int] = []
        ids: list[bytes] = []
        targets: list[Port] = []
        watched, epolls = False, ffi.NULL
        try:
            for key, name, disposition in ports:
                entry = self._entries.get(name)
                if (
                    disposition != MAKE_SEND
                    or entry is None
                    or (port := entry.port) is None
                    or port.nsrequest is not None
                ):
                    return False
                keys.append(key)
                ids.append(port.id)
                targets.append(port)
                if port.room < 1:
                    port.expect()
                port.room -= 1
                port.coming += 1
                watched = watched or port.epoll is not None
            if watched:
                epolls = [-1 if port.epoll is None else port.epoll.fileno() for port in targets]
            count, serial = len(keys), self._serials + 1
            self._serials += count
            prefix, size, receiving = self._serial_prefix, len(data), self._receiving
            id = ids[0] if count == 1 else b"".join(ids)
            if _answer(exchange, fd, self._number, count, keys, id, prefix, serial, epolls, data, size, receiving) < 0:
                return False
        finally:
            for port in targets:
                port.coming = 0
        for port, end in zip(targets, receiving):
            port.given.append(end)
            port.made += 1
            port.mscount = port.mscount + 1 & 0xFFFFFFFF
        return True

    def _send_message(self, message: bytes | bytearray | memoryview, deadline: float | None) -> None:
        """Send, waiting for room until `deadline` (monotonic; None: for ever). Takes the lock itself."""
        size = len(message)
        if size < 24 or size & 3:
            raise MachError(lib.MACH_SEND_MSG_TOO_SMALL, _OPERATION)
        if size > MAX_SIZE:
            raise MachError(lib.MACH_SEND_TOO_LARGE, _OPERATION)
        data = message if type(message) is bytes else bytes(message)
        bits, remote, local = _PLAIN.unpack_from(data)
        bits &= _USER_BITS
        while True:
            with self._lock:
                if self._inside:
                    raise ReentryError(
                        "a signal handler has called mach_msg in the middle of another call: act after the call"
                    )
                self._inside = True
                try:
                    if self._fresh:
                        self._enter()
                    if bits == COPY_SEND and not local and (entry := self._entries.get(remote)) and entry.type & SEND:
                        full = self._send_plain(entry, data, size)
                    else:
                        if self._open:
                            self._shut()
                        if self._watched:
                            self._pump()
                        full = self._send_any(data, size, bits, remote, local)
                    if full < 0:
                        return
                    waiting = lib.machrv_dup(full)
                finally:
                    self._inside = False
            if waiting < 0:
                raise self._refused(waiting)
            with shortage(_OPERATION):
                self._wait_for_room(waiting, deadline)

    def _send_plain(self, entry: Entry, data: bytes, size: int) -> int:
        """The common case: no rights travel, the send right stays. As `_send_any`."""
        port = entry.port
        if port is None:
            if entry.is_file:
                raise MachError(lib.MACH_SEND_INVALID_DEST, _OPERATION)
            fd = entry.fd
        else:
            fd = port.loop if port.loop >= 0 else self._loop(port)
        result = _send_plain(fd, data, size, self._number)
        if result == 0:
            if port is None and size <= _SMALL:
                if entry.native is None:
                    entry.native = ffi.new("machrv_port *")
                self._may_send_again(entry, entry.native, fd)
            return -1
        if result == -EAGAIN:
            return fd
        if result in GONE:
            if self._open:
                self._shut()
            self._bury(entry)
            raise MachError(lib.MACH_SEND_INVALID_DEST, _OPERATION)
        raise self._refused(result)

    @staticmethod
    def _refused(result: int) -> MachError:
        return MachError(lib.MACH_SEND_TOO_LARGE if result == -EMSGSIZE else lib.MACH_SEND_NO_BUFFER, _OPERATION)

    @staticmethod
    def _wait_for_room(fd: int, deadline: float | None) -> None:
        """Wait until a socket may take more. Owns `fd`; without the lock."""
        try:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            if deadline is None:
                poll.poll()
                return
            left = deadline - monotonic()
            if left <= 0 or not poll.poll(min(left * 1000, LONGEST)) and left * 1000 <= LONGEST:
                raise MachError(lib.MACH_SEND_TIMED_OUT, _OPERATION)
        finally:
            close(fd)

    # -- the general case ---------------------------------------------------------------------------------------------

    def _send_any(self, data: bytes, size: int, bits: int, remote: int, local: int) -> int:
        """Send once. -1: done; otherwise the socket that has no room, and nothing has been taken."""
        if bits & _COMPLEX and size == 24:
            raise MachError(lib.MACH_SEND_MSG_TOO_SMALL, _OPERATION)
        taken, parcel = Taken(), Parcel()
        _, _, _, _, voucher, id = HEADER.unpack_from(data)
        destination = self._entries.get(remote)
        asked = destination is not None and destination.request is not None
        try:
            self._copyin_header(bits, remote, local, voucher, taken, parcel)
            refused: MachError | None = None
            try:
                if bits & _COMPLEX:
                    self._copyin_body(data, size, taken, parcel)
            except MachError as error:
                refused = error
            result = _NOT_SENT if refused is not None or parcel.circular else self._put(data, size, bits, id, parcel)
        except OSError as error:
            self._revoke(taken)
            raise MachError(lib.MACH_SEND_NO_BUFFER, _OPERATION) from error
        finally:
            for fd in parcel.temporary:
                close(fd)
        if result == 0:
            self._sent(taken, parcel)
        elif result == -EAGAIN:
            waiting = parcel.destination.fd
            self._revoke(taken)
            return waiting
        elif result != _NOT_SENT and result not in GONE:
            self._revoke(taken)
            raise self._refused(result)
        elif destination is not None and self._is_dead(parcel.destination, asked):
            self._revoke(taken)
            self._bury(destination)
            raise MachError(lib.MACH_SEND_INVALID_DEST, _OPERATION)
        else:
            self._destroy_parcel(taken, parcel, refused is None)
            if refused is not None:
                raise refused
        return -1

    def _put(self, data: bytes, size: int, bits: int, id: int, parcel: Parcel) -> int:
        fds: list[int] = []
        for right in parcel.rights:
            if right.port is not None:
                bundle = self._bundle(right.port)
                parcel.temporary.append(bundle)
                fds.append(bundle)
            else:
                fds.append(right.fd)
        if len(fds) > lib.MACHRV_MAX_FDS:
            return -EMSGSIZE
        reply = parcel.reply
        slot = (wire.SLOT_DEAD if reply == DEAD else wire.SLOT_NULL) if isinstance(reply, int) else 1
        if not isinstance(reply, int) and reply.is_file:
            slot |= wire.SLOT_FILE
        out = bits & _COMPLEX | parcel.destination.kind | parcel.reply_type << 8
        body = bytes(parcel.body) if parcel.body else data
        tail = bytes(parcel.tail)
        return int(
            _send(
                parcel.destination.fd,
                body,
                size,
                out,
                id,
                0,
                self._identity.space,
                slot,
                tail,
                len(tail),
                fds,
                len(fds),
            )
        )

    def _sent(self, taken: Taken, parcel: Parcel) -> None:
        for right in parcel.rights:
            if right.port is not None:
                self._detach_port(right.port)
                self._on_its_way(right.port, parcel.destination.id)
        self._commit(taken)

    def _destroy_parcel(self, taken: Taken, parcel: Parcel, whole: bool) -> None:
        """The rights that were copied in are destroyed, one after the other: destination, reply, body (ipc_kmsg_clean).

        `whole`: the message had been made; then what waits on ports in it is destroyed last (ipc_kmsg_destroy).
        """
        self._announce(taken)
        self._unwatch_leaving(taken)
        moved = {port.id: port for port in taken.moved}
        for port in taken.moved:
            self._detach_port(port)
        if whole and self._dying is None:
            self._dying = []
        else:
            whole = False
        for right in (parcel.destination, *parcel.rights):
            if right.port is not None:
                self._destroy_port(right.port)
                continue
            if right.fd in taken.leaving:
                taken.leaving.remove(right.fd)
                if right.kind == PORT_SEND_ONCE:
                    self._destroy_once(right.fd)
                else:
                    close(right.fd)
            sent_to = self._ports.get(right.id) or moved.get(right.id)
            if right.kind == PORT_SEND and sent_to is not None:
                self._check_senders(sent_to)
        if whole and self._dying is not None:
            packets, self._dying = self._dying, None
            self._destroy_packets(packets)
        self._commit(taken)
