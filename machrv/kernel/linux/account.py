"""What a process says of its own port spaces to `machrv ports`, where MACHRV_PORTS in its environment asks for it.

What belongs here: the account, and the thread that gives it. What must never happen here: a change to a right or to a
message that waits, an answer to another user, or an import of this module in a process that was not asked to.

Under which names a process knows its rights, and how often, is in its memory alone: nobody else can tell. The thread
listens at an abstract address with the number of the process in it. Who connects may see that it is that process which
listens (SO_PEERCRED), and gets a JSON array, one object for each name, to its end of file.
"""

from __future__ import annotations

import json
import os
import socket
from _thread import start_new_thread
from struct import Struct
from time import monotonic

from machrv.kernel.linux.end import LISTENER
from machrv.kernel.linux.space import all_spaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from machrv.kernel.linux.port import Port
    from machrv.kernel.linux.space import Space

_SO_PEEK_OFF = 42  # asm-generic/socket.h; Python has no name for it
_PATIENCE = 5.0  # seconds that one who asks may take to read
_MOST = 16 << 20  # bytes
_CREDENTIALS = Struct("3i")

_listener: socket.socket | None = None


def _address(pid: int) -> bytes:
    return b"\0machrv-ports/%d" % pid


def give() -> None:
    """Answer from now on whoever asks, in this process. Where something is in the way, the log says what."""
    global _listener
    if _listener is not None:
        return
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(_address(os.getpid()))
        listener.listen(8)
        start_new_thread(_answer, (listener,))
    except (OSError, RuntimeError) as error:
        listener.close()
        import logging

        logging.getLogger("machrv").warning("`machrv ports` will not learn the names of this process: %s", error)
    else:
        _listener = listener


def _give_again() -> None:
    """In the child of a fork: it is another process, with a thread of its own."""
    global _listener
    if _listener is not None:
        _listener.close()
        _listener = None
        give()


os.register_at_fork(after_in_child=_give_again)


def _answer(listener: socket.socket) -> None:
    while True:
        try:
            asking, _ = listener.accept()
        except OSError:
            return
        with asking:
            try:
                asking.settimeout(_PATIENCE)
                if peer(asking)[1] in (0, os.geteuid()):
                    asking.sendall(json.dumps(account()).encode())
            except Exception:  # It has gone, or there is no memory: the program is not to suffer for it.
                pass


def peer(connection: socket.socket) -> tuple[int, int]:
    """The process and the effective user at the other end."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(found)
    return pid, uid


def ask(pid: int) -> list[dict[str, Any]] | None:
    """The account of another process; None if it gives none. What comes is its word, and nothing more."""
    until = monotonic() + _PATIENCE
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PATIENCE)
        try:
            connection.connect(_address(pid))
            if peer(connection)[0] != pid:
                return None  # Somebody else has taken the address.
            told = bytearray()
            while (more := connection.recv(1 << 16)) and len(told) < _MOST:
                told += more
                connection.settimeout(max(0.001, until - monotonic()))
            found = json.loads(told)
        except (OSError, ValueError, RecursionError):
            return None
    return found if isinstance(found, list) and all(isinstance(one, dict) for one in found) else None


# -- the account ------------------------------------------------------------------------------------------------------


def account() -> list[dict[str, Any]]:
    """One for each name of each port space of this process."""
    return [entry for space in all_spaces() for entry in _account(space)]


def _account(space: Space) -> list[dict[str, Any]]:
    found = []
    for name, bits in space.mach_port_names():  # type: ignore[attr-defined]  # a LinuxKernel, as all of them are
        with space._call:
            entry = space._entries.get(name)
            if entry is None:
                continue  # It was given up meanwhile.
            port = entry.port
            found.append(
                {
                    "name": name,
                    "type": bits,
                    "references": entry.urefs,
                    "port": (entry.id if port is None else port.id).decode("ascii", "replace"),
                    "file": entry.is_file,
                    "sockets": _inodes([entry.fd]),
                    "ends": [] if port is None else _inodes(port.ends),
                    "own": [] if port is None else _inodes([port.loop]),
                    "messages": 0 if port is None else sum(map(_messages, _queues(port))),
                    "members": 0 if entry.pset is None else len(entry.pset.members),
                }
            )
    return found


def _inodes(fds: Iterable[int]) -> list[int]:
    return [os.fstat(fd).st_ino for fd in fds if fd >= 0]


def _queues(port: Port) -> list[int]:
    return [end.fd for end in port.ends.values() if end.kind != LISTENER]


def _messages(fd: int) -> int:
    """How many packets wait. They are looked at one behind the other, and all of them stay."""
    with socket.socket(fileno=os.dup(fd)) as queue:
        count = passed = 0
        try:
            while True:
                queue.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, passed)
                size = queue.recv_into(bytearray(1), 1, socket.MSG_PEEK | socket.MSG_DONTWAIT | socket.MSG_TRUNC)
                if size == 0:
                    return count
                count += 1
                passed += size
        except OSError:
            return count
        finally:
            queue.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, -1)
