"""`LibSystem`: the whole stand-in, called through C."""

from __future__ import annotations

import os
import weakref
from threading import get_ident
from typing import Any

from machrv._mach import ffi, lib
from machrv.message.audit import AuditToken
from machrv.kernel.linux import LinuxKernel

from .kqueue import Kqueues
from .memory import Memory
from .messages import Messages
from .signatures import SIGNATURES


class Functions(Kqueues, Memory, Messages):
    """What stands behind each C function: methods of the same names."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        #: the names that stand for processes
        self.task_names: dict[int, AuditToken] = {}
        #: as some sandboxes do
        self.denies_task_names = False

    def bootstrap_check_in(self, bp: int, service_name: Any, sp: Any) -> int:
        assert len(ffi.string(service_name)) < lib.BOOTSTRAP_MAX_NAME_LEN, "launchd would see a part of the name"
        return lib.bootstrap_check_in(bp, service_name, sp)

    def bootstrap_look_up(self, bp: int, service_name: Any, sp: Any) -> int:
        assert len(ffi.string(service_name)) < lib.BOOTSTRAP_MAX_NAME_LEN, "launchd would see a part of the name"
        return lib.bootstrap_look_up(bp, service_name, sp)

    def fileport_makeport(self, fd: int, port: Any) -> int:
        return self._answered(lib.machrv_fileport_makeport(self.kernel._task, fd, port))

    def fileport_makefd(self, port: int) -> int:
        return self._answered(lib.machrv_fileport_makefd(self.kernel._task, port))

    def _answered(self, result: int) -> int:
        return self._failed(OSError(-result, "")) if result < 0 else result

    def task_name_for_pid(self, target: int, pid: int, name: Any) -> int:
        """A name that stands for a process; a dead name in the Linux space, which has no ports for processes."""
        if target != self.kernel._task or self.denies_task_names:
            return int(lib.KERN_FAILURE)
        try:
            with self.kernel.open_process(pid) as process:
                token = AuditToken(pid=pid, pidversion=process.pidversion)
                if not process.is_running():
                    return int(lib.KERN_FAILURE)
        except ProcessLookupError:
            return int(lib.KERN_FAILURE)
        name[0] = self.kernel.mach_port_allocate(lib.MACH_PORT_RIGHT_DEAD_NAME)
        self.task_names[name[0]] = token
        return 0

    def mach_port_deallocate(self, task: int, name: int) -> int:
        self.task_names.pop(name, None)
        return self._guarded(lib.mach_port_deallocate(task, name))

    def task_info(self, task: int, flavor: int, info: Any, count: Any) -> int:
        token = self.kernel.audit_token() if task == self.kernel._task else self.task_names.get(task)
        if token is None or flavor != lib.TASK_AUDIT_TOKEN or count[0] < len(token):
            return int(lib.KERN_INVALID_ARGUMENT)
        for index, word in enumerate(token):
            info[index] = ffi.cast("integer_t", word)
        count[0] = len(token)
        return 0


class LibSystem:
    """One task. Its attributes are libSystem's functions, and `bootstrap_port`; `functions` is what stands behind."""

    def __init__(self, kernel: LinuxKernel | None = None, hardened: bool = False) -> None:
        self.functions = Functions(kernel if kernel is not None else LinuxKernel(), hardened)
        self.bootstrap_port = self.functions.kernel._task
        _all.add(self)

    def __getattr__(self, name: str) -> Any:
        if name not in SIGNATURES:
            raise AttributeError(f"libSystem has no {name}")
        failures: dict[int, BaseException] = {}
        functions = self.functions

        def onerror(_: object, error: BaseException, __: object) -> None:
            failures[get_ident()] = error

        # Looked up at each call, so that a test can put something else in its place.
        pointer = ffi.callback(
            SIGNATURES[name], lambda *arguments: getattr(functions, name)(*arguments), onerror=onerror
        )

        def call(*arguments: Any) -> Any:
            result = pointer(*arguments)
            failure = failures.pop(get_ident(), None) if failures else None
            if failure is not None:
                raise failure
            return result

        setattr(self, name, call)
        return call

    def end(self) -> None:
        """The end of the task: everything that it has goes."""
        for fd in list(self.functions.kqueues):
            self.functions.close(fd)
        self.functions.kernel.close()


_all: weakref.WeakSet[LibSystem] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for task in list(_all):
        task.functions.forget_kqueues()
        task.functions.memory.clear()
        task.functions.reply_ports.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
