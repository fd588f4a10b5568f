"""`Kernel`: the whole, put together, with bootstrap names and fileports.

What belongs here: what is the same on both systems. What must never happen here: a name that is cut to fit, or a failure
whose text does not say what it was about.
"""

from __future__ import annotations

import os
from errno import EAGAIN, EINVAL, EMFILE, ENFILE, ENOMEM

from machrv._mach import lib as constants

from machrv.errors import MachError, UnsupportedError
from machrv.kernel.messages import Messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from machrv.message.audit import AuditToken
    from machrv.kernel.memory import MemoryCalls
    from machrv.kernel.waiting import EventQueue, Process, Readiness

#: What a system call answers that lacks room; everything else is an argument that is wrong.
_SHORTAGE = (EMFILE, ENFILE, EAGAIN, ENOMEM)

_NO_DESCRIPTOR = (
    "on macOS a right is no descriptor, so no child can inherit one: it travels in messages. Use a name that the sandbox allows "
    "(docs/macos.md, Sandboxes), or hand DirectRendezvousServer.send_right() on in a message"
)


def failed(operation: str, number: int) -> MachError:
    """What a failed system call comes down to in Mach's words."""
    code = constants.KERN_RESOURCE_SHORTAGE if number in _SHORTAGE else constants.KERN_INVALID_ARGUMENT
    return MachError(code, f"{operation} ({os.strerror(number)})")


