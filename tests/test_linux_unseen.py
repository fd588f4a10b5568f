"""Rights that nobody has looked at yet, and ends that nobody has: the same as those that somebody has."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

if sys.platform != "linux":
    pytest.skip("the Linux kernel's light names", allow_module_level=True)

from machrv import Message, RendezvousClient, SendRight
from machrv.constants import MACH_PORT_RIGHT_SEND, MACH_PORT_TYPE_SEND
from machrv.kernel.linux import LinuxKernel

from .conftest import PATIENCE
from .linux_claims import Server, client  # noqa: F401 (fixture)
from .linux_tasks import descriptors

NAME = f"org.machrv.test.unseen.{os.getpid()}"


@pytest.fixture
def server() -> Iterator[Server]:
    """Two rights to one port, and one to each of two others; in a space of its own."""
    space = LinuxKernel()
    with Server(space, NAME, count=2, more=2) as made:
        yield made
    assert space.mach_port_names() == []
    space.close()


def claim(client: LinuxKernel) -> list[SendRight]:
    """The rights of one claim, by their keys."""
    with RendezvousClient.connect(NAME, PATIENCE, client) as found:
        rights = [found.take_send_right(key) for key in range(4)]
    assert all(isinstance(right, SendRight) for right in rights)
    return rights  # type: ignore[return-value]


def close(*rights: SendRight) -> None:
    """Give all of them up."""
    for right in rights:
        right.close()


def test_one_port_is_one_name_in_an_answer_and_over_several(server: Server, client: LinuxKernel) -> None:
    """Whether somebody has looked at the first ones or not."""
    first = claim(client)
    assert len({right.name for right in first}) == 3 and first[0].name == first[1].name
    second = claim(client)
    assert [right.name for right in second] == [right.name for right in first]
    assert client.mach_port_get_refs(first[0].name, MACH_PORT_RIGHT_SEND) == 4
    third = claim(client)
    assert [right.name for right in third] == [right.name for right in first]
    assert sorted(client.mach_port_names()) == sorted({(right.name, MACH_PORT_TYPE_SEND) for right in first})
    close(*first, *second, *third)


def test_a_stale_name_is_no_right(server: Server, client: LinuxKernel) -> None:
    """What was given up unseen leaves its name to nobody: the next right has another generation of it."""
    first = claim(client)
    names = {right.name for right in first}
    close(*first)
    second = claim(client)
    assert not names & {right.name for right in second}
    close(*second)


@pytest.mark.parametrize("watched", [False, True], ids=["unwatched", "watched"])
def test_messages_of_many_come_in_their_order(server: Server, client: LinuxKernel, watched: bool) -> None:
    """To ends that nobody has looked at, of rights that came unseen: before a first look at the port, and after it."""
    target = server.others[0]
    if watched:
        target.fileno()
    claims = [claim(client) for _ in range(5)]
    for number, rights in enumerate([*claims, *reversed(claims)]):
        rights[2].send(Message(number))
    assert [target.receive(PATIENCE).id for _ in range(10)] == list(range(10))
    late = claim(client)
    late[2].send(Message(10))
    assert target.receive(PATIENCE).id == 10
    for rights in (*claims, late):
        close(*rights)


def test_ends_of_rights_that_were_given_up_are_closed(server: Server, client: LinuxKernel) -> None:
    """However many claims there are, as long as nobody receives from the ports; what waits there stays."""
    rights = claim(client)
    rights[2].send(Message(7))
    close(*rights)
    for _ in range(40):
        close(*claim(client))
    before = descriptors()
    for _ in range(200):
        close(*claim(client))
    assert descriptors() <= before + 3 * 64
    assert server.others[0].receive(PATIENCE).id == 7


def test_a_child_of_a_fork_has_none_of_them(server: Server, client: LinuxKernel) -> None:
    """Neither names nor descriptors of what its parent has not looked at."""
    rights = claim(client)
    pid = os.fork()
    if pid == 0:
        os._exit(len(client._entries) + len(client._fresh))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    rights[0].send(Message(1))
    assert server.target.receive(PATIENCE).id == 1
    close(*rights)
