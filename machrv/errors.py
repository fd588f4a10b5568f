"""The exceptions of machrv, and the symbolic names of return codes.

    MachrvError
    ├── MachError                       a Mach call answered with a return code
    │   ├── ReceiveTimeout              no message came in time (also a TimeoutError)
    │   └── SendTimeout                 the receiver's queue stayed full (also a TimeoutError)
    ├── MessageFormatError              bytes that are no Mach message, or fields that fit into none (also a ValueError)
    ├── RightError                      a right that was moved away, or of another kind than asked for
    │   └── CopyError                   what has one owner was to be copied or pickled (also a TypeError)
    ├── RendezvousError
    │   ├── KeyFormatError              neither one to four characters nor a uint32 (also a ValueError)
    │   ├── KeyNotFoundError            nothing came under a key (also a KeyError)
    │   ├── LockNotHeldError            the server's lock must be held (also a RuntimeError)
    │   ├── PeerRejectedError           the other end is not who it must be
    │   ├── ProcessGoneError            there is no such process any more (also a ProcessLookupError)
    │   ├── RegistrationError           ports that cannot be registered (also a ValueError)
    │   ├── RendezvousPermissionError   the system does not let this process look up (also a PermissionError)
    │   ├── RendezvousTimeout           no answer in time (also a TimeoutError)
    │   └── ServerNotFoundError         nobody serves under that name
    ├── RequirementError                a requirement that cannot be built (also a ValueError)
    │   └── UnsupportedRequirementError one that this system cannot check (also an UnsupportedError)
    ├── SenderGoneError                 the process that sent a message is not there any more (also a LookupError)
    ├── MemoryObjectError               memory that cannot be had as asked for (also a ValueError)
    │   └── ReadOnlyMemoryError         it can only be read (also a PermissionError)
    └── UnsupportedError                this system cannot do that

Each is `machrv.X` too, and prints so.
"""

# What belongs here: every exception that machrv raises, and what a return code means to the person who reads it. What must
# never happen here: a text that does not help to act.

from __future__ import annotations

import sys

import machrv.constants as constants
from errno import ETIMEDOUT

__all__ = [
    "CopyError",
    "KeyFormatError",
    "KeyNotFoundError",
    "LockNotHeldError",
    "MachError",
    "MachrvError",
    "MemoryObjectError",
    "MessageFormatError",
    "PeerRejectedError",
    "ProcessGoneError",
    "ReadOnlyMemoryError",
    "ReceiveTimeout",
    "RegistrationError",
    "RendezvousError",
    "RendezvousPermissionError",
    "RendezvousTimeout",
    "RequirementError",
    "RightError",
    "SendTimeout",
    "SenderGoneError",
    "ServerNotFoundError",
    "UnsupportedError",
    "UnsupportedRequirementError",
    "symbol_of",
]

_symbols: dict[int, str] = {}

