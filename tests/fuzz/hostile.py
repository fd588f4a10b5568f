"""The other process: it attacks when it is told to, as the bytes that it is given say.

What belongs here: the fork, and the attacks. What must never happen here: a crash of its own, whatever the bytes.
Forked before the target makes its kernel, so that the kernel attests somebody else.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
from typing import Any

from . import packets_grammar as grammar
from .choices import Choices

_PR_SET_PDEATHSIG = 1
_SCM_PIDFD = 4


class Hostile:
    """A forked process with a socket for orders."""

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                self._orders.close()
                hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
                resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1 << 20) if hard > 0 else 1 << 20, hard))
                _Attacker(theirs).serve()
                status = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(status)
        theirs.close()
        self._orders.settimeout(20)

    def order(self, attack: str, service: str, data: bytes) -> None:
        """Begin an attack."""
        name = service.encode()
        self._orders.send(bytes([ord(attack), len(name)]) + name + data)

    def done(self) -> int:
        """Wait for its end: how many messages were sent."""
        answer = self._orders.recv(16)
        if not answer:
            raise RuntimeError("the attacker has ended")
        return int.from_bytes(answer, "little")

    def close(self) -> None:
        """End the process."""
        self._orders.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class _Attacker:
    def __init__(self, orders: socket.socket) -> None:
        self.orders = orders
        self.listener: socket.socket | None = None
        self.connections: dict[int, socket.socket] = {}

    def serve(self) -> None:
        while order := self.orders.recv(65536):
            attack, length = chr(order[0]), order[1]
            service, choices = order[2 : 2 + length].decode(), Choices(order[2 + length :])
            count = getattr(self, f"attack_{attack}")(service, choices)
            grammar.release()
            self.orders.send(count.to_bytes(4, "little"))

    def attack_p(self, path: str, choices: Choices) -> int:
        """Connect to the socket behind a name, and send packets."""
        count = 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(path)
            while count == 0 or choices and count < 4:
                grammar.packet(choices).send(connection)
                count += 1
        return count

    def attack_c(self, path: str, choices: Choices) -> int:
        """Connect, and stay connected: the number of the connection."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(path)
        self.connections[connection.fileno()] = connection
        return connection.fileno()

    def attack_w(self, number: str, choices: Choices) -> int:
        """Send a packet over a connection."""
        grammar.packet(choices).send(self.connections[int(number)])
        return 1

    def attack_x(self, number: str, choices: Choices) -> int:
        """Hang up."""
        self.connections.pop(int(number)).close()
        return 0

    def attack_m(self, service: str, choices: Choices) -> int:
        """Send Mach messages with rights of every kind over a right that was looked up; now and then, packets."""
        from .messages_grammar import Sender

        with Sender(service) as sender:
            count = 0
            while count == 0 or choices and count < 16:
                sender.send(choices)
                count += 1
        return count

    def attack_l(self, service: str, choices: Choices) -> int:
        """Check a name in, to be a server."""
        from machrv.kernel.linux.bootstrap import directory

        path, _ = directory()
        behind = f".{os.urandom(16).hex()}"
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(os.path.join(path, behind))
        self.listener.listen()
        os.symlink(behind, os.path.join(path, service))
        self.listener.settimeout(10)
        return 0

    def attack_s(self, service: str, choices: Choices) -> int:
        """Be a server: answer one request with what may or may not be a reply."""
        assert self.listener is not None
        connection, _ = self.listener.accept()
        with connection:
            connection.settimeout(10)
            _, control, _, _ = connection.recvmsg(4096, 4096)
            reply = _sockets(control)
            count = 0
            while count == 0 or choices and count < 3:
                if reply:
                    how = grammar.packet if choices.rarely() else grammar.reply_packet
                    made = how(choices, grammar.SEND_ONCE) if how is grammar.packet else grammar.reply_packet(choices)
                    made.send(reply[0])
                count += 1
            for one in reply:
                one.close()
        return count


def _sockets(control: list[Any]) -> list[socket.socket]:
    found = []
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            for at in range(0, len(data) - 3, 4):
                found.append(socket.socket(fileno=int.from_bytes(data[at : at + 4], "little")))
        elif level == socket.SOL_SOCKET and kind == _SCM_PIDFD:
            os.close(int.from_bytes(data[:4], "little"))
    return found
