"""A packet on its way in: read without believing it, its rights given names, made a Mach message with its trailer.

What belongs here: the only place where bytes from a socket are taken apart. What must never happen here: choosing or
waiting, or an identity that the kernel did not attest. Methods with a leading underscore expect the space's lock to be
held.
"""

from __future__ import annotations

from struct import Struct

from machrv._mach import ffi, lib

from machrv.errors import MachError
from machrv.kernel.linux import wire
from machrv.kernel.linux.answers import close
from machrv.kernel.linux.buffer import Buffer
from machrv.kernel.linux.end import LISTENER, End
from machrv.kernel.linux.port import PORT_SEND, PORT_SEND_ONCE, Port
from machrv.kernel.linux.sending import HEADER, Sending
from machrv.kernel.linux.space import DEAD, NULL
from machrv.kernel.linux.transit import Right

_OPERATION = "mach_msg"
_COMPLEX = int(lib.MACH_MSGH_BITS_COMPLEX)
_NOTIFICATION = int(lib.MACHRV_WIRE_NOTIFICATION)
_DESTROYED = int(lib.MACHRV_WIRE_DESTROYED)
_OUT_OF_LINE = int(lib.MACHRV_WIRE_LARGE)
_receive = lib.machrv_receive
_receive_next = lib.machrv_receive_next
NO_LIMIT = 0xFFFFFFFF

#: machrv_received before its descriptors, and machrv_wire_header, as `struct` sees them
_FIXED, _WIRE = Struct("=qqiII4xQiiiii"), Struct("=IIHHIiIq")
_WIRE_AT, _BODY_AT = ffi.offsetof("machrv_received", "header"), ffi.offsetof("machrv_received", "body")
_SECURITY, _TOKEN = Struct("=II"), Struct("=8I")
_TRAILER = Struct("=IIIII")
_KERNEL_TOKEN = bytes(32)
_KERNEL_SECURITY = (0, 1)  # KERNEL_SECURITY_TOKEN_VALUE (osfmk/mach/message.h)
#: the size of the trailer by the elements asked for
TRAILER_SIZES = (8, 12, 20, 52, 60) + (68,) * 11


def trailer_size(option: int) -> int:
    """REQUESTED_TRAILER_SIZE (osfmk/mach/message.h)."""
    return TRAILER_SIZES[option >> 24 & 0xF]


class Packet:
    """A received message before its rights have names."""

    __slots__ = ("bits", "size", "id", "kind", "reply", "rights", "carried", "data", "token", "security")

    def __init__(self, size: int, id: int, kind: int) -> None:
        self.bits: int = 0
        self.size: int = size
        self.id: int = id
        self.kind: int = kind
        self.reply: Right | int = NULL
        #: by slot number, without flags
        self.rights: list[Right] = []
        self.carried: list[wire.Carried] = []
        #: laid out as the Mach message; the header is filled in when the names are known
        self.data: bytearray = bytearray()
        self.token: bytes = _KERNEL_TOKEN
        self.security: tuple[int, int] = _KERNEL_SECURITY


def destroyed() -> Packet:
    """The message that says that a send-once right was given up unused."""
    packet = Packet(24, lib.MACH_NOTIFY_SEND_ONCE, PORT_SEND_ONCE)
    packet.data = bytearray(24)
    return packet


