"""A message on its way out: its rights copied in, slot by slot.

What belongs here: what `osfmk/ipc/ipc_kmsg.c` (xnu-7195) checks on the way in, in its order. What must never happen
here: writing to a socket, or waiting. Methods with a leading underscore expect the space's lock to be held.
"""

from __future__ import annotations

from errno import EFAULT
from struct import Struct

from machrv._mach import ffi, lib

from machrv.errors import MachError
from machrv.kernel.linux import wire
from machrv.kernel.linux.copyin import (
    COPY_SEND,
    KIND_OF,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND,
    MOVE_SEND_ONCE,
    PORT_RECEIVE,
    Taken,
)
from machrv.kernel.linux.death import Deaths
from machrv.kernel.linux.entry import Entry
from machrv.kernel.linux.answers import check, close, hangups
from machrv.kernel.linux.port import PORT_SEND, Port
from machrv.kernel.linux.space import DEAD, DEAD_NAME, NULL, SEND, SEND_ONCE, SEND_RIGHTS
from machrv.kernel.linux.transit import DEAD_RIGHT, Right

_MAX_PORTS = lib.MACH_PORT_UREFS_MAX // 4
_OPERATION = "mach_msg"


class Parcel:
    """What a message turns into on its way out."""

    __slots__ = ("destination", "reply", "reply_type", "body", "tail", "rights", "temporary", "circular")

    def __init__(self) -> None:
        self.destination: Right = DEAD_RIGHT
        self.reply: Right | int = NULL
        self.reply_type: int = 0
        self.body: bytearray = bytearray()
        self.tail: bytearray = bytearray()
        #: all rights but the destination, in the order of their slots
        self.rights: list[Right] = []
        #: memfds and bundles: what is in flight holds its own references
        self.temporary: list[int] = []
        self.circular: bool = False


