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
from machrv.kernel.linux.copyin import COPY_SEND, MOVE_SEND_ONCE, Taken
from machrv.kernel.linux.entry import Entry
from machrv.kernel.linux.outgoing import Outgoing, Parcel
from machrv.kernel.linux.answers import GONE, close, shortage
from machrv.kernel.linux.port import PORT_SEND, PORT_SEND_ONCE, Port
from machrv.kernel.linux.space import DEAD, SEND, SEND_ONCE

HEADER = Struct("=5Ii")
#: bits, remote port, local port
_PLAIN = Struct("=I4xII")
_send = lib.machrv_send
_send_plain = lib.machrv_send_plain
_answer = lib.machrv_answer
_ENDS = ffi.typeof("int[]")
_COMPLEX = int(lib.MACH_MSGH_BITS_COMPLEX)
_USER_BITS = _COMPLEX | 0x001F1F1F
_ANSWER = _COMPLEX | MOVE_SEND_ONCE
#: the 32-bit word of a message that counts its descriptors
_COUNT = wire.BODY // 4
#: the largest message: XNU's limit on what it copies in (ipc_kmsg_max_body_space)
MAX_SIZE = 64 * 1024 * 1024 - 68
_NOT_SENT = 1
#: a message so small goes out from one buffer
_SMALL = 2048
_OPERATION = "mach_msg"


class Sending(Outgoing):
    """A space that sends."""

    def _send_at_once(self, message: bytes) -> bool:
        """Send if it is as simple as can be: no rights, to a port of this space, and there is room. Takes the lock itself.

        This must cost little, so it does what `_send_message` does, without what it has not got to look at.
        """
        size = len(message)
        if size < 24 or size & 3:
            return False
        bits, remote, local = _PLAIN.unpack_from(message)
        if local:
            return False
        if bits == _ANSWER:
            return self._answer_at_once(message, size, remote)
        if bits != COPY_SEND or size > _SMALL:
            return False
        with self._lock:
            if self._inside:
                return False
            entry = self._entries.get(remote)
            if entry is None or (port := entry.port) is None or port.loop < 0 or not entry.type & SEND:
                return False
            return _send_plain(port.loop, message, size, self._number) == 0

    def _answer_at_once(self, message: bytes, size: int, remote: int) -> bool:
        """The same for a message to a send-once right that has just come, with rights that are made for it: an answer at a
        rendezvous."""
        with self._lock:
            right = self._fresh.get(remote)
            if right is None or right[0] != PORT_SEND_ONCE or self._inside or self._watched:
                return False
            ports = self._ports_named(message, size)
            if not ports:
                return False
            self._inside = True
            try:
                if not self._answer(message, size, right[1], ports):
                    return False
                del self._fresh[remote]
                self._table.give_back(remote)
                return True
            except OSError:
                return False  # The general case says what is missing.
            finally:
                self._inside = False

    def _ports_named(self, message: bytes, size: int) -> list[Port]:
        """The ports that are received from here under the names in port descriptors, if a message has nothing but those."""
        words = memoryview(message).cast("I")
        count = words[_COUNT] if size >= wire.DESCRIPTORS else 0
        if not 0 < count <= lib.MACHRV_MAX_FDS or size < wire.DESCRIPTORS + 12 * count:
            return []
        names = words[_COUNT + 1 : _COUNT + 1 + 3 * count : 3].tolist()
        ports: dict[int, Port] = {}
        for name in set(names):
            entry = self._entries.get(name)
            if entry is None or (port := entry.port) is None or port.nsrequest is not None:
                return []
            ports[name] = port
        return [ports[name] for name in names]

    def _answer(self, message: bytes, size: int, fd: int, ports: list[Port]) -> bool:
        """Make the rights and send them on `fd`, which is spent then. False, or OSError: nothing has happened."""
        count, serial = len(ports), self._serials + 1
        self._serials += count
        epolls, receiving = ffi.NULL, ffi.new(_ENDS, count)
        counts: dict[Port, int] = {}
        for port in ports:
            counts[port] = counts.get(port, 0) + 1
        for port, times in counts.items():
            port.expect(times)
            if port.epoll is not None:
                epolls = [-1 if port.epoll is None else port.epoll.fileno() for port in ports]
        ids, prefix = b"".join([port.id for port in ports]), self._serial_prefix.encode()
        if _answer(fd, message, size, self._number, count, ids, prefix, serial, epolls, receiving) < 0:
            return False
        for port, end in zip(ports, receiving):
            port.given.append(end)
        for port, times in counts.items():
            port.count_made(times)
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
            return -1
        if result == -EAGAIN:
            return fd
        if result in GONE:
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
