"""`DarwinKernel`: the kernel interface over libSystem.

What belongs here: the whole, put together, with bootstrap, fileports and processes. What must never happen here: a name
that is cut to fit, or a failure whose text does not say what it was about.
"""

from __future__ import annotations

import os
from errno import EAGAIN, EINVAL, EMFILE, ENFILE, ENOMEM

from machrv._mach import lib as constants

from machrv.errors import MachError
from machrv.kernel.interface import Kernel
from machrv.kernel.darwin.messages import Messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from machrv.message.audit import AuditToken
    from machrv.kernel.darwin.events import DarwinEventQueue
    from machrv.kernel.darwin.memory import DarwinMemory
    from machrv.kernel.darwin.process import DarwinProcess
    from machrv.kernel.darwin.readiness import DarwinReadiness

_LONGEST_NAME = constants.BOOTSTRAP_MAX_NAME_LEN - 1
#: What a system call answers that lacks room; everything else is an argument that is wrong.
_SHORTAGE = (EMFILE, ENFILE, EAGAIN, ENOMEM)


class DarwinKernel(Messages, Kernel):
    """This task, as libSystem gives access to it.

    `lib` is `machrv._mach.lib` on macOS; anything whose attributes are functions with the signatures in
    include/machrv/darwin.h will do. `ffi` has the C types of include/machrv; it is `machrv._mach.ffi` if not given.
    """

    name = "darwin"

    def __init__(self, lib: Any, ffi: Any = None) -> None:
        if ffi is None:
            from machrv._mach import ffi
        super().__init__(lib, ffi)

    # -- bootstrap ----------------------------------------------------------------------------------------------------

    def bootstrap_check_in(self, service_name: str) -> int:
        """See `Kernel.bootstrap_check_in`. A name has at most 127 bytes."""
        return self._bootstrap(self._lib.bootstrap_check_in, "bootstrap_check_in", service_name)

    def bootstrap_look_up(self, service_name: str, timeout: float = 10.0) -> int:
        """See `Kernel.bootstrap_look_up`. A name has at most 127 bytes. launchd answers when it does."""
        return self._bootstrap(self._lib.bootstrap_look_up, "bootstrap_look_up", service_name)

    def _bootstrap(self, function: Any, operation: str, service_name: str) -> int:
        operation = f"{operation} of {service_name!r}"
        name = service_name.encode("utf-8", "surrogateescape")
        # launchd would be sent a part of it (name_t is char[128]), and that part may be somebody else's name.
        if len(name) > _LONGEST_NAME:
            raise MachError(
                constants.KERN_INVALID_ARGUMENT, f"{operation} ({len(name)} bytes, where at most {_LONGEST_NAME} fit)"
            )
        if b"\0" in name:
            raise MachError(constants.KERN_INVALID_ARGUMENT, f"{operation} (there is a NUL in it)")
        port = self._ffi.new("mach_port_t *")
        self._check(function(self._lib.bootstrap_port, self._ffi.new("char[]", name), port), operation)
        return int(port[0])

    # -- descriptors --------------------------------------------------------------------------------------------------

    def fileport_makeport(self, fd: int) -> int:
        """See `Kernel.fileport_makeport`. Not every descriptor can be sent: a kqueue cannot, nor can a guarded one."""
        port = self._ffi.new("mach_port_t *")
        if self._lib.fileport_makeport(fd, port) < 0:
            raise self._failed(f"fileport_makeport of descriptor {fd}")
        return int(port[0])

    def fileport_makefd(self, name: int) -> int:
        """See `Kernel.fileport_makefd`. The kernel makes the descriptor close-on-exec."""
        fd = int(self._lib.fileport_makefd(name))
        if fd < 0:
            if self._ffi.errno == EINVAL:  # No such name, or no fileport.
                self.mach_port_type(name)
                raise MachError(constants.KERN_INVALID_RIGHT, "fileport_makefd")
            raise self._failed("fileport_makefd")
        return fd

    def _failed(self, operation: str, number: int | None = None) -> MachError:
        """What a failed system call comes down to in Mach's words."""
        number = self._ffi.errno if number is None else number
        code = constants.KERN_RESOURCE_SHORTAGE if number in _SHORTAGE else constants.KERN_INVALID_ARGUMENT
        return MachError(code, f"{operation} ({os.strerror(number)})")

    def memory(self) -> DarwinMemory:
        """See `Kernel.memory`."""
        from machrv.kernel.darwin.memory import DarwinMemory

        return DarwinMemory(self._lib, self._ffi, self)

    # -- processes ----------------------------------------------------------------------------------------------------

    def audit_token(self) -> AuditToken:
        """See `Kernel.audit_token`."""
        from machrv.kernel.darwin.process import task_audit_token

        return task_audit_token(self._lib, self._ffi, self._lib.mach_task_self())

    def open_process(self, pid: int) -> DarwinProcess:
        """See `Kernel.open_process`. What is pinned is described at `DarwinProcess.matches`."""
        from machrv.kernel.darwin.process import DarwinProcess

        try:
            return DarwinProcess(self._lib, self._ffi, pid)
        except ProcessLookupError:
            raise
        except OSError as error:
            raise self._failed("open_process", error.errno) from error

    def event_queue(self) -> DarwinEventQueue:
        """See `Kernel.event_queue`."""
        from machrv.kernel.darwin.events import DarwinEventQueue

        try:
            return DarwinEventQueue(self._lib, self._ffi)
        except OSError as error:
            raise self._failed("event_queue", error.errno) from error

    def readiness(self, name: int) -> DarwinReadiness:
        """See `Kernel.readiness`. A kqueue of its own, which a poll can wait for like any descriptor."""
        from machrv.kernel.darwin.readiness import DarwinReadiness

        if not self.mach_port_type(name) & (constants.MACH_PORT_TYPE_RECEIVE | constants.MACH_PORT_TYPE_PORT_SET):
            raise MachError(constants.KERN_INVALID_RIGHT, "readiness")
        try:
            return DarwinReadiness(self._lib, self._ffi, name)
        except OSError as error:
            raise self._failed("readiness", error.errno) from error
