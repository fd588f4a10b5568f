"""The Unix sockets of this system and who holds them, as Linux tells anybody who asks."""

# What belongs here: sock_diag (Linux 6.18, net/unix/diag.c) and /proc/PID/fd. What must never happen here: what a
# socket means, or a descriptor of another process's taken.

from __future__ import annotations

import os
import pwd
import socket
from struct import Struct, unpack_from
from typing import NamedTuple

from machrv.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class UnixSocket(NamedTuple):
    """A Unix socket of this network namespace.

    `address` is what it is bound to, as bytes (an abstract one begins with a zero); `peer` the inode of its other end, 0
    if there is none (any more); `waiting` the bytes that wait to be received, of one that listens the connections to be
    accepted.
    """

    inode: int
    address: bytes
    peer: int
    waiting: int
    listening: bool


_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY, _NLMSG_ERROR, _NLMSG_DONE = 20, 2, 3
_REQUEST_DUMP = 0x301
_NAME, _PEER, _QUEUES = 0, 2, 4
_SHOW = 1 << _NAME | 1 << _PEER | 1 << _QUEUES
_LISTEN = 10
_HEADER = Struct("=IHHII")
_ASK = Struct("=BBHIIIII")
_FOUND = Struct("=BBBBIII")
_ATTRIBUTE = Struct("=HH")


def unix_sockets() -> dict[int, UnixSocket]:
    """Every Unix socket of this network namespace by its inode. Raises UnsupportedError where the kernel does not tell."""
    found: dict[int, UnixSocket] = {}
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as netlink:
            ask = _ASK.pack(socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, _SHOW, 0xFFFFFFFF, 0xFFFFFFFF)
            netlink.send(_HEADER.pack(_HEADER.size + len(ask), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + ask)
            while True:
                answer = netlink.recv(1 << 20)
                for kind, payload in _messages(answer):
                    if kind == _NLMSG_DONE:
                        return found
                    if kind == _NLMSG_ERROR:
                        number = -unpack_from("=i", payload)[0]
                        raise OSError(number, os.strerror(number))
                    one = _socket(payload)
                    found[one.inode] = one
    except OSError as error:
        raise UnsupportedError(
            f"this kernel does not tell about Unix sockets ({error.strerror}): it needs CONFIG_UNIX_DIAG, and a sandbox "
            "that lets AF_NETLINK through"
        ) from error


def _messages(answer: bytes) -> Iterable[tuple[int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(answer):
        length, kind, _, _, _ = _HEADER.unpack_from(answer, at)
        yield kind, answer[at + _HEADER.size : at + length]
        at += max(_HEADER.size, length + 3 & ~3)


def _socket(payload: bytes) -> UnixSocket:
    _, _, state, _, inode, _, _ = _FOUND.unpack_from(payload)
    address, peer, waiting = b"", 0, 0
    at = _FOUND.size
    while at + _ATTRIBUTE.size <= len(payload):
        length, kind = _ATTRIBUTE.unpack_from(payload, at)
        value = payload[at + _ATTRIBUTE.size : at + length]
        if kind == _NAME:
            address = value if value[:1] == b"\0" else value.partition(b"\0")[0]
        elif kind == _PEER:
            (peer,) = unpack_from("=I", value)
        elif kind == _QUEUES:
            (waiting,) = unpack_from("=I", value)
        at += max(_ATTRIBUTE.size, length + 3 & ~3)
    return UnixSocket(inode, address, peer, waiting, state == _LISTEN)


def held_sockets(pid: int) -> dict[int, int]:
    """The sockets that a process has open: how many descriptors each has, by inode.

    Raises ProcessLookupError, and PermissionError for a process that is somebody else's.
    """
    folder = f"/proc/{pid}/fd"
    counts: dict[int, int] = {}
    try:
        descriptors = os.listdir(folder)
    except FileNotFoundError:
        raise ProcessLookupError(f"there is no process {pid}") from None
    for descriptor in descriptors:
        try:
            what = os.readlink(f"{folder}/{descriptor}")
        except OSError:
            continue  # It was closed meanwhile.
        if what.startswith("socket:["):
            inode = int(what[8:-1])
            counts[inode] = counts.get(inode, 0) + 1
    return counts


def processes() -> list[int]:
    """The processes whose sockets this one may see."""
    return sorted(
        int(name) for name in os.listdir("/proc") if name.isdigit() and os.access(f"/proc/{name}/fd", os.R_OK)
    )


def command_of(pid: int) -> str:
    """What a process was started as."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = os.fsdecode(file.read()).split("\0")
    except OSError:
        return "?"
    return printable(" ".join(words).strip()) or "?"


def printable(text: str) -> str:
    """What another process has chosen, fit for a terminal: one line, without control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def owner_of(pid: int) -> str | None:
    """The user that a process belongs to; None if it is the one who asks, or nobody knows."""
    try:
        uid = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None
    if uid == os.geteuid():
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def in_other_namespace(pid: int) -> bool:
    """Whether a process is in another network namespace, whose sockets are not to be seen from here."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
    except OSError:
        return False
