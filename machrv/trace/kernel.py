"""The kernel of a traced process: the real one, and a line about every call.

The lines, JSON arrays; times are CLOCK_MONOTONIC in nanoseconds; RIGHT is [port identity, MACH_PORT_TYPE_* bits]:

    ["call", began, ended, thread, operation, [argument, ...], [RIGHT or null, ...], result, RIGHT or null, FAILURE]
    ["began", number, time, thread, option, timeout or -1, name to receive from, its RIGHT, MESSAGE or null]
    ["ended", number, time, FAILURE, MESSAGE or null]
    ["launched", time, pid, program, [key, ...]]
    ["exited", time, pid, exit status or minus the signal]
    ["expected", thread]    the last call of this thread that failed was to fail

FAILURE is null or [what, size or null]. MESSAGE is [header and descriptors in hex, their RIGHTs, the trailer in hex, the
body as far as it was asked for in hex; of a rendezvous reply, its keys in hex]. Its RIGHTs are those of the remote port, the local port, and each descriptor:
null for memory, a list for an array of rights, which is known where it was received.
"""

# What is written of a call. What must never happen here: what it means (`reading` and those after it find that out, when the
# program is over), a call that the program did not make, a result or an exception that is not the real kernel's, or a look
# at memory that a sender's descriptor points to: the address may be anything.

from __future__ import annotations

import os
from _thread import get_native_id
from itertools import count
from math import isfinite
from struct import Struct, calcsize, error as StructError
from time import monotonic_ns

import machrv.constants as constants
from machrv.errors import MachError
from machrv.kernel import Kernel
from machrv.kernel.choice import listen
from machrv.message.layout import layout, offset_of
from machrv.trace import BODIES_VARIABLE, VARIABLE
from machrv.trace.recording import Recorder, quoted, title

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: What is written of a call: which of its arguments are names.
_NAMES: dict[str, tuple[int, ...]] = {
    "mach_port_allocate": (),
    "mach_port_allocate_name": (1,),
    "mach_port_construct": (),
    "mach_port_destruct": (0,),
    "mach_reply_port": (),
    "mach_port_insert_right": (0, 1),
    "mach_port_extract_right": (0,),
    "mach_port_deallocate": (0,),
    "mach_port_destroy": (0,),
    "mach_port_mod_refs": (0,),
    "mach_port_guard": (0,),
    "mach_port_unguard": (0,),
    "mach_port_move_member": (0, 1),
    "mach_port_insert_member": (0, 1),
    "mach_port_extract_member": (0, 1),
    "mach_port_request_notification": (0, 3),
    "bootstrap_check_in": (),
    "bootstrap_look_up": (),
    "fileport_makeport": (),
    "fileport_makefd": (0,),
    "right_makefd": (0,),
    "right_makeport": (),
}
#: What gives no name.
_NAMELESS = ("fileport_makefd", "right_makefd", "mach_port_request_notification")
#: Questions to which a failure is an answer like any other.
_QUESTIONS = {"mach_port_type", "port_identity"}

_SEND = int(constants.MACH_SEND_MSG)
_RECEIVE = int(constants.MACH_RCV_MSG)
_TIMED_OUT = int(constants.MACH_RCV_TIMED_OUT)
_COMPLEX = int(constants.MACH_MSGH_BITS_COMPLEX)
_REPLY = int(constants.MACHRV_REPLY_ID)
_HEADER, _COUNT, _ADDRESS = Struct("=IIIIIi"), Struct("=I"), Struct("=Q")
#: By the type of a descriptor: its size, and where the name is in it (-1: nowhere).
_DESCRIPTORS = {
    int(constants.MACH_MSG_PORT_DESCRIPTOR): ("mach_msg_port_descriptor_t", "name"),
    int(constants.MACH_MSG_OOL_DESCRIPTOR): ("mach_msg_ool_descriptor_t", ""),
    int(constants.MACH_MSG_OOL_VOLATILE_DESCRIPTOR): ("mach_msg_ool_descriptor_t", ""),
    int(constants.MACH_MSG_OOL_PORTS_DESCRIPTOR): ("mach_msg_ool_ports_descriptor_t", ""),
    int(constants.MACH_MSG_GUARDED_PORT_DESCRIPTOR): ("mach_msg_guarded_port_descriptor_t", "name"),
}
_LAYOUTS = {
    number: (calcsize("=" + layout(struct)), offset_of(struct, member) if member else -1)
    for number, (struct, member) in _DESCRIPTORS.items()
}
_TYPE_OFFSET = offset_of("mach_msg_type_descriptor_t", "type")
_ARRAY = int(constants.MACH_MSG_OOL_PORTS_DESCRIPTOR)
_ARRAY_ADDRESS = offset_of("mach_msg_ool_ports_descriptor_t", "address")
_ARRAY_COUNT = offset_of("mach_msg_ool_ports_descriptor_t", "count")
#: Of an array of rights, so many are written down.
_MOST_RIGHTS = 256
#: Of a trailer.
_LONGEST_TRAILER = 128


