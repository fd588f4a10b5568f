"""mach_msg: one deadline over a send and a receive, signals let in, nothing lost on the way.

What belongs here: buffers, time, and what each return code of mach_msg leaves behind. What must never happen here: a raw
trap on macOS (since 13 the kernel kills for it; libSystem's mach_msg knows the way), or a trailer read before its type and
size are known.

Every call asks to be interrupted by signals (MACH_SEND_INTERRUPT, MACH_RCV_INTERRUPT): Python runs its handlers between
two tries, and each try waits for what is left until the deadline.
"""

from __future__ import annotations

from time import monotonic

from machrv._mach import lib as constants

from machrv.errors import MachError
from machrv.kernel.calls import Calls
from machrv.kernel.comeback import Comeback, descriptors, keep_memory, keep_nothing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    #: One that nobody else is using: mach_msg_header_t *, its words, its bytes, how many.
    Buffer = tuple[Any, Any, memoryview, int]

_OPERATION = "mach_msg"
# Plain numbers of this module: a look at `constants` each time would cost more than the rest.
_SEND_MSG = int(constants.MACH_SEND_MSG)
_SEND_TIMEOUT = int(constants.MACH_SEND_TIMEOUT)
_SEND_INTERRUPT = int(constants.MACH_SEND_INTERRUPT)
_SEND_INTERRUPTED = int(constants.MACH_SEND_INTERRUPTED)
_RCV_MSG = int(constants.MACH_RCV_MSG)
_RCV_LARGE = int(constants.MACH_RCV_LARGE)
_RCV_TIMEOUT = int(constants.MACH_RCV_TIMEOUT)
_RCV_INTERRUPT = int(constants.MACH_RCV_INTERRUPT)
_RCV_INTERRUPTED = int(constants.MACH_RCV_INTERRUPTED)
_RCV_TOO_LARGE = int(constants.MACH_RCV_TOO_LARGE)
_MAX_TRAILER_SIZE = int(constants.MAX_TRAILER_SIZE)
_FORMAT_0 = int(constants.MACH_MSG_TRAILER_FORMAT_0)
_HEADER = "mach_msg_header_t *"
_HEADER_SIZE = 24
_COMPLEX = 0x80  # MACH_MSGH_BITS_COMPLEX, in the last byte of the first word
#: Room behind a message that is sent, for what the kernel writes there.
_BEHIND = _HEADER_SIZE + _MAX_TRAILER_SIZE
#: What a call that takes messages of any size offers at first (most fit), and the largest buffer that is kept for the next.
_FIRST_ROOM = 4096
_LARGEST_KEPT = 1024 * 1024 + _FIRST_ROOM
_KEPT = 4
#: The longest wait of one call, ms.
_LONGEST = 0xFFFFFFFF

