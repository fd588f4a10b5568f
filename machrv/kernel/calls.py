"""The calls of <mach/mach_port.h>, each with C arguments in and Python values out.

What belongs here: marshalling. What must never happen here: a call left out because its outcome seems clear, or memory
that a call returned and nobody gives back. In a hardened process on macOS a mistake about a right is no error code but the
end of the process (EXC_GUARD; xnu-11417, doc/mach_ipc/guard_exceptions.md): nothing here tries whether a name is still good.
"""

from __future__ import annotations

from _operator import itemgetter

from machrv._mach import lib as constants

from machrv.errors import MachError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Buffer

_NAME, _COUNT = "mach_port_name_t *", "mach_msg_type_number_t *"
#: What mach_port_peek can tell of a trailer (xnu-11417, osfmk/mach/mach_port.defs), in bytes.
_PEEKED = 100
#: How much longer than in user space a message header is in the kernel, in bytes.
_KERNEL_HEADER = 8


def check(code: int, operation: str) -> None:
    """MachError where a call has failed."""
    if code:
        raise MachError(code, operation)


class PortStatus(tuple):  # type: ignore[type-arg]  # A namedtuple without `collections` and `typing`.
    """What mach_port_get_attributes(MACH_PORT_RECEIVE_STATUS) tells of a receive right.

    `pset` is 1 if the port is in a set, `seqno` is the next message's, `mscount` the send rights made since it was
    last reset, `msgcount` the messages waiting (where the kernel can tell; otherwise 0 or 1), `sorights` the send-once
    rights in existence; `srights`, `pdrequest` and `nsrequest` are 0 or 1, as in <mach/port.h>.
    """

    __slots__ = ()
    _fields = "pset", "seqno", "mscount", "qlimit", "msgcount", "sorights", "srights", "pdrequest", "nsrequest", "flags"
    __match_args__ = _fields

    pset: int = property(itemgetter(0))  # type: ignore[assignment]
    seqno: int = property(itemgetter(1))  # type: ignore[assignment]
    mscount: int = property(itemgetter(2))  # type: ignore[assignment]
    qlimit: int = property(itemgetter(3))  # type: ignore[assignment]
    msgcount: int = property(itemgetter(4))  # type: ignore[assignment]
    sorights: int = property(itemgetter(5))  # type: ignore[assignment]
    srights: int = property(itemgetter(6))  # type: ignore[assignment]
    pdrequest: int = property(itemgetter(7))  # type: ignore[assignment]
    nsrequest: int = property(itemgetter(8))  # type: ignore[assignment]
    flags: int = property(itemgetter(9))  # type: ignore[assignment]

    def __new__(cls, *values: int) -> PortStatus:
        if len(values) != len(cls._fields):
            raise TypeError(f"PortStatus has {len(cls._fields)} fields, and {len(values)} were given")
        return tuple.__new__(cls, values)

    def __getnewargs__(self) -> tuple[int, ...]:
        return tuple(self)

    def __repr__(self) -> str:
        return f"PortStatus({', '.join(f'{name}={value!r}' for name, value in zip(self._fields, self))})"


