"""`machrv ports [PID]`: the port space of a process, as `lsmp` shows it on a Mac."""

# What belongs here: what sockets mean as rights, and the table. What must never happen here: a look into the memory of
# a process, or a descriptor taken from it. On Linux a right is a socket, and the kernel tells everybody of the same
# user which there are: which rights a process has, what waits, who has the other end. Under which names the process
# knows its rights, how many user references each has, and how many messages those bytes are, it tells itself if it runs
# with MACHRV_PORTS=1 (`machrv.doctor.giving`).

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from machrv.doctor.sockets import (
    UnixSocket,
    command_of,
    held_sockets,
    in_other_namespace,
    owner_of,
    printable,
    processes,
    unix_sockets,
)
from machrv.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable
    from typing import Any

_PREFIX = b"\0machrv/"
_ID = 32
_KINDS = {b"s": "send", b"o": "send-once"}
#: the MACH_PORT_TYPE_* bits, as they are called here
_TYPES = {1 << 17: "receive", 1 << 16: "send", 1 << 18: "send-once", 1 << 19: "port-set", 1 << 20: "dead-name"}

#: the kinds of right that a name can have many references of
_COUNTED = ("send", "dead-name")
#: what an account says of a name, in which form
_TOLD = {
    "name": int,
    "type": int,
    "references": int,
    "port": str,
    "file": bool,
    "sockets": list,
    "ends": list,
    "own": int,
    "messages": int,
    "bytes": int,
    "members": int,
}


class Row(NamedTuple):
    """A right of a process. What only the process itself could tell, and did not, is None.

    `name` is the port name; `right` "receive", "send" ("file": one that stands for a file), "send-once", "port-set" or
    "dead-name"; `port` the port's id, 32 hexadecimal digits, or ""; `references` the user references of the right under
    this name; `ends` how many rights were made of a receive right and are in existence, how many descriptors hold another
    one, or how many members a set has; `messages` and `waiting` the messages and bytes that wait to be received;
    `holders` the processes that have the other end, by how many ends (0: nobody to be seen: on its way in a message, in
    another user's process, or gone); `service` the name that the port was checked in under, or "".
    """

    name: int | None
    right: str
    port: str
    references: int | None
    ends: int
    messages: int | None
    waiting: int
    holders: dict[int, int]
    service: str


