"""`LinuxKernel`: a port space of this process.

What belongs here: the task's handle in calls that take none on macOS, and what <machrv/linux.h> has besides. What must never
happen here: the rules of rights, which are C's.
"""

from __future__ import annotations

from time import monotonic

from machrv._mach import ffi, lib

from machrv.errors import MachError
from machrv.kernel.calls import check
from machrv.kernel.kernel import Kernel, failed
from machrv.kernel.messages import milliseconds
from machrv.log import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from machrv.message.audit import AuditToken
    from machrv.kernel.linux.memory import LinuxMemory
    from machrv.kernel.linux.waiting import LinuxEventQueue, LinuxProcess, LinuxReadiness

#: What the C has counted when the log was last told of it.
_told = 0


class LinuxKernel(Kernel):
    """One more port space in this process, or with a handle the one that it stands for (`machrv_task_create`).

    `close()` destroys everything in it, as the end of a task does; it can be used again, empty.
    """

    name = "linux"
    _task: int = 0
    _owned = False

    def __init__(self, task: int = 0) -> None:
        super().__init__(lib, ffi)
        if not task:
            made = ffi.new("mach_port_t *")
            check(lib.machrv_task_create(made), "machrv_task_create")
            task, self._owned = made[0], True
        self._task = task
        self._msg = (lambda *arguments: lib.machrv_msg(task, *arguments)) if self._owned else lib.mach_msg
        self._msg_destroy = lambda header: lib.machrv_msg_destroy(task, header)

    def close(self) -> None:
        """Destroy every name, as the end of a task does. The space may be used again, empty."""
        lib.machrv_task_terminate(self._task)

    def __del__(self) -> None:
        if self._owned:
            self._owned = False
            lib.machrv_task_deallocate(self._task)

    # -- bootstrap, descriptors ---------------------------------------------------------------------------------------

    def bootstrap_check_in(self, service_name: str) -> int:
        try:
            log()  # What a warning takes is loaded while there is a descriptor to load it with.
        except (ImportError, OSError):
            pass  # There is none left now: checking in will say so.
        return super().bootstrap_check_in(service_name)

    @property
    def _bootstrap(self) -> int:
        return self._task

    def _look_up(self, name: Any, port: Any, timeout: float) -> int:
        deadline = monotonic() + timeout
        while True:
            code: int = lib.machrv_bootstrap_look_up(self._task, name, milliseconds(deadline), port)
            if code != lib.KERN_ABORTED:  # A signal: Python has run its handler by now.
                return code

    def _service(self, operation: str, service_name: str) -> bytes:
        name = super()._service(operation, service_name)
        if b"\0" in name:  # It goes by its digest, as names do that are too long for a file's.
            from hashlib import sha256

            return b"%" + sha256(name).hexdigest().encode()
        return name

    def _refused(self, operation: str, service_name: str, code: int) -> MachError:
        if code != lib.BOOTSTRAP_NOT_PRIVILEGED:
            return super()._refused(operation, service_name, code)
        from machrv.kernel.linux.bootstrap import directory

        return MachError(code, f"{operation} of {service_name!r} ({directory()[1]})")

    def _interrupted(self) -> None:
        """Warn once for each time that the process has no descriptor left for those who look its names up: nobody else says
        why they get no answer."""
        global _told
        starved = int(lib.machrv_starved)
        if starved != _told:
            _told = starved
            text = (
                "no descriptor is free: whoever looks a name up waits until one is (raise `ulimit -n`, or close rights)"
            )
            log().warning(text)

    def _fileport(self, call: str, *arguments: Any) -> int:
        """libSystem tells why in errno, and these in their result."""
        result = int(getattr(lib, f"machrv_fileport_{call}")(self._task, *arguments))
        if result < 0:
            ffi.errno = -result
        return result

    def right_makefd(self, name: int) -> int:
        fd = ffi.new("int *")
        check(lib.machrv_right_makefd(self._task, name, fd), "right_makefd")
        return int(fd[0])

    def right_makeport(self, fd: int) -> int:
        made = ffi.new("mach_port_name_t *")
        check(lib.machrv_right_makeport(self._task, fd, made), f"right_makeport of descriptor {fd}")
        return int(made[0])

    def most_rights(self) -> int:
        return lib.machrv_max_fds()

    def memory(self) -> LinuxMemory:
        from machrv.kernel.linux.memory import LinuxMemory

        return LinuxMemory(self)

    # -- waiting ------------------------------------------------------------------------------------------------------

    def audit_token(self) -> AuditToken:
        from machrv.message.audit import AuditToken

        token = ffi.new("audit_token_t *")
        check(lib.machrv_task_token(self._task, token), "machrv_task_token")
        return AuditToken(*token.val)

    def open_process(self, pid: int) -> LinuxProcess:
        """See `Kernel.open_process`."""
        from machrv.kernel.linux.waiting import LinuxProcess

        return LinuxProcess(pid)

    def event_queue(self) -> LinuxEventQueue:
        from machrv.kernel.linux.waiting import LinuxEventQueue

        try:
            return LinuxEventQueue(self)
        except OSError as error:
            raise failed("event_queue", error.errno or 0) from error

    def readiness(self, name: int) -> LinuxReadiness:
        from machrv.kernel.linux.waiting import LinuxReadiness

        return LinuxReadiness(self._readable(name, "readiness"))

    def _readable(self, name: int, operation: str) -> int:
        """A descriptor for `LinuxReadiness`, and for event queues: the caller's to close."""
        fd = ffi.new("int *")
        check(lib.machrv_port_readable(self._task, name, fd), operation)
        return int(fd[0])

    def room(self, name: int) -> LinuxReadiness:
        from machrv.kernel.linux.waiting import Room

        fd = ffi.new("int *")
        check(lib.machrv_port_writable(self._task, name, fd), "room")
        try:
            return Room(fd[0])
        except OSError as error:
            raise failed("room", error.errno or 0) from error

    def take_turns(self, name: int) -> None:
        check(lib.machrv_port_take_turns(self._task, name), "take_turns")

    def is_beyond(self, name: int) -> bool:
        return bool(lib.machrv_port_beyond(self._task, name) == 1)

    def port_identity(self, name: int) -> tuple[str, int]:
        id, bits = ffi.new("char[33]"), ffi.new("mach_port_type_t *")
        if lib.machrv_port_identity(self._task, name, id, bits):
            return "", 0
        return ffi.string(id)[:16].decode("ascii", "replace"), int(bits[0])