#: The options that concern receiving: the trailer request, and these.
_RECEIVE_OPTIONS = int(
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
_SEND_OPTIONS = ~(_RECEIVE_OPTIONS | _SEND_TIMEOUT)
#: The smallest trailer that has the elements asked for, by the four bits that ask; of others, the header is enough.
_TRAILER_SIZES = (8, 12, 20, 52, 60, 8, 8, 68, 68, 8, 8, 8, 8, 8, 8, 8)
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
    left = (deadline - monotonic()) * 1000 if deadline else 0
    return 0 if left <= 0 else _LONGEST if left >= _LONGEST else int(-(-left // 1))


class Messages(Calls):
    """A port space that sends and receives."""

    #: mach_msg and mach_msg_destroy of this task.
    _msg: Callable[..., int]
    _msg_destroy: Callable[..., object]

    def __init__(self, lib: Any, ffi: Any) -> None:
        super().__init__(lib, ffi)
        #: A buffer is out of the list while it is in use: a signal handler or a finaliser may come in the middle.
        self._buffers: list[Buffer] = []

    def mach_msg(
        self,
        message: bytes | bytearray | memoryview | None,
        option: int,
        receive_size: int | None = None,
        receive_name: int = 0,
        timeout: float | None = None,
        take: Callable[[memoryview], Any] = bytes,
    ) -> bytes | None:
        """Send (MACH_SEND_MSG), receive (MACH_RCV_MSG), or both.

        `message` is the Mach message as a task would lay it out in memory, header first, its length the send size;
        `receive_size` the largest message with trailer that the caller takes (None: any). `option` carries
        MACH_RCV_LARGE and the trailer request. `timeout` in seconds covers the whole call; None waits for ever, 0 does
        not wait. MACH_SEND_TIMEOUT and MACH_RCV_TIMEOUT need not be set. Out-of-line descriptors hold addresses in
        this process: received ones belong to the caller (`vm_read`, `vm_deallocate`).

        Returns the received message, with its trailer behind it at round_up(msgh_size, 4), as `bytes`, or as what `take`
        makes of it: the memory that `take` is given is good until it returns, and if it raises, the message is destroyed.
        None where nothing was to be received. Raises `MachError`; for MACH_RCV_TOO_LARGE with MACH_RCV_LARGE the message
        still waits, and its `size` attribute is the msgh_size that was too large (and with MACH_RCV_LARGE_IDENTITY, `port`
        the name of the port); without, the message is destroyed.

        A send that fails for want of room, time or resources (MACH_SEND_TIMED_OUT, _NO_BUFFER, _TOO_LARGE) has taken
        nothing, and so has one whose header is refused (_INVALID_HEADER, _DEST, _REPLY, _VOUCHER); where a moved right had
        to be left under another name, it raises `RenamedError`. As on Mach, one that is refused for its body
        (_INVALID_RIGHT, _INVALID_TYPE, _INVALID_MEMORY, _MSG_TOO_SMALL with descriptors) has destroyed the rights that its
        header and the descriptors before the faulty one moved (xnu-11417, osfmk/ipc/ipc_kmsg.c).
        """
        deadline = None if timeout is None else monotonic() + timeout if timeout > 0 else 0.0
        if option & _SEND_MSG:
            self._send(message, option & _SEND_OPTIONS | _SEND_INTERRUPT, deadline)
        if option & _RCV_MSG:
            option &= _RECEIVE_OPTIONS
            return self._receive(option, receive_size, receive_name, deadline, take)  # type: ignore[no-any-return]
        return None

    def mach_msg_destroy(self, message: bytes) -> None:
        """Give up what a received message brought: its rights, and the memory of its out-of-line descriptors.

        KERN_INVALID_ARGUMENT for what is no whole message; then nothing has been given up.
        """
        whole = len(message) >= _HEADER_SIZE and _HEADER_SIZE <= int.from_bytes(message[4:8], "little") <= len(message)
        if whole and message[3] & _COMPLEX:
            count = int.from_bytes(message[24:28], "little") if len(message) >= 28 else 1
            whole = sum(1 for _ in descriptors(message)) == count
        if not whole:
            raise MachError(constants.KERN_INVALID_ARGUMENT, "mach_msg_destroy")
        self._msg_destroy(self._ffi.from_buffer(_HEADER, bytearray(message)))

    def _new_buffer(self, size: int) -> Buffer:
        """A buffer of so many bytes at least."""
        image = bytearray(max(size, _FIRST_ROOM) + 3 & -4)
        view = memoryview(image)
        return self._ffi.from_buffer(_HEADER, image), view.cast("I"), view, len(image)

    # -- sending ------------------------------------------------------------------------------------------------------

    def _send(self, message: Any, option: int, deadline: float | None) -> None:
        if type(message) is not bytes:
            if message is None or isinstance(message, str):
                raise MachError(constants.MACH_SEND_INVALID_DATA, _OPERATION)
            message = bytes(message)
        size = len(message)
        try:
            buffer = header, words, image, room = self._buffers.pop()
        except IndexError:
            room = 0
        if room < size + _BEHIND:
            buffer = header, words, image, room = self._new_buffer(size + _BEHIND)
        image[:size] = message  # The kernel writes here what it gives back.
        code = given = None
        try:
            if size > _HEADER_SIZE and message[3] & _COMPLEX:
                # Others than port descriptors, whose type is 0.
                if message[39 : 28 + 12 * words[6] : 12].count(0) != words[6]:
                    given = keep_memory(image[:size])
                    message = bytes(image[:size])
            while True:
                if deadline is None:
                    code = self._msg(header, option, size, 0, 0, 0, 0)
                else:
                    code = self._msg(header, option | _SEND_TIMEOUT, size, 0, 0, milliseconds(deadline), 0)
                if code == 0:
                    break
                if code != _SEND_INTERRUPTED:
                    raise MachError(code, _OPERATION)
                keep_nothing(message, image)  # What came back is what is to be sent again.
        except BaseException as error:
            if code != 0 and code not in _BODY_ERRORS:
                self._take_back(message, bytes(image[:size]), error)
            raise
        finally:
            if room <= _LARGEST_KEPT and len(self._buffers) < _KEPT:
                self._buffers.append(buffer)
        if given:
            for address, length in given:
                self.vm_deallocate(address, length)

    def _take_back(self, message: bytes, returned: bytes, error: BaseException) -> None:
        comeback = Comeback(self._lib, self._ffi, self._task)
        comeback.undo(message, returned)
        if comeback.renamed:
            code = error.code if isinstance(error, MachError) else _SEND_INTERRUPTED
            renamed = RenamedError(code, _OPERATION)
            renamed.renamed = comeback.renamed
            raise renamed from error

    # -- receiving ----------------------------------------------------------------------------------------------------

    def _interrupted(self) -> None:
        """A receive was interrupted: by a signal, or because the system has something to say."""

    def _receive(self, option: int, size: int | None, name: int, deadline: float | None, take: Any) -> Any:
        large = option & _RCV_LARGE
        option = (option | _RCV_INTERRUPT) & ~_RCV_TIMEOUT
        if deadline is not None:
            option |= _RCV_TIMEOUT
        if size is None:
            option |= _RCV_LARGE
        try:
            buffer = header, words, image, room = self._buffers.pop()
        except IndexError:
            buffer = header, words, image, room = self._new_buffer(size or 0)
        if size is not None:
            if size > room:
                buffer = header, words, image, room = self._new_buffer(size)
            room = size
        try:
            while True:
                words[0] = words[1] = 0  # msgh_bits, which is not 0 once a message has come; msgh_size
                code = None
                wait = milliseconds(deadline) if deadline else 0
                code = self._msg(header, option, 0, room, name, wait, 0)
                if code == 0:
                    # The message with its trailer, once that is what was asked for.
                    told = words[1]
                    end = told + 3 & -4
                    wanted = _TRAILER_SIZES[option >> 24 & 0xF]
                    if told < _HEADER_SIZE or end + wanted > room or words[end >> 2] != _FORMAT_0:
                        raise MachError(constants.MACH_RCV_INVALID_TRAILER, _OPERATION)
                    trailer = words[(end >> 2) + 1]
                    if not wanted <= trailer <= room - end:
                        raise MachError(constants.MACH_RCV_INVALID_TRAILER, _OPERATION)
                    return take(image[: end + trailer])
                if code == _RCV_INTERRUPTED:
                    self._interrupted()
                    continue
                # With room for less than msgh_size itself, the kernel does not tell it.
                waiting = words[1] if code == _RCV_TOO_LARGE and option & _RCV_LARGE else 0
                if size is not None or not waiting:
                    error = MachError(code, _OPERATION, waiting or None)
                    if large and option & constants.MACH_RCV_LARGE_IDENTITY:
                        setattr(error, "port", words[3])
                    raise error
                buffer = header, words, image, room = self._new_buffer(waiting + 3 + _MAX_TRAILER_SIZE)
        except BaseException:
            # It came, and cannot be handed on: a signal handler may even raise before `code` is known.
            if code == 0 or code is None and words[0]:
                self._msg_destroy(header)
            raise
        finally:
            if buffer[3] <= _LARGEST_KEPT and len(self._buffers) < _KEPT:
                self._buffers.append(buffer)
