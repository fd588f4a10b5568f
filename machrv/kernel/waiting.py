"""What a thread waits on: a queue of events, a process that may exit, a descriptor for event loops.

What belongs here: what each is to those above; what it is made of is in `linux.waiting` and `darwin.waiting`. What must never
happen here: anything that only one system can do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Self

    from machrv.message.audit import AuditToken


class Process(ABC):
    """A process, pinned: not its number, which the system may give to another one. It owns a descriptor: close it."""

    pid: int

    @abstractmethod
    def matches(self, token: AuditToken) -> bool:
        """Whether a message with this audit token came from this very process."""

    @abstractmethod
    def is_running(self) -> bool:
        """False once the process has exited, reaped or not."""

    def is_beyond(self) -> bool:
        """Whether it can believe no message of this process's: it is in a pid namespace of its own, on Linux. Else false."""
        return False

    @abstractmethod
    def fileno(self) -> int:
        """A descriptor that is readable once the process has exited; this object's, to be watched and never closed."""

    @abstractmethod
    def close(self) -> None:
        """Unpin. Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Readiness(ABC):
    """A descriptor for event loops: as long as it is not readable, there is nothing to try.

    It may be readable though there is nothing: then trying, without waiting, makes it unreadable again. Made by
    `Kernel.readiness` and `Kernel.room`; it ends with `close`, which is the caller's to call. Take the descriptor out of
    every loop before that.
    """

    __slots__ = ()

    @abstractmethod
    def fileno(self) -> int:
        """The descriptor: to be watched, never to be read from or closed. -1 once this is closed."""

    @abstractmethod
    def close(self) -> None:
        """Close the descriptor. Idempotent."""


class EventQueue(ABC):
    """What one thread waits on: ports that have something to receive, processes that exit.

    `add_*` and `remove_*` may be called from any thread while another waits. In the child of a fork the queue is closed.
    """

    @abstractmethod
    def add_port(self, name: int) -> None:
        """Watch a receive right or a port set. Raises MachError (KERN_INVALID_RIGHT) for anything else."""

    @abstractmethod
    def remove_port(self, name: int) -> None:
        """Stop watching. Not an error if the name is not watched (any more)."""

    @abstractmethod
    def add_process(self, process: Process) -> None:
        """Watch for the exit of `process`; reported once, even if it is over already. The queue does not own it."""

    @abstractmethod
    def remove_process(self, process: Process) -> None:
        """Stop watching. Call it before `process.close()`. Not an error if it is not watched."""

    @abstractmethod
    def wait(self, timeout: float | None = None) -> tuple[list[int], list[Process]]:
        """The ports that may have a message and the processes that have exited; two empty lists after `timeout`
        seconds or `wake()`. A port may be reported though nothing can be received from it, and is once it has gone:
        receive with timeout 0."""

    @abstractmethod
    def wake(self) -> None:
        """Make the present or the next `wait` return. From any thread."""

    @abstractmethod
    def close(self) -> None:
        """Release the queue; the ports and processes stay the caller's. Idempotent."""
