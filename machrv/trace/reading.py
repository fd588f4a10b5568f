"""The files of the processes, read without believing them: whoever was traced could write into them whatever it liked."""

# What belongs here: from lines to calls and exchanges. What must never happen here: an exception that a file can cause,
# a wait for a file that is none, or a word about what it all means.

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from machrv.message.audit import AuditToken
from machrv.errors import MessageFormatError
from machrv.message import MACH_MSGH_BITS_COMPLEX as _COMPLEX, Message
from machrv.trace import MOST_BYTES, SUFFIX, VERSION
from machrv.message.trailer import Trailer

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The longest line that is looked at.
_LONGEST = 1 << 20
#: Nothing is larger: times, numbers, names.
_LARGEST = 1 << 63
#: A child may begin before its parent has written that it was launched, by so many nanoseconds.
_EARLY = 1_000_000_000


@dataclass(frozen=True)
class Identity:
    """A right as it was when it was looked at: the port's identity ("" if not known), MACH_PORT_TYPE_* bits."""

    port: str = ""
    bits: int = 0


@dataclass(eq=False, repr=False)
class Parcel:
    """A message: its header and descriptors (`message`, whose body is as much of it as was recorded), and what its names
    were: of the remote port, the local port, each descriptor (a list, for an array of rights)."""

    message: Message
    size: int
    head: bytes
    body: bytes
    trailer: bytes
    identities: list[Identity | list[Identity]]
    #: of a rendezvous reply: what the rights are under
    keys: tuple[int, ...] = ()

    @property
    def token(self) -> AuditToken | None:
        """Who sent it, in the kernel's words."""
        return self.message.audit_token


@dataclass(eq=False, repr=False)
class Call:
    """One call that is no mach_msg. `rights` are those of the names among the arguments, before it."""

    process: Process
    began: int
    ended: int
    thread: int
    operation: str
    arguments: list[Any]
    rights: list[Identity | None]
    result: Any
    made: Identity | None
    failure: str | None
    #: the program has said that it was to fail
    expected: bool = False


@dataclass(eq=False, repr=False)
class Exchange:
    """One mach_msg. `ended` is None where the process did not live to see it, or has not come back by now."""

    process: Process
    began: int
    thread: int
    option: int
    timeout: int
    name: int
    port: Identity
    sent: Parcel | None
    ended: int | None = None
    received: Parcel | None = None
    failure: str | None = None
    failed_size: int | None = None


@dataclass(eq=False, repr=False)
class Launch:
    """A child that a process has started with `launch`."""

    process: Process
    at: int
    pid: int
    title: str
    keys: list[str]


@dataclass(eq=False, repr=False)
class Process:
    """One process, or one program of several that it has executed, as it recorded itself."""

    pid: int
    parent: int = 0
    began: int = 0
    #: when it said that it ended, or the watcher found it gone
    ended: int | None = None
    token: AuditToken | None = None
    title: str = ""
    kernel: str = ""
    forked: bool = False
    #: False for one that is only known from the messages that it sent
    recorded: bool = True
    #: it was launched, and has not used machrv: all that is known of it is what its parent knows
    silent: bool = False
    #: it said that it was about to end
    said_goodbye: bool = False
    #: it went on as another program (execve)
    executed: bool = False
    #: what wait() would say: the exit status, or minus the signal; None where nobody has told
    status: int | None = None
    #: it was still there when the recording ended
    survived: bool = False
    lost: int = 0
    damaged: int = 0
    full: bool = False
    calls: list[Call] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    launches: list[Launch] = field(default_factory=list)
    #: of processes that it has waited for: when, the pid, the status
    exits: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def key(self) -> tuple[int, int, int] | None:
        """What its messages' tokens tell it by."""
        return None if self.token is None else (self.token.pid, self.token.pidversion, self.token.asid)


def read(directory: str) -> list[Process]:
    """The processes that recorded themselves in `directory`, oldest first."""
    found = []
    for name in sorted(os.listdir(directory)):
        if name.endswith(SUFFIX):
            process = _process(os.path.join(directory, name))
            if process is not None:
                found.append(process)
    found.sort(key=lambda process: process.began)
    return sorted(_with_children(found), key=lambda process: process.began)


def _with_children(found: list[Process]) -> list[Process]:
    """The same, with those that were launched and have not recorded themselves; and how children ended, by their parents."""
    everybody = list(found)
    for parent in found:
        for launch in parent.launches:
            again = min(
                (other.at for other in parent.launches if other.pid == launch.pid and other.at > launch.at),
                default=_LARGEST,
            )
            exit = next(
                (exit for exit in parent.exits if exit[1] == launch.pid and launch.at <= exit[0] <= again), None
            )
            until = exit[0] if exit is not None else again
            known = [child for child in found if child.pid == launch.pid and launch.at - _EARLY <= child.began <= until]
            if not known:
                known = [Process(launch.pid, parent.pid, launch.at, title=launch.title, recorded=False, silent=True)]
                everybody += known
            if exit is not None:
                known[-1].status = exit[2]
                known[-1].ended = known[-1].ended or exit[0]
    return everybody


