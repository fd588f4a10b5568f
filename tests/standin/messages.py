"""mach_msg of the stand-in, and what it leaves in the caller's memory.

A send that a test has fail, after the message was taken, puts it back as the kernel does (xnu-11417, osfmk/ipc/ipc_kmsg.c,
ipc_kmsg_copyout_pseudo): references that the sender did not have, moved rights under new names, memory mapped anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Any

from machrv._mach import ffi, lib
from machrv.errors import MachError

from .ports import WORD, Killed, Ports

HEADER = Struct("=6I")
COUNT = Struct("=I")
PORT = Struct("=IIHBB")  # name, pad, pad, disposition, type
MEMORY = Struct("=QBBBBI")  # address, deallocate, copy, disposition, type, size or count
COMPLEX = 0x80000000
BODY, DESCRIPTORS, TYPE_AT = 24, 28, 11
PORT_TYPE, OOL_PORTS_TYPE = lib.MACH_MSG_PORT_DESCRIPTOR, lib.MACH_MSG_OOL_PORTS_DESCRIPTOR
VALID_NAMES = range(1, 0xFFFFFFFF)

RECEIVE, SEND, SEND_ONCE = lib.MACH_MSG_TYPE_MOVE_RECEIVE, lib.MACH_MSG_TYPE_MOVE_SEND, lib.MACH_MSG_TYPE_MOVE_SEND_ONCE
COPY_SEND, MAKE_SEND, MAKE_SEND_ONCE = (
    lib.MACH_MSG_TYPE_COPY_SEND,
    lib.MACH_MSG_TYPE_MAKE_SEND,
    lib.MACH_MSG_TYPE_MAKE_SEND_ONCE,
)
SENDING_MISTAKES = (lib.MACH_SEND_INVALID_RIGHT, lib.MACH_SEND_INVALID_REPLY, lib.MACH_SEND_INVALID_VOUCHER)
SEND_OPTIONS = lib.MACH_SEND_MSG | lib.MACH_SEND_TIMEOUT | lib.MACH_SEND_INTERRUPT
RECEIVE_OPTIONS = ~SEND_OPTIONS


def descriptors(image: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """(offset, type) of each descriptor; all of 16 bytes but the port's, of 12."""
    if len(image) >= DESCRIPTORS and HEADER.unpack_from(image)[0] & COMPLEX:
        offset = DESCRIPTORS
        for _ in range(COUNT.unpack_from(image, BODY)[0]):
            if offset + PORT.size > len(image):
                return
            yield offset, image[offset + TYPE_AT]
            offset += PORT.size if image[offset + TYPE_AT] == PORT_TYPE else MEMORY.size


