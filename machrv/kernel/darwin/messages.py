"""mach_msg: one deadline over a send and a receive, signals let in, nothing lost on the way.

What belongs here: buffers, time, and what each return code of mach_msg leaves behind. What must never happen here: a
raw trap (since macOS 13 the kernel kills for it; libSystem's mach_msg knows the way), or a trailer read before its type
and size are known.

Every call asks to be interrupted by signals (MACH_SEND_INTERRUPT, MACH_RCV_INTERRUPT): Python runs its handlers between
two tries, and each try waits for what is left until the deadline.
"""

from __future__ import annotations

from time import monotonic

from machrv._mach import lib as constants

from machrv.errors import MachError
from machrv.kernel.darwin.calls import Calls
from machrv.kernel.darwin.comeback import Comeback, keep_memory, keep_nothing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_OPERATION = "mach_msg"
_SEND_MSG = constants.MACH_SEND_MSG
_RCV_MSG = constants.MACH_RCV_MSG
_RCV_LARGE = constants.MACH_RCV_LARGE
_RCV_TOO_LARGE = constants.MACH_RCV_TOO_LARGE
_HEADER_SIZE = 24
_MAX_TRAILER_SIZE = constants.MAX_TRAILER_SIZE
#: What a call that takes messages of any size offers at first: most fit.
_FIRST_ROOM = 4096
#: The longest wait of one call, ms.
_LONGEST = 0xFFFFFFFF

#: The options that concern receiving: the trailer request, and these.
_RECEIVE_OPTIONS = (
    0xFF000000
    | constants.MACH_RCV_MSG
    | constants.MACH_RCV_LARGE
    | constants.MACH_RCV_LARGE_IDENTITY
    | constants.MACH_RCV_TIMEOUT
    | constants.MACH_RCV_INTERRUPT
    | constants.MACH_RCV_VOUCHER
    | constants.MACH_RCV_GUARDED_DESC
    | constants.MACH_RCV_SYNC_WAIT
)
#: The smallest trailer that has the elements asked for; of others, the header is enough.
_TRAILER_SIZES = {
    constants.MACH_RCV_TRAILER_SEQNO: 12,
    constants.MACH_RCV_TRAILER_SENDER: 20,
    constants.MACH_RCV_TRAILER_AUDIT: 52,
    constants.MACH_RCV_TRAILER_CTX: 60,
    constants.MACH_RCV_TRAILER_AV: 68,
    constants.MACH_RCV_TRAILER_LABELS: 68,
}
#: A send that fails so has destroyed what it took, and given nothing back.
_BODY_ERRORS = (
    constants.MACH_SEND_INVALID_RIGHT,
    constants.MACH_SEND_INVALID_TYPE,
    constants.MACH_SEND_INVALID_MEMORY,
    constants.MACH_SEND_MSG_TOO_SMALL,
)


class RenamedError(MachError):
    """A send that failed, after which moved rights do not have their old names.

    `renamed` maps the name that was moved to the one that the right has now, which is the caller's to give up; to
    MACH_PORT_NULL or MACH_PORT_DEAD if the right is gone.
    """

    renamed: dict[int, int]

    def __init__(self, code: int, operation: str, size: int | None = None) -> None:
        super().__init__(code, operation, size)
        self.renamed = {}


