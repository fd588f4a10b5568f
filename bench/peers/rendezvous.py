"""One rendezvous, in every way: whoever listens answers with fresh rights; a claim asks, takes them and closes them.

What belongs here: for each way, as little as its users would write. What must never happen here: work that is left out
in one and done in another without the name saying so.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

_REQUEST = bytes(24)
_AUTHKEY = b"what both processes know"
_SO_PASSPIDFD, _SCM_PIDFD, _SCM_CREDENTIALS = 76, 4, 2
_UCRED = struct.Struct("=3i")


class Peer(NamedTuple):
    """A way to hand rights over: `listen(address, ports)` serves from then on, and returns what ends that; what
    `claims(address, ports)` returns is what is measured: importing is not."""

    listen: Callable[[str, int], Callable[[], object]]
    claims: Callable[[str, int], Callable[[], object]]


# -- machrv -----------------------------------------------------------------------------------------------------------


def _machrv_listen(address: str, ports: int) -> Callable[[], object]:
    from machrv import AuditToken, Disposition, ReceiveRight, RendezvousPort, RendezvousServerBase, current

    target = ReceiveRight.allocate()
    answer = {key: RendezvousPort(target.name, Disposition.MAKE_SEND) for key in range(ports)}

    class Server(RendezvousServerBase):
        """Answers everybody with new send rights to one port."""

        def ports_for_client(self, audit_token: AuditToken) -> dict[int, RendezvousPort]:
            return answer

    server = Server(ReceiveRight(current().bootstrap_check_in(os.path.basename(address))))

    def close() -> None:
        server.close()
        target.close()

    return close


def _machrv_claims(address: str, ports: int) -> Callable[[], object]:
    from machrv import RendezvousClient

    name = os.path.basename(address)

    def claim() -> None:
        with RendezvousClient.connect(name) as client:
            for key in range(ports):
                right = client.take_send_right(key)
                assert right is not None
                right.close()

    return claim


# -- plain sockets, doing the same work -------------------------------------------------------------------------------


def _attest(end: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    end.setsockopt(socket.SOL_SOCKET, _SO_PASSPIDFD, 1)


def _receive(end: socket.socket, ports: int) -> tuple[list[int], int, int]:
    """The descriptors of one packet; the pid of its sender, and the inode of its pidfd."""
    room = socket.CMSG_SPACE(4 * ports) + socket.CMSG_SPACE(_UCRED.size) + socket.CMSG_SPACE(4)
    _, controls, flags, _ = end.recvmsg(8192, room, socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    pid = process = 0
    for _, kind, data in controls:
        if kind == socket.SCM_RIGHTS:
            fds += struct.unpack(f"={len(data) // 4}i", data)
        elif kind == _SCM_CREDENTIALS:
            pid = _UCRED.unpack(data)[0]
        elif kind == _SCM_PIDFD:
            (pidfd,) = struct.unpack("=i", data)
            process = os.fstat(pidfd).st_ino
            os.close(pidfd)
    if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC) or not pid or not process or len(fds) != ports:
        raise RuntimeError("no such packet was expected")
    return fds, pid, process


def _pair() -> tuple[socket.socket, socket.socket]:
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    _attest(ends[0])
    return ends


def _sockets_listen(address: str, ports: int) -> Callable[[], object]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    _attest(listener)
    listener.bind(address)
    listener.listen(socket.SOMAXCONN)
    reply = bytes(24 + 4 + 16 * ports + 8)
    kept: list[socket.socket] = []

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            fds, _, _ = _receive(client, 1)
            for end in kept:
                end.close()
            kept.clear()
            given = []
            for _ in range(ports):
                mine, theirs = _pair()
                kept.append(mine)
                given.append(theirs)
            with socket.socket(fileno=fds[0]) as answer:
                socket.send_fds(answer, [reply], [end.fileno() for end in given])
            for end in given:
                end.close()

    return _in_background(serve)


def _sockets_claims(address: str, ports: int) -> Callable[[], object]:
    def claim() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(address)
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            mine, theirs = _pair()
            with mine:
                with theirs:
                    socket.send_fds(connection, [_REQUEST], [theirs.fileno()])
                for fd in _receive(mine, ports)[0]:
                    os.close(fd)

    return claim


# -- multiprocessing --------------------------------------------------------------------------------------------------


def _handles(authkey: bytes | None) -> Peer:
    """`send_handle`, one after the other: no reply right; and, without a key, no identity."""

    def listen(address: str, ports: int) -> Callable[[], object]:
        from multiprocessing.connection import Listener
        from multiprocessing.reduction import send_handle

        listener = Listener(address, "AF_UNIX", backlog=socket.SOMAXCONN, authkey=authkey)
        kept: list[socket.socket] = []

        def serve() -> None:
            with listener.accept() as connection:
                connection.recv_bytes()
                for end in kept:
                    end.close()
                kept.clear()
                for _ in range(ports):
                    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                    kept.append(mine)
                    with theirs:
                        send_handle(connection, theirs.fileno(), 0)

        return _in_background(serve)

    def claims(address: str, ports: int) -> Callable[[], object]:
        from multiprocessing.connection import Client
        from multiprocessing.reduction import recv_handle

        def claim() -> None:
            with Client(address, "AF_UNIX", authkey=authkey) as connection:
                connection.send_bytes(_REQUEST)
                for _ in range(ports):
                    os.close(recv_handle(connection))

        return claim

    return Peer(listen, claims)


def _dupfd_listen(address: str, ports: int) -> Callable[[], object]:
    from multiprocessing import current_process
    from multiprocessing.connection import Listener
    from multiprocessing.resource_sharer import DupFd

    current_process().authkey = _AUTHKEY
    listener = Listener(address, "AF_UNIX", backlog=socket.SOMAXCONN)
    kept: list[socket.socket] = []

    def serve() -> None:
        with listener.accept() as connection:
            connection.recv_bytes()
            for end in kept:
                end.close()
            kept.clear()
            sent = []
            for _ in range(ports):
                mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                kept.append(mine)
                with theirs:
                    sent.append(DupFd(theirs.fileno()))
            connection.send(sent)

    return _in_background(serve)


def _dupfd_claims(address: str, ports: int) -> Callable[[], object]:
    from multiprocessing import current_process
    from multiprocessing.connection import Client

    current_process().authkey = _AUTHKEY

    def claim() -> None:
        with Client(address, "AF_UNIX") as connection:
            connection.send_bytes(_REQUEST)
            for shared in connection.recv():
                os.close(shared.detach())

    return claim


def _in_background(serve: Callable[[], object]) -> Callable[[], object]:
    """Serve one client after the other on a thread that ends with the process."""
    import threading

    def forever() -> None:
        while True:
            serve()

    threading.Thread(target=forever, daemon=True).start()
    return lambda: None


PEERS = {
    "machrv": Peer(_machrv_listen, _machrv_claims),
    "plain sockets": Peer(_sockets_listen, _sockets_claims),
    "send_handle, authkey": _handles(_AUTHKEY),
    "send_handle": _handles(None),
    "DupFd": Peer(_dupfd_listen, _dupfd_claims),
}
