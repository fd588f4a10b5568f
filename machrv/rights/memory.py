"""Shared memory as a right: `MemoryObject`."""

# What belongs here: who owns which right, and when memory may still be sealed. What must never happen here: memory that
# leaves this process while its size can change, or that is mapped because of what its sender says of it. How each kernel
# makes it is in `machrv.kernel.memory` and in each kernel's room of that name.

from __future__ import annotations

import sys
import weakref
from _thread import RLock

# Not from warnings: this one works until Python has ended.
from _warnings import warn
from operator import index

from machrv.errors import MemoryObjectError, ReadOnlyMemoryError, RightError
from machrv.kernel import current
from machrv.kernel.memory import MemoryFacts
from machrv.rights.closing import Closing
from machrv.rights.kinds import SendRight

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mmap import mmap
    from typing import Any

    from typing_extensions import Buffer, Self

    from machrv.kernel import Kernel


class MemoryObject(Closing):
    """Memory that processes share: made with `create` or `from_bytes`, handed on with `right`, taken with `from_right`.

    It has no name that others could find, and its size never changes. The pages live as long as anything leads to them:
    a memory object, a right on its way, a mapping. After the last one they are gone, however the processes ended.

    The object owns one right; a context manager that closes on exit, and, as rights are, spent in the child of a fork.
    Forgotten without `close()`, it is closed and a ResourceWarning is given. Mappings are Python's `mmap` objects and
    live on after `close()`.
    """

    __slots__ = ("_right", "_size", "_writable", "_sealed", "_settled", "_maps", "_lock", "__weakref__")

    def __init__(self, right: SendRight, facts: MemoryFacts, settled: bool) -> None:
        """For `create` and `from_right`: takes `right` over."""
        self._right = right
        self._size: int = facts.size
        self._writable: bool = facts.writable
        self._sealed: bool = facts.sealed
        #: What can be done to the memory was fixed: it has been handed on, or was made by somebody else.
        self._settled = settled
        self._maps: list[weakref.ref[mmap]] = []
        self._lock = RLock()

    @classmethod
    def create(cls, size: int, kernel: Kernel | None = None) -> Self:
        """New memory: `size` zeroed bytes, which take room once they are touched.

        Raises MemoryObjectError for a size that no memory has, and MachError where the system lacks room.
        """
        size = _checked(index(size))
        kernel = kernel if kernel is not None else current()
        return cls(SendRight(kernel.memory().create(size), kernel), MemoryFacts(size, True, False), False)

    @classmethod
    def from_bytes(cls, data: Buffer, kernel: Kernel | None = None) -> Self:
        """New memory with a copy of `data`: bytes, an array, or anything else that has a buffer. Errors as `create`."""
        with memoryview(data) as view:
            memory = cls.create(view.nbytes, kernel)
            try:
                with memory.map(writable=True) as into:
                    into[:] = view if view.c_contiguous else view.tobytes()
            except BaseException:
                memory.close()
                raise
            return memory

    @classmethod
    def from_right(cls, right: SendRight, size: int | None = None) -> Self:
        """The memory that `right` stands for. The right is this object's from then on; if this raises, the caller's.

        `size`: how many bytes the sender says there are. That is checked, and the object has so many; without it, the
        object has all that came (on macOS, where sizes are in whole pages, up to a page more than was asked for).

        Raises MemoryObjectError where fewer came, and for what is not safe to map: on Linux anything but a memfd that is
        sealed against shrinking, on macOS anything but a memory entry that no file is behind. What is in the memory is
        the sender's word, and may change while it is read unless `sealed` is true.
        """
        if not isinstance(right, SendRight):
            raise RightError(f"memory comes as a SendRight, not as {right!r}")
        if size is not None:
            size = _checked(index(size))
        facts = right.kernel.memory().examine(right.name, size)
        if not facts.size:
            raise MemoryObjectError("what came is memory of no bytes: the sender has not given it a size")
        if size is not None:
            if facts.size < size:
                raise MemoryObjectError(
                    f"the sender speaks of {size} bytes, and {facts.size} came: do not trust the rest"
                )
            facts = facts._replace(size=size)
        return cls(SendRight(right._moved_away("moved into a MemoryObject"), right.kernel), facts, True)

    @property
    def size(self) -> int:
        """In bytes: what `map` shows."""
        return self._size

    @property
    def kernel(self) -> Kernel:
        """The kernel whose port space the right to this memory is in."""
        return self._right.kernel

    @property
    def read_only(self) -> bool:
        """Whether `map(writable=True)` is refused. Mappings that are older may still be written through."""
        return not self._writable

    @property
    def sealed(self) -> bool:
        """Whether it is known that nobody can change the memory any more. On macOS, only who sealed it knows."""
        return self._sealed

    @property
    def closed(self) -> bool:
        """Whether the object is spent: closed, or made before fork."""
        return self._right.closed

    def map(self, writable: bool = False) -> mmap:
        """The memory in this process, shared with everybody who has it: a new `mmap` object, the caller's to close.

        A context manager. `memoryview(...)` and `numpy.frombuffer(...)` see it without a copy; while one of them is
        alive, closing raises BufferError. It lives on after this object is closed.

        Raises ReadOnlyMemoryError, RightError once the object is closed, and MachError where the system lacks room.
        """
        with self._use():
            right = self._held()
            if writable and not self._writable:
                raise ReadOnlyMemoryError(
                    "this memory can only be read: it was sealed, or handed on to be read only. Map it with writable=False"
                )
            view = right.kernel.memory().map(right.name, self._size, bool(writable))
            self._maps = [ref for ref in self._maps if _is_open(ref)] + [weakref.ref(view)]
            return view

    def seal(self) -> None:
        """Nobody can write to the memory from then on: neither this process nor anybody who gets a right to it.

        Raises MemoryObjectError once a right was handed on, and while the memory is mapped here. Idempotent.
        """
        with self._use():
            if not self._sealed:
                if any(map(_is_open, self._maps)):
                    raise MemoryObjectError("memory cannot be sealed while it is mapped: close its mappings first")
                self._protect(for_ever=True)
                self._sealed = True

    def right(self, read_only: bool = False) -> SendRight:
        """A new right to this memory, the caller's, to be sent or registered. This object keeps its own.

        Whoever gets it can write to the memory, unless it is sealed or `read_only` is true. `read_only` takes writing
        away from everybody, here as well: only mappings that exist already are still written through. It is to be asked
        for with the first right: once others may write, MemoryObjectError.
        """
        with self._use():
            held = self._held()
            if read_only and self._writable:
                self._protect(for_ever=False)
            right = SendRight(held.kernel.memory().hand_on(held.name), held.kernel)
            self._settled = True
            return right

    def _protect(self, for_ever: bool) -> None:
        if self._settled:
            raise MemoryObjectError(
                "who may write to this memory was settled when it left the process that made it. "
                "Seal it before the first `right()`, or ask for that with `right(read_only=True)`"
            )
        held = self._held()
        name = held.release()
        try:
            name = held.kernel.memory().protect(name, for_ever)
            self._writable = False
        finally:
            held.restore(name)

    def _held_again(self, right: SendRight) -> None:
        """In the child of a fork, to which it was handed over: the memory as if it had just come."""
        self._right, self._settled, self._maps, self._lock = right, True, [], RLock()

    def _use(self) -> RLock:
        self._held()  # First: in the child of a fork, the lock may be held by a thread that is not there.
        return self._lock

    def _held(self) -> SendRight:
        if self._right.closed:
            raise RightError("this MemoryObject is spent: it was closed, or made before fork")
        return self._right

    def close(self) -> None:
        """Give the right up. Idempotent. Mappings and rights that were handed on stay good."""
        if not self._right.closed:
            with self._lock:
                self._right.close()

    def __reduce_ex__(self, protocol: object) -> Any:
        context = sys.modules.get("multiprocessing.context")
        if context is None or context.get_spawning_popen() is None:
            return super().__reduce_ex__(protocol)  # Says why not.
        return type(self).from_right, (self.right(), self._size)

    def __del__(self) -> None:
        right = getattr(self, "_right", None)
        if right is not None and not right.closed:
            text = f"{self!r} was forgotten: close it, or use `with`"
            right.close()  # First: where warnings are errors, the next line raises.
            warn(text, ResourceWarning, source=self)

    def __repr__(self) -> str:
        state = "spent" if self.closed else "sealed" if self._sealed else "writable" if self._writable else "read-only"
        return f"<MemoryObject of {self._size} bytes, {state}>"


def _checked(size: int) -> int:
    """Raises MemoryObjectError for a size that no memory has."""
    if not 0 < size <= sys.maxsize:
        raise MemoryObjectError(f"memory has 1 to {sys.maxsize} bytes, not {size}")
    return size


def _is_open(mapping: weakref.ref[mmap]) -> bool:
    view = mapping()
    return view is not None and not view.closed
