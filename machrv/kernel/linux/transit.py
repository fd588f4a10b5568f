"""Rights on their way: taken out of a name, not yet under another one; and who made a socket.

What belongs here: the value that copying in yields and copying out consumes, and the addresses of ends. What must
never happen here: names, queues, or a decision about whom to believe.
"""

from __future__ import annotations

import os

from machrv._mach import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.kernel.linux.port import Port

    #: Who made a socket, as SO_PEERCRED tells: pid, uid, gid. It names the maker, never the present holder.
    Creator = tuple[int, int, int]

PREFIX = b"\0machrv/"


class Right:
    """A right between two names.

    `kind` is MACH_MSG_TYPE_PORT_SEND, _SEND_ONCE or _RECEIVE. A send or send-once right has `fd`; it is `borrowed` if
    somebody else keeps that descriptor. A receive right has `port`. Whoever holds a Right owns it.
    """

    __slots__ = ("kind", "fd", "port", "is_file", "borrowed", "id")

    def __init__(
        self,
        kind: int,
        fd: int = -1,
        port: Port | None = None,
        is_file: bool = False,
        borrowed: bool = False,
        id: bytes = b"",
    ) -> None:
        self.kind: int = kind
        self.fd: int = fd
        self.port: Port | None = port
        self.is_file: bool = is_file
        self.borrowed: bool = borrowed
        self.id: bytes = id


#: a right to a port that has died
DEAD_RIGHT = Right(lib.MACH_MSG_TYPE_PORT_SEND)


class Peer:
    """What the socket of a right tells of its other end."""

    __slots__ = ("type", "family", "hangup", "address")

    def __init__(self, type: int, family: int, hangup: bool, address: bytes) -> None:
        self.type: int = type
        self.family: int = family
        self.hangup: bool = hangup
        self.address: bytes = address


def describe(fd: int) -> Peer | None:
    """Look at a descriptor that came from somewhere; None if it is no socket at all."""
    peer = ffi.new("machrv_peer *")
    if lib.machrv_describe(fd, peer) < 0:
        return None
    return Peer(peer.type, peer.family, bool(peer.hangup), _address(peer.address, peer.length))


def made_by(fd: int) -> Creator | None:
    """Who made the other end of a connected socket; None where the kernel does not say."""
    creator = ffi.new("machrv_creator *")
    if lib.machrv_made_by(fd, creator) < 0:
        return None
    return creator.pid, creator.uid, creator.gid


def own_address(fd: int) -> bytes:
    """The address that a socket is bound to, b"" if to none."""
    into = ffi.new("char[]", lib.MACHRV_ADDRESS_MAX)
    return _address(into, max(0, lib.machrv_own_address(fd, into)))


def peer_address(fd: int) -> bytes:
    """The address that the other end of a socket is bound to, b"" if to none."""
    into = ffi.new("char[]", lib.MACHRV_ADDRESS_MAX)
    return _address(into, max(0, lib.machrv_peer_address(fd, into)))


def _address(characters: object, length: int) -> bytes:
    """An address without the NUL that ends a path; one in the abstract namespace begins with it."""
    address = bytes(ffi.buffer(characters, length))
    return address if address[:1] == b"\0" else address.rstrip(b"\0")


def id_of(address: bytes) -> bytes:
    """The port id that an address claims (`\\0machrv/ID/...` of a made right, `.../.ID` of a looked-up one), or b""."""
    if address.startswith(PREFIX):
        return address[len(PREFIX) :].partition(b"/")[0]
    return b"" if address[:1] == b"\0" else address.rpartition(b"/")[2].lstrip(b".")


_random: list[bytes] = []


def new_id() -> bytes:
    """A port id that nobody can guess: 128 bits, in hex."""
    try:
        return _random.pop()
    except IndexError:
        digits = os.urandom(16 * 32).hex().encode()  # one system call for many
        _random.extend(digits[at : at + 32] for at in range(0, len(digits), 32))
        return _random.pop()


os.register_at_fork(after_in_child=_random.clear)  # or parent and child would give out the same
