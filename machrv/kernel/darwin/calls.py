"""The calls of <mach/mach_port.h>, each with C arguments in and Python values out.

What belongs here: marshalling. What must never happen here: a call left out because its outcome seems clear, or
memory that a call returned and nobody gives back. In a hardened process a mistake about a right is no error code but
the end of the process (EXC_GUARD; xnu-11417, doc/mach_ipc/guard_exceptions.md): nothing here tries whether a name is
still good.
"""

from __future__ import annotations

from machrv._mach import lib as constants

from machrv.errors import MachError
from machrv.kernel.status import PortStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LIMITS_INFO = constants.MACH_PORT_LIMITS_INFO
_RECEIVE_STATUS = constants.MACH_PORT_RECEIVE_STATUS


class Calls:
    """A task's port space, by way of `lib`: functions as libSystem's, over `ffi`'s C types."""

    def __init__(self, lib: Any, ffi: Any) -> None:
        self._lib = lib
        self._ffi = ffi

    @staticmethod
    def _check(code: int, operation: str) -> None:
        if code:
            raise MachError(code, operation)

    # -- names --------------------------------------------------------------------------------------------------------

    def mach_port_allocate(self, right: int) -> int:
        """See `Kernel.mach_port_allocate`."""
        name = self._ffi.new("mach_port_name_t *")
        self._check(self._lib.mach_port_allocate(self._lib.mach_task_self(), right, name), "mach_port_allocate")
        return int(name[0])

    def mach_port_construct(self, flags: int, context: int = 0, queue_limit: int | None = None) -> int:
        """A new receive right with MPO_* flags, and the queue limit if one is given. `context` is the guard where
        MPO_CONTEXT_AS_GUARD asks for one."""
        options = self._ffi.new("mach_port_options_t *")
        options.flags = flags
        if queue_limit is not None:
            options.flags |= constants.MPO_QLIMIT
            options.mpl.mpl_qlimit = queue_limit
        name = self._ffi.new("mach_port_name_t *")
        code = self._lib.mach_port_construct(self._lib.mach_task_self(), options, context, name)
        self._check(code, "mach_port_construct")
        return int(name[0])

    def mach_port_destruct(self, name: int, srdelta: int = 0, guard: int = 0) -> None:
        """Give up a receive right, adding `srdelta` (0 or less) send references. `guard` must be the one it has: with
        a wrong one the kernel kills the process."""
        code = self._lib.mach_port_destruct(self._lib.mach_task_self(), name, srdelta, guard)
        self._check(code, "mach_port_destruct")

    def mach_reply_port(self) -> int:
        """See `Kernel.mach_reply_port`.

        A receive right that the kernel knows to be for replies: services that launchd knows may refuse a request with
        any other (MACH_SEND_INVALID_REPLY). A plain one where MPO_REPLY_PORT is unknown.
        """
        try:
            return self.mach_port_construct(constants.MPO_REPLY_PORT)
        except MachError as error:
            if error.code != constants.KERN_INVALID_ARGUMENT:
                raise
        return self.mach_port_allocate(constants.MACH_PORT_RIGHT_RECEIVE)

    def mach_port_type(self, name: int) -> int:
        """See `Kernel.mach_port_type`."""
        bits = self._ffi.new("mach_port_type_t *")
        self._check(self._lib.mach_port_type(self._lib.mach_task_self(), name, bits), "mach_port_type")
        return int(bits[0])

    def mach_port_names(self) -> list[tuple[int, int]]:
        """See `Kernel.mach_port_names`."""
        ffi = self._ffi
        task = self._lib.mach_task_self()
        names, types = ffi.new("mach_port_name_t **"), ffi.new("mach_port_type_t **")
        name_count, type_count = ffi.new("mach_msg_type_number_t *"), ffi.new("mach_msg_type_number_t *")
        self._check(self._lib.mach_port_names(task, names, name_count, types, type_count), "mach_port_names")
        try:
            count = min(name_count[0], type_count[0])
            return list(zip(ffi.unpack(names[0], count), ffi.unpack(types[0], count))) if count else []
        finally:
            for array, length in ((names[0], name_count[0]), (types[0], type_count[0])):
                if array:
                    self._lib.vm_deallocate(task, int(ffi.cast("uintptr_t", array)), length * 4)

    def mach_port_get_refs(self, name: int, right: int) -> int:
        """See `Kernel.mach_port_get_refs`."""
        refs = self._ffi.new("mach_port_urefs_t *")
        code = self._lib.mach_port_get_refs(self._lib.mach_task_self(), name, right, refs)
        self._check(code, "mach_port_get_refs")
        return int(refs[0])

    # -- rights -------------------------------------------------------------------------------------------------------

    def mach_port_insert_right(self, name: int, poly: int, disposition: int) -> None:
        """See `Kernel.mach_port_insert_right`."""
        code = self._lib.mach_port_insert_right(self._lib.mach_task_self(), name, poly, disposition)
        self._check(code, "mach_port_insert_right")

    def mach_port_extract_right(self, name: int, disposition: int) -> tuple[int, int]:
        """See `Kernel.mach_port_extract_right`."""
        poly, kind = self._ffi.new("mach_port_t *"), self._ffi.new("mach_msg_type_name_t *")
        code = self._lib.mach_port_extract_right(self._lib.mach_task_self(), name, disposition, poly, kind)
        self._check(code, "mach_port_extract_right")
        return int(poly[0]), int(kind[0])

    def mach_port_deallocate(self, name: int) -> None:
        """See `Kernel.mach_port_deallocate`."""
        self._check(self._lib.mach_port_deallocate(self._lib.mach_task_self(), name), "mach_port_deallocate")

    def mach_port_destroy(self, name: int) -> None:
        """See `Kernel.mach_port_destroy`."""
        self._check(self._lib.mach_port_destroy(self._lib.mach_task_self(), name), "mach_port_destroy")

    def mach_port_mod_refs(self, name: int, right: int, delta: int) -> None:
        """See `Kernel.mach_port_mod_refs`."""
        code = self._lib.mach_port_mod_refs(self._lib.mach_task_self(), name, right, delta)
        self._check(code, "mach_port_mod_refs")

    # -- sets ---------------------------------------------------------------------------------------------------------

    def mach_port_move_member(self, member: int, after: int) -> None:
        """See `Kernel.mach_port_move_member`."""
        code = self._lib.mach_port_move_member(self._lib.mach_task_self(), member, after)
        self._check(code, "mach_port_move_member")

    def mach_port_insert_member(self, name: int, pset: int) -> None:
        """See `Kernel.mach_port_insert_member`."""
        code = self._lib.mach_port_insert_member(self._lib.mach_task_self(), name, pset)
        self._check(code, "mach_port_insert_member")

    def mach_port_extract_member(self, name: int, pset: int) -> None:
        """See `Kernel.mach_port_extract_member`."""
        code = self._lib.mach_port_extract_member(self._lib.mach_task_self(), name, pset)
        self._check(code, "mach_port_extract_member")

    # -- attributes ---------------------------------------------------------------------------------------------------

    def mach_port_get_attributes(self, name: int, flavor: int) -> PortStatus | int:
        """See `Kernel.mach_port_get_attributes`."""
        if flavor == _LIMITS_INFO:
            limits = self._attributes(name, flavor, "mach_port_limits_t *", constants.MACH_PORT_LIMITS_INFO_COUNT)
            return int(limits.mpl_qlimit)
        if flavor != _RECEIVE_STATUS:
            raise MachError(constants.KERN_INVALID_ARGUMENT, "mach_port_get_attributes")
        status = self._attributes(name, flavor, "mach_port_status_t *", constants.MACH_PORT_RECEIVE_STATUS_COUNT)
        return PortStatus(
            status.mps_pset,
            status.mps_seqno,
            status.mps_mscount,
            status.mps_qlimit,
            status.mps_msgcount,
            status.mps_sorights,
            bool(status.mps_srights),
            bool(status.mps_pdrequest),
            bool(status.mps_nsrequest),
            status.mps_flags,
        )

    def _attributes(self, name: int, flavor: int, kind: str, words: int) -> Any:
        found = self._ffi.new(kind)
        count = self._ffi.new("mach_msg_type_number_t *", words)
        into = self._ffi.cast("integer_t *", found)
        code = self._lib.mach_port_get_attributes(self._lib.mach_task_self(), name, flavor, into, count)
        self._check(code, "mach_port_get_attributes")
        return found

    def mach_port_set_attributes(self, name: int, flavor: int, value: int) -> None:
        """See `Kernel.mach_port_set_attributes`."""
        operation = "mach_port_set_attributes"
        if flavor != _LIMITS_INFO:
            raise MachError(constants.KERN_INVALID_ARGUMENT, operation)
        if not 0 <= value <= 0xFFFFFFFF:  # What the kernel's own check sees of it is 32 bits.
            raise MachError(constants.KERN_INVALID_VALUE, operation)
        limits = self._ffi.new("mach_port_limits_t *", [value])
        info = self._ffi.cast("integer_t *", limits)
        count = constants.MACH_PORT_LIMITS_INFO_COUNT
        self._check(
            self._lib.mach_port_set_attributes(self._lib.mach_task_self(), name, flavor, info, count), operation
        )

    def mach_port_get_context(self, name: int) -> int:
        """See `Kernel.mach_port_get_context`."""
        context = self._ffi.new("mach_port_context_t *")
        code = self._lib.mach_port_get_context(self._lib.mach_task_self(), name, context)
        self._check(code, "mach_port_get_context")
        return int(context[0])

    def mach_port_set_context(self, name: int, context: int) -> None:
        """See `Kernel.mach_port_set_context`."""
        code = self._lib.mach_port_set_context(self._lib.mach_task_self(), name, context & 0xFFFFFFFFFFFFFFFF)
        self._check(code, "mach_port_set_context")

    # -- notifications ------------------------------------------------------------------------------------------------

    def mach_port_request_notification(
        self, name: int, notification: int, sync: int, notify: int, disposition: int
    ) -> int:
        """See `Kernel.mach_port_request_notification`.

        If the request is refused, a right that MOVE_SEND_ONCE took is destroyed, and its receiver is told (xnu-11417,
        osfmk/ipc/mach_kernelrpc.c). With MAKE_SEND_ONCE nothing is lost.
        """
        previous = self._ffi.new("mach_port_t *")
        code = self._lib.mach_port_request_notification(
            self._lib.mach_task_self(), name, notification, sync, notify, disposition, previous
        )
        self._check(code, "mach_port_request_notification")
        return int(previous[0])