class Outgoing(Deaths):
    """A space whose messages can be made ready."""

    def _loop(self, port: Port) -> int:
        """The socket for this space's own messages to its own port; the other end is told who sends by pid alone."""
        if self._open:
            self._shut()
        try:
            port.loop, _ = port.make(PORT_SEND, self._serial(), trusted=True)
        except OSError as error:
            raise MachError(lib.MACH_SEND_NO_BUFFER, _OPERATION) from error
        return port.loop

    # -- header -------------------------------------------------------------------------------------------------------

    def _copyin_header(self, bits: int, remote: int, local: int, voucher: int, taken: Taken, parcel: Parcel) -> None:
        """ipc_kmsg_copyin_header. On an error nothing is taken."""
        remote_type, local_type, voucher_type = bits & 0x1F, bits >> 8 & 0x1F, bits >> 16 & 0x1F
        if not MOVE_SEND <= remote_type <= MAKE_SEND_ONCE or (
            local != NULL if local_type == 0 else not MOVE_SEND <= local_type <= MAKE_SEND_ONCE
        ):
            raise MachError(lib.MACH_SEND_INVALID_HEADER, _OPERATION)
        if remote in (NULL, DEAD):
            raise MachError(lib.MACH_SEND_INVALID_DEST, _OPERATION)
        if voucher_type and (voucher != NULL or voucher_type not in (MOVE_SEND, COPY_SEND)):
            raise MachError(lib.MACH_SEND_INVALID_VOUCHER, _OPERATION)
        destination = self._entries.get(remote)
        if destination is None:
            raise MachError(lib.MACH_SEND_INVALID_DEST, _OPERATION)
        reply = None
        if local not in (NULL, DEAD):
            reply = self._entries.get(local)
            if reply is None or not self._can_reply(reply, local_type):
                raise MachError(lib.MACH_SEND_INVALID_REPLY, _OPERATION)
        pair: tuple[Right | None, Right | None]
        if reply is destination:
            pair = self._copyin_two(destination, remote_type, local_type, taken)
        else:
            pair = self._copyin_destination(destination, remote_type, taken), None
        if pair[0] is None:
            self._revoke(taken)
            raise MachError(lib.MACH_SEND_INVALID_DEST, _OPERATION)
        parcel.destination = pair[0]
        parcel.reply_type = KIND_OF.get(local_type, 0)
        parcel.reply = local
        if reply is not None:
            right = pair[1] if reply is destination else self._copyin(reply, local_type, taken)
            if right is None or right.fd < 0:
                parcel.reply = DEAD
            else:
                parcel.reply = right
                parcel.rights.append(right)
            self._reap(reply)
        self._reap(destination)

    def _can_reply(self, entry: Entry, disposition: int) -> bool:
        """ipc_right_copyin_check_reply: a right to a dead port can be named as reply port, whatever it was."""
        if disposition in (MAKE_SEND, MAKE_SEND_ONCE):
            return entry.port is not None
        if entry.type & SEND_RIGHTS:
            self._died(entry)
        if entry.type & DEAD_NAME:
            return True
        return bool(entry.type & (SEND_ONCE if disposition == MOVE_SEND_ONCE else SEND))

    def _copyin_destination(self, entry: Entry, disposition: int, taken: Taken) -> Right | None:
        """The right that the message goes to. Whether its port lives, sending will show: see `_is_dead`."""
        port = entry.port
        if port is None or disposition == MAKE_SEND_ONCE:
            if entry.is_file:
                return None
            return self._copyin(entry, disposition, taken, dead_ok=False, alive=True)
        if disposition == MAKE_SEND:
            taken.mscounts.setdefault(port, port.mscount)
            port.count_made()
        elif disposition in (MOVE_SEND, COPY_SEND) and entry.type & SEND:
            if disposition == MOVE_SEND:
                taken.save(entry)
                if entry.urefs > 1:
                    entry.drop_uref()
                else:
                    if entry.fd >= 0:
                        taken.leaving.append(entry.fd)
                    entry.urefs, entry.fd = 0, -1
                    entry.type &= ~SEND
        else:
            return None
        return Right(PORT_SEND, port.loop if port.loop >= 0 else self._loop(port), borrowed=True, id=port.id)

    @staticmethod
    def _is_dead(right: Right, asked: bool) -> bool:
        """Whether the port of a destination that was taken to be alive has died: that comes before all other errors.

        A message on a dead send-once right that nobody `asked` about is sent, and lost (ipc_kmsg_copyin_header).
        """
        return (right.kind == PORT_SEND or asked) and right.fd >= 0 and any(hangups([right.fd]))

    def _copyin_two(self, entry: Entry, one: int, two: int, taken: Taken) -> tuple[Right | None, Right | None]:
        """Destination and reply port are one name (ipc_right_copyin_two)."""
        if MOVE_SEND_ONCE in (one, two):
            return None, None
        if one not in (MAKE_SEND, MAKE_SEND_ONCE) and two not in (MAKE_SEND, MAKE_SEND_ONCE):
            if not entry.type & SEND or self._died(entry):
                return None, None
            if one == two == MOVE_SEND and entry.urefs < 2:
                return None, None
            if MOVE_SEND in (one, two) and one != two:
                # Copy first: the last reference may be the one that moves.
                copy = self._copyin(entry, COPY_SEND, taken, dead_ok=False)
                move = self._copyin(entry, MOVE_SEND, taken, dead_ok=False)
                return (move, copy) if one == MOVE_SEND else (copy, move)
        first = self._copyin(entry, one, taken, dead_ok=False)
        return first, None if first is None else self._copyin(entry, two, taken, dead_ok=False)

    # -- body ---------------------------------------------------------------------------------------------------------

    def _copyin_body(self, data: bytes, size: int, taken: Taken, parcel: Parcel) -> None:
        """ipc_kmsg_copyin_body. On an error the caller destroys what was taken so far."""
        (count,) = wire.U32.unpack_from(data, wire.BODY)
        if count == 0:
            return
        self._check_descriptors(data, size, count)
        message = bytearray(data)
        parcel.body = message
        offset = wire.DESCRIPTORS
        for _ in range(count):
            kind = message[offset + 11]
            if kind == wire.PORT_DESCRIPTOR:
                name, _, _, disposition, _ = wire.PORT.unpack_from(message, offset)
                slot = self._copyin_name(name, disposition, taken, parcel)
                wire.PORT.pack_into(message, offset, slot, 0, 0, KIND_OF.get(disposition, 0), kind)
            elif kind == wire.GUARDED_PORT_DESCRIPTOR:
                _, flags, disposition, _, name = wire.GUARDED.unpack_from(message, offset)
                slot = self._copyin_name(name, disposition, taken, parcel)
                wire.GUARDED.pack_into(message, offset, 0, flags, PORT_RECEIVE, kind, slot)
            elif kind == wire.OOL_PORTS_DESCRIPTOR:
                self._copyin_ports(message, offset, taken, parcel)
            elif kind in (wire.OOL_DESCRIPTOR, wire.OOL_VOLATILE_DESCRIPTOR):
                self._copyin_memory(message, offset, parcel)
            else:
                raise MachError(lib.MACH_SEND_INVALID_TYPE, _OPERATION)
            offset += wire.descriptor_size(kind)

    @staticmethod
    def _check_descriptors(data: bytes, size: int, count: int) -> None:
        """The first pass: sizes and options, before anything in the body is taken."""
        offset, ports = wire.DESCRIPTORS, 0
        for _ in range(count):
            if offset + 12 > size or offset + wire.descriptor_size(data[offset + 11]) > size:
                raise MachError(lib.MACH_SEND_MSG_TOO_SMALL, _OPERATION)
            kind = data[offset + 11]
            if kind in (wire.OOL_DESCRIPTOR, wire.OOL_VOLATILE_DESCRIPTOR):
                if data[offset + 9] > 1:
                    raise MachError(lib.MACH_SEND_INVALID_TYPE, _OPERATION)
            elif kind == wire.OOL_PORTS_DESCRIPTOR:
                ports += wire.OOL.unpack_from(data, offset)[5]
            elif kind == wire.GUARDED_PORT_DESCRIPTOR:
                context, flags, disposition, _, _ = wire.GUARDED.unpack_from(data, offset)
                if not flags or flags & ~3 or flags & 2 and context or disposition != MOVE_RECEIVE:
                    raise MachError(lib.MACH_SEND_INVALID_TYPE, _OPERATION)
                ports += 1
            elif kind == wire.PORT_DESCRIPTOR:
                ports += 1
            offset += wire.descriptor_size(kind)
        if ports >= _MAX_PORTS:
            raise MachError(lib.MACH_SEND_TOO_LARGE, _OPERATION)

    def _copyin_name(self, name: int, disposition: int, taken: Taken, parcel: Parcel) -> int:
        """The slot of a right that a descriptor names."""
        if name in (NULL, DEAD):
            return wire.SLOT_DEAD if name else wire.SLOT_NULL
        entry = self._entries.get(name)
        right = None if entry is None else self._copyin(entry, disposition, taken)
        if right is None or entry is None:
            raise MachError(lib.MACH_SEND_INVALID_RIGHT, _OPERATION)
        self._reap(entry)
        if right.fd < 0 and right.port is None:
            return wire.SLOT_DEAD
        parcel.rights.append(right)
        if right.port is not None and self._is_circular(right.id, parcel.destination.id):
            parcel.circular = True
        return len(parcel.rights) | (wire.SLOT_FILE if right.is_file else 0)

    def _copyin_ports(self, message: bytearray, offset: int, taken: Taken, parcel: Parcel) -> None:
        address, _, copy, disposition, kind, count = wire.OOL.unpack_from(message, offset)
        if copy > 1:
            raise MachError(lib.MACH_SEND_INVALID_TYPE, _OPERATION)
        wire.OOL.pack_into(message, offset, 0, 1, 1, KIND_OF.get(disposition, 0), kind, count)
        if count == 0:
            return
        names = Struct(f"={count}I").unpack(self._read_memory(address, 4 * count))
        for name in names:
            parcel.tail += wire.U32.pack(self._copyin_name(name, disposition, taken, parcel))

    def _copyin_memory(self, message: bytearray, offset: int, parcel: Parcel) -> None:
        address, _, _, _, kind, size = wire.OOL.unpack_from(message, offset)
        slot = wire.SLOT_NULL
        if size:
            fd = self._memory(address, size)
            parcel.temporary.append(fd)
            parcel.rights.append(Right(0, fd, borrowed=True))
            slot = len(parcel.rights)
        wire.OOL.pack_into(message, offset, slot, 1, 1, 0, kind, size)

    @staticmethod
    def _memory(address: int, size: int) -> int:
        fd = lib.machrv_memory(address, size)
        if fd == -EFAULT:
            raise MachError(lib.MACH_SEND_INVALID_MEMORY, _OPERATION)
        return check(fd)

    def _read_memory(self, address: int, size: int) -> bytes:
        """Memory of this process, which may not be there: MACH_SEND_INVALID_MEMORY."""
        fd = self._memory(address, size)
        where = ffi.new("uint64_t *")
        try:
            check(lib.machrv_map(fd, size, where))
        finally:
            close(fd)
        data = bytes(ffi.buffer(ffi.cast("char *", where[0]), size))
        lib.machrv_unmap(where[0], size)
        return data
