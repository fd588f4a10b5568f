"""The port calls of the stand-in: C arguments to those of a Linux port space, its answers into the caller's memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from machrv._mach import ffi, lib
from machrv.errors import MachError
from machrv.kernel import PortStatus
from machrv.kernel.linux import LinuxKernel

TASK_SELF = 0x103
BOOTSTRAP = 0x507
WORD = 4


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
        self._reserved: set[int] = set()

    def _answer(self, task: int, call: Callable[[], object]) -> int:
        """The return code of a call that cannot kill."""
        if task != TASK_SELF:
            return int(lib.MACH_SEND_INVALID_DEST)
        try:
            call()
        except MachError as error:
            return error.code
        return 0

    def _guarded(self, task: int, call: Callable[[], object]) -> int:
        """The return code of a call that ends a hardened process if it is told of a right that is not there."""
        code = self._answer(task, call)
        if self.hardened and code in (lib.KERN_INVALID_NAME, lib.KERN_INVALID_RIGHT, lib.KERN_INVALID_VALUE):
            raise Killed(f"EXC_GUARD after {MachError(code, 'a call')}")
        return code

    def hand_out(self, data: bytes) -> int:
        """Memory of the caller's, as the kernel maps it: its address, 0 for none."""
        if not data:
            return 0
        where = ffi.new("uint64_t *")
        assert lib.machrv_allocate(len(data), where) == 0
        ffi.memmove(ffi.cast("void *", where[0]), data, len(data))
        self.memory[where[0]] = len(data)
        return int(where[0])

    # -- names --------------------------------------------------------------------------------------------------------

    def mach_task_self(self) -> int:
        return TASK_SELF

    def mach_port_allocate(self, task: int, right: int, name: Any) -> int:
        def call() -> None:
            name[0] = self.kernel.mach_port_allocate(right)

        return self._answer(task, call)

    def mach_port_allocate_name(self, task: int, right: int, name: int) -> int:
        """A set only; it is the placeholder of what the Linux space cannot name: a send-once right."""
        assert right == lib.MACH_PORT_RIGHT_PORT_SET

        def call() -> None:
            kernel = self.kernel
            port = kernel.mach_port_allocate(lib.MACH_PORT_RIGHT_RECEIVE)
            try:
                once, _ = kernel.mach_port_extract_right(port, lib.MACH_MSG_TYPE_MAKE_SEND_ONCE)
                kernel.mach_port_insert_right(name, once, lib.MACH_MSG_TYPE_MOVE_SEND_ONCE)
                self._reserved.add(name)
            finally:
                kernel.mach_port_mod_refs(port, lib.MACH_PORT_RIGHT_RECEIVE, -1)

        return self._answer(task, call)

    def mach_port_construct(self, task: int, options: Any, context: int, name: Any) -> int:
        known = lib.MPO_QLIMIT | lib.MPO_INSERT_SEND_RIGHT
        if self.knows_reply_ports:
            known |= lib.MPO_REPLY_PORT
        if options.flags & ~known:
            return int(lib.KERN_INVALID_ARGUMENT)

        def call() -> None:
            port = self.kernel.mach_port_allocate(lib.MACH_PORT_RIGHT_RECEIVE)
            if options.flags & lib.MPO_QLIMIT:
                self.kernel.mach_port_set_attributes(port, lib.MACH_PORT_LIMITS_INFO, options.mpl.mpl_qlimit)
            if options.flags & lib.MPO_INSERT_SEND_RIGHT:
                self.kernel.mach_port_insert_right(port, port, lib.MACH_MSG_TYPE_MAKE_SEND)
            if options.flags & lib.MPO_REPLY_PORT:
                self.reply_ports.add(port)
            self.kernel.mach_port_set_context(port, context)
            name[0] = port

        return self._answer(task, call)

    def mach_port_destruct(self, task: int, name: int, srdelta: int, guard: int) -> int:
        def call() -> None:
            if srdelta:
                self.kernel.mach_port_mod_refs(name, lib.MACH_PORT_RIGHT_SEND, srdelta)
            self.kernel.mach_port_mod_refs(name, lib.MACH_PORT_RIGHT_RECEIVE, -1)

        return self._guarded(task, call)

    def mach_port_type(self, task: int, name: int, ptype: Any) -> int:
        def call() -> None:
            ptype[0] = self.kernel.mach_port_type(name)

        return self._answer(task, call)

    def mach_port_names(self, task: int, names: Any, names_count: Any, types: Any, types_count: Any) -> int:
        def call() -> None:
            found = self.kernel.mach_port_names()
            for array, count, column in ((names, names_count, 0), (types, types_count, 1)):
                data = ffi.new("natural_t[]", [entry[column] for entry in found])
                array[0] = ffi.cast("natural_t *", self.hand_out(bytes(ffi.buffer(data))))
                count[0] = len(found)

        return self._answer(task, call)

    def mach_port_get_refs(self, task: int, name: int, right: int, refs: Any) -> int:
        def call() -> None:
            refs[0] = self.kernel.mach_port_get_refs(name, right)

        return self._answer(task, call)

    # -- rights -------------------------------------------------------------------------------------------------------

    def mach_port_insert_right(self, task: int, name: int, poly: int, disposition: int) -> int:
        self._moves(poly, disposition)
        return self._answer(task, lambda: self.kernel.mach_port_insert_right(name, poly, disposition))

    def mach_port_extract_right(self, task: int, name: int, disposition: int, poly: Any, kind: Any) -> int:
        self._moves(name, disposition)

        def call() -> None:
            poly[0], kind[0] = self.kernel.mach_port_extract_right(name, disposition)

        return self._answer(task, call)

    def _moves(self, name: int, disposition: int) -> None:
        if disposition == lib.MACH_MSG_TYPE_MOVE_RECEIVE and name in self.reply_ports:
            raise Killed(f"EXC_GUARD: the reply port {name:#x} is immovable")

    def mach_port_deallocate(self, task: int, name: int) -> int:
        return self._guarded(task, lambda: self.kernel.mach_port_deallocate(name))

    def mach_port_destroy(self, task: int, name: int) -> int:
        return self._guarded(task, lambda: self.kernel.mach_port_destroy(name))

    def mach_port_mod_refs(self, task: int, name: int, right: int, delta: int) -> int:
        if name in self._reserved and right == lib.MACH_PORT_RIGHT_PORT_SET:
            self._reserved.remove(name)
            return self._answer(task, lambda: self.kernel.mach_port_deallocate(name))
        if right == lib.MACH_PORT_RIGHT_RECEIVE and delta == -1:
            self.reply_ports.discard(name)

        def call() -> None:
            self.kernel.mach_port_mod_refs(name, right, delta)

        # That a port has died since is nobody's mistake.
        once = right in (lib.MACH_PORT_RIGHT_SEND, lib.MACH_PORT_RIGHT_SEND_ONCE) and self._is_dead(name)
        return self._answer(task, call) if once else self._guarded(task, call)

    def _is_dead(self, name: int) -> bool:
        try:
            return bool(self.kernel.mach_port_type(name) & lib.MACH_PORT_TYPE_DEAD_NAME)
        except MachError:
            return False

    # -- sets ---------------------------------------------------------------------------------------------------------

    def mach_port_move_member(self, task: int, member: int, after: int) -> int:
        self._joins(member)
        return self._guarded(task, lambda: self.kernel.mach_port_move_member(member, after))

    def mach_port_insert_member(self, task: int, name: int, pset: int) -> int:
        self._joins(name)
        return self._guarded(task, lambda: self.kernel.mach_port_insert_member(name, pset))

    def mach_port_extract_member(self, task: int, name: int, pset: int) -> int:
        return self._guarded(task, lambda: self.kernel.mach_port_extract_member(name, pset))

    def _joins(self, name: int) -> None:
        assert name not in self.reply_ports, "a reply port is never put into a set"

    # -- attributes ---------------------------------------------------------------------------------------------------

    def mach_port_get_attributes(self, task: int, name: int, flavor: int, info: Any, count: Any) -> int:
        def call() -> None:
            found = self.kernel.mach_port_get_attributes(name, flavor)
            words = [int(word) for word in found] if isinstance(found, PortStatus) else [found]
            if count[0] < len(words):
                raise MachError(lib.KERN_FAILURE, "mach_port_get_attributes")
            for index, word in enumerate(words):
                info[index] = ffi.cast("integer_t", word)
            count[0] = len(words)

        return self._answer(task, call)

    def mach_port_set_attributes(self, task: int, name: int, flavor: int, info: Any, count: int) -> int:
        if count < lib.MACH_PORT_LIMITS_INFO_COUNT:
            return int(lib.KERN_FAILURE)
        value = int(ffi.cast("natural_t", info[0]))
        return self._answer(task, lambda: self.kernel.mach_port_set_attributes(name, flavor, value))

    def mach_port_get_context(self, task: int, name: int, context: Any) -> int:
        def call() -> None:
            context[0] = self.kernel.mach_port_get_context(name)

        return self._answer(task, call)

    def mach_port_set_context(self, task: int, name: int, context: int) -> int:
        return self._guarded(task, lambda: self.kernel.mach_port_set_context(name, context))

    def mach_port_request_notification(
        self, task: int, name: int, notification: int, sync: int, notify: int, disposition: int, previous: Any
    ) -> int:
        def call() -> None:
            previous[0] = self.kernel.mach_port_request_notification(name, notification, sync, notify, disposition)

        return self._guarded(task, call)
