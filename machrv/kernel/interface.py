"""The interface that every kernel keeps: the Mach API in Python, in the field's own names.

What belongs here: what a kernel, a process, a queue of events are to those above. What must never happen here: anything
that only one platform can do, and any policy. The conventions of every method are in `machrv.kernel`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from machrv.audit import AuditToken
    from machrv.kernel.memory import MemoryCalls
    from machrv.kernel.status import PortStatus


class Process(ABC):
    """A process, pinned: not its number, which the system may give to another one."""

    pid: int

    @abstractmethod
    def matches(self, token: AuditToken) -> bool:
        """Whether a message with this audit token came from this very process. A token without a pidversion matches none."""

    @abstractmethod
    def is_running(self) -> bool:
        """False once the process has exited, reaped or not."""

    def fileno(self) -> int:
        """A descriptor that is readable once the process has exited; this object's, to be watched and never closed."""
        raise _unsupported("a descriptor that tells of a process's exit")

    @abstractmethod
    def close(self) -> None:
        """Unpin. Idempotent."""


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

    `add_*` and `remove_*` may be called from any thread while another waits.
    """

    @abstractmethod
    def add_port(self, name: int) -> None:
        """Watch a receive right or a port set."""

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
        seconds or `wake()`. A port may be reported though nothing can be received from it: receive with timeout 0."""

    @abstractmethod
    def wake(self) -> None:
        """Make the present or the next `wait` return. From any thread."""

    @abstractmethod
    def close(self) -> None:
        """Release the queue; the ports and processes stay the caller's. Idempotent."""


