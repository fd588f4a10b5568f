"""Memory entries of the stand-in: fileports of memfds in whole pages; an entry to read is one that was opened to read.

A fileport of a plain file stands for an entry of a mapped file. What the kernel answers: xnu-11417,
osfmk/vm/vm_memory_entry.c (mach_make_memory_entry_*) and osfmk/vm/vm_map.c (vm_map_enter_mem_object).
"""

from __future__ import annotations

import ctypes
import os
import stat
from fcntl import F_GET_SEALS, F_GETFL, fcntl
from collections.abc import Callable
from mmap import MAP_SHARED, PAGESIZE, PROT_READ, PROT_WRITE
from typing import Any

from machrv._mach import ffi, lib
from machrv.errors import MachError

from .ports import Killed, Ports

MAP_FIXED = 0x10
MAP_FAILED = 2**64 - 1

_mmap = ctypes.CDLL(None, use_errno=True).mmap
_mmap.restype = ctypes.c_size_t
_mmap.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]


def whole(size: int) -> int:
    """So many bytes in whole pages."""
    return -(-size // PAGESIZE) * PAGESIZE


def is_mapped(start: int, size: int) -> bool:
    """Whether these bytes are in one mapping of this process."""
    with open("/proc/self/maps") as maps:
        ranges = [[int(end, 16) for end in line.split()[0].split("-")] for line in maps]
    return any(low <= start and start + size <= high for low, high in ranges)


class Memory(Ports):
    """A task that shares memory."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        #: what was mapped last: address -> (size, whether a file is behind it)
        self.regions: dict[int, tuple[int, bool]] = {}

    def _behind(self, name: int) -> tuple[int, int, int]:
        """(a new descriptor, size, protection) of an entry."""
        fd = self.kernel.fileport_makefd(name)
        writable = fcntl(fd, F_GETFL) & os.O_ACCMODE == os.O_RDWR
        return fd, whole(os.fstat(fd).st_size), lib.VM_PROT_READ | (lib.VM_PROT_WRITE if writable else 0)

    def _answer(self, call: Callable[[], object]) -> int:
        try:
            call()
        except MachError as error:
            return error.code
        return 0

    def mach_make_memory_entry_64(
        self, task: int, size: Any, offset: int, permission: int, made: Any, parent: int
    ) -> int:
        assert offset == 0
        made[0] = 0
        size[0] = whole(size[0])
        if permission & lib.MAP_MEM_NAMED_CREATE:
            return lib.mach_make_memory_entry_64(task, size, 0, permission, made, 0)

        def call() -> None:
            fd = self._part(size[0], permission, parent)
            try:
                made[0] = self.kernel.fileport_makeport(fd)
            finally:
                os.close(fd)

        return self._answer(call)

    def _part(self, size: int, permission: int, parent: int) -> int:
        """A descriptor for an entry of a part of another one; of all of it, whatever part, as far as maps go."""
        try:
            fd, there, protection = self._behind(parent)
        except MachError:  # No entry: so it is of this task's own memory at address 0, where there is none.
            raise MachError(lib.KERN_INVALID_ADDRESS, "mach_make_memory_entry_64") from None
        try:
            if not 0 < whole(size) <= there:
                raise MachError(lib.KERN_INVALID_ARGUMENT, "mach_make_memory_entry_64")
            if permission & ~protection:
                raise MachError(lib.KERN_PROTECTION_FAILURE, "mach_make_memory_entry_64")
            mode = os.O_RDWR if permission & lib.VM_PROT_WRITE else os.O_RDONLY
            return os.open(f"/proc/self/fd/{fd}", mode | os.O_CLOEXEC)
        finally:
            os.close(fd)

    def vm_map(
        self,
        task: int,
        address: Any,
        size: int,
        mask: int,
        flags: int,
        object: int,
        offset: int,
        copy: int,
        current: int,
        most: int,
        inheritance: int,
    ) -> int:
        assert (mask, offset, copy, current, inheritance) == (0, 0, 0, most, lib.VM_INHERIT_SHARE)

        def call() -> None:
            try:
                fd, there, protection = self._behind(object)
            except MachError:
                raise MachError(lib.KERN_INVALID_OBJECT, "vm_map") from None
            try:
                if not 0 < whole(size) <= there:
                    raise MachError(lib.KERN_INVALID_ARGUMENT, "vm_map")
                if most & ~protection:
                    raise MachError(lib.KERN_INVALID_RIGHT, "vm_map")
                address[0] = self._enter(fd, address[0], whole(size), flags, most)
            finally:
                os.close(fd)

        return self._answer(call)

    def _enter(self, fd: int, wanted: int, size: int, flags: int, protection: int) -> int:
        access = PROT_READ | (PROT_WRITE if protection & lib.VM_PROT_WRITE else 0)
        if flags == lib.VM_FLAGS_ANYWHERE:
            wanted, how = 0, MAP_SHARED
        else:
            assert flags == lib.VM_FLAGS_FIXED | lib.VM_FLAGS_OVERWRITE
            if not is_mapped(wanted, size):
                raise Killed(f"{size} bytes were laid over {wanted:#x}, which is not the caller's")
            how = MAP_SHARED | MAP_FIXED
        where = int(_mmap(wanted, size, access, how, fd, 0))
        if where == MAP_FAILED:
            raise MachError(lib.KERN_NO_SPACE, "vm_map")
        try:
            fcntl(fd, F_GET_SEALS)
            file = False
        except OSError:
            file = stat.S_ISREG(os.fstat(fd).st_mode)
        self.regions[where] = size, file
        if flags == lib.VM_FLAGS_ANYWHERE:
            self.memory[where] = size
        return where

    def vm_region_64(self, task: int, address: Any, size: Any, flavor: int, info: Any, count: Any, name: Any) -> int:
        if flavor != lib.VM_REGION_EXTENDED_INFO or count[0] < lib.VM_REGION_EXTENDED_INFO_COUNT:
            return int(lib.KERN_INVALID_ARGUMENT)
        if address[0] not in self.regions:
            return int(lib.KERN_INVALID_ADDRESS)
        size[0], file = self.regions[address[0]]
        found = ffi.cast("vm_region_extended_info_data_t *", info)
        found.external_pager = file
        count[0] = lib.VM_REGION_EXTENDED_INFO_COUNT
        name[0] = 0
        return 0
