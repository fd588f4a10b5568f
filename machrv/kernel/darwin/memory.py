"""Memory objects on macOS: named memory entries (<mach/vm_map.h>).

What belongs here: making entries, mapping them, and what may be believed of one that came from somebody else. What must
never happen here: a mapping of a file that could shrink, which an entry may stand for as well as for memory.

An entry's size is in whole pages, and nothing tells it. It is found by asking for entries of parts of it: as large a part
can be had as there is (xnu-11417, osfmk/vm/vm_memory_entry.c, mach_make_memory_entry_from_parent_entry).
"""

from __future__ import annotations

from errno import ENOMEM
from mmap import MAP_ANON, MAP_SHARED, PAGESIZE, PROT_READ, PROT_WRITE, mmap

from machrv._mach import lib as constants

from machrv.errors import MachError
from machrv.kernel.memory import MemoryCalls, MemoryFacts, MemoryObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from machrv.kernel.kernel import Kernel

_READ = constants.VM_PROT_READ
_READ_WRITE = constants.VM_PROT_READ | constants.VM_PROT_WRITE
_CREATE = constants.MAP_MEM_NAMED_CREATE
_OVER_THIS = constants.VM_FLAGS_FIXED | constants.VM_FLAGS_OVERWRITE
#: More pages than any address space has.
_TOO_MANY = 1 << 48
_ADVICE = "Ask the sender for a MemoryObject, or for an entry made with MAP_MEM_NAMED_CREATE"


class DarwinMemory(MemoryCalls):
    """Memory for this task."""

    def __init__(self, lib: Any, ffi: Any, kernel: Kernel) -> None:
        self._lib, self._ffi, self._kernel = lib, ffi, kernel

    def create(self, size: int) -> int:
        return self._kernel.mach_make_memory_entry_64(size, _CREATE | _READ_WRITE)

    def examine(self, name: int, claimed: int | None) -> MemoryFacts:
        self._refuse_files(name)
        if not self._has(name, 1, _READ):
            raise MemoryObjectError(
                f"what came is a copy or a part of an address space, not a memory object. {_ADVICE}"
            )
        if claimed is not None and self._has(name, claimed, _READ):
            size = claimed
        else:
            size = self._pages(name) * PAGESIZE
        return MemoryFacts(size, self._has(name, 1, _READ_WRITE), False)

    def _refuse_files(self, name: int) -> None:
        """Map one page, and look where its contents come from."""
        task, address = self._lib.mach_task_self(), self._ffi.new("vm_address_t *")
        code = self._map(name, address, PAGESIZE, constants.VM_FLAGS_ANYWHERE, _READ)
        if code:
            raise MemoryObjectError(
                f"this right leads to no memory that can be read: {MachError(code, 'vm_map')}. {_ADVICE}"
            )
        try:
            start, size = self._ffi.new("vm_address_t *", address[0]), self._ffi.new("vm_size_t *")
            info, unused = self._ffi.new("vm_region_extended_info_data_t *"), self._ffi.new("mach_port_t *")
            count = self._ffi.new("mach_msg_type_number_t *", constants.VM_REGION_EXTENDED_INFO_COUNT)
            into = self._ffi.cast("int *", info)
            code = self._lib.vm_region_64(task, start, size, constants.VM_REGION_EXTENDED_INFO, into, count, unused)
            if code:
                raise MachError(code, "vm_region_64")
        finally:
            self._lib.vm_deallocate(task, address[0], PAGESIZE)
        if info.external_pager:
            raise MemoryObjectError(
                f"what came is a mapped file: whoever has the file could cut it short, and reading it would end this "
                f"process (SIGBUS). {_ADVICE}"
            )

    def _pages(self, name: int) -> int:
        """How many pages an entry has; it has one at least."""
        least, most = 1, 2
        while most < _TOO_MANY and self._has(name, most * PAGESIZE, _READ):
            least, most = most, most * 2
        while most - least > 1:
            middle = (least + most) // 2
            least, most = (middle, most) if self._has(name, middle * PAGESIZE, _READ) else (least, middle)
        return least

    def _has(self, name: int, size: int, protection: int) -> bool:
        """Whether an entry has so many bytes, to be used so. What the system lacks for a moment is no answer."""
        try:
            part = self._kernel.mach_make_memory_entry_64(size, protection, name)
        except MachError as error:
            if error.code in (constants.KERN_RESOURCE_SHORTAGE, constants.KERN_NO_SPACE):
                raise
            return False
        self._kernel.mach_port_deallocate(part)
        return True

    def map(self, name: int, size: int, writable: bool) -> mmap:
        """Python's own mapping of as many zeroed bytes, over which the entry is laid: so the object that counts who looks
        at the memory, and unmaps it, is Python's. (munmap gives back whatever is mapped there.)"""
        try:
            view = mmap(-1, size, MAP_SHARED | MAP_ANON, PROT_READ | PROT_WRITE if writable else PROT_READ)
        except OSError as error:
            code = constants.KERN_NO_SPACE if error.errno == ENOMEM else constants.KERN_RESOURCE_SHORTAGE
            raise MachError(code, f"mmap of {size} bytes ({error.strerror})") from error
        with self._ffi.from_buffer(view) as start:
            address = self._ffi.new("vm_address_t *", int(self._ffi.cast("uintptr_t", start)))
            whole = -(-size // PAGESIZE) * PAGESIZE
            code = self._map(name, address, whole, _OVER_THIS, _READ_WRITE if writable else _READ)
        if code:
            view.close()
            raise MachError(code, f"vm_map of {size} bytes")
        return view

    def _map(self, name: int, address: Any, size: int, flags: int, protection: int) -> int:
        task, share = self._lib.mach_task_self(), constants.VM_INHERIT_SHARE
        return int(self._lib.vm_map(task, address, size, 0, flags, name, 0, 0, protection, protection, share))

    def protect(self, name: int, for_ever: bool) -> int:
        """An entry to read, in place of the one to write; who has the other one keeps it."""
        size = self._pages(name) * PAGESIZE
        to_read = self._kernel.mach_make_memory_entry_64(size, _READ, name)
        self._kernel.mach_port_deallocate(name)
        return to_read

    def hand_on(self, name: int) -> int:
        """What an entry allows never changes."""
        self._kernel.mach_port_mod_refs(name, constants.MACH_PORT_RIGHT_SEND, 1)
        return name
