"""Claims from another space: of many rights, by many threads, and where something comes in between."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

if sys.platform != "linux":
    pytest.skip("the Linux kernel's claims", allow_module_level=True)

from machrv import (
    AuditToken,
    Disposition,
    Message,
    ReceiveRight,
    RendezvousClient,
    RendezvousPort,
    RendezvousTimeout,
    ServerNotFoundError,
)
from machrv.kernel.linux import LinuxKernel

from .conftest import PATIENCE
from .linux_claims import Server, client  # noqa: F401 (fixture)
from .linux_tasks import receive, send

NAME = f"org.machrv.test.claims.{os.getpid()}"


@pytest.fixture
def server() -> Iterator[Server]:
    """A server in another space of this process."""
    space = LinuxKernel()
    with Server(space, NAME) as server:
        yield server
    assert space.mach_port_names() == []
    space.close()


@pytest.mark.parametrize("count", [1, 2, 64, 253])
def test_every_right_of_an_answer_works_and_none_is_left(client: LinuxKernel, server: Server, count: int) -> None:
    """All lead to the one port, so they are references of one name; a message through it arrives."""
    server.count = count
    for _ in range(3):
        with RendezvousClient.connect(NAME, PATIENCE, client) as ports:
            rights = [ports.take_send_right(key) for key in range(count)]
            assert len({right.name for right in rights if right is not None}) == 1
            for right in rights:
                assert right is not None
                with right:
                    right.send(Message(count))
                assert server.target.receive(PATIENCE).id == count
        assert client.mach_port_names() == []


def test_many_threads_claim_at_once(client: LinuxKernel, server: Server) -> None:
    """Each gets its own answer, and what one gives up is not another's."""

    def claim(number: int) -> None:
        with RendezvousClient.connect(NAME, PATIENCE, client) as ports:
            right = ports.take_send_right(0)
            assert right is not None and ports.server_audit_token is not None
            with right:
                right.send(Message(number))

    received = set()
    with ThreadPoolExecutor(8) as pool:
        done = pool.map(claim, range(200))
        while len(received) < 200:
            received.add(server.target.receive(PATIENCE, wait_for_senders=True).id)
        list(done)
    assert received == set(range(200))


def test_a_handler_that_raises_in_the_middle_of_a_claim_leaves_nothing(client: LinuxKernel, server: Server) -> None:
    """What it raises comes out as it is; the answer that comes later is nobody's, and its rights are gone."""

    def enough(number: int, frame: object) -> None:
        raise TimeoutError("enough")

    RendezvousClient.connect(NAME, PATIENCE, client).close()
    handler = signal.signal(signal.SIGALRM, enough)
    server.may_answer.clear()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(TimeoutError, match="^enough$") as caught:
            RendezvousClient.connect(NAME, PATIENCE, client)
        assert type(caught.value) is TimeoutError
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert client.mach_port_names() == []
    server.may_answer.set()
    RendezvousClient.connect(NAME, PATIENCE, client).close()  # and so the answer before it was tried


def test_a_handler_that_returns_does_not_end_a_claim(client: LinuxKernel, server: Server) -> None:
    """The answer that comes after it is still awaited."""
    handler = signal.signal(signal.SIGALRM, lambda number, frame: server.may_answer.set())
    server.may_answer.clear()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with RendezvousClient.connect(NAME, PATIENCE, client) as ports:
            assert ports.port_count == 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


@pytest.mark.parametrize("timeout", [0, 0.02])
def test_a_claim_that_nobody_answers_in_time(client: LinuxKernel, server: Server, timeout: float) -> None:
    """RendezvousTimeout, and no descriptor of it stays on the client's side; the server goes on."""
    RendezvousClient.connect(NAME, PATIENCE, client).close()
    server.may_answer.clear()
    with pytest.raises(RendezvousTimeout):
        RendezvousClient.connect(NAME, timeout, client)
    assert client.mach_port_names() == []
    server.may_answer.set()
    RendezvousClient.connect(NAME, PATIENCE, client).close()


def test_a_claim_of_a_name_that_nobody_has_says_so(client: LinuxKernel) -> None:
    """Nobody there, and a name that cannot be a file's: the errors are those of a look-up."""
    for name in ("org.machrv.test.nobody", "with/a slash", ""):
        with pytest.raises(ServerNotFoundError):
            RendezvousClient.connect(name, 1, client)


def test_messages_come_in_the_order_in_which_they_were_sent_not_in_that_of_looking_up(client: LinuxKernel) -> None:
    """Who has looked a port up first, and sends last, is received last; also when it is the only one that has sent."""
    space = LinuxKernel()
    with ReceiveRight(space.bootstrap_check_in(NAME), space) as port:
        for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
            ways = [client.bootstrap_look_up(NAME) for _ in range(3)]
            spaces = [LinuxKernel() for _ in range(2)]
            others = [space.bootstrap_look_up(NAME) for space in spaces]
            every = [(client, ways[0]), *zip(spaces, others)]
            for number in order:
                send(*every[number], number)
            assert [receive(space, port.name, PATIENCE).id for _ in order] == list(order)
            for way in ways:
                client.mach_port_deallocate(way)
            for other in spaces:
                other.close()
    space.close()


def test_an_answer_to_several_ports_at_once(client: LinuxKernel) -> None:
    """Each right leads to its own port, whatever the order of the keys."""
    space = LinuxKernel()

    class Several(Server):
        def ports_for_client(self, audit_token: AuditToken) -> dict[int, RendezvousPort]:
            return {key: RendezvousPort(port.name, Disposition.MAKE_SEND) for key, port in targets.items()}

    targets = {key: ReceiveRight.allocate(kernel=space) for key in (9, 2, 7)}
    with Several(space, NAME):
        with RendezvousClient.connect(NAME, PATIENCE, client) as ports:
            for key, target in targets.items():
                right = ports.take_send_right(key)
                assert right is not None
                with right:
                    right.send(Message(key))
                assert target.receive(PATIENCE).id == key
    for target in targets.values():
        target.close()
    assert space.mach_port_names() == []
    space.close()