def milliseconds(deadline: float) -> int:
    """What is left until `deadline`, rounded up: the rest of a millisecond is waited for, not spun through."""
    left = (deadline - monotonic()) * 1000
    if left <= 0:
        return 0
    return _LONGEST if left >= _LONGEST else int(-(-left // 1))


class Messages(Calls):
    """A port space that sends and receives."""

    def __init__(self, lib: Any, ffi: Any) -> None:
        super().__init__(lib, ffi)
        self._new_buffer = ffi.new_allocator(should_clear_after_alloc=False)

    def mach_msg(
        self,
        message: bytes | bytearray | memoryview | None,
        option: int,
        receive_size: int | None = None,
        receive_name: int = 0,
        timeout: float | None = None,
    ) -> bytes | None:
        """See `Kernel.mach_msg`. A send that had to leave a moved right under another name raises `RenamedError`."""
        deadline = None if timeout is None else monotonic() + timeout
        if option & _SEND_MSG:
            if message is None:
                raise MachError(constants.MACH_SEND_INVALID_DATA, _OPERATION)
            self._send(message, option & ~_RECEIVE_OPTIONS, deadline)
        if option & _RCV_MSG:
            return self._receive(option & _RECEIVE_OPTIONS, receive_size, receive_name, deadline)
        return None

    # -- sending ------------------------------------------------------------------------------------------------------

    def _send(self, message: bytes | bytearray | memoryview, option: int, deadline: float | None) -> None:
        size = len(message)
        image = bytearray(message)
        given = keep_memory(image)
        # The kernel writes here what it gives back.
        buffer = self._new_buffer("char[]", max(size, _HEADER_SIZE) + _MAX_TRAILER_SIZE)
        self._ffi.memmove(buffer, image, size)
        header = self._ffi.cast("mach_msg_header_t *", buffer)
        option |= constants.MACH_SEND_INTERRUPT
        code = None
        try:
            while True:
                code = self._call(header, option, constants.MACH_SEND_TIMEOUT, size, 0, 0, deadline)
                if code != constants.MACH_SEND_INTERRUPTED:
                    break
                # What came back is what is to be sent again.
                keep_nothing(image, memoryview(self._ffi.buffer(buffer, size)))
            if code:
                raise MachError(code, _OPERATION)
        except BaseException as error:
            if code != 0 and code not in _BODY_ERRORS:
                self._take_back(image, bytes(self._ffi.buffer(buffer, size)), error)
            raise
        for address, length in given:
            self.vm_deallocate(address, length)

    def _take_back(self, image: bytearray, returned: bytes, error: BaseException) -> None:
        comeback = Comeback(self._lib, self._ffi)
        comeback.undo(image, returned)
        if comeback.renamed:
            code = error.code if isinstance(error, MachError) else constants.MACH_SEND_INTERRUPTED
            renamed = RenamedError(code, _OPERATION)
            renamed.renamed = comeback.renamed
            raise renamed from error

    def _call(
        self,
        header: Any,
        option: int,
        timed: int,
        send_size: int,
        room: int,
        name: int,
        deadline: float | None,
    ) -> int:
        if deadline is None:
            return int(self._lib.mach_msg(header, option & ~timed, send_size, room, name, 0, 0))
        left = milliseconds(deadline)
        return int(self._lib.mach_msg(header, option | timed, send_size, room, name, left, 0))

    # -- receiving ----------------------------------------------------------------------------------------------------

    def _receive(self, option: int, size: int | None, name: int, deadline: float | None) -> bytes:
        option |= constants.MACH_RCV_INTERRUPT
        room = size
        if room is None:
            option |= _RCV_LARGE
            room = _FIRST_ROOM
        code = None
        buffer, header = self._room(room)
        try:
            while True:
                header.msgh_size = 0
                code = self._call(header, option, constants.MACH_RCV_TIMEOUT, 0, room, name, deadline)
                if code == 0:
                    return self._taken(buffer, header, room, option)
                if code == constants.MACH_RCV_INTERRUPTED:
                    continue
                # With room for less than msgh_size itself, the kernel does not tell it.
                waiting = header.msgh_size if code == _RCV_TOO_LARGE and option & _RCV_LARGE else 0
                if size is not None or not waiting:
                    raise MachError(code, _OPERATION, waiting or None)
                room = waiting + 3 + _MAX_TRAILER_SIZE
                buffer, header = self._room(room)
        except BaseException:
            if code == 0:  # It came, and cannot be handed on.
                self._lib.mach_msg_destroy(header)
            raise

    def _room(self, size: int) -> tuple[Any, Any]:
        buffer = self._new_buffer("char[]", max(size, _HEADER_SIZE))
        return buffer, self._ffi.cast("mach_msg_header_t *", buffer)

    def _taken(self, buffer: Any, header: Any, room: int, option: int) -> bytes:
        """The message in `buffer` with its trailer, once that is what was asked for."""
        size = header.msgh_size
        end = size + (-size & 3)
        wanted = _TRAILER_SIZES.get(option >> 24 & 0xF, constants.MACH_MSG_TRAILER_MINIMUM_SIZE)
        if size >= _HEADER_SIZE and end + wanted <= room:
            trailer = self._ffi.cast("mach_msg_trailer_t *", buffer + end)
            length = trailer.msgh_trailer_size
            if trailer.msgh_trailer_type == constants.MACH_MSG_TRAILER_FORMAT_0 and wanted <= length <= room - end:
                return bytes(self._ffi.buffer(buffer, end + length))
        raise MachError(constants.MACH_RCV_INVALID_TRAILER, _OPERATION)

    # -- memory -------------------------------------------------------------------------------------------------------

    def vm_read(self, address: int, size: int) -> bytes:
        """See `Kernel.vm_read`."""
        return bytes(self._ffi.buffer(self._ffi.cast("char *", address), size)) if size else b""

    def vm_deallocate(self, address: int, size: int) -> None:
        """See `Kernel.vm_deallocate`."""
        if size:
            self._check(self._lib.vm_deallocate(self._lib.mach_task_self(), address, size), "vm_deallocate")