class Calls:
    """A task's port space, by way of `lib`: functions as libSystem's, over `ffi`'s C types.

    A port name is an `int` (0 is MACH_PORT_NULL, 0xFFFFFFFF is MACH_PORT_DEAD). A failure is a `MachError` whose code is
    the one that Mach returns, and changes nothing. The rules are XNU's: osfmk/ipc/mach_port.c, ipc_right.c.
    """

    def __init__(self, lib: Any, ffi: Any) -> None:
        self._lib = lib
        self._ffi = ffi

    @property
    def _task(self) -> int:
        """What stands for the task in calls."""
        return self._lib.mach_task_self()  # type: ignore[no-any-return]

    def _call(self, operation: str, *arguments: Any) -> None:
        """A call of this task's; MachError where it fails. No name and no count has more bits than its C type."""
        try:
            code = getattr(self._lib, operation)(self._task, *arguments)
        except OverflowError:
            code = constants.KERN_INVALID_VALUE
        if code:
            raise MachError(code, operation)

    def _asked(self, kind: str, operation: str, *arguments: Any) -> int:
        """The same of a call whose last argument, a pointer of this kind, is where its answer goes."""
        found = self._ffi.new(kind)
        try:
            code = getattr(self._lib, operation)(self._task, *arguments, found)
        except OverflowError:
            code = constants.KERN_INVALID_VALUE
        if code:
            raise MachError(code, operation)
        return found[0]  # type: ignore[no-any-return]

    def _array(self, pointer: Any, count: int) -> list[int]:
        """The words of an array that a call has returned; its memory is given back."""
        if not pointer:
            return []
        try:
            return self._ffi.unpack(pointer, count) if count else []
        finally:
            self._lib.vm_deallocate(self._task, int(self._ffi.cast("uintptr_t", pointer)), count * 4)

    # -- names --------------------------------------------------------------------------------------------------------

    def mach_port_allocate(self, right: int) -> int:
        """A new name: MACH_PORT_RIGHT_RECEIVE, _PORT_SET or _DEAD_NAME. It is the caller's."""
        return self._asked(_NAME, "mach_port_allocate", right)

    def mach_port_allocate_name(self, right: int, name: int) -> None:
        """As `mach_port_allocate`, under a name that the caller chose. KERN_NAME_EXISTS if it stands for something."""
        self._call("mach_port_allocate_name", right, name)

    def mach_port_construct(self, flags: int, context: int = 0, queue_limit: int | None = None) -> int:
        """A new receive right with MPO_* flags, and the queue limit if one is given (on Linux the least that a queue
        takes). `context` is the guard where MPO_CONTEXT_AS_GUARD asks for one."""
        options, name = self._ffi.new("mach_port_options_t *"), self._ffi.new(_NAME)
        options.flags = flags
        if queue_limit is not None:
            options.flags |= constants.MPO_QLIMIT
            options.mpl.mpl_qlimit = queue_limit
        try:
            self._call("mach_port_construct", options, context, name)
        except BaseException:
            if name[0]:  # A signal handler has raised behind the call.
                self._lib.mach_port_mod_refs(self._task, name[0], constants.MACH_PORT_RIGHT_RECEIVE, -1)
            raise
        return name[0]  # type: ignore[no-any-return]  # No call, behind which a signal handler could raise.

    def mach_port_destruct(self, name: int, srdelta: int = 0, guard: int = 0) -> None:
        """Give up a receive right, adding `srdelta` (0 or less) send references. `guard` must be the one that it has: with
        a wrong one macOS kills the process."""
        self._call("mach_port_destruct", name, srdelta, guard)

    def mach_reply_port(self) -> int:
        """A receive right that is meant for replies: sent as MAKE_SEND_ONCE, never moved, never put in a set.

        macOS: one that the kernel knows to be for replies; services that launchd knows may refuse a request with any other
        (MACH_SEND_INVALID_REPLY). Where MPO_REPLY_PORT is unknown, a receive right like any other.
        """
        try:
            return self.mach_port_construct(constants.MPO_REPLY_PORT)
        except MachError as error:
            if error.code != constants.KERN_INVALID_ARGUMENT:
                raise
        return self.mach_port_allocate(constants.MACH_PORT_RIGHT_RECEIVE)

    def mach_port_type(self, name: int) -> int:
        """The MACH_PORT_TYPE_* bits of a name, without those of a request for MACH_NOTIFY_SEND_POSSIBLE."""
        return self._asked("mach_port_type_t *", "mach_port_type", name)

    def mach_port_names(self) -> list[tuple[int, int]]:
        """Every (name, MACH_PORT_TYPE_* bits) of the space."""
        names, types = self._ffi.new("mach_port_name_t **"), self._ffi.new("mach_port_type_t **")
        name_count, type_count = self._ffi.new(_COUNT), self._ffi.new(_COUNT)
        self._call("mach_port_names", names, name_count, types, type_count)
        try:
            found = self._array(names[0], name_count[0])
        finally:
            bits = self._array(types[0], type_count[0])
        return list(zip(found, bits))

    # -- rights -------------------------------------------------------------------------------------------------------

    def mach_port_insert_right(self, name: int, poly: int, disposition: int) -> None:
        """Put the right that `disposition` takes from `poly` under `name`."""
        self._call("mach_port_insert_right", name, poly, disposition)

    def mach_port_extract_right(self, name: int, disposition: int) -> tuple[int, int]:
        """Take a right out of `name`: (its name, MACH_MSG_TYPE_PORT_*). In one task, that is a new user reference."""
        poly, kind = self._ffi.new("mach_port_t *"), self._ffi.new("mach_msg_type_name_t *")
        self._call("mach_port_extract_right", name, disposition, poly, kind)
        return int(poly[0]), int(kind[0])

    def mach_port_deallocate(self, name: int) -> None:
        """Give up one user reference of a send, send-once or dead name."""
        self._call("mach_port_deallocate", name)

    def mach_port_destroy(self, name: int) -> None:
        """Give up everything that the name stands for."""
        self._call("mach_port_destroy", name)

    def mach_port_mod_refs(self, name: int, right: int, delta: int) -> None:
        """Add `delta` user references of MACH_PORT_RIGHT_*."""
        self._call("mach_port_mod_refs", name, right, delta)

    def mach_port_get_refs(self, name: int, right: int) -> int:
        """The user references of MACH_PORT_RIGHT_*, 0 where the name has no such right."""
        return self._asked("mach_port_urefs_t *", "mach_port_get_refs", name, right)

    # -- sets ---------------------------------------------------------------------------------------------------------

    def mach_port_move_member(self, member: int, after: int) -> None:
        """Take `member` out of all sets and put it into the set `after` (0: into none)."""
        self._call("mach_port_move_member", member, after)

    def mach_port_insert_member(self, name: int, pset: int) -> None:
        """Put a receive right into one more set."""
        self._call("mach_port_insert_member", name, pset)

    def mach_port_extract_member(self, name: int, pset: int) -> None:
        """Take a receive right out of one set."""
        self._call("mach_port_extract_member", name, pset)

    def mach_port_get_set_status(self, name: int) -> list[int]:
        """The names of the members of a set."""
        members, count = self._ffi.new("mach_port_name_t **"), self._ffi.new(_COUNT)
        self._call("mach_port_get_set_status", name, members, count)
        return self._array(members[0], count[0])

    # -- what a port is -----------------------------------------------------------------------------------------------

    def mach_port_get_attributes(self, name: int, flavor: int) -> PortStatus | int:
        """MACH_PORT_RECEIVE_STATUS: a `PortStatus`. MACH_PORT_LIMITS_INFO: the queue limit."""
        if flavor == constants.MACH_PORT_LIMITS_INFO:
            limits = self._attributes(name, flavor, "mach_port_limits_t *", constants.MACH_PORT_LIMITS_INFO_COUNT)
            return int(limits.mpl_qlimit)
        if flavor != constants.MACH_PORT_RECEIVE_STATUS:
            raise MachError(constants.KERN_INVALID_ARGUMENT, "mach_port_get_attributes")
        s = self._attributes(name, flavor, "mach_port_status_t *", constants.MACH_PORT_RECEIVE_STATUS_COUNT)
        counts = s.mps_pset, s.mps_seqno, s.mps_mscount, s.mps_qlimit, s.mps_msgcount, s.mps_sorights
        return PortStatus(*counts, bool(s.mps_srights), bool(s.mps_pdrequest), bool(s.mps_nsrequest), s.mps_flags)

    def _attributes(self, name: int, flavor: int, kind: str, words: int) -> Any:
        found, count = self._ffi.new(kind), self._ffi.new(_COUNT, words)
        into = self._ffi.cast("integer_t *", found)
        self._call("mach_port_get_attributes", name, flavor, into, count)
        return found

    def mach_port_set_attributes(self, name: int, flavor: int, value: int) -> None:
        """MACH_PORT_LIMITS_INFO: set the queue limit, 0 to MACH_PORT_QLIMIT_MAX. On Linux a queue takes more for all that."""
        operation, count = "mach_port_set_attributes", constants.MACH_PORT_LIMITS_INFO_COUNT
        if flavor != constants.MACH_PORT_LIMITS_INFO:
            raise MachError(constants.KERN_INVALID_ARGUMENT, operation)
        if not 0 <= value <= 0xFFFFFFFF:  # What the kernel's own check sees of it is 32 bits.
            raise MachError(constants.KERN_INVALID_VALUE, operation)
        limits = self._ffi.new("mach_port_limits_t *", [value])
        info = self._ffi.cast("integer_t *", limits)
        self._call(operation, name, flavor, info, count)

    def mach_port_get_context(self, name: int) -> int:
        """The context of a receive right, as MACH_RCV_TRAILER_CTX reports it."""
        return self._asked("mach_port_context_t *", "mach_port_get_context", name)

    def mach_port_set_context(self, name: int, context: int) -> None:
        """Set the context (64 bits) of a receive right."""
        self._call("mach_port_set_context", name, context & 0xFFFFFFFFFFFFFFFF)

    def mach_port_set_mscount(self, name: int, mscount: int) -> None:
        """Set the count of send rights made from a receive right."""
        self._call("mach_port_set_mscount", name, mscount)

    def mach_port_set_seqno(self, name: int, seqno: int) -> None:
        """Set the number that the next message received from a port bears."""
        self._call("mach_port_set_seqno", name, seqno)

    def mach_port_guard(self, name: int, guard: int, strict: bool = False) -> None:
        """Guard a receive right: who gives it up has to know `guard` (64 bits). `strict`: nor can it be moved."""
        self._call("mach_port_guard", name, guard, strict)

    def mach_port_unguard(self, name: int, guard: int) -> None:
        """Take the guard away again. macOS kills a process that has it wrong."""
        self._call("mach_port_unguard", name, guard)

    def mach_port_peek(self, name: int, trailer: int = 0, seqno: int = 0) -> tuple[int, int, int, bytes]:
        """Look at a message that waits: (its number, msgh_size, msgh_id, its trailer). It stays where it is.

        `trailer`: what of it, as in the options of `mach_msg`. `seqno`: the number of the message, 0 for the next; Linux can
        tell of the next alone, and only once a message is received which process sent it (its pidversion is 0 here). On
        macOS the size counts descriptors as the kernel has them. Raises MachError (KERN_FAILURE) if there is no such message.
        """
        number, size = self._ffi.new("mach_port_seqno_t *", seqno), self._ffi.new("mach_msg_size_t *")
        id, info = self._ffi.new("mach_msg_id_t *"), self._ffi.new("char[]", _PEEKED)
        length = self._ffi.new(_COUNT, _PEEKED)
        self._call("mach_port_peek", name, trailer, number, size, id, info, length)
        # XNU tells the size that the header has in the kernel (xnu-11417, tests/ipc/port_peek.c, USER_HEADER_SIZE_DELTA).
        return (
            int(number[0]),
            int(size[0]) - _KERNEL_HEADER,
            int(id[0]),
            bytes(self._ffi.unpack(info, min(length[0], _PEEKED))),
        )

    def mach_port_request_notification(
        self, name: int, notification: int, sync: int, notify: int, disposition: int
    ) -> int:
        """Ask for MACH_NOTIFY_DEAD_NAME, _NO_SENDERS, _PORT_DESTROYED or _SEND_POSSIBLE on `name`.

        `notify` with `disposition` (MAKE_SEND_ONCE or MOVE_SEND_ONCE) gives the right that the notification goes to; 0
        cancels. Returns the name of the send-once right that was registered before, or 0: the caller owns it. If the
        request is refused, a right that MOVE_SEND_ONCE took is destroyed, and its receiver is told (xnu-11417,
        osfmk/ipc/mach_kernelrpc.c). With MAKE_SEND_ONCE nothing is lost.
        """
        asked = name, notification, sync, notify, disposition
        return self._asked("mach_port_t *", "mach_port_request_notification", *asked)

    # -- memory (<mach/vm_map.h>) -------------------------------------------------------------------------------------

    def vm_allocate(self, size: int) -> int:
        """The address of so many zeroed bytes, in whole pages, for an out-of-line descriptor: the caller's."""
        address = self._ffi.new("vm_address_t *")
        self._call("vm_allocate", address, size, constants.VM_FLAGS_ANYWHERE)
        return int(address[0])

    def vm_read(self, address: int, size: int) -> bytes:
        """A copy of memory of the caller's, such as came in an out-of-line descriptor. KERN_INVALID_ADDRESS where there is
        none."""
        if not size:
            return b""
        start, count = self._ffi.new("vm_offset_t *"), self._ffi.new("mach_msg_type_number_t *")
        self._call("vm_read", address, size, start, count)
        try:
            return bytes(self._ffi.buffer(self._ffi.cast("char *", start[0]), count[0]))
        finally:
            self._call("vm_deallocate", start[0], count[0])

    def lent(self, data: Buffer) -> tuple[object, int]:
        """The address of bytes, or of what else lies in one piece, for a descriptor; and what keeps them there: hold it until
        the message was sent."""
        view = self._ffi.from_buffer(data)
        return view, int(self._ffi.cast("uintptr_t", view))

    def vm_write(self, address: int, data: bytes) -> None:
        """Copy bytes into memory of the caller's. KERN_INVALID_ADDRESS where there is none, KERN_PROTECTION_FAILURE where it
        cannot be written to."""
        source = self._ffi.from_buffer(data)
        start = int(self._ffi.cast("uintptr_t", source))
        self._call("vm_write", address, start, len(data))

    def mach_make_memory_entry_64(self, size: int, permission: int, parent: int = 0) -> int:
        """A right to memory: to so many zeroed bytes (MAP_MEM_NAMED_CREATE), or to the first part of what `parent` leads to.
        `permission` is VM_PROT_*. The name is the caller's (xnu-11417, osfmk/vm/vm_memory_entry.c)."""
        into, made = self._ffi.new("memory_object_size_t *", size), self._ffi.new("mach_port_t *")
        code = self._lib.mach_make_memory_entry_64(self._task, into, 0, permission, made, parent)
        check(code, f"mach_make_memory_entry_64 of {size} bytes")
        return int(made[0])

    def vm_deallocate(self, address: int, size: int) -> None:
        """Give memory back. Size 0 is allowed and does nothing."""
        if size:
            self._call("vm_deallocate", address, size)