_DESCRIPTION = """\
The port space of a process, as lsmp shows it on a Mac: names, rights,
references, what waits, and who has the other ends. NAME is a program's or a
script's: every process that runs it. Without either, of every process of yours.
"""
_EXAMPLES = """\
examples:
  machrv ports                  every process of yours that has port rights
  machrv ports 4711             that process
  machrv ports parent.py        every process that runs this
  machrv ports 4711 --json      for programs
  MACHRV_PORTS=1 python parent.py
                                run a program, and its children, so that they
                                tell their port names as well

NAME and REFS are known of a process that runs with MACHRV_PORTS=1 in its
environment, and "-" of others; so is MSGS, unless nothing waits. BYTES wait.
ENDS are the rights to a receive right that exist, the descriptors that hold
another one, or the members of a set. OTHER END has the processes that have it,
and how many ends; "nobody to be seen" may be a message on its way, or a process
of another user's.
"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """See `machrv.cli`."""
    import argparse

    parser = commands.add_parser(
        "ports",
        help="the port rights of a process, and who has the other ends",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("process", metavar="PID|NAME", nargs="?", help="the process, or what it is called")
    parser.add_argument(
        "--json", action="store_true", help='print {"PID": [{"name": ..., "right": ..., ...}, ...], ...}'
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The exit status: 1 where there is no such process, or it cannot be looked at."""
    if not sys.platform.startswith("linux"):
        print(
            f"machrv ports looks at Linux processes; on macOS there is `lsmp -p {arguments.process or 'PID'}`",
            file=sys.stderr,
        )
        return 1
    try:
        found = tables(_meant(arguments.process) if arguments.process is not None else None)
    except (ProcessLookupError, PermissionError, UnsupportedError) as error:
        print(f"machrv ports: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        import json

        print(json.dumps({pid: [row._asdict() for row in rows] for pid, rows in found.items()}))
    else:
        print("\n\n".join(_text(pid, rows) for pid, rows in found.items()) or "no process of yours has a port")
    return 0


def _meant(process: str) -> list[int]:
    """The processes that are called so. Raises ProcessLookupError if there is none."""
    if process.isascii() and process.isdecimal():
        return [int(process)]
    found = [pid for pid in processes() if pid != os.getpid() and process in _names(pid)]
    if not found:
        raise ProcessLookupError(
            f"no process of yours is called {process!r}: `machrv ports` shows all that have rights"
        )
    return found


def _names(pid: int) -> set[str]:
    """What a process may be called by: its program, and what that was told to run, with folder and ending or without."""
    words = command_of(pid).split()[:4]
    files = {os.path.basename(word) for word in words}
    return {*words, *files, *(os.path.splitext(file)[0] for file in files)}


def tables(pids: Iterable[int] | None = None) -> dict[int, list[Row]]:
    """The rights of these processes; None: of every process that has any and that may be looked at.

    Raises ProcessLookupError, PermissionError and UnsupportedError.
    """
    wanted = None if pids is None else {pid: _look_at(pid) for pid in pids}
    held: dict[int, dict[int, int]] = {}
    for pid in processes():
        try:
            held[pid] = held_sockets(pid)
        except OSError:
            continue  # It has exited, or become somebody else's.
    sockets = unix_sockets()
    holders: dict[int, list[int]] = {}
    for pid, inodes in held.items():
        for inode in inodes:
            holders.setdefault(inode, []).append(pid)
    found = {
        pid: _View(pid, inodes, sockets, holders).rows() for pid, inodes in (held if wanted is None else wanted).items()
    }
    return found if wanted is not None else {pid: rows for pid, rows in found.items() if rows}


def _look_at(pid: int) -> dict[int, int]:
    """As `held_sockets`, with errors that say what to do."""
    try:
        held = held_sockets(pid)
    except PermissionError:
        owner = owner_of(pid)
        why = "it has forbidden to be looked at" if owner is None else f"it belongs to {owner}"
        raise PermissionError(f"process {pid} is not yours to look at: {why}; root may (sudo)") from None
    if in_other_namespace(pid):
        raise UnsupportedError(
            f"process {pid} is in another network namespace, whose sockets this one does not show: "
            f"nsenter --net=/proc/{pid}/ns/net machrv ports {pid}"
        )
    return held


def _port_of(address: bytes) -> tuple[str, str]:
    """The id of the port whose receiving end, or listener, has this address, and the kind of right; "" if none has."""
    if address.startswith(_PREFIX):
        id, _, serial = address[len(_PREFIX) :].partition(b"/")
        kind = _KINDS.get(serial[:1], "")
        return (id.decode("ascii", "replace"), kind) if len(id) == _ID and kind else ("", "")
    file = os.path.basename(address)
    if file[:1] == b"." and len(file) == _ID + 1 and not file[1:].strip(b"0123456789abcdef"):
        return file[1:].decode(), "send"
    return "", ""


class _View:
    """What is known of the rights of one process."""

    def __init__(
        self, pid: int, held: dict[int, int], sockets: dict[int, UnixSocket], holders: dict[int, list[int]]
    ) -> None:
        self._pid = pid
        self._held = {inode: count for inode, count in held.items() if inode in sockets}
        self._sockets = sockets
        self._holders = holders

    def rows(self) -> list[Row]:
        """The names that the process tells, and what its other sockets are as rights."""
        rows = []
        left = dict(self._held)
        for entry in self._told():
            rows += [self._named(entry, right) for bit, right in _TYPES.items() if entry["type"] & bit]
            for inode in (*entry["sockets"], *entry["ends"]):
                left.pop(inode, None)
        groups: dict[tuple[str, str], list[int]] = {}
        for inode in left:
            if (meaning := self._meaning(self._sockets[inode])) is not None:
                groups.setdefault(meaning, []).append(inode)
        rows += [self._seen(right, port, inodes) for (right, port), inodes in groups.items()]
        return sorted(rows, key=lambda row: (row.name is None, row.name or 0, row.right, not row.service, row.port))

    def _told(self) -> list[dict[str, Any]]:
        """What the process says, if it says anything, of sockets that it has."""
        from machrv.doctor.giving import ask

        found = []
        for entry in ask(self._pid) or []:
            if all(isinstance(entry.get(key), kind) for key, kind in _TOLD.items()):
                for key in ("sockets", "ends"):
                    entry[key] = [inode for inode in entry[key] if type(inode) is int and inode in self._held]
                found.append(entry)
        return found

    def _named(self, entry: dict[str, Any], right: str) -> Row:
        """A right whose name was told."""
        inodes = {"receive": entry["ends"], "send": entry["sockets"], "send-once": entry["sockets"]}.get(right, [])
        row = self._seen(right, "" if right == "dead-name" else entry["port"], inodes)
        if right == "receive":  # The process's own rights and messages to it are in its memory.
            holders = {**row.holders, self._pid: row.holders.get(self._pid, 0) + entry["own"]}
            row = row._replace(
                messages=entry["messages"],
                waiting=row.waiting + entry["bytes"],
                holders={pid: count for pid, count in holders.items() if count},
            )
        elif right == "port-set":
            row = row._replace(ends=entry["members"])
        elif right == "send" and entry["file"]:
            row = row._replace(right="file", port="")
        elif right in ("send", "send-once") and not inodes:  # One to a port of its own needs no socket.
            row = row._replace(holders={self._pid: 1})
        return row._replace(name=entry["name"], references=entry["references"] if right in _COUNTED else 1)

    def _meaning(self, one: UnixSocket) -> tuple[str, str] | None:
        """The right that a socket is, and its port; None if it is none."""
        port, _ = _port_of(one.address)
        if port:
            return "receive", port
        peer = self._sockets.get(one.peer)
        port, right = _port_of(peer.address) if peer is not None else ("", "")
        return (right, port) if port else None

    def _seen(self, right: str, port: str, inodes: list[int]) -> Row:
        """What can be seen from outside of a right that these sockets are."""
        ends = waiting = 0
        holders: dict[int, int] = {}
        service = ""
        for inode in inodes:
            one = self._sockets[inode]
            if one.listening:
                service = service or _service(one.address)
                continue
            peer = self._sockets.get(one.peer)
            waiting += one.waiting if right == "receive" else peer.waiting if peer is not None else 0
            ends += 1 if right == "receive" else self._held[inode]
            for pid in self._holders.get(one.peer, [0]):
                holders[pid] = holders.get(pid, 0) + 1
        return Row(None, right, port, None, ends, 0 if waiting == 0 else None, waiting, holders, service)


def _service(address: bytes) -> str:
    """The name that points at a listener."""
    folder, file = os.path.split(os.fsdecode(address))
    try:
        with os.scandir(folder) as found:
            for item in found:
                if item.is_symlink() and os.readlink(item.path) == file:
                    return printable(item.name)
    except OSError:
        pass
    return ""


def _text(pid: int, rows: list[Row]) -> str:
    lines = [f"process {pid}: {command_of(pid)}"]
    if not rows:
        return f"{lines[0]}\n  has no port rights"
    lines.append(f"  {'NAME':<11}{'RIGHT':<10}{'REFS':>5}{'ENDS':>6}{'MSGS':>6}{'BYTES':>8}  {'PORT':<10}OTHER END")
    for row in rows:
        others = ", ".join(_holder(other, count, pid) for other, count in sorted(row.holders.items()))
        service = f"{row.service}{'; ' if others else ''}" if row.service else ""
        name = "-" if row.name is None else hex(row.name)
        references = "-" if row.references is None else row.references
        messages = "-" if row.messages is None else row.messages
        lines.append(
            f"  {name:<11}{row.right:<10}{references:>5}{row.ends:>6}{messages:>6}{row.waiting:>8}  "
            f"{row.port[:8] or '-':<10}{service}{others}".rstrip()
        )
    return "\n".join(lines)


def _holder(pid: int, count: int, own: int) -> str:
    who = "nobody to be seen" if pid == 0 else "itself" if pid == own else str(pid)
    return f"{who} ({count})" if count > 1 else who