class Kernel(Messages):
    """One task's view of Mach: its port space, its messages, its bootstrap namespace.

    A port name is an `int`; a failure is a `MachError` whose code is the one that Mach returns; on failure the caller owns
    what it owned before. Methods may be called from any thread; nothing is held while a call waits. `machrv.kernel.current()`
    is this process's own; a kernel is made by what its system calls it (`LinuxKernel`, `DarwinKernel`).
    """

    #: "linux" or "darwin"
    name: str

    # -- bootstrap (<servers/bootstrap.h>) ----------------------------------------------------------------------------

    def bootstrap_check_in(self, service_name: str) -> int:
        """Claim a name: a receive right. The name lives as long as the right. On macOS it has at most 127 bytes."""
        port, name = self._ffi.new("mach_port_t *"), self._service("bootstrap_check_in", service_name)
        check_in = self._lib.bootstrap_check_in
        return self._named("bootstrap_check_in", service_name, port, lambda: check_in(self._bootstrap, name, port))

    def bootstrap_look_up(self, service_name: str, timeout: float = 10.0) -> int:
        """A send right to the port that was checked in under the name.

        Linux: while so many look-ups wait that there is no place for another, this waits, for `timeout` seconds at most;
        then it raises KERN_OPERATION_TIMED_OUT. launchd answers when it does.
        """
        port, name = self._ffi.new("mach_port_t *"), self._service("bootstrap_look_up", service_name)
        return self._named("bootstrap_look_up", service_name, port, lambda: self._look_up(name, port, timeout))

    def _named(self, operation: str, service_name: str, port: Any, call: Callable[[], int]) -> int:
        try:
            code = call()
            if code:
                raise self._refused(operation, service_name, code)
        except BaseException:
            if port[0]:  # A signal handler has raised behind the call.
                self._lib.mach_port_destroy(self._task, port[0])
            raise
        return port[0]  # type: ignore[no-any-return]  # No call, behind which a signal handler could raise.

    @property
    def _bootstrap(self) -> int:
        """What stands for the namespace in calls."""
        return self._lib.bootstrap_port  # type: ignore[no-any-return]

    def _look_up(self, name: Any, port: Any, timeout: float) -> int:
        return self._lib.bootstrap_look_up(self._bootstrap, name, port)  # type: ignore[no-any-return]

    def _service(self, operation: str, service_name: str) -> bytes:
        """A name as C takes it, which the system will not cut."""
        try:
            return service_name.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:  # No bytes stand for it.
            unknown = constants.BOOTSTRAP_UNKNOWN_SERVICE, constants.BOOTSTRAP_BAD_COUNT
            code = unknown[operation == "bootstrap_check_in"]
            raise MachError(code, f"{operation} of {service_name!r} ({error.reason})") from None

    def _refused(self, operation: str, service_name: str, code: int) -> MachError:
        return MachError(code, f"{operation} of {service_name!r}")

    # -- descriptors (<sys/fileport.h>) -------------------------------------------------------------------------------

    def fileport_makeport(self, fd: int) -> int:
        """A send right that stands for an open file, as dup would share it. The descriptor stays the caller's.

        macOS: not every descriptor can be sent: a kqueue cannot, nor can a guarded one.
        """
        port = self._ffi.new("mach_port_t *")
        if self._fileport("makeport", fd, port) < 0:
            raise failed(f"fileport_makeport of descriptor {fd}", self._ffi.errno)
        return int(port[0])

    def fileport_makefd(self, name: int) -> int:
        """A new descriptor (close-on-exec) for a fileport. The right stays the caller's."""
        fd = self._fileport("makefd", name)
        if fd < 0:
            number = self._ffi.errno
            if number == EINVAL:  # No such name, or no fileport.
                self.mach_port_type(name)
                raise MachError(constants.KERN_INVALID_RIGHT, "fileport_makefd")
            raise failed("fileport_makefd", number)
        return fd

    def right_makefd(self, name: int) -> int:
        """A new descriptor (close-on-exec) that stands for a send right, for a child to inherit. The right stays the caller's.

        Linux. Raises UnsupportedError where a right is no descriptor.
        """
        raise UnsupportedError(_NO_DESCRIPTOR)

    def right_makeport(self, fd: int) -> int:
        """The send right that a descriptor stands for, which stays the caller's. Linux."""
        raise UnsupportedError(_NO_DESCRIPTOR)

    def _fileport(self, call: str, *arguments: Any) -> int:
        return int(getattr(self._lib, f"fileport_{call}")(*arguments))

    # -- what each system has its own for -----------------------------------------------------------------------------

    def most_rights(self) -> int | None:
        """How many rights and memory objects one message takes; None where only its size counts."""
        return None

    def memory(self) -> MemoryCalls:
        """The calls for memory that is behind a right: `machrv.MemoryObject` is made of them."""
        raise _unsupported("memory objects")

    def audit_token(self) -> AuditToken:
        """The token that this task's messages bear."""
        raise NotImplementedError

    def open_process(self, pid: int) -> Process:
        """Pin a process. Raises ProcessLookupError if there is none."""
        raise NotImplementedError

    def event_queue(self) -> EventQueue:
        """A new, empty event queue for this port space."""
        raise NotImplementedError

    def readiness(self, name: int) -> Readiness:
        """What is readable, and stays so, while receiving from a receive right or port set may give something.

        That is a message, a notification that has become due, or the error that the name has gone.
        """
        raise _unsupported("a descriptor that tells of messages")

    def room(self, name: int) -> Readiness:
        """What is readable, and stays so, while sending to a send or send-once right may not have to wait.

        Also once its port has died. Raises `MachError` if the name stands for no such right (any more); UnsupportedError on
        macOS, where nothing tells.
        """
        raise _unsupported("a descriptor that tells of room in a queue")

    def take_turns(self, name: int) -> None:
        """The messages to this port have no order among each other: its senders take turns, so that one that floods it is
        not in front of everybody, and whoever looked its name up is heard once. For servers.

        macOS: does nothing. Mach keeps one queue.
        """

    def is_beyond(self, name: int) -> bool:
        """Whether no answer can be believed from where this send right leads: to another pid namespace, on Linux. Else false."""
        return False

    def port_identity(self, name: int) -> tuple[str, int]:
        """For `machrv trace`: what every process knows the port by, and the name's MACH_PORT_TYPE_* bits as last seen.

        Changes nothing, and never fails. ("file", ...) for a fileport; "" where the kernel does not tell, 0 where the
        name stands for nothing.
        """
        return "", 0


def _unsupported(what: str) -> UnsupportedError:
    return UnsupportedError(f"this kernel has no {what}")
