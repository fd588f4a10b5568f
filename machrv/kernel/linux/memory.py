"""Memory objects on Linux: a fileport of a memfd, whose seals say what nobody can do to it.

What belongs here: seals, and what may be believed of a descriptor that somebody else has made. What must never happen
here: a shared mapping of a file that could shrink. Reading behind its end raises SIGBUS, which ends the process.
"""

from __future__ import annotations

import os
from errno import EBUSY
from fcntl import F_ADD_SEALS, F_GET_SEALS, F_GETFL, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, fcntl
from mmap import MAP_PRIVATE, MAP_SHARED, PAGESIZE, PROT_READ, PROT_WRITE, mmap
from stat import S_ISDIR, S_ISFIFO, S_ISREG, S_ISSOCK

from machrv._mach import lib

from machrv.errors import MachError
from machrv.kernel.kernel import failed
from machrv.kernel.memory import MemoryCalls, MemoryFacts, MemoryObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.kernel.kernel import Kernel

_READ_WRITE = PROT_READ | PROT_WRITE
_FUTURE_WRITE = int(lib.MACHRV_SEAL_FUTURE_WRITE)
_ADVICE = (
    "Ask the sender for a MemoryObject, or for a memfd with F_SEAL_SHRINK. A plain file can be taken as a descriptor "
    "(fileport_fd): copy from it with os.read, do not map it"
)
_KINDS = (S_ISREG, "a regular file"), (S_ISFIFO, "a pipe"), (S_ISSOCK, "a socket"), (S_ISDIR, "a directory")


class _Descriptor:
    """The descriptor behind a right, for the length of a `with`."""

    def __init__(self, kernel: Kernel, name: int) -> None:
        self._kernel, self._name = kernel, name

    def __enter__(self) -> int:
        try:
            self._fd = self._kernel.fileport_makefd(self._name)
        except MachError as error:
            if error.code != lib.KERN_INVALID_RIGHT:
                raise
            raise MemoryObjectError(f"this right leads to a port, not to memory. {_ADVICE}") from error
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


class LinuxMemory(MemoryCalls):
    """Memory for one port space."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def create(self, size: int) -> int:
        permission = lib.MAP_MEM_NAMED_CREATE | lib.VM_PROT_READ | lib.VM_PROT_WRITE
        return self._kernel.mach_make_memory_entry_64(size, permission)

    def examine(self, name: int, claimed: int | None) -> MemoryFacts:
        with _Descriptor(self._kernel, name) as fd:
            try:
                seals = fcntl(fd, F_GET_SEALS)
            except OSError:
                mode = os.fstat(fd).st_mode
                kind = next((kind for test, kind in _KINDS if test(mode)), "something else than a file")
                raise MemoryObjectError(f"{kind} came, not a memory object. {_ADVICE}") from None
            if not seals & F_SEAL_SHRINK:
                raise MemoryObjectError(
                    "what came is memory that is not sealed against shrinking: whoever has it could cut it short, and "
                    f"reading it would end this process (SIGBUS). {_ADVICE}"
                )
            # A hole in huge pages is filled when it is read, if there is a page left: else that is SIGBUS, too.
            if os.fstatvfs(fd).f_bsize != PAGESIZE:
                raise MemoryObjectError(
                    f"what came is memory of huge pages, which may run out while it is read. {_ADVICE}"
                )
            mode = fcntl(fd, F_GETFL) & os.O_ACCMODE
            if mode == os.O_WRONLY:
                raise MemoryObjectError(f"what came is memory that was opened for writing only. {_ADVICE}")
            writable = mode == os.O_RDWR and not seals & (F_SEAL_WRITE | _FUTURE_WRITE)
            return MemoryFacts(os.fstat(fd).st_size, writable, bool(seals & F_SEAL_WRITE))

    def map(self, name: int, size: int, writable: bool) -> mmap:
        with _Descriptor(self._kernel, name) as fd:
            # Before 6.7 a shared mapping of what is sealed against writing was refused, even one to read (mm/mmap.c
            # counted it as a possible writer). What never changes need not be shared.
            flags = MAP_PRIVATE if fcntl(fd, F_GET_SEALS) & F_SEAL_WRITE else MAP_SHARED
            try:
                return mmap(fd, size, flags, _READ_WRITE if writable else PROT_READ)
            except OSError as error:
                raise failed(f"mmap of {size} bytes", error.errno or 0) from error

    def protect(self, name: int, for_ever: bool) -> int:
        """The seals are the memory's: they hold whatever descriptor it is reached by."""
        with _Descriptor(self._kernel, name) as fd:
            try:
                fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE if for_ever else _FUTURE_WRITE)
            except OSError as error:
                why = "somebody has it mapped, or is writing to it" if error.errno == EBUSY else error.strerror
                raise MemoryObjectError(f"this memory cannot be sealed: {why}") from error
        return name

    def hand_on(self, name: int) -> int:
        with _Descriptor(self._kernel, name) as fd:
            if not fcntl(fd, F_GET_SEALS) & F_SEAL_SEAL and fcntl(fd, F_GETFL) & os.O_ACCMODE == os.O_RDWR:
                fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
        self._kernel.mach_port_mod_refs(name, lib.MACH_PORT_RIGHT_SEND, 1)
        return name