class Messages(Ports):
    """A task that sends and receives."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        #: what the next sends are answered with, once they have taken what the message has
        self.failing_sends: list[int] = []
        #: what the next receives are answered with
        self.failing_receives: list[int] = []
        #: (option, timeout) of every mach_msg
        self.calls: list[tuple[int, int]] = []

    def mach_msg(
        self, msg: Any, option: int, send_size: int, rcv_size: int, rcv_name: int, timeout: int, notify: int
    ) -> int:
        self.calls.append((option, timeout))
        code = 0
        if option & lib.MACH_SEND_MSG:
            code = self._send(msg, option & SEND_OPTIONS, send_size, timeout)
            if self.hardened and code in SENDING_MISTAKES:
                raise Killed(f"EXC_GUARD after {MachError(code, 'mach_msg')}")
        if not code and option & lib.MACH_RCV_MSG:
            code = self._receive(msg, option & RECEIVE_OPTIONS, rcv_size, rcv_name, timeout)
        return code

    def _send(self, msg: Any, option: int, size: int, timeout: int) -> int:
        image = bytearray(ffi.buffer(msg, size))
        self._check_reply_port(image)
        if self.failing_sends:
            self._put_back(image)
            ffi.memmove(msg, image, size)
            return self.failing_sends.pop(0)
        code = lib.machrv_msg(self.kernel._task, msg, option, size, 0, 0, timeout, 0)
        if not code:
            for address, _ in self._memory(image):
                self.memory.pop(address, None)  # It was sent with `deallocate`.
        return code

    @staticmethod
    def _memory(image: bytes | bytearray, received: bool = False) -> Iterator[tuple[int, int]]:
        """(address, bytes) of the memory that a message brings, or takes from its sender."""
        for offset, kind in descriptors(image):
            if kind != PORT_TYPE:
                address, deallocate, _, _, _, length = MEMORY.unpack_from(image, offset)
                if address and (deallocate or received):
                    yield address, length * WORD if kind == OOL_PORTS_TYPE else length

    def _check_reply_port(self, image: bytearray) -> None:
        if len(image) >= HEADER.size:
            bits, _, _, local, _, _ = HEADER.unpack_from(image)
            if local in self.reply_ports and bits >> 8 & 0x1F != MAKE_SEND_ONCE:
                raise Killed(f"EXC_GUARD: the reply port {local:#x} gives send-once rights only")
        for offset, kind in descriptors(image):
            if kind == PORT_TYPE:
                name, _, _, disposition, _ = PORT.unpack_from(image, offset)
                self._moves(name, disposition)

    # -- what comes back ----------------------------------------------------------------------------------------------

    def _put_back(self, image: bytearray) -> None:
        bits, size, remote, local, voucher, id = HEADER.unpack_from(image)
        remote, how = self._back(remote, bits & 0x1F)
        out = bits & ~0x1F1F | how
        if local in self.reply_ports:
            how = bits >> 8 & 0x1F
        else:
            local, how = self._back(local, bits >> 8 & 0x1F)
        HEADER.pack_into(image, 0, out | how << 8, size, remote, local, voucher, id)
        for offset, kind in descriptors(image):
            if kind == PORT_TYPE:
                name, _, _, disposition, _ = PORT.unpack_from(image, offset)
                PORT.pack_into(image, offset, *self._put(name, disposition, kind))
            else:
                address, deallocate, copy, disposition, _, count = MEMORY.unpack_from(image, offset)
                length = count * WORD if kind == OOL_PORTS_TYPE else count
                data = bytes(ffi.buffer(ffi.cast("char *", address), length)) if length else b""
                if kind == OOL_PORTS_TYPE:
                    names = [self._back(name, disposition)[0] for (name,) in COUNT.iter_unpack(data)]
                    data, disposition = b"".join(map(COUNT.pack, names)), self._received(disposition)
                if deallocate and address:
                    self.vm_deallocate(self.kernel._task, address, length)
                given = kind == OOL_PORTS_TYPE or copy == lib.MACH_MSG_VIRTUAL_COPY
                MEMORY.pack_into(image, offset, self.hand_out(data), given, copy, disposition, kind, count)

    def _put(self, name: int, disposition: int, kind: int) -> tuple[int, int, int, int, int]:
        name, disposition = self._back(name, disposition)
        return name, 0, 0, disposition, kind

    @staticmethod
    def _received(disposition: int) -> int:
        return {COPY_SEND: SEND, MAKE_SEND: SEND, MAKE_SEND_ONCE: SEND_ONCE}.get(disposition, disposition)

    def _back(self, name: int, disposition: int) -> tuple[int, int]:
        """The right that `disposition` took from `name`, as it comes back: (its name, its kind)."""
        kernel = self.kernel
        kind = self._received(disposition)
        if name not in VALID_NAMES or not disposition:
            return name, kind
        if disposition == COPY_SEND:
            kernel.mach_port_mod_refs(name, lib.MACH_PORT_RIGHT_SEND, 1)
        elif disposition == MAKE_SEND:
            kernel.mach_port_insert_right(name, name, MAKE_SEND)
        elif disposition == MAKE_SEND_ONCE:
            name, _ = kernel.mach_port_extract_right(name, MAKE_SEND_ONCE)
        elif disposition == SEND_ONCE or self._is_all(name, disposition):
            name = self._renamed(name, disposition)
        return name, kind

    def _is_all(self, name: int, disposition: int) -> bool:
        """Whether nothing is left under the name once this right has moved."""
        bits = self.kernel.mach_port_type(name) & (lib.MACH_PORT_TYPE_SEND | lib.MACH_PORT_TYPE_RECEIVE)
        if disposition == SEND and bits == lib.MACH_PORT_TYPE_SEND:
            return self.kernel.mach_port_get_refs(name, lib.MACH_PORT_RIGHT_SEND) == 1
        return disposition == RECEIVE and bits == lib.MACH_PORT_TYPE_RECEIVE

    def _renamed(self, name: int, disposition: int) -> int:
        fresh = self.kernel.mach_port_allocate(lib.MACH_PORT_RIGHT_DEAD_NAME)
        self.kernel.mach_port_deallocate(fresh)
        self.kernel.mach_port_insert_right(fresh, name, disposition)
        return fresh

    # -- receiving ----------------------------------------------------------------------------------------------------

    def _receive(self, msg: Any, option: int, room: int, name: int, timeout: int) -> int:
        if self.failing_receives:
            return self.failing_receives.pop(0)
        code = lib.machrv_msg(self.kernel._task, msg, option, 0, room, name, timeout, 0)
        if not code:
            self.memory.update(self._memory(bytes(ffi.buffer(msg, msg.msgh_size)), received=True))
        return code

    def mach_msg_destroy(self, msg: Any) -> None:
        for address, _ in self._memory(bytes(ffi.buffer(msg, msg.msgh_size)), received=True):
            self.memory.pop(address, None)
        lib.machrv_msg_destroy(self.kernel._task, msg)
