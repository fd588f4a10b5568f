"""The children of `machrv demo`: real programs in processes of their own.

python -m machrv.cli.demo_child child             a child that was launched with five rights
python -m machrv.cli.demo_child stranger SERVICE  a process that nobody has registered, which knows the server's name
"""

# What belongs here: what a child does, and its account of it on standard output. What must never happen here: a
# verdict. The parent compares.

from __future__ import annotations

import json
import os
import sys
from time import monotonic

from machrv.cli.account import CHILDS_LINE, PATIENCE, Event, Identity, left_over
from machrv.errors import RightError
from machrv.rights.files import fileport_fd
from machrv.message import Message
from machrv.rendezvous import RendezvousClient
from machrv.rights import ReceiveRight, SendOnceRight, SendRight

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from machrv.message.audit import AuditToken

    R = TypeVar("R", ReceiveRight, SendRight, SendOnceRight)


def _tell(what: str, sends: bool = False, attested: AuditToken | None = None) -> None:
    """Report an event: before it where something leaves, after it where something arrives."""
    _say("event", *Event(monotonic(), sys.argv[1], what, sends, Identity.of(attested)))


def _fact(name: str, value: object) -> None:
    """Report something for the parent to judge."""
    _say("fact", name, value)


def _say(*account: object) -> None:
    print(json.dumps(account), flush=True)


def _is(kind: type[R], right: object) -> R:
    if not isinstance(right, kind):
        raise RightError(f"a {kind.__name__} was expected, and this came: {right!r}")
    return right


def child() -> None:
    """Wait for a line, claim five rights and use each, try to claim again, and leave nothing behind."""
    _tell("has started, waits for its turn")
    sys.stdin.readline()
    before = left_over()
    _tell("asks its parent's server", sends=True)
    with RendezvousClient.connect(timeout=PATIENCE) as rights:
        _tell(f"gets {rights.port_count} rights", attested=rights.server_audit_token)
        _fact("claimed", rights.port_count)
        _fact("server", Identity.of(rights.server_audit_token))
        _use(rights)
    _tell("asks a second time", sends=True)
    with RendezvousClient.connect(timeout=PATIENCE) as again:
        _tell(f"gets {again.port_count} rights", attested=again.server_audit_token)
        _fact("claimed again", again.port_count)
    _fact("before", before)
    _fact("after", left_over())
    _tell("exits")


def _use(rights: RendezvousClient) -> None:
    with _is(SendRight, rights.take_send_right("send")) as send:
        _tell("send right: sends 'good'", sends=True)
        send.send(Message(1, b"good"), PATIENCE)
        with _is(ReceiveRight, rights.take_receive_right("recv")) as receive:
            _receive(receive)
        with _is(SendOnceRight, rights.take_send_right("once")) as once:
            _send_once(once)
        with _is(SendRight, rights.take_send_right("file")) as right:
            _edit(fileport_fd(right))
            _tell("send right: sends 'read'", sends=True)
            send.send(Message(2, b"read"), PATIENCE)
        with _is(SendRight, rights.take_send_right("sock")) as right:
            _talk(fileport_fd(right))
            _tell("send right: sends 'done'", sends=True)
            send.send(Message(3, b"done"), PATIENCE)


def _receive(port: ReceiveRight) -> None:
    message = port.receive(PATIENCE)
    _tell(f"receive right: {message.body.decode()!r} arrives", attested=message.audit_token)
    _fact("received", message.body.decode())
    _fact("received from", Identity.of(message.audit_token))


def _send_once(once: SendOnceRight) -> None:
    _tell("send-once right: sends 'once'", sends=True)
    once.send(Message(4, b"once"), PATIENCE)
    try:
        once.send(Message(4, b"more"), PATIENCE)
    except RightError:
        _tell("send-once right: is spent now")
        _fact("spent", True)
    else:
        _fact("spent", False)


def _edit(fd: int) -> None:
    with open(fd, "r+b", buffering=0) as file:
        line = file.read().decode()
        _tell(f"file: reads {line.split()}, adds a line")
        _fact("read", line)
        file.write(CHILDS_LINE)


def _talk(fd: int) -> None:
    try:
        heard = os.read(fd, 100).decode()
        _tell(f"socket: hears {heard!r}, says 'pong'", sends=True)
        _fact("heard", heard)
        os.write(fd, b"pong")
    finally:
        os.close(fd)


def stranger(service_name: str) -> None:
    """Ask a server that has something, but not for this process."""
    _tell("asks the server, by its name", sends=True)
    with RendezvousClient.connect(service_name, PATIENCE) as rights:
        _tell(f"gets {rights.port_count} rights", attested=rights.server_audit_token)
        _fact("claimed", rights.port_count)


if __name__ == "__main__":
    if sys.argv[1:] == ["child"]:
        child()
    else:
        stranger(sys.argv[2])