class _Recording:
    """What is recorded of messages. The other methods of the class below are made from `_NAMES`."""

    def __init__(self, kernel: Kernel, directory: str, bodies: int) -> None:
        self.name = kernel.name
        self._kernel = kernel
        self._bodies = bodies
        self._numbers = count()
        self._recorder = Recorder(directory, kernel)
        self._recorder.start()

    def __getattr__(self, name: str) -> Any:
        """What only this platform's kernel has."""
        return getattr(self.__dict__["_kernel"], name)

    def told(self, what: str, *facts: Any) -> None:
        """What the program does besides: see `machrv.kernel.choice.tell`."""
        try:
            if what == "launched":
                pid, words, keys = facts
                self._recorder.announce(pid)
                about = f"{pid:d},{quoted(title(words))},[{','.join(quoted(str(key)) for key in keys)}]"
                self._recorder.write(f'["launched",{monotonic_ns()},{about}]')
            elif what == "exited":
                self._recorder.write('["exited",%d,%d,%d]' % (monotonic_ns(), *facts))
            elif what == "expected":
                self._recorder.write(f'["expected",{get_native_id()}]')
        except Exception:
            pass  # Nothing that is to be written.

    def memory(self) -> Any:
        """See `Kernel.memory`."""
        return TracingMemory(self._kernel.memory(), self._recorder, self._right)

    def mach_msg(
        self,
        message: bytes | bytearray | memoryview | None,
        option: int,
        receive_size: int | None = None,
        receive_name: int = 0,
        timeout: float | None = None,
        take: Callable[[memoryview], Any] = bytes,
    ) -> Any:
        """See `Kernel.mach_msg`."""
        number = next(self._numbers)
        looks = timeout == 0 and not option & _SEND
        if not looks:  # It may wait, perhaps for ever: what for is known before.
            self._began(number, message, option, receive_name, timeout)
        began = monotonic_ns()
        try:
            taken: Any = self._kernel.mach_msg(
                message, option, receive_size, receive_name, timeout, lambda image: (bytes(image), take(image))
            )
        except BaseException as error:
            if not (looks and isinstance(error, MachError) and error.code == _TIMED_OUT):
                if looks:
                    self._began(number, None, option, receive_name, timeout, began)
                self._recorder.write(f'["ended",{number},{monotonic_ns()},{_failure(error)},null]')
            raise
        ended = monotonic_ns()
        received, result = taken or (None, None)
        if looks:
            self._began(number, None, option, receive_name, timeout, began)
        self._recorder.write(f'["ended",{number},{ended},null,{self._message(received, True)}]')
        return result

    def _began(
        self, number: int, message: Any, option: int, receive_name: int, timeout: float | None, began: int = 0
    ) -> None:
        sent = self._message(message, False) if option & _SEND else "null"
        right = self._right(receive_name) if option & _RECEIVE else "null"
        try:
            wait = -1 if timeout is None else int(timeout * 1e9)
            line = f'["began",{number},{began or monotonic_ns()},{get_native_id()},{option:d},{wait},{receive_name:d}'
        except (TypeError, ValueError, OverflowError):
            return  # The real kernel will not take it either.
        self._recorder.write(f"{line},{right},{sent}]")

    def _right(self, name: object) -> str:
        try:
            identity, bits = self._kernel.port_identity(name)  # type: ignore[arg-type]
            return f"[{quoted(identity)},{bits}]"
        except Exception:
            return "null"

    def _message(self, message: Any, received: bool) -> str:
        """What is written of a message; the program may have given anything for one."""
        if message is None:
            return "null"
        try:
            image = memoryview(message)
            size = min(_HEADER.unpack_from(image)[1], len(image)) if received else len(image)
            rights, end = self._rights(image[:size], received)
            trailer = bytes(image[size + -size % 4 :][:_LONGEST_TRAILER]).hex() if received else ""
            body = bytes(image[end:size][: self._bodies]).hex()
            keys = ""
            if _HEADER.unpack_from(image)[5] == _REPLY:
                keys = f',"{bytes(image[end:size][: 4 * (len(rights) - 2)]).hex()}"'
            return f'["{bytes(image[:end]).hex()}",[{",".join(rights)}],"{trailer}","{body}"{keys}]'
        except Exception:
            return "null"

    def _rights(self, image: memoryview, received: bool) -> tuple[list[str], int]:
        """The RIGHTs of a message, and where its body begins."""
        bits, _, remote, local, _, _ = _HEADER.unpack_from(image)
        rights = [self._right(remote), self._right(local)]
        offset = _HEADER.size
        if not bits & _COMPLEX:
            return rights, offset
        try:
            (number,) = _COUNT.unpack_from(image, offset)
            offset += _COUNT.size
            while number:
                kind = image[offset + _TYPE_OFFSET]
                size, name = _LAYOUTS[kind]
                if offset + size > len(image):
                    break
                if name >= 0:
                    rights.append(self._right(_COUNT.unpack_from(image, offset + name)[0]))
                elif kind == _ARRAY and received:
                    (address,) = _ADDRESS.unpack_from(image, offset + _ARRAY_ADDRESS)
                    rights.append(self._array(address, *_COUNT.unpack_from(image, offset + _ARRAY_COUNT)))
                else:
                    rights.append("null")
                offset += size
                number -= 1
        except (KeyError, IndexError, StructError):
            pass  # What comes next is no descriptor: the kernel will say so.
        return rights, offset

    def _array(self, address: int, length: int) -> str:
        """The rights of an array that the kernel has just put into this process's memory."""
        size = min(length, _MOST_RIGHTS) * _COUNT.size
        names = _COUNT.iter_unpack(self._kernel.vm_read(address, size)) if address else ()
        return f"[{','.join(self._right(name) for name, in names)}]"