class Kernel(ABC):
    """One task's view of Mach: its port space, its messages, its bootstrap namespace.

    Every method raises `MachError`. Methods may be called from any thread; nothing is held while a call waits.
    """

    #: "linux" or "darwin"
    name: str

    # -- names and rights (<mach/mach_port.h>) ------------------------------------------------------------------------

    @abstractmethod
    def mach_port_allocate(self, right: int) -> int:
        """A new name: MACH_PORT_RIGHT_RECEIVE, _PORT_SET or _DEAD_NAME."""

    @abstractmethod
    def mach_reply_port(self) -> int:
        """A receive right that is meant for replies: sent as MAKE_SEND_ONCE, never moved, never put in a set."""

    @abstractmethod
    def mach_port_insert_right(self, name: int, poly: int, disposition: int) -> None:
        """Put the right that `disposition` takes from `poly` under `name`."""

    @abstractmethod
    def mach_port_extract_right(self, name: int, disposition: int) -> tuple[int, int]:
        """Take a right out of `name`: (its name, MACH_MSG_TYPE_PORT_*). In one task, that is a new user reference."""

    @abstractmethod
    def mach_port_deallocate(self, name: int) -> None:
        """Give up one user reference of a send, send-once or dead name."""

    @abstractmethod
    def mach_port_destroy(self, name: int) -> None:
        """Give up everything that the name stands for."""

    @abstractmethod
    def mach_port_mod_refs(self, name: int, right: int, delta: int) -> None:
        """Add `delta` user references of MACH_PORT_RIGHT_*."""

    @abstractmethod
    def mach_port_get_refs(self, name: int, right: int) -> int:
        """The user references of MACH_PORT_RIGHT_*, 0 where the name has no such right."""

    @abstractmethod
    def mach_port_type(self, name: int) -> int:
        """The MACH_PORT_TYPE_* bits of a name."""

    @abstractmethod
    def mach_port_names(self) -> list[tuple[int, int]]:
        """Every (name, MACH_PORT_TYPE_* bits) of the space."""

    @abstractmethod
    def mach_port_get_attributes(self, name: int, flavor: int) -> PortStatus | int:
        """MACH_PORT_RECEIVE_STATUS: a `PortStatus`. MACH_PORT_LIMITS_INFO: the queue limit."""

    @abstractmethod
    def mach_port_set_attributes(self, name: int, flavor: int, value: int) -> None:
        """MACH_PORT_LIMITS_INFO: set the queue limit, 0 to MACH_PORT_QLIMIT_MAX."""

    @abstractmethod
    def mach_port_get_context(self, name: int) -> int:
        """The context of a receive right, as MACH_RCV_TRAILER_CTX reports it."""

    @abstractmethod
    def mach_port_set_context(self, name: int, context: int) -> None:
        """Set the context (64 bits) of a receive right."""

    @abstractmethod
    def mach_port_move_member(self, member: int, after: int) -> None:
        """Take `member` out of all sets and put it into the set `after` (0: into none)."""

    @abstractmethod
    def mach_port_insert_member(self, name: int, pset: int) -> None:
        """Put a receive right into one more set."""

    @abstractmethod
    def mach_port_extract_member(self, name: int, pset: int) -> None:
        """Take a receive right out of one set."""

    @abstractmethod
    def mach_port_request_notification(
        self, name: int, notification: int, sync: int, notify: int, disposition: int
    ) -> int:
        """Ask for MACH_NOTIFY_DEAD_NAME, _NO_SENDERS or _PORT_DESTROYED on `name`.

        `notify` with `disposition` (MAKE_SEND_ONCE or MOVE_SEND_ONCE) gives the right that the notification goes to; 0
        cancels. Returns the name of the send-once right that was registered before, or 0: the caller owns it.
        """

    # -- messages (<mach/message.h>) ----------------------------------------------------------------------------------

    @abstractmethod
    def mach_msg(
        self,
        message: bytes | bytearray | memoryview | None,
        option: int,
        receive_size: int | None = None,
        receive_name: int = 0,
        timeout: float | None = None,
    ) -> bytes | None:
        """Send (MACH_SEND_MSG), receive (MACH_RCV_MSG), or both.

        `message` is the Mach message as a task would lay it out in memory, header first, its length the send size;
        `receive_size` the largest message with trailer that the caller takes (None: any). `option` carries
        MACH_RCV_LARGE and the trailer request. `timeout` in seconds covers the whole call; None waits for ever, 0 does
        not wait. MACH_SEND_TIMEOUT and MACH_RCV_TIMEOUT need not be set. Out-of-line descriptors hold addresses in
        this process: received ones belong to the caller (`vm_read`, `vm_deallocate`).

        Returns the received message, with its trailer behind it at round_up(msgh_size, 4); None where nothing was to be
        received. Raises `MachError`; for MACH_RCV_TOO_LARGE its `size` attribute is the msgh_size that was too large
        (the message still waits if MACH_RCV_LARGE was set, and is destroyed otherwise).

        A send that fails for want of room, time or resources (MACH_SEND_TIMED_OUT, _NO_BUFFER, _TOO_LARGE) has taken
        nothing, and so has one whose header is refused (_INVALID_HEADER, _DEST, _REPLY, _VOUCHER). As on Mach, one that
        is refused for its body (_INVALID_RIGHT, _INVALID_TYPE, _INVALID_MEMORY, _MSG_TOO_SMALL with descriptors) has
        destroyed the rights that its header and the descriptors before the faulty one moved.
        """

    @abstractmethod
    def vm_read(self, address: int, size: int) -> bytes:
        """A copy of memory that came in an out-of-line descriptor."""

    @abstractmethod
    def vm_deallocate(self, address: int, size: int) -> None:
        """Give such memory back. Size 0 is allowed and does nothing."""

    # -- bootstrap (<servers/bootstrap.h>) ----------------------------------------------------------------------------

    @abstractmethod
    def bootstrap_check_in(self, service_name: str) -> int:
        """Claim a name: a receive right. The name lives as long as the right."""

    @abstractmethod
    def bootstrap_look_up(self, service_name: str, timeout: float = 10.0) -> int:
        """A send right to the port that was checked in under the name.

        Linux: while so many look-ups wait that there is no place for another, this waits, for `timeout` seconds at most;
        then it raises KERN_OPERATION_TIMED_OUT.
        """

    def send_bare(self, name: int, id: int, body: bytes) -> bool:
        """A shortcut for sending a message of an id and a body to a copied send right, where the kernel has one for the case.

        True: it is sent. False: nothing has happened; use `mach_msg`, which waits where this does not, and says why.
        """
        return False

    def ask(self, service_name: str, message_id: int, timeout: float) -> bytes | None:
        """A shortcut for look-up, request and reply, where the kernel has one for the case; None: take the steps.

        The request is a bare header with a send-once right to answer it. Returns the answer as `mach_msg` does, with an
        audit trailer; it came to a port that has no name. Raises `MachError` (MACH_RCV_TIMED_OUT after `timeout` seconds)
        once the request is sent; before, whatever fails is left to the steps, which say why.
        """
        return None

    def claim(
        self, service_name: str, message_id: int, timeout: float
    ) -> bytes | tuple[dict[int, int], bytes | list[int]] | None:
        """As `ask`. Of a reply that brings send rights and nothing else, what it says: their names by their keys, and its
        sender's audit token, as bytes or as the first eight of some words."""
        return self.ask(service_name, message_id, timeout)

    def take_request(self, name: int) -> bytes | tuple[int, int, AuditToken] | None:
        """A shortcut for receiving a request of a rendezvous under `name`, where the kernel has one; None: use `mach_msg`.

        Does not wait. Returns the right to answer a request, its id, and who sent it; any other message of no more than a
        header, with an audit trailer, as `mach_msg` does. Raises as that does: a larger message is destroyed. Of those who
        have just looked the port up, another one may be heard first than sent first.
        """
        return None

    def answer(
        self, reply_right: int, ports: Sequence[tuple[int, int, int]], data: bytes = b"", more: bool = False
    ) -> bool:
        """A shortcut for sending the reply of a rendezvous, where the kernel has one; False: nothing was done, use `mach_msg`.

        Does not wait. The send-once right `reply_right` is spent then. `ports` are (key, name, disposition), the keys
        ascending; `data` goes along. `more`: the caller goes on with `take_request`, to which may be left what is still to
        be done.
        """
        return False

    # -- looking on ---------------------------------------------------------------------------------------------------

    def port_identity(self, name: int) -> tuple[str, int]:
        """For `machrv trace`: what every process knows the port by, and the name's MACH_PORT_TYPE_* bits as last seen.

        Changes nothing, and never fails. ("file", ...) for a fileport; "" where the kernel does not tell, 0 where the
        name stands for nothing.
        """
        return "", 0

    # -- descriptors, processes, waiting ------------------------------------------------------------------------------

    @abstractmethod
    def fileport_makeport(self, fd: int) -> int:
        """A send right that stands for an open file, as dup would share it. The descriptor stays the caller's."""

    @abstractmethod
    def fileport_makefd(self, name: int) -> int:
        """A new descriptor (close-on-exec) for a fileport. The right stays the caller's."""

    def memory(self) -> MemoryCalls:
        """The calls for memory that is behind a right: `machrv.MemoryObject` is made of them."""
        raise _unsupported("memory objects")

    @abstractmethod
    def audit_token(self) -> AuditToken:
        """The token that this task's messages bear."""

    @abstractmethod
    def open_process(self, pid: int) -> Process:
        """Pin a process. Raises ProcessLookupError if there is none."""

    @abstractmethod
    def event_queue(self) -> EventQueue:
        """A new, empty event queue for this port space."""

    def readiness(self, name: int) -> Readiness:
        """What is readable, and stays so, while receiving from a receive right or port set may give something.

        That is a message, a notification that has become due, or the error that the name has gone.
        """
        raise _unsupported("a descriptor that tells of messages")

    def room(self, name: int) -> Readiness:
        """What is readable, and stays so, while sending to a send or send-once right may not have to wait.

        Also once its port has died. Raises `MachError` if the name stands for no such right (any more).
        """
        raise _unsupported("a descriptor that tells of room in a queue")


def _unsupported(what: str) -> Exception:
    from machrv.errors import UnsupportedError

    return UnsupportedError(f"this kernel has no {what}")
