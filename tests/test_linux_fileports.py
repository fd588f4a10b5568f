"""Fileports: an open file as a right, to another process and back."""

from __future__ import annotations

import os
import threading

import pytest

from machrv._mach import lib
from machrv.kernel.linux import LinuxKernel
from machrv.message import Disposition, PortDescriptor

from .conftest import PATIENCE
from .linux_tasks import bootstrap, nursery, peer, task  # noqa: F401 (fixtures)
from .linux_tasks import (
    SEND,
    Peer,
    allocate,
    code_of,
    end,
    in_thread,
    introduce,
    names,
    receive,
    send,
)


@pytest.mark.parametrize("kind", ["file", "pipe", "socket", "memory", "directory", "seqpacket"])
def test_a_descriptor_as_a_right_and_back(task: LinuxKernel, peer: Peer, kind: str) -> None:
    """The peer's descriptor becomes ours, as dup would share it: same file, same offset, close-on-exec."""
    port, to = introduce(task, peer)
    fd = peer.run(OPEN, kind=kind)
    name = peer.fileport_makeport(fd)
    send(peer, to, descriptors=[PortDescriptor(name, Disposition.MOVE_SEND)])
    (got,) = names(receive(task, port))
    assert task.mach_port_type(got) == SEND
    mine = task.fileport_makefd(got)
    assert not os.get_inheritable(mine)
    theirs = peer.run("s = os.fstat(fd); result = (s.st_dev, s.st_ino, s.st_mode)", fd=fd)
    status = os.fstat(mine)
    assert (status.st_dev, status.st_ino, status.st_mode) == theirs
    if kind == "file":
        assert os.read(mine, 2) == b"co"
        assert peer.run("result = os.read(fd, 100)", fd=fd) == b"ntents"
    os.close(mine)
    task.mach_port_deallocate(got)
    peer.run("os.close(fd)\nif served.hoard: served.free()", fd=fd)
    peer.mach_port_deallocate(to)
    end(task, port)


OPEN = """
import socket, tempfile
if kind == "file":
    fd, path = tempfile.mkstemp()
    os.write(fd, b"contents")
    os.lseek(fd, 0, 0)
    os.unlink(path)
    result = fd
elif kind == "pipe":
    result, write = os.pipe()
    served.hoard.append(write)
elif kind == "memory":
    result = os.memfd_create("memory")
elif kind == "directory":
    result = os.open("/", os.O_RDONLY)
else:
    types = {"socket": socket.SOCK_STREAM, "seqpacket": socket.SOCK_SEQPACKET}
    ours, theirs = socket.socketpair(socket.AF_UNIX, types[kind])
    served.hoard.append(theirs.detach())
    result = ours.detach()
"""


def test_a_fileport_is_no_port_to_send_to(task: LinuxKernel) -> None:
    """A message to it is refused; it can be copied and moved; makefd of a real right is refused."""
    port = allocate(task)
    task.mach_port_insert_right(port, port, Disposition.MAKE_SEND)
    read, write = os.pipe()
    file = task.fileport_makeport(write)
    os.close(write)
    assert code_of(send, task, file) == lib.MACH_SEND_INVALID_DEST
    assert code_of(send, task, file, how=Disposition.MOVE_SEND) == lib.MACH_SEND_INVALID_DEST
    assert code_of(task.fileport_makefd, port) == lib.KERN_INVALID_RIGHT
    assert code_of(task.fileport_makefd, 0x7777) == lib.KERN_INVALID_NAME
    send(task, port, reply=file, reply_how=Disposition.COPY_SEND)
    again = receive(task, port).remote_port
    task.mach_port_deallocate(file)
    fd = task.fileport_makefd(again)
    task.mach_port_deallocate(again)
    os.write(fd, b"through")
    os.close(fd)
    assert os.read(read, 100) == b"through" and os.read(read, 1) == b""
    os.close(read)
    task.mach_port_destroy(port)


def test_a_descriptor_that_is_not_open(task: LinuxKernel) -> None:
    """An error of Mach's, and no name."""
    assert code_of(task.fileport_makeport, 9999) == lib.KERN_INVALID_ARGUMENT
    assert code_of(task.fileport_makeport, -1) == lib.KERN_INVALID_ARGUMENT


def test_a_file_in_a_message_that_dies_is_closed(task: LinuxKernel, peer: Peer) -> None:
    """The last reference of a pipe's writing end was in a queue: its reader sees the end."""
    port, to = introduce(task, peer)
    read, write = os.pipe()
    door, way = introduce(peer, task)
    file = task.fileport_makeport(write)
    os.close(write)
    send(task, way, descriptors=[PortDescriptor(file, Disposition.MOVE_SEND)])
    seen = threading.Event()
    reader = in_thread(lambda: seen.set() if os.read(read, 1) == b"" else None)
    assert not seen.is_set()
    peer.kill()
    reader.join(PATIENCE)
    assert seen.is_set()
    os.close(read)
    task.mach_port_deallocate(way)
    end(task, port)