class Incoming(Sending):
    """A space that can read packets."""

    def _furnish(self) -> None:
        super()._furnish()
        self._buffer = Buffer(self._native, self._gate)
        #: another for whoever receives without the lock, and where in memory that receives
        self._taken = Buffer(self._native, self._gate)
        self._taken_at = int(ffi.cast("uintptr_t", self._taken.exchange))
        #: where answers come that are waited for without a port, which needs no id: see `Asking._ask`
        self._asking = Port(bytes(32))

    # -- the common case ----------------------------------------------------------------------------------------------

    def _receive_plain(self, port: Port, end: End, option: int, limit: int) -> bytes | int:
        """The next message of `end`, if it is as plain as most are. 0: it is in the buffer, for `_read`; negative: an errno.

        Whatever comes out is what `_read` and `_finish` would have made of it.
        """
        buffer = self._buffer
        if port.aimed is not end:
            port.aim(end)
        length: int = _receive_next(buffer.exchange, port.native, option, limit)
        if length <= 0:
            return length
        if length & 1:
            length -= 1
            self._name_rights(buffer, buffer.received.nfds)
        if end.late:
            end.received(buffer.received.length)
        if end.kind == PORT_SEND_ONCE:
            port.drop(end)
        elif end.queued:
            port.taken(end)
        message: bytes = buffer.laid_out[0:length]
        return message

    # -- reading ------------------------------------------------------------------------------------------------------

    def _read(self, end: End) -> Packet | None:
        """The packet in the buffer. None at an end-of-file that means nothing; Malformed, with all that came closed."""
        length, _, pid, uid, gid, process, pidfd, euid, egid, cut, nfds = _FIXED.unpack_from(self._buffer.image)
        bits, size, flags, space, reply, id, _, _ = _WIRE.unpack_from(self._buffer.image, _WIRE_AT)
        end.received(length)
        fds = list(self._buffer.received.fds[0:nfds]) if nfds else []
        if length == 0 or flags & _DESTROYED and cut != 1:
            _close_all(fds)
            return destroyed() if end.kind == PORT_SEND_ONCE else None
        own = pid == self._identity.pid and pidfd >= 0  # who is gone (-1) was another one, that had this pid before
        if cut == 2:
            _close_all(fds)
            raise MachError(lib.MACH_RCV_BODY_ERROR | lib.MACH_MSG_IPC_KERNEL, _OPERATION)
        # A right that has never left this process attests by pid alone; any other must have brought its pidfd, where
        # the kernel has them to give.
        if cut == 1 or pid == 0 or not own and (end.trusted or not pidfd and _has_passpidfd()):
            _close_all(fds)
            raise wire.Malformed("not a packet, or from nobody")
        packet = Packet(size, id, end.kind)
        if not (flags & _NOTIFICATION and own):
            if own:
                packet.token = self._identity.own(space, uid, gid)
                packet.security = _SECURITY.unpack_from(packet.token, 4)
            else:
                if not pidfd:
                    process = lib.machrv_process(pid, -1)  # before 6.5 nothing pins the sender: see docs/linux.md
                packet.security = (euid & 0xFFFFFFFF, egid & 0xFFFFFFFF) if pidfd == 2 else (uid, gid)
                packet.token = _TOKEN.pack(0xFFFFFFFF, *packet.security, uid, gid, pid, space, process & 0xFFFFFFFF)
        packet.bits = bits
        data = packet.data
        data += bytes(24)
        if flags & _OUT_OF_LINE:
            data += self._read_large(fds)
        else:
            data += self._buffer.image[_BODY_AT : _BODY_AT + length - lib.MACHRV_WIRE_HEADER]
        self._read_rights(packet, size, reply, fds, own)
        return packet

    def _read_large(self, fds: list[int]) -> bytes:
        """The body of a packet that travelled in a sealed memfd, the last descriptor."""
        if not fds:
            raise wire.Malformed("a large packet without its memory")
        fd = fds.pop()
        try:
            size = _file_size(fd)
            where = ffi.new("uint64_t *")
            if not 0 < size <= 80 * 1024 * 1024 or lib.machrv_map(fd, size, where) < 0:
                _close_all(fds)
                raise wire.Malformed("memory that can still change")
        finally:
            close(fd)
        data = bytes(ffi.buffer(ffi.cast("char *", where[0]), size))
        lib.machrv_unmap(where[0], size)
        return data

    def _read_rights(self, packet: Packet, size: int, reply: int, fds: list[int], own: bool) -> None:
        """Turn the descriptors of a packet into rights; if that fails, nothing of them is left."""
        data, bits = packet.data, packet.bits
        kind, reply_kind = bits & 0x1F, bits >> 8 & 0x1F
        slots: dict[int, tuple[int, bool]] = {}
        try:
            if (
                size < 24
                or size & 3
                or size > len(data)
                or kind != packet.kind
                or reply_kind not in (0, PORT_SEND, PORT_SEND_ONCE)
            ):
                raise wire.Malformed("a header that contradicts its packet")
            if bits & _COMPLEX:
                packet.carried = wire.parse(data, size, len(fds), reply)
            elif len(data) != size or len(fds) != (reply not in (wire.SLOT_NULL, wire.SLOT_DEAD)):
                raise wire.Malformed("more or less than a plain message")
            if reply not in (wire.SLOT_NULL, wire.SLOT_DEAD):
                if not 0 <= (reply & ~wire.SLOT_FILE) - 1 < len(fds) or not reply_kind:
                    raise wire.Malformed("no such reply right")
                slots[(reply & ~wire.SLOT_FILE) - 1] = (reply_kind, bool(reply & wire.SLOT_FILE))
            for carried in packet.carried:
                memory = carried.type in (wire.OOL_DESCRIPTOR, wire.OOL_VOLATILE_DESCRIPTOR)
                for slot in carried.slots:
                    if slot not in (wire.SLOT_NULL, wire.SLOT_DEAD):
                        slots[(slot & ~wire.SLOT_FILE) - 1] = (
                            0 if memory else carried.disposition,
                            bool(slot & wire.SLOT_FILE),
                        )
            while fds:
                right_kind, is_file = slots[len(packet.rights)]
                fd = fds.pop(0)
                packet.rights.append(Right(0, fd) if not right_kind else self._arrived(fd, right_kind, is_file, own))
        except (wire.Malformed, MachError):
            _close_all(fds)
            self._destroy_packets([packet])
            raise
        if reply not in (wire.SLOT_NULL, wire.SLOT_DEAD):
            packet.reply = packet.rights[(reply & ~wire.SLOT_FILE) - 1]
        else:
            packet.reply = DEAD if reply else NULL

    def _collect(self, port: Port) -> list[Packet]:
        """Take out what waits on a port that dies. Nothing more can be sent to it from here on."""
        packets = []
        for end in port.ends.values():
            if end.kind == LISTENER:
                continue
            lib.machrv_shut(end.fd)
            received = self._buffer.received
            while _receive(end.fd, received) == 0 and (received.length or received.nfds):
                try:
                    packet = self._read(end)
                except (wire.Malformed, MachError):
                    continue
                if packet is not None:
                    packets.append(packet)
        return packets

    # -- names --------------------------------------------------------------------------------------------------------

    def _finish(self, packet: Packet, port: Port, seqno: int, option: int) -> bytes:
        """Give the rights their names (the reply right first, the body from behind, as XNU does), add the trailer."""
        data, size = packet.data, packet.size
        reply = packet.reply
        name = reply if isinstance(reply, int) else self._copyout(reply)
        if packet.carried:
            del data[size:]
            for carried in reversed(packet.carried):
                self._finish_descriptor(packet, carried)
        bits = packet.bits & _COMPLEX | packet.bits >> 8 & 0x1F | packet.kind << 8
        HEADER.pack_into(data, 0, bits, size, name, port.name, 0, packet.id)
        elements = option >> 24 & 0xF
        if elements == 0:
            data += _SECURITY.pack(0, 8)
            return bytes(data)
        uid, gid = packet.security
        wanted = trailer_size(option)
        trailer = _TRAILER.pack(0, wanted, seqno, uid, gid)
        if wanted > 20:
            trailer += packet.token
            if wanted > 52:
                trailer += port.context.to_bytes(8, "little") + bytes(8)
        data += trailer[:wanted]
        return bytes(data)

    def _finish_descriptor(self, packet: Packet, carried: wire.Carried) -> None:
        data, offset, kind = packet.data, carried.offset, carried.type
        if kind == wire.PORT_DESCRIPTOR:
            wire.PORT.pack_into(data, offset, self._name(packet, carried.slots[0]), 0, 0, carried.disposition, kind)
        elif kind == wire.GUARDED_PORT_DESCRIPTOR:
            _, flags, disposition, _, slot = wire.GUARDED.unpack_from(data, offset)
            wire.GUARDED.pack_into(data, offset, 0, flags, disposition, kind, self._name(packet, slot))
        elif kind == wire.OOL_PORTS_DESCRIPTOR:
            names = [self._name(packet, slot) for slot in carried.slots]
            address = self._allocate(Struct(f"={len(names)}I").pack(*names))
            wire.OOL.pack_into(data, offset, address, 1, 1, carried.disposition, kind, len(names))
        else:
            address = 0
            if carried.slots[0]:
                fd = packet.rights[carried.slots[0] - 1].fd
                where = ffi.new("uint64_t *")
                if lib.machrv_map(fd, carried.size, where) == 0:
                    address = where[0]
                close(fd)
            wire.OOL.pack_into(data, offset, address, 1, 1, 0, kind, carried.size if address else 0)

    def _name(self, packet: Packet, slot: int) -> int:
        if slot in (wire.SLOT_NULL, wire.SLOT_DEAD):
            return DEAD if slot else NULL
        return self._copyout(packet.rights[(slot & ~wire.SLOT_FILE) - 1])

    @staticmethod
    def _allocate(data: bytes) -> int:
        if not data:
            return 0
        where = ffi.new("uint64_t *")
        if lib.machrv_allocate(len(data), where) < 0:
            return 0
        ffi.buffer(ffi.cast("char *", where[0]), len(data))[:] = data
        return int(where[0])


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        close(fd)
    fds.clear()


def _file_size(fd: int) -> int:
    import os

    return os.fstat(fd).st_size


_passpidfd: bool | None = None


def _has_passpidfd() -> bool:
    """Whether the kernel attaches pidfds to messages (SO_PASSPIDFD, Linux 6.5)."""
    global _passpidfd
    if _passpidfd is None:
        _passpidfd = bool(lib.machrv_has_passpidfd())
    return _passpidfd
