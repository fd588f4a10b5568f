"""`machrv ports [PID]`: the ports of a process, as `lsmp` shows them on a Mac.

What belongs here: what sockets mean as rights, seen from outside, and the table. What must never happen here: a look into
the process. On Linux a right is a socket, and the kernel tells everybody of the same user which there are: which rights a
process has, how many descriptors hold each, what waits, who has the other end. The names and user references under which a
process knows its rights are in its own memory: `Kernel.mach_port_names` and `mach_port_get_refs` tell them there.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from machrv.cli.sockets import UnixSocket, command_of, held_sockets, processes, unix_sockets
from machrv.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

_PREFIX = b"\0machrv/"
_ID = 32
_KINDS = {b"s": "send", b"o": "send-once"}


class Row(NamedTuple):
    """A right of a process.

    `right` is "receive", "send" or "send-once"; `port` the port's id, 32 hexadecimal digits; `references` how many rights
    were made of a receive right and are in existence, or how many descriptors hold another one; `waiting` the bytes that
    wait to be received; `holders` the processes that have the other end, by how many ends (0: nobody to be seen: on its
    way in a message, in another user's process, or gone); `service` the name that the port was checked in under, or "".
    """

    right: str
    port: str
    references: int
    waiting: int
    holders: dict[int, int]
    service: str


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """See `machrv.cli`."""
    parser = commands.add_parser(
        "ports",
        help="the port rights of a process, and who has the other ends",
        description="The port rights of a process, what waits, and who has the other ends; without PID, of all of yours.",
    )
    parser.add_argument("pid", metavar="PID", type=int, nargs="?", help="the process")
    parser.add_argument("--json", action="store_true", help="for machines: an array of rights for each process")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The exit status: 1 where there is no such process, or it cannot be looked at."""
    if not sys.platform.startswith("linux"):
        print(
            f"machrv ports looks at Linux processes; on macOS there is `lsmp -p {arguments.pid or 'PID'}`",
            file=sys.stderr,
        )
        return 1
    try:
        found = tables([arguments.pid] if arguments.pid is not None else None)
    except (ProcessLookupError, UnsupportedError) as error:
        print(error, file=sys.stderr)
        return 1
    except PermissionError:
        print(f"process {arguments.pid} is not yours to look at", file=sys.stderr)
        return 1
    if arguments.json:
        import json

        print(json.dumps({pid: [row._asdict() for row in rows] for pid, rows in found.items()}))
    else:
        print("\n\n".join(_text(pid, rows) for pid, rows in found.items()) or "no process of yours has a port")
    return 0


def tables(pids: Iterable[int] | None = None) -> dict[int, list[Row]]:
    """The rights of these processes; None: of every process that has any and that may be looked at.

    Raises ProcessLookupError, PermissionError and UnsupportedError.
    """
    wanted = None if pids is None else {pid: held_sockets(pid) for pid in pids}
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
    found = {pid: _rows(inodes, sockets, holders) for pid, inodes in (held if wanted is None else wanted).items()}
    return found if wanted is not None else {pid: rows for pid, rows in found.items() if rows}


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


def _rows(held: dict[int, int], sockets: dict[int, UnixSocket], holders: dict[int, list[int]]) -> list[Row]:
    """What these sockets are as rights."""
    rows: dict[tuple[str, str], Row] = {}
    for inode, descriptors in held.items():
        one = sockets.get(inode)
        if one is None:
            continue
        peer = sockets.get(one.peer)
        port, kind = _port_of(one.address)
        right, count, waiting = "receive", int(not one.listening), 0 if one.listening else one.waiting
        service = _service(one.address) if one.listening else ""
        if not port and peer is not None:
            port, right = _port_of(peer.address)
            count, waiting = descriptors, peer.waiting
        if not port:
            continue
        row = rows.get((port, right)) or Row(right, port, 0, 0, {}, "")
        others = dict(row.holders)
        for pid in holders.get(one.peer, [0]) if not one.listening else []:
            others[pid] = others.get(pid, 0) + 1
        rows[port, right] = Row(
            right, port, row.references + count, row.waiting + waiting, others, row.service or service
        )
    return sorted(rows.values(), key=lambda row: (row.right, not row.service, row.port))


def _service(address: bytes) -> str:
    """The name that points at a listener."""
    folder, file = os.path.split(os.fsdecode(address))
    try:
        with os.scandir(folder) as found:
            for item in found:
                if item.is_symlink() and os.readlink(item.path) == file:
                    return item.name
    except OSError:
        pass
    return ""


def _text(pid: int, rows: list[Row]) -> str:
    lines = [f"process {pid}: {command_of(pid)}"]
    if not rows:
        return f"{lines[0]}\n  has no port rights"
    lines.append(f"  {'RIGHT':<10}{'PORT':<10}{'REFS':>5}{'WAITING':>9}  OTHER END")
    for row in rows:
        others = ", ".join(_holder(other, count, pid) for other, count in sorted(row.holders.items()))
        service = f"{row.service}{'; ' if others else ''}" if row.service else ""
        lines.append(f"  {row.right:<10}{row.port[:8]:<10}{row.references:>5}{row.waiting:>9}  {service}{others}")
    return "\n".join(lines)


def _holder(pid: int, count: int, own: int) -> str:
    who = "nobody to be seen" if pid == 0 else "itself" if pid == own else str(pid)
    return f"{who} ({count})" if count > 1 else who