# What a code usually means, where the symbol alone leaves a reader helpless. The three bootstrap codes are those that
# users of such systems meet most often, and misread: a sandbox answers 1100 for names that do not even exist.
_MEANING = {
    "BOOTSTRAP_NOT_PRIVILEGED": (
        "a sandbox denies mach-register or mach-lookup for this name, or the name is another user's. It does not show that "
        "the name exists. Use a name that the sandbox allows, or hand the right over directly"
        if sys.platform == "darwin"
        else "the bootstrap directory is not this process's to use: it is another user's, or others may write to it, or a "
        "rule of the system keeps this process out. `machrv doctor` says which. It does not show that the name exists"
    ),
    "BOOTSTRAP_NAME_IN_USE": "another live process has checked this name in. Use another base bundle id, or close the "
    "server that holds it",
    "BOOTSTRAP_UNKNOWN_SERVICE": "nobody has checked this name in: the server has not started yet or is gone, or the "
    "two sides use different base bundle ids",
    "BOOTSTRAP_SERVICE_ACTIVE": "the service is already running under this name",
    "BOOTSTRAP_NO_MEMORY": "the bootstrap namespace has no room for the name, or somebody keeps it locked",
    "KERN_ABORTED": "a signal interrupted the wait; call again",
    "KERN_DENIED": "such a port is for the system's own services to make",
    "KERN_INVALID_TASK": "the handle stands for no port space of this process, or for one that has ended",
    "KERN_PROTECTION_FAILURE": "that memory does not allow it: it cannot be written to, or not be read",
    "KERN_ALREADY_IN_SET": "the port is in that set already",
    "KERN_FAILURE": "the kernel does not say why",
    "KERN_INVALID_ADDRESS": "there is no memory of this process's at that address",
    "KERN_INVALID_ARGUMENT": "an argument is out of range for this call",
    "KERN_INVALID_CAPABILITY": "the port does not allow that: it is immovable, or in a state that rules it out",
    "KERN_INVALID_NAME": "this task has nothing under that name: it was deallocated, destroyed or moved away",
    "KERN_INVALID_RIGHT": "the name stands for another kind of right than the call needs",
    "KERN_INVALID_VALUE": "the value is out of range, or more references were to be taken away than there are",
    "KERN_NAME_EXISTS": "the name already stands for something else: give another one",
    "KERN_NOT_IN_SET": "the port is not in that set",
    "KERN_NOT_SUPPORTED": "this kernel does not offer that",
    "KERN_NO_SPACE": "the port space or the descriptor table is full: close rights, or raise the limit (ulimit -n)",
    "KERN_RESOURCE_SHORTAGE": "the system is short of memory or descriptors: close rights, or raise the limit "
    "(ulimit -n)",
    "KERN_OPERATION_TIMED_OUT": "whoever serves there does not take anybody in: it hangs, or more ask than it can answer. "
    "Try again, or give it more time",
    "KERN_RIGHT_EXISTS": "this task already has a right to that port, under another name",
    "KERN_UREFS_OVERFLOW": "the name has as many user references as it can hold: some right is copied again and again "
    "and never closed",
    "MACH_RCV_BODY_ERROR": "what the message brought had no room, and was destroyed: close rights, or raise the limit "
    "(ulimit -n)",
    "MACH_RCV_HEADER_ERROR": "the rights in the header had no room, and were destroyed with the message: close rights",
    "MACH_RCV_INVALID_NAME": "no receive right or port set is under that name",
    "MACH_RCV_INTERRUPTED": "a signal interrupted the wait; call again",
    "MACH_RCV_INVALID_TRAILER": "the kernel does not know the trailer that was asked for",
    "MACH_RCV_PORT_CHANGED": "the receive right was put into a set, or moved away, during the wait",
    "MACH_RCV_PORT_DIED": "the receive right was destroyed or moved away during the wait",
    "MACH_RCV_TIMED_OUT": "no message arrived in time",
    "MACH_RCV_TOO_LARGE": "the message is larger than the buffer. With MACH_RCV_LARGE it still waits: call again with "
    "room for it",
    "MACH_SEND_INTERRUPTED": "a signal interrupted the wait; call again",
    "MACH_SEND_INVALID_DATA": "there is no message to be sent, or it is not in this process's memory",
    "MACH_SEND_INVALID_DEST": "the destination is dead or no send right: its receiver is gone, or the right was closed",
    "MACH_SEND_INVALID_HEADER": "the header has bits or dispositions that no sender may set",
    "MACH_SEND_INVALID_MEMORY": "an out-of-line descriptor points outside this process's memory",
    "MACH_SEND_INVALID_REPLY": "the reply right (local port) is not what its disposition says",
    "MACH_SEND_INVALID_RIGHT": "a descriptor names a right that this task does not hold as its disposition says",
    "MACH_SEND_INVALID_TYPE": "a descriptor is of an unknown type or disposition",
    "MACH_SEND_INVALID_VOUCHER": "the voucher is not a send right to a voucher",
    "MACH_SEND_MSG_TOO_SMALL": "the message is shorter than its header and descriptors say",
    "MACH_SEND_NO_BUFFER": "the kernel has no memory for the message",
    "MACH_SEND_TIMED_OUT": "the receiver's queue stayed full; the rights are still the sender's. Send again, or have the "
    "receiver take its messages sooner",
    "MACH_SEND_TOO_LARGE": f"one message carries at most {'48' if sys.platform == 'darwin' else '64'} MiB, header included, and "
    f"253 rights{'' if sys.platform == 'darwin' else ' (252 with musl before 1.2.6, as a C library)'}. Put more into a MemoryObject, and send that one's right",
}


