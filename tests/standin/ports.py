"""The port calls of the stand-in: those of machrv's own library for Linux, and where libSystem's answer is another one."""

from __future__ import annotations

from typing import Any

from machrv._mach import ffi, lib
from machrv.errors import MachError
from machrv.kernel.linux import LinuxKernel

WORD = 4

#: Calls that end a hardened process if they are told of a right that is not there.
GUARDED = {
    "mach_port_destroy",
    "mach_port_destruct",
    "mach_port_extract_member",
    "mach_port_request_notification",
    "mach_port_set_context",
}


class Killed(BaseException):
    """What the kernel does to a hardened process that makes a mistake about a right: EXC_GUARD ends it."""


class Ports:
    """A task's port space.

    `hardened`: a mistake about a right ends the process, as it does where the binary is hardened (xnu-11417,
    osfmk/ipc: the callers of mach_port_guard_exception).
    """

    def __init__(self, kernel: LinuxKernel, hardened: bool) -> None:
        self.kernel = kernel
        self.hardened = hardened
        #: before macOS 12 no kernel had heard of MPO_REPLY_PORT
        self.knows_reply_ports = True
        self.reply_ports: set[int] = set()
        #: memory that calls have returned and nobody has given back: address -> bytes
        self.memory: dict[int, int] = {}

    def __getattr__(self, name: str) -> Any:
        """What is no other on macOS than on Linux."""
        function = getattr(lib, name)
        if name in GUARDED:
            return lambda *arguments: self._guarded(function(*arguments))
        return function

    def _guarded(self, code: int) -> int:
        if self.hardened and code in (lib.KERN_INVALID_NAME, lib.KERN_INVALID_RIGHT, lib.KERN_INVALID_VALUE):
            raise Killed(f"EXC_GUARD after {MachError(code, 'a call')}")
        return code

    def mach_task_self(self) -> int:
        return self.kernel._task

    # -- memory that is handed out ------------------------------------------------------------------------------------

    def hand_out(self, data: bytes) -> int:
        """Memory of the caller's, as the kernel maps it: its address, 0 for none."""
        if not data:
            return 0
        where = self.kernel.vm_allocate(len(data))
        ffi.memmove(ffi.cast("void *", where), data, len(data))
        self.memory[where] = len(data)
        return where

    def _handed_out(self, array: Any, count: int) -> None:
        if array[0]:
            self.memory[int(ffi.cast("uintptr_t", array[0]))] = count * WORD

    def vm_allocate(self, task: int, address: Any, size: int, flags: int) -> int:
        code = lib.vm_allocate(task, address, size, flags)
        if not code:
            self.memory[address[0]] = size
        return code

    def vm_deallocate(self, task: int, address: int, size: int) -> int:
        if self.memory.pop(address, size) != size:
            raise Killed(f"{size} bytes at {address:#x} were given back that were never handed out as such")
        return lib.vm_deallocate(task, address, size)

    def mach_port_names(self, task: int, names: Any, names_count: Any, types: Any, types_count: Any) -> int:
        code = lib.mach_port_names(task, names, names_count, types, types_count)
        if not code:
            self._handed_out(names, names_count[0])
            self._handed_out(types, types_count[0])
        return code

    def mach_port_get_set_status(self, task: int, name: int, members: Any, count: Any) -> int:
        code = lib.mach_port_get_set_status(task, name, members, count)
        if not code:
            self._handed_out(members, count[0])
        return code

    # -- reply ports --------------------------------------------------------------------------------------------------

    def mach_port_construct(self, task: int, options: Any, context: int, name: Any) -> int:
        replies = options.flags & lib.MPO_REPLY_PORT
        if replies and not self.knows_reply_ports:
            return lib.KERN_INVALID_ARGUMENT
        plain = ffi.new("mach_port_options_t *", options[0])
        plain.flags &= ~lib.MPO_REPLY_PORT
        code = lib.mach_port_construct(task, plain, context, name)
        if replies and not code:
            self.reply_ports.add(name[0])
        return code

    def mach_port_insert_right(self, task: int, name: int, poly: int, disposition: int) -> int:
        self._moves(poly, disposition)
        return lib.mach_port_insert_right(task, name, poly, disposition)

    def mach_port_extract_right(self, task: int, name: int, disposition: int, poly: Any, kind: Any) -> int:
        self._moves(name, disposition)
        return lib.mach_port_extract_right(task, name, disposition, poly, kind)

    def _moves(self, name: int, disposition: int) -> None:
        if disposition == lib.MACH_MSG_TYPE_MOVE_RECEIVE and name in self.reply_ports:
            raise Killed(f"EXC_GUARD: the reply port {name:#x} is immovable")

    def mach_port_move_member(self, task: int, member: int, after: int) -> int:
        assert member not in self.reply_ports, "a reply port is never put into a set"
        return self._guarded(lib.mach_port_move_member(task, member, after))

    def mach_port_insert_member(self, task: int, name: int, pset: int) -> int:
        assert name not in self.reply_ports, "a reply port is never put into a set"
        return self._guarded(lib.mach_port_insert_member(task, name, pset))

    def mach_port_mod_refs(self, task: int, name: int, right: int, delta: int) -> int:
        if right == lib.MACH_PORT_RIGHT_RECEIVE and delta == -1:
            self.reply_ports.discard(name)
        # That a port has died since is nobody's mistake.
        died = right in (lib.MACH_PORT_RIGHT_SEND, lib.MACH_PORT_RIGHT_SEND_ONCE) and self._is_dead(name)
        code = lib.mach_port_mod_refs(task, name, right, delta)
        return code if died else self._guarded(code)

    def _is_dead(self, name: int) -> bool:
        bits = ffi.new("mach_port_type_t *")
        return not lib.mach_port_type(self.kernel._task, name, bits) and bits[0] & lib.MACH_PORT_TYPE_DEAD_NAME != 0
