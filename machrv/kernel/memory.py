"""Memory as a right: what a kernel does for memory objects, and what its refusals are called.

What belongs here: the interface that each system keeps (`Kernel.memory`), and the errors. What must never happen here: an
import of this module by anybody who has no memory object.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import namedtuple

from machrv.errors import MemoryObjectError as MemoryObjectError, ReadOnlyMemoryError as ReadOnlyMemoryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mmap import mmap
    from typing import NamedTuple


if TYPE_CHECKING:

    class MemoryFacts(NamedTuple):
        """What the kernel says of memory: its size in bytes, whether this process can map it for writing, and whether it
        is known that nobody can (on macOS: never)."""

        size: int
        writable: bool
        sealed: bool

else:  # The same without `typing`, which a child would pay for.
    MemoryFacts = namedtuple("MemoryFacts", "size writable sealed")


class MemoryCalls(ABC):
    """What a kernel does with memory behind send rights. Names are borrowed but where it says otherwise.

    Every method raises MachError where the system lacks room, and MemoryObjectError for what it will not do.
    """

    @abstractmethod
    def create(self, size: int) -> int:
        """The name of a new right, the caller's, to so many zeroed bytes. Their number cannot change."""

    @abstractmethod
    def examine(self, name: int, claimed: int | None) -> MemoryFacts:
        """Look at a right that came from somebody else. `claimed`: how many bytes they say it has, None: nothing.

        Raises MemoryObjectError for what is no memory, and for memory that somebody else could cut short: reading it
        would end the process (SIGBUS).
        """

    @abstractmethod
    def map(self, name: int, size: int, writable: bool) -> mmap:
        """The first `size` bytes, which are there, in this process. The pages live as long as the mapping."""

    @abstractmethod
    def protect(self, name: int, for_ever: bool) -> int:
        """Nobody shall map this memory for writing any more. `for_ever`: nor write to it in any other way, which asks for
        memory that nobody has mapped. Takes `name` over, and returns the name to use from then on; if it fails, `name` is
        the caller's still."""

    @abstractmethod
    def hand_on(self, name: int) -> int:
        """The name of another right to this memory, the caller's. What the memory is cannot be changed after that."""