def _failure(error: BaseException) -> str:
    """A MachError's symbol, any other exception's type."""
    try:
        if isinstance(error, MachError):
            return f"[{quoted(error.symbol)},{'null' if error.size is None else int(error.size)}]"
        return f"[{quoted(type(error).__name__)},null]"
    except Exception:
        return '["?",null]'


def _value(value: object) -> str:
    """An argument or a result, as JSON."""
    if value is None or isinstance(value, int):
        return "null" if value is None else f"{value:d}"
    if isinstance(value, str):
        return quoted(value[:1000])
    if isinstance(value, float) and isfinite(value):
        return repr(value)
    if isinstance(value, tuple):
        return f"[{','.join(map(_value, value))}]"
    return quoted(type(value).__name__)


def _recorded(operation: str, names: tuple[int, ...], family: str = "") -> Callable[..., Any]:
    """A method that hands a call on and records it."""

    def call(self: Any, *given: Any, **named: Any) -> Any:
        arguments = (*given, *named.values())
        before = [self._right(arguments[at]) if at < len(arguments) else "null" for at in names]

        def write(ended: int, result: str, right: str, failure: str) -> None:
            try:
                values = ",".join(map(_value, arguments))
                about = f'{get_native_id()},"{family}{operation}",[{values}],[{",".join(before)}],{result},{right},{failure}'
                self._recorder.write(f'["call",{began},{ended},{about}]')
            except Exception:
                pass  # An argument that is nothing to be written.

        began = monotonic_ns()
        try:
            result = getattr(self._kernel, operation)(*given, **named)
        except BaseException as error:
            write(monotonic_ns(), "null", "null", _failure(error))
            raise
        ended = monotonic_ns()
        name = result[0] if isinstance(result, tuple) else result
        made = isinstance(name, int) and operation not in _NAMELESS
        write(ended, _value(result), self._right(name) if made else "null", "null")
        return result

    return call


def _handed_on(operation: str) -> Callable[..., Any]:
    """A method that hands a call on; a failure is recorded."""

    def call(self: _Recording, *given: Any, **named: Any) -> Any:
        began = monotonic_ns()
        try:
            return getattr(self._kernel, operation)(*given, **named)
        except BaseException as error:
            arguments = ",".join(quoted(repr(value)[:50]) for value in (*given, *named.values()))
            about = f'{get_native_id()},"{operation}",[{arguments}],[],null,null,{_failure(error)}'
            self._recorder.write(f'["call",{began},{monotonic_ns()},{about}]')
            raise

    return call


def _methods() -> dict[str, Any]:
    """A method for everything that a kernel can do, so that a new call is never answered by this class itself."""
    methods: dict[str, Any] = {}
    for operation in dir(Kernel):
        if operation.startswith("_") or not callable(getattr(Kernel, operation)) or operation in ("mach_msg", "memory"):
            continue
        if operation in _NAMES:
            methods[operation] = _recorded(operation, _NAMES[operation])
        elif operation not in _QUESTIONS:
            methods[operation] = _handed_on(operation)
        else:
            methods[operation] = _asked(operation)
    return methods


def _asked(operation: str) -> Callable[..., Any]:
    """A method that hands a question on."""
    return lambda self, *given, **named: getattr(self._kernel, operation)(*given, **named)


TracingKernel: Any = type(
    "TracingKernel", (_Recording, Kernel), {"__doc__": __doc__, "__module__": __name__, **_methods()}
)


class TracingMemory:
    """What `Kernel.memory()` gave, recorded."""

    def __init__(self, memory: Any, recorder: Recorder, right: Callable[[object], str]) -> None:
        self._kernel = memory
        self._recorder = recorder
        self._right = right

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_kernel"], name)

    create: Callable[..., Any] = _recorded("create", (), "memory.")
    protect: Callable[..., Any] = _recorded("protect", (0,), "memory.")
    hand_on: Callable[..., Any] = _recorded("hand_on", (0,), "memory.")


def traced(kernel: Kernel) -> Kernel:
    """`kernel`, recorded as the environment asks for."""
    bodies = os.environ.get(BODIES_VARIABLE, "")
    size = int(bodies) if bodies.isascii() and bodies.isdigit() and len(bodies) < 10 else 0
    tracing = TracingKernel(kernel, os.environ[VARIABLE], size)
    listen(tracing.told)
    kernel = tracing
    return kernel
