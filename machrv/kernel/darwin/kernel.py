"""`DarwinKernel`: this task, as libSystem gives access to it."""

from __future__ import annotations

from machrv._mach import lib as constants

from machrv.errors import MachError, UnsupportedError
from machrv.kernel.kernel import Kernel, failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from machrv.message.audit import AuditToken
    from machrv.kernel.darwin.memory import DarwinMemory
    from machrv.kernel.darwin.waiting import DarwinEventQueue, DarwinProcess, DarwinReadiness

    Made = TypeVar("Made")

_LONGEST_NAME = constants.BOOTSTRAP_MAX_NAME_LEN - 1


class DarwinKernel(Kernel):
    """This task. `lib` is `machrv._mach.lib` on macOS; anything whose attributes are functions with the signatures in
    include/machrv will do. `ffi` has the C types of include/machrv; it is `machrv._mach.ffi` if not given.
    """

    name = "darwin"

    def __init__(self, lib: Any, ffi: Any = None) -> None:
        if ffi is None:
            from machrv._mach import ffi
        super().__init__(lib, ffi)
        self._msg = lambda *arguments: lib.mach_msg(*arguments)
        self._msg_destroy = lambda header: lib.mach_msg_destroy(header)

    def _service(self, operation: str, service_name: str) -> bytes:
        name = super()._service(operation, service_name)
        # launchd would be sent a part of it (name_t is char[128]), and that part may be somebody else's name.
        why = f"{len(name)} bytes, where at most {_LONGEST_NAME} fit" if len(name) > _LONGEST_NAME else ""
        why = "there is a NUL in it" if b"\0" in name else why
        if why:
            raise MachError(constants.KERN_INVALID_ARGUMENT, f"{operation} of {service_name!r} ({why})")
        return name

    def memory(self) -> DarwinMemory:
        from machrv.kernel.darwin.memory import DarwinMemory

        return DarwinMemory(self._lib, self._ffi, self)

    def audit_token(self) -> AuditToken:
        from machrv.kernel.darwin.waiting import task_audit_token

        return task_audit_token(self._lib, self._ffi, self._task)

    def open_process(self, pid: int) -> DarwinProcess:
        from machrv.kernel.darwin.waiting import DarwinProcess

        return self._made("open_process", DarwinProcess, pid)

    def event_queue(self) -> DarwinEventQueue:
        from machrv.kernel.darwin.waiting import DarwinEventQueue

        return self._made("event_queue", DarwinEventQueue)

    def readiness(self, name: int) -> DarwinReadiness:
        from machrv.kernel.darwin.waiting import DarwinReadiness

        if not self.mach_port_type(name) & (constants.MACH_PORT_TYPE_RECEIVE | constants.MACH_PORT_TYPE_PORT_SET):
            raise MachError(constants.KERN_INVALID_RIGHT, "readiness")
        return self._made("readiness", DarwinReadiness, name)

    def room(self, name: int) -> DarwinReadiness:
        raise UnsupportedError("this kernel has no descriptor that tells of room in a queue")

    def _made(self, operation: str, what: Callable[..., Made], *arguments: int) -> Made:
        try:
            return what(self._lib, self._ffi, *arguments)
        except ProcessLookupError:
            raise
        except OSError as error:
            raise failed(operation, error.errno or 0) from error
