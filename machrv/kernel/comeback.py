"""What a failed send gives back, and how the caller gets to own what it owned before.

A send that finds no room, or that a signal interrupts, has taken the rights of the message by then. The kernel puts the
message back into the sender's buffer as if it were received: copies and made rights come as references that the sender
did not have before, memory as a new mapping, and a right that moved under the name that the kernel gives it (xnu-11417,
osfmk/ipc/mach_msg.c mach_msg_receive_pseudo, ipc_kmsg.c ipc_kmsg_copyout_pseudo).

What belongs here: telling the message that came back from the one that was sent, and undoing the difference. What must
never happen here: a right given up that the caller had before the call.

A moved right that comes back under another name is put under its old one. Of several, each may be in another one's place,
or in its own under a later generation: the kernel gives freed places out again, the last one first. Then one steps aside.
The kernel has no call that does this in one step (mach_port_rename went away with macOS 12), so it can fail: where a place
is taken by somebody else by then, the right stays where it is and `Comeback.renamed` tells where.
"""

from __future__ import annotations

from _struct import Struct

from machrv._mach import lib as constants

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_HEADER = Struct("=6I")  # bits, size, remote, local, voucher, id
_COUNT = Struct("=I")
_PORT = Struct("=III")  # name, pad, (pad, disposition, type)
_MEMORY = Struct("=QBBBBI")  # address, deallocate, copy, disposition, type, size or count
_GUARDED = Struct("=QHBBI")  # context, flags, disposition, type, name
_BODY = _HEADER.size
_DESCRIPTORS = _BODY + _COUNT.size
_TYPE_AT = 11
_DEALLOCATE_AT = 8

_NOTHING = (constants.MACH_PORT_NULL, constants.MACH_PORT_DEAD)
_PORT_DESCRIPTOR = constants.MACH_MSG_PORT_DESCRIPTOR
_OOL_PORTS = constants.MACH_MSG_OOL_PORTS_DESCRIPTOR
_GUARDED_PORT = constants.MACH_MSG_GUARDED_PORT_DESCRIPTOR
_RIGHTS = (_PORT_DESCRIPTOR, _GUARDED_PORT)
_MOVES = (
    constants.MACH_MSG_TYPE_MOVE_RECEIVE,
    constants.MACH_MSG_TYPE_MOVE_SEND,
    constants.MACH_MSG_TYPE_MOVE_SEND_ONCE,
)


def descriptors(image: bytes | bytearray | memoryview) -> Iterator[tuple[int, int]]:
    """The descriptors of a message: (offset, type). Ends where the message does, whatever its count says."""
    if len(image) < _DESCRIPTORS or not _COUNT.unpack_from(image)[0] & constants.MACH_MSGH_BITS_COMPLEX:
        return
    offset = _DESCRIPTORS
    for _ in range(_COUNT.unpack_from(image, _BODY)[0]):
        if offset + _PORT.size > len(image):
            return
        kind = image[offset + _TYPE_AT]
        size = _PORT.size if kind == _PORT_DESCRIPTOR else _MEMORY.size
        if offset + size > len(image):
            return
        yield offset, kind
        offset += size


def keep_memory(image: memoryview) -> list[tuple[int, int]]:
    """Clear `deallocate` in every out-of-line descriptor: (address, bytes) of what to deallocate once it is sent.

    So that the caller's memory stays where it is if it is not.
    """
    given = []
    for offset, kind in descriptors(image):
        if kind not in _RIGHTS and image[offset + _DEALLOCATE_AT]:
            image[offset + _DEALLOCATE_AT] = 0
            address, _, _, _, _, length = _MEMORY.unpack_from(image, offset)
            given.append((address, length * 4 if kind == _OOL_PORTS else length))
    return given


def keep_nothing(sent: bytes, returned: memoryview) -> None:
    """Before a message that came back is sent again: set `deallocate` for what the kernel has mapped meanwhile.

    It does so itself for virtual copies only (xnu-11417, ipc_kmsg.c ipc_kmsg_deflate_ool_descriptor).
    """
    for offset, kind in descriptors(sent):
        if kind not in _RIGHTS:
            place = slice(offset, offset + _DEALLOCATE_AT)
            returned[offset + _DEALLOCATE_AT] = returned[place] != sent[place]


