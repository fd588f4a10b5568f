"""Ids of ports that others have: what a peer claims by an address or a bundle does not make it so."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from machrv._mach import lib
from machrv.errors import MachError
from machrv.kernel.linux import LinuxKernel
from machrv.message import Disposition, Message

from . import linux_hostile as h
from .linux_tasks import bootstrap, nursery, other, peer, task  # noqa: F401 (fixtures)
from .sockets import entry_of, socket_of
from .linux_tasks import (
    RECEIVE,
    SEND,
    Peer,
    allocate,
    end,
    give,
    introduce,
    names,
    receive,
    receive_raw,
    refs,
    send,
)

PAIR = ("pair",)
ONE = bytes([h.SEND])
HEAD = h.bundle_head


def moved(*packets: h.Packet) -> h.Packet:
    """A message with a receive right whose bundle holds these packets."""
    return h.complex([h.port(1, h.RECEIVE)], [h.bundle(*packets)])


def take(task: LinuxKernel, port: int) -> list[int]:
    """The ports of the next message; none if it is refused."""
    try:
        return names(Message.decode(receive_raw(task, port)))
    except MachError:
        return []


def id_of(task: Any, name: int) -> bytes:
    """The id that the right under a name claims, as any holder can read it from the socket."""
    return str(entry_of(task, name)["port"]).encode()


def test_a_bundle_with_the_id_of_a_port_that_is_here(task: LinuxKernel, peer: Peer) -> None:
    """The claim does not make it that port: another name, and the port goes on as it was; its rights come home to it."""
    port, to = introduce(task, peer)
    task.mach_port_insert_right(port, port, Disposition.MAKE_SEND)
    peer.raw(to, moved((HEAD(ONE, id=id_of(task, port)), [PAIR])))
    (got,) = take(task, port)
    assert got != port and task.mach_port_type(got) == RECEIVE and refs(task, port) == 1
    send(task, port, 5)
    assert receive(task, port).id == 5
    assert give(peer, task, to, Disposition.COPY_SEND) == port and refs(task, port) == 2
    end(task, got)
    peer.free()
    send(peer, to, 6)
    assert receive(task, port).id == 6
    peer.mach_port_deallocate(to)
    task.mach_port_destroy(port)


def test_a_bundle_with_the_id_of_a_port_that_we_send_to(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """It does not become the receive right of it: what is sent goes where it went before."""
    port, to = introduce(task, peer)
    far, right = introduce(other, task)
    peer.raw(to, moved((HEAD(ONE, id=id_of(task, right)), [PAIR])))
    (got,) = take(task, port)
    assert got != right and task.mach_port_type(right) == SEND
    send(task, right, 9)
    assert receive(other, far).id == 9
    end(task, got)
    peer.free()
    task.mach_port_deallocate(right)
    end(other, far)
    peer.mach_port_deallocate(to)
    end(task, port)


def test_a_socket_that_claims_the_id_of_our_port(task: LinuxKernel, peer: Peer) -> None:
    """A pair whose other end is bound to an address of our port's: not a send right to it that came home."""
    port, to = introduce(task, peer)
    peer.run(CLAIM, id=id_of(task, port), suffix=b"/s1")
    peer.raw(to, h.complex([h.port(1)], [("hoard", 1)]))
    (got,) = take(task, port)
    assert got != port and task.mach_port_type(port) == RECEIVE
    task.mach_port_deallocate(got)
    peer.free()
    peer.mach_port_deallocate(to)
    end(task, port)


CLAIM = """
import socket
receiving, sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
receiving.bind(b"\\0machrv/" + id + suffix)
served.hoard += [receiving.detach(), sending.detach()]
"""


def test_a_socket_that_claims_the_id_of_a_port_that_we_send_to(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """A stranger that read the id off its own right cannot pass its port off as that one: two names."""
    port, to = introduce(task, peer)
    far, right = introduce(other, task)
    peer.run(CLAIM, id=id_of(task, right), suffix=b"/s99")
    peer.raw(to, h.complex([h.port(1)], [("hoard", 1)]))
    (got,) = take(task, port)
    assert got != right and refs(task, right) == 1
    send(task, right, 3)
    assert receive(other, far).id == 3
    for name in (got, right):
        task.mach_port_deallocate(name)
    peer.free()
    end(other, far)
    peer.mach_port_deallocate(to)
    end(task, port)


def test_another_network_namespace_cannot_bind_a_port_of_ours(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """Abstract addresses belong to a namespace: an end that is bound to the same one elsewhere is not the same end.

    We made the port, moved it to one process, and kept a send right. Another process reads that right's address and
    sends us a receive right whose end is bound to it in a namespace of its own.
    """
    port, to = introduce(task, peer)
    mine = allocate(task)
    task.mach_port_insert_right(mine, mine, Disposition.MAKE_SEND)
    far = give(task, other, mine, Disposition.MOVE_RECEIVE)
    address = task_address(task, mine)
    if not peer.run(FORGE, address=address):
        pytest.skip("this process may not make network namespaces")
    peer.raw(to, moved((HEAD(ONE, id=id_of(task, mine)), [("hoard", 0)])))
    (got,) = take(task, port)
    assert got != mine and task.mach_port_type(mine) == SEND
    send(task, mine, 4)
    assert receive(other, far).id == 4
    end(task, got)
    peer.free()
    end(other, far)
    task.mach_port_deallocate(mine)
    peer.mach_port_deallocate(to)
    end(task, port)


def task_address(task: LinuxKernel, name: int) -> bytes:
    """The address that the other end of a right's socket is bound to."""
    with socket.socket(fileno=os.dup(socket_of(task, name))) as right:
        address = right.getpeername()
        assert isinstance(address, bytes)
        return address


FORGE = """
import ctypes, socket
result = ctypes.CDLL(None).unshare(0x40000000) == 0  # CLONE_NEWNET
if result:
    receiving, sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    receiving.bind(address)
    served.hoard += [receiving.detach(), sending.detach()]
"""
