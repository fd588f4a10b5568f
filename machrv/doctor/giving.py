"""What a process says of its own port space to `machrv ports`, where MACHRV_PORTS in its environment asks for it.

Under which names a process knows its rights, and how often, is in its memory alone: nobody else can tell. The thread
listens at an abstract address with the number of the process in it. Who connects may see that it is that process which
listens (SO_PEERCRED), and gets a JSON array, one object for each name, to its end of file.
"""

# The thread that gives the account, and asking for one. What must never happen here: an answer to another user, or an import of
# this module in a process that was not asked to.

from __future__ import annotations

import json
import os
import socket
from _thread import start_new_thread
from struct import Struct
from time import monotonic

from machrv.kernel.linux.account import account
from machrv.log import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PATIENCE = 5.0  # seconds that one who asks may take to read
_MOST = 16 << 20  # bytes
_CREDENTIALS = Struct("3i")

_listener: socket.socket | None = None


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
        log().warning("`machrv ports` will not learn the names of this process: %s", error)
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


def _address(pid: int) -> bytes:
    return b"\0machrv-ports/%d" % pid


def _answer(listener: socket.socket) -> None:
    while True:
        try:
            asking, _ = listener.accept()
        except OSError:
            return
        with asking:
            try:
                asking.settimeout(_PATIENCE)
                if _peer(asking)[1] in (0, os.geteuid()):
                    asking.sendall(json.dumps(account()).encode())
            except Exception:  # It has gone, or there is no memory: the program is not to suffer for it.
                pass


def _peer(connection: socket.socket) -> tuple[int, int]:
    """The process and the effective user at the other end."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return _CREDENTIALS.unpack(found)[:2]


def ask(pid: int) -> list[dict[str, Any]] | None:
    """The account of another process; None if it gives none. What comes is its word, and nothing more."""
    until = monotonic() + _PATIENCE
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PATIENCE)
        try:
            connection.connect(_address(pid))
            if _peer(connection)[0] != pid:
                return None  # Somebody else has taken the address.
            told = bytearray()
            while (more := connection.recv(1 << 16)) and len(told) < _MOST:
                told += more
                connection.settimeout(max(0.001, until - monotonic()))
            found = json.loads(told)
        except (OSError, ValueError, RecursionError):
            return None
    return found if isinstance(found, list) and all(isinstance(one, dict) for one in found) else None