class Comeback:
    """The difference between a message that was to be sent and what is in its buffer after the send has failed."""

    def __init__(self, lib: Any, ffi: Any, task: int) -> None:
        self._lib, self._ffi, self._task = lib, ffi, task
        #: Where a moved right is now that could not be put back under its name (the key): its name, or
        #: MACH_PORT_NULL or MACH_PORT_DEAD if it is gone.
        self.renamed: dict[int, int] = {}
        #: What is to be put back: (name, old name, disposition).
        self._waiting: list[tuple[int, int, int]] = []

    def undo(self, sent: bytes, returned: bytes) -> None:
        """Give up what the caller did not have before, and put moved rights back under their names."""
        if sent == returned or len(sent) < _BODY:
            return
        before, after = _HEADER.unpack_from(sent), _HEADER.unpack_from(returned)
        for place, shift in ((2, 0), (3, 8), (4, 16)):  # remote, local, voucher
            self._right(before[place], before[0] >> shift & 0x1F, after[place], after[0] >> shift & 0x1F)
        for offset, kind in descriptors(sent):
            if kind == _PORT_DESCRIPTOR:
                old, new = _PORT.unpack_from(sent, offset), _PORT.unpack_from(returned, offset)
                self._right(old[0], old[2] >> 16 & 0xFF, new[0], new[2] >> 16 & 0xFF)
            elif kind == _GUARDED_PORT:
                old, new = _GUARDED.unpack_from(sent, offset), _GUARDED.unpack_from(returned, offset)
                self._right(old[4], old[2], new[4], new[2])
            else:
                self._memory(_MEMORY.unpack_from(sent, offset), _MEMORY.unpack_from(returned, offset))
        self._put_all_back()

    def _right(self, old: int, old_disposition: int, new: int, new_disposition: int) -> None:
        if old in _NOTHING:
            return
        if old_disposition in _MOVES:
            if new != old:
                self.renamed[old] = new
                if new not in _NOTHING:
                    self._waiting.append((new, old, new_disposition))
        # Where the disposition is still a copy or a make, the kernel has undone it itself: vouchers, reply ports.
        elif new_disposition in _MOVES and new not in _NOTHING:
            self._lib.mach_port_deallocate(self._task, new)

    def _put_all_back(self) -> None:
        waiting, aside = self._waiting, len(self._waiting)
        while waiting:
            left = [one for one in waiting if not self._put_back(*one)]
            if len(left) == len(waiting):
                if not aside:
                    return
                left.append(self._step_aside(*left.pop(0)))
                aside -= 1
            waiting = left

    def _put_back(self, name: int, old: int, disposition: int) -> bool:
        """Whether there is nothing more to be done. Inserting a right where it cannot stand destroys it, so first see
        whether the place is free."""
        pset = constants.MACH_PORT_RIGHT_PORT_SET
        if self._lib.mach_port_allocate_name(self._task, pset, old):
            return False
        self._lib.mach_port_mod_refs(self._task, old, pset, -1)
        if self._lib.mach_port_insert_right(self._task, old, name, disposition):
            self.renamed[old] = constants.MACH_PORT_NULL
        else:
            del self.renamed[old]
        return True

    def _step_aside(self, name: int, old: int, disposition: int) -> tuple[int, int, int]:
        """Put a right where nobody wants to be."""
        place, pset = self._ffi.new("mach_port_name_t *"), constants.MACH_PORT_RIGHT_PORT_SET
        if not self._lib.mach_port_allocate(self._task, pset, place):
            self._lib.mach_port_mod_refs(self._task, place[0], pset, -1)
            if not self._lib.mach_port_insert_right(self._task, place[0], name, disposition):
                name = self.renamed[old] = int(place[0])
        return name, old, disposition

    def _memory(self, sent: tuple[int, ...], returned: tuple[int, ...]) -> None:
        old_address, _, _, old_disposition, kind, _ = sent
        address, _, _, disposition, _, length = returned
        if address in (0, old_address):
            return
        if kind == _OOL_PORTS:
            names = self._ffi.cast("mach_port_name_t *", address)
            old_names = self._ffi.cast("mach_port_name_t *", old_address)
            for index in range(length):
                self._right(old_names[index], old_disposition, names[index], disposition)
            length *= 4
        self._lib.vm_deallocate(self._task, address, length)
