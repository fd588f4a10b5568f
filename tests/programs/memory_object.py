"""Children that are given memory, or give it: `memory_object.py SCENARIO [ARGUMENT...]`. Exit status 0: all was as it must be."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import sys
from collections.abc import Callable

from machrv import MemoryObject, Message, ReadOnlyMemoryError, RendezvousClient, SendRight, fileport, fileport_fd
from machrv._mach import ffi

PATIENCE = 30.0
KEEP_SIZE_AND_PUNCH_HOLE = 0x01 | 0x02
READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE

libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]


def take(key: str) -> SendRight:
    """The right that this child was launched with."""
    with RendezvousClient.connect() as rights:
        right = rights.take_send_right(key)
    assert right is not None
    return right


def refused(call: Callable[..., object], *arguments: object) -> None:
    """What this process must not be let do."""
    try:
        call(*arguments)
    except (OSError, TypeError):  # TypeError: what Python says of a mapping to read.
        return
    raise AssertionError(f"{call}{arguments} was not refused")


def answer(claimed: str) -> None:
    """Read what the parent has written, and write beside it."""
    right = take("memo")
    with MemoryObject.from_right(right, int(claimed)) as memory, memory.map(writable=True) as view:
        assert right.closed and memory.size == len(view) == int(claimed)
        assert view[:8] == b"question"
        view[-6:] = b"answer"


def only_read(text: str) -> None:
    """Memory to read is read, and cannot be mapped to be written to."""
    with MemoryObject.from_right(take("memo")) as memory, memory.map() as view:
        assert memory.read_only and view[: len(text)] == text.encode()
        refused(memory.map, True)
        refused(view.__setitem__, 0, 1)
        try:
            memory.map(writable=True)
        except ReadOnlyMemoryError:
            pass


def attack(kind: str) -> None:
    """All that a process can try with a right to memory: make it another size, and if it is to read, change it."""
    with take("memo") as right:
        fd = fileport_fd(right)
    size = os.fstat(fd).st_size
    for one in (fd, os.open(f"/proc/self/fd/{fd}", os.O_RDWR)):
        refused(os.ftruncate, one, 0)
        refused(os.ftruncate, one, size + 1)
        refused(os.posix_fallocate, one, size, 4096)
        refused(os.pwrite, one, b"more", size)
        refused(fcntl.fcntl, one, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        if kind != "writable":
            refused(os.pwrite, one, b"changed", 0)
            refused(mmap.mmap, one, size, mmap.MAP_SHARED, READ_WRITE)
            assert libc.fallocate(one, KEEP_SIZE_AND_PUNCH_HOLE, 0, mmap.PAGESIZE) == -1
    if kind == "read_only":
        view = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
        start = int(ffi.cast("uintptr_t", ffi.from_buffer(view)))
        assert libc.mprotect(start, mmap.PAGESIZE, READ_WRITE) == -1


def bait(kind: str) -> None:
    """Send memory that is not what it looks like; once the reader has it, take it away under their eyes."""
    with RendezvousClient.connect() as rights:
        told, turn = rights.take_send_right("told"), rights.take_receive_right("turn")
    assert told is not None and turn is not None
    fd = os.memfd_create("bait", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 1 << 20)
    os.pwrite(fd, b"bait", 0)
    if kind == "grows":
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    with told, turn:
        told.send(Message(1, descriptors=[fileport(fd)]))
        turn.receive(PATIENCE)
        if kind == "grows":
            refused(os.ftruncate, fd, 0)
            os.ftruncate(fd, 1 << 30)
            assert libc.fallocate(fd, KEEP_SIZE_AND_PUNCH_HOLE, 0, 1 << 20) == 0
        else:
            os.ftruncate(fd, 0)
        told.send(Message(2))


globals()[sys.argv[1]](*sys.argv[2:])