def _process(path: str) -> Process | None:
    pid = os.path.basename(path).partition("-")[0]
    process = Process(int(pid) if pid.isascii() and pid.isdigit() and len(pid) < 10 else 0)
    waiting: dict[int, Exchange] = {}
    started = False
    for line in _lines(path):
        try:
            record = json.loads(line)
            started = _enter(record, process, waiting) or started
        except (ValueError, TypeError, IndexError, KeyError, RecursionError, OverflowError, UnicodeError):
            process.damaged += 1
    return process if started or process.calls or process.exchanges else None


def _lines(path: str) -> Iterator[bytes]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return
    with open(fd, "rb") as file:
        read = 0
        while line := file.readline(_LONGEST):
            read += len(line)
            if read > 2 * MOST_BYTES:
                return
            yield line


def _enter(record: Any, process: Process, waiting: dict[int, Exchange]) -> bool:
    """Take a line in. Returns whether it was the first one of a file."""
    kind, *rest = record
    if kind == "start":
        began, version, pid, parent, forked, kernel, token, title = rest
        if version != VERSION:
            raise ValueError("another version")
        process.began, process.pid, process.parent = number(began), number(pid), number(parent)
        process.forked, process.kernel, process.title = bool(forked), _text(kernel), _text(title)
        process.token = None if token is None else AuditToken(*map(number, token))
        return True
    if kind == "end":
        process.ended, process.said_goodbye = number(rest[0]), True
    elif kind == "lost":
        process.lost += number(rest[0])
    elif kind == "full":
        process.full = True
    elif kind == "call":
        process.calls.append(_call(rest, process))
    elif kind == "launched":
        at, pid, title, keys = rest
        process.launches.append(Launch(process, number(at), number(pid), _text(title), [_text(key) for key in keys]))
    elif kind == "exited":
        at, pid, status = map(number, rest)
        process.exits.append((at, pid, status))
    elif kind == "expected":
        thread = number(rest[0])
        failed = [call for call in process.calls[-64:] if call.thread == thread and call.failure is not None]
        failed[-1].expected = True
    elif kind == "began":
        which, began, thread, option, timeout, name, port, sent = rest
        began, thread, option = number(began), number(thread), number(option)
        wanted = number(timeout), number(name), _identity(port), _parcel(sent)
        exchange = Exchange(process, began, thread, option, *wanted)
        waiting[number(which)] = exchange
        process.exchanges.append(exchange)
    elif kind == "ended":
        which, ended, failure, received = rest
        exchange = waiting.pop(number(which))
        exchange.ended, exchange.received = number(ended), _parcel(received)
        if failure is not None:
            exchange.failure = _text(failure[0])
            exchange.failed_size = None if failure[1] is None else number(failure[1])
    else:
        raise ValueError("no such record")
    return False


def _call(rest: list[Any], process: Process) -> Call:
    began, ended, thread, operation, arguments, rights, result, made, failure = rest
    if not isinstance(arguments, list):
        raise TypeError("arguments")
    return Call(
        process,
        number(began),
        number(ended),
        number(thread),
        _text(operation),
        arguments,
        [None if right is None else _identity(right) for right in rights],
        result,
        None if made is None else _identity(made),
        None if failure is None else _text(failure[0]),
    )


def _parcel(value: Any) -> Parcel | None:
    """A message whose body need not be there: its size is set to what is, for the codec to read it."""
    if value is None:
        return None
    head, rights, trailer, body = bytes.fromhex(value[0]), value[1], bytes.fromhex(value[2]), bytes.fromhex(value[3])
    if len(head) < 24:
        raise ValueError("no header")
    size = int.from_bytes(head[4:8], "little")
    image = head[:4] + (len(head) + len(body)).to_bytes(4, "little") + head[8:] + body
    try:
        message = Message.decode(image)
    except MessageFormatError:
        bits = int.from_bytes(head[:4], "little") & ~_COMPLEX  # The header can be read in any case.
        image = bits.to_bytes(4, "little") + (24).to_bytes(4, "little") + head[8:24]
        message = Message.decode(image)
    if trailer:
        try:
            message.trailer = Trailer.decode(trailer)
        except MessageFormatError:
            pass
    identities = [[_identity(one) for one in right] if _is_array(right) else _identity(right) for right in rights]
    keys = bytes.fromhex(value[4]) if len(value) > 4 else b""
    numbers = tuple(int.from_bytes(keys[at : at + 4], "little") for at in range(0, len(keys) - 3, 4))
    return Parcel(message, size, head, body, trailer, identities, numbers)


def _is_array(right: Any) -> bool:
    return isinstance(right, list) and (not right or isinstance(right[0], (list, type(None))))


def _identity(value: Any) -> Identity:
    return Identity() if value is None else Identity(_text(value[0]), number(value[1]))


def number(value: Any) -> int:
    """A number of a file, if it is one. Raises TypeError."""
    if type(value) is not int or not -_LARGEST < value < _LARGEST:
        raise TypeError("a number is expected")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError("a string is expected")
    return value
