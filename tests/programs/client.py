"""Children that ask their parent for ports: `client.py SCENARIO [ARGUMENT...]`. Exit status 0: all was as it must be."""

from __future__ import annotations

import os
import sys

from machrv import (
    Disposition,
    Message,
    ReceiveRight,
    RendezvousClient,
    RightError,
    SendOnceRight,
    SendRight,
    ServerNotFoundError,
    fileport_fd,
    four_char_code,
    set_base_bundle_id,
    take_reply_right,
)

GOOD = four_char_code("good")


def instance() -> RendezvousClient:
    client = RendezvousClient.get_instance()
    assert client is not None
    assert RendezvousClient.get_instance() is client
    return client


def take_send_right() -> None:
    """One right under 'port': send 'good' on it."""
    client = instance()
    assert client.port_count == 1
    assert client.server_audit_token is not None and client.server_audit_token.pid == os.getppid()
    right = client.take_send_right("port")
    assert isinstance(right, SendRight) and client.port_count == 0
    with right:
        right.send(Message(GOOD))


def no_ports() -> None:
    """The rendezvous succeeds, and brings nothing."""
    client = instance()
    assert client.port_count == 0
    assert client.take_send_right("port") is None and client.take_receive_right("port") is None


def exit_42() -> None:
    """Leave without asking."""
    os._exit(42)


def exit_when_told() -> None:
    """Leave without asking, once the parent says so."""
    sys.stdin.read()


def wrong_base_bundle_id() -> None:
    """Nobody serves under another base bundle id, whatever the environment says."""
    set_base_bundle_id("org.machrv.totallyfake")
    assert RendezvousClient.get_instance() is None
    try:
        RendezvousClient.connect()
    except ServerNotFoundError as error:
        assert "org.machrv.totallyfake.MachPortRendezvousServer" in str(error), error
    else:
        raise AssertionError("a server was found")
    set_base_bundle_id("")
    assert RendezvousClient.get_instance() is None  # Once is for ever.
    with RendezvousClient.connect() as client:
        assert client.port_count == 1


def claim_twice() -> None:
    """What one rendezvous has claimed, another one does not get."""
    with RendezvousClient.connect() as first, RendezvousClient.connect() as second:
        assert first.port_count == 1 and second.port_count == 0
        assert second.server_audit_token is not None
    assert instance().port_count == 0


def take_twice() -> None:
    """A right is taken once, and only as what it is."""
    client = instance()
    assert client.port_count == 2
    assert client.take_send_right("recv") is None and client.take_receive_right("send") is None
    assert client.port_count == 2
    receive = client.take_receive_right("recv")
    send = client.take_send_right(four_char_code("send"))
    assert isinstance(receive, ReceiveRight) and isinstance(send, SendRight) and client.port_count == 0
    with receive, send:
        assert client.take_receive_right("recv") is None and client.take_send_right("send") is None
        send.send(Message(GOOD))


def take_disposition(name: str, *expected: str) -> None:
    """The right under 'port' is of the kind that this disposition makes, and works."""
    client = instance()
    disposition = getattr(Disposition, name)
    if disposition == Disposition.MOVE_RECEIVE:
        receive = client.take_receive_right("port")
        assert receive is not None
        with receive:
            for _ in expected:
                message = receive.receive(30)
                assert message.id == GOOD and message.audit_token and message.audit_token.pid == os.getppid()
        return
    right = client.take_send_right("port")
    once = disposition in (Disposition.MOVE_SEND_ONCE, Disposition.MAKE_SEND_ONCE)
    assert isinstance(right, SendOnceRight if once else SendRight), right
    with right:
        right.send(Message(GOOD))
        assert right.closed == once


def leave_unclaimed() -> None:
    """Rights that came and that nobody takes are given up when the process ends."""
    assert instance().port_count == 1


def many(count: str) -> None:
    """So many rights under the keys 0, 1, 2...: say on each which it is."""
    client = instance()
    assert client.port_count == int(count)
    for key in range(int(count)):
        right = client.take_send_right(key)
        assert right is not None
        with right:
            right.send(Message(key))


def own_word(word: str) -> None:
    """A receive right with a word in it, and a send right to answer: whoever launched this put this word there."""
    client = instance()
    receive, send = client.take_receive_right("recv"), client.take_send_right("send")
    assert receive is not None and send is not None and client.port_count == 0
    with receive, send:
        found = receive.receive(30).body.partition(b"\0")[0]
        assert found == word.encode(), found
        send.send(Message(GOOD, word.encode()))


def read_file() -> None:
    """The right under 'file' is a fileport: its contents go back in a message."""
    client = instance()
    right, port = client.take_send_right("file"), client.take_send_right("port")
    assert isinstance(right, SendRight) and isinstance(port, SendRight)
    with right, port:
        fd = fileport_fd(right)
        assert not os.get_inheritable(fd)
        contents = os.read(fd, 100)
        os.close(fd)
        port.send(Message(GOOD, contents))


def use_values() -> None:
    """A file, a socket and memory, each as the object that it is in Python; what fails is there as before."""
    client = instance()
    assert list(client) == ["file", "memo", "sock"] and "file" in client and "fil" not in client
    for wrong in (
        lambda: client.take_memory("file"),
        lambda: client.take_file("file", "nonsense"),  # type: ignore[call-overload]
        lambda: client.take_memory("memo", 10**9),
    ):
        try:
            wrong()
        except ValueError:
            pass
        else:
            raise AssertionError("it was taken")
    assert isinstance(client["file"], SendRight) and client.port_count == 3
    with client.take_file("file", "r+") as file:
        contents = file.read()
        with client.take_socket("sock") as sock:
            sock.sendall(contents.encode())
        file.write("from the child\n")
        file.flush()
        file.seek(len(contents))
    with client.take_memory("memo") as memory, memory.map(writable=True) as view:
        view[:6] = b"behind"
    assert client.port_count == 0


def send_to(key: str) -> None:
    """The right under this key: send 'good' on it; what is not there is told of."""
    client = instance()
    assert key in client
    right = client[key]
    assert isinstance(right, SendRight)
    right.send(Message(GOOD))
    try:
        client["port"]
    except KeyError as error:
        assert f"'{key}'" in str(error) and "'port'" in str(error), error
    else:
        raise AssertionError("something was found")
    try:
        client.take_fd(key)
    except RightError as error:
        assert "not an open file" in str(error), error
    assert key in client
    for kind in (ReceiveRight, SendOnceRight):
        try:
            client.take(key, kind)
        except RightError as error:
            assert f"'{key}' is a SendRight, and not a {kind.__name__}" in str(error), error
        else:
            raise AssertionError("it was taken")
    with client.take(key, SendRight) as taken:
        taken.send(Message(GOOD))
    assert key not in client and list(client) == []
    try:
        client.take(key, SendRight)
    except KeyError as error:
        assert "was taken" in str(error), error
    client.close()


def no_right() -> None:
    """Print why there is nothing under 'port'."""
    try:
        with RendezvousClient.connect() as client:
            client["port"]
    except (KeyError, ServerNotFoundError) as error:
        print(error)


def answer() -> None:
    """Receive one request on 'recv', and answer on the send-once right that it brings."""
    receive = instance().take_receive_right("recv")
    assert receive is not None
    with receive:
        message = receive.receive(30)
        reply = take_reply_right(message)
        assert isinstance(reply, SendOnceRight)
        reply.send(Message(message.id + 1, message.body))


def when_told(scenario: str) -> None:
    """As `scenario`, but not before the parent says so."""
    sys.stdin.read()
    globals()[scenario]()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