class MachrvError(Exception):
    """The base of every exception of machrv; `machrv.errors` has the others."""


class MachError(MachrvError):
    """A Mach call answered with something else than success.

    `code` is the return code, `operation` the call's name. `symbol` is the code's name, in the namespace that the code
    belongs to (kern, mach_msg, bootstrap). `size` is the msgh_size of the message that did not fit
    (MACH_RCV_TOO_LARGE), otherwise None. Whatever the caller owned before the call, it owns still.
    """

    code: int
    operation: str
    size: int | None

    def __init__(self, code: int, operation: str, size: int | None = None) -> None:
        super().__init__(code, operation, size)
        self.code = code
        self.operation = operation
        self.size = size

    @property
    def symbol(self) -> str:
        """The code's name, or its number in hexadecimal where it has none."""
        return symbol_of(self.code)

    def __str__(self) -> str:
        number = f"{self.code:#x}" if self.code >= 0x1000_0000 else str(self.code)
        symbol = self.symbol
        text = (
            f"{self.operation}: {symbol} ({number})" if symbol != f"{self.code:#x}" else f"{self.operation}: {number}"
        )
        if self.size is not None:
            text += f", a message of {self.size} bytes"
        meaning = _MEANING.get(symbol.partition("|")[0])
        return f"{text}: {meaning}" if meaning else text


class _TimedOut(MachError, TimeoutError):
    """A wait that ended without success; catchable either way."""

    errno: int
    waited: float | None  #: how many seconds; None where that is not known
    on: str

    def __init__(
        self, code: int, operation: str, size: int | None = None, waited: float | None = None, on: str = ""
    ) -> None:
        super().__init__(code, operation, size)
        self.__setattr__("args", (code, operation, size, waited, on))  # What it is pickled with.
        self.errno = ETIMEDOUT  # OSError takes a first argument for one.
        self.waited = waited
        self.on = on

    def __str__(self) -> str:
        text = super().__str__()
        if self.waited is None:
            return text
        return f"{text} ({f'{self.waited:.3g} s' if self.waited else 'without a wait'}, {self.on})"


class SendTimeout(_TimedOut):
    """MACH_SEND_TIMED_OUT: the receiver's queue stayed full. The message was not sent; its rights are still held."""


class ReceiveTimeout(_TimedOut):
    """MACH_RCV_TIMED_OUT: no message came in time. One that comes later waits."""


class MessageFormatError(MachrvError, ValueError):
    """Bytes that are no valid Mach message, or fields that do not fit into one.

    `offset` is where in the buffer, in bytes; None where no buffer is concerned.
    """

    offset: int | None

    def __init__(self, problem: str, offset: int | None = None) -> None:
        super().__init__(problem, offset)
        self.problem = problem
        self.offset = offset

    def __str__(self) -> str:
        return self.problem if self.offset is None else f"offset {self.offset}: {self.problem}"


class NoSenders(MachrvError, EOFError):
    """Every right to send to this port is gone, and every message was received: nothing will come any more."""


class RequestDropped(MachrvError, EOFError):
    """A request was not answered: whoever had it gave the right to answer up, or has ended."""


class ChannelClosedError(MachrvError, EOFError):
    """The other end of the channel is gone. Everything that it sent before was received."""


class RightError(MachrvError):
    """A right was used after it was closed, released or moved, or is of another kind than the call needs."""


