"""User references at their limit: a count that has been there has been lost track of, and stays (osfmk/ipc/ipc_right.c)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from machrv._mach import lib
from machrv.kernel.linux import LinuxKernel
from machrv.message import Disposition, PortDescriptor

from .linux_tasks import bootstrap, nursery, peer, task  # noqa: F401 (fixtures)
from .linux_tasks import (
    DEAD_NAME,
    DEAD_NAME_NOTIFICATION,
    RECEIVE,
    SEND,
    Peer,
    allocate,
    end,
    give,
    names,
    receive,
    refs,
    request,
    send,
)

LIMIT = int(lib.MACH_PORT_UREFS_MAX)
SENDS, DEAD = int(lib.MACH_PORT_RIGHT_SEND), int(lib.MACH_PORT_RIGHT_DEAD_NAME)


@pytest.fixture
def pegged(task: LinuxKernel) -> Iterator[int]:
    """A port with as many references to send as there can be. All of them at once can be given up, and nothing else."""
    port = allocate(task)
    task.mach_port_insert_right(port, port, Disposition.MAKE_SEND)
    task.mach_port_mod_refs(port, SENDS, LIMIT - 1)
    assert refs(task, port) == LIMIT
    yield port
    assert refs(task, port) == LIMIT
    task.mach_port_mod_refs(port, SENDS, -LIMIT)
    assert task.mach_port_type(port) == RECEIVE
    end(task, port)


def test_no_more_are_made(task: LinuxKernel, pegged: int) -> None:
    """MAKE_SEND and COPY_SEND of one's own port, to oneself."""
    for how in (Disposition.MAKE_SEND, Disposition.COPY_SEND):
        task.mach_port_insert_right(pegged, pegged, how)
        assert refs(task, pegged) == LIMIT
        send(task, pegged, descriptors=[PortDescriptor(pegged, how)])
        assert names(receive(task, pegged)) == [pegged] and refs(task, pegged) == LIMIT


@pytest.mark.parametrize("delta", [1, LIMIT, -1, 1 - LIMIT, 0])
def test_mod_refs_changes_nothing(task: LinuxKernel, pegged: int, delta: int) -> None:
    """Neither more nor fewer, but for all of them."""
    task.mach_port_mod_refs(pegged, SENDS, delta)
    assert refs(task, pegged) == LIMIT


@pytest.mark.parametrize("first", [1, LIMIT - 1])
def test_mod_refs_stops_at_the_limit(task: LinuxKernel, first: int) -> None:
    """What would be more is as many as there can be."""
    port = allocate(task)
    task.mach_port_insert_right(port, port, Disposition.MAKE_SEND)
    task.mach_port_mod_refs(port, SENDS, first - 1)
    task.mach_port_mod_refs(port, SENDS, LIMIT)
    assert refs(task, port) == LIMIT
    task.mach_port_destroy(port)


def test_deallocate_takes_none(task: LinuxKernel, pegged: int) -> None:
    """However often."""
    for _ in range(3):
        task.mach_port_deallocate(pegged)
        assert refs(task, pegged) == LIMIT


def test_a_move_takes_none(task: LinuxKernel, peer: Peer, pegged: int) -> None:
    """The right that moves is one more, and works; in a message's header too."""
    theirs = give(task, peer, pegged, Disposition.MOVE_SEND)
    assert refs(task, pegged) == LIMIT and peer.mach_port_type(theirs) == SEND
    send(peer, theirs, 5)
    send(task, pegged, 6, how=Disposition.MOVE_SEND)
    assert [receive(task, pegged).id for _ in range(2)] == [5, 6] and refs(task, pegged) == LIMIT
    peer.mach_port_deallocate(theirs)


def test_a_dead_name_at_the_limit(task: LinuxKernel, peer: Peer, pegged: int) -> None:
    """Its references are those that the right had; neither a notification nor a move changes them."""
    port = allocate(peer)
    name = give(peer, task, port, Disposition.MAKE_SEND)
    task.mach_port_mod_refs(name, SENDS, LIMIT - 1)
    request(task, name, DEAD_NAME_NOTIFICATION, pegged)
    end(peer, port)
    assert task.mach_port_type(name) == DEAD_NAME and refs(task, name, DEAD) == LIMIT
    assert receive(task, pegged).id == DEAD_NAME_NOTIFICATION
    task.mach_port_deallocate(name)
    send(task, pegged, descriptors=[PortDescriptor(name, Disposition.MOVE_SEND)])
    receive(task, pegged)
    assert refs(task, name, DEAD) == LIMIT
    task.mach_port_mod_refs(name, DEAD, -LIMIT)