class CopyError(RightError, TypeError):
    """What has one owner was to be copied (`copy.copy`) or pickled; the message says what to do instead."""


class RendezvousError(MachrvError):
    """A rendezvous did not come about. The message says why, as far as it can be known."""


class PeerRejectedError(RendezvousError):
    """The other end is not the process that it must be."""


class ServerNotFoundError(RendezvousError):
    """Nobody serves under the name that was looked up."""


class RendezvousTimeout(RendezvousError, TimeoutError):
    """The other end did not answer before the deadline."""


class RendezvousPermissionError(RendezvousError, PermissionError):
    """The system does not let this process look the server up; the message says what may be the reason."""


class KeyFormatError(RendezvousError, ValueError):
    """A key is neither a uint32 nor one to four characters that stand for one."""


class KeyNotFoundError(RendezvousError, KeyError):
    """Nothing is there under a key; the message lists what is, or says why there may be nothing at all."""

    def __str__(self) -> str:
        return Exception.__str__(self)  # A KeyError would quote it.


class RegistrationError(RendezvousError, ValueError):
    """A set of ports cannot be registered; the message says why. Nothing of it was moved."""


class LockNotHeldError(RendezvousError, RuntimeError):
    """The call needs the server's lock: `with server.lock:` around launching the child and registering its ports."""


class ProcessGoneError(RendezvousError, ProcessLookupError):
    """There is no process with this pid (any more). Nothing was moved."""


class SenderGoneError(MachrvError, LookupError):
    """The process that sent a message is gone, or it is not known which process it was."""


class UnsupportedError(MachrvError):
    """This system lacks what the call needs; the message names it."""


class RequirementError(MachrvError, ValueError):
    """A requirement that cannot be built: a bad value, a contradiction, or one that would let the wrong ones in."""


class UnsupportedRequirementError(RequirementError, UnsupportedError):
    """A requirement that this system cannot check; the message says what and why."""


class MemoryObjectError(MachrvError, ValueError):
    """Memory that cannot be had as asked for, or a right that stands for none that is safe to map. The message says why."""


class ReadOnlyMemoryError(MemoryObjectError, PermissionError):
    """Memory was to be mapped for writing, and can only be read."""


# They print, and pickle, as users import them.
for _error in list(vars().values()):
    if isinstance(_error, type) and issubclass(_error, MachrvError) and _error is not _TimedOut:
        _error.__module__ = "machrv"
del _error


def _find_symbols() -> None:
    """Read the names off the compiled module: they are written down in include/, and nowhere else."""
    for name in constants.names():
        family = name.partition("_")[0]
        if family not in ("KERN", "MACH", "BOOTSTRAP") or name in ("KERN_RETURN_MAX", "BOOTSTRAP_MAX_NAME_LEN"):
            continue
        value = constants.constant(name, __name__)
        # The MACH_ family is larger than its return codes: these are system 4, subsystems 0 and 1.
        if family != "MACH" or (value & ~0x7FFF == 0x1000_0000 and name.startswith(("MACH_SEND_", "MACH_RCV_"))):
            if name != "BOOTSTRAP_SUCCESS":
                _symbols[value] = name


def symbol_of(code: int) -> str:
    """The symbolic name of a return code; with its special bits where it has any; hexadecimal if it has no name."""
    if not _symbols:
        _find_symbols()
    symbol = _symbols.get(code)
    if symbol is not None:
        return symbol
    base = _symbols.get(code & ~constants.MACH_MSG_MASK)
    if base is None or not base.startswith("MACH_"):
        return f"{code:#x}"
    names = [base]
    rest = code & constants.MACH_MSG_MASK
    for bit in ("MACH_MSG_IPC_SPACE", "MACH_MSG_VM_SPACE", "MACH_MSG_IPC_KERNEL", "MACH_MSG_VM_KERNEL"):
        value = constants.constant(bit, __name__)
        if rest & value:
            names.append(bit)
            rest &= ~value
    return "|".join(names) if not rest else f"{code:#x}"
