"""Memory on Linux from and to those who mean harm: nobody can cut it short under a reader, nor write to what is sealed."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from fcntl import F_ADD_SEALS, F_GET_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, fcntl
from mmap import PAGESIZE
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("seals are Linux's", allow_module_level=True)

from machrv import (
    MachError,
    MemoryObject,
    MemoryObjectError,
    Message,
    ReadOnlyMemoryError,
    ReceiveRight,
    RendezvousServer,
    SendRight,
    fileport,
    fileport_fd,
    launch,
    take_rights,
)
from machrv._mach import lib

from .conftest import PATIENCE, Program, finish, open_descriptors

FUTURE_WRITE = lib.MACHRV_SEAL_FUTURE_WRITE
#: What Python does not name of <linux/fcntl.h> and <linux/memfd.h>.
SEAL_EXEC, MFD_HUGETLB, MFD_NOEXEC_SEAL = 0x20, 4, 8
NEITHER_SIZE = F_SEAL_SHRINK | F_SEAL_GROW


def memfd(size: int = PAGESIZE, seals: int = NEITHER_SIZE | F_SEAL_SEAL, flags: int = os.MFD_ALLOW_SEALING) -> int:
    """Memory as somebody makes it who does not use machrv."""
    fd = os.memfd_create("theirs", flags | os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    if seals:
        fcntl(fd, F_ADD_SEALS, seals)
    return fd


def as_right(fd: int) -> SendRight:
    """A fileport, in place of the descriptor."""
    try:
        return fileport(fd)
    finally:
        os.close(fd)


def seals_of(right: SendRight) -> int:
    """What the memory behind a right is sealed against."""
    fd = fileport_fd(right)
    try:
        return fcntl(fd, F_GET_SEALS)
    finally:
        os.close(fd)


# -- what is handed on ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["writable", "read_only", "sealed"])
def test_a_child_cannot_do_what_it_may_not(server: RendezvousServer, program: Program, kind: str) -> None:
    """It tries every call that it has, over the descriptor and over a new one: the memory keeps its size, and what is
    to be read its contents, while this process has it mapped."""
    with MemoryObject.from_bytes(b"mine" + bytes(2 * PAGESIZE)) as memory:
        if kind == "sealed":
            memory.seal()
        right = memory.right(read_only=kind == "read_only")
        with memory.map() as view:
            assert finish(launch(program("memory_object", "attack", kind), {"memo": right})) == 0
            assert view[:] == b"mine" + bytes(2 * PAGESIZE)


def test_what_leaves_is_sealed() -> None:
    """Against other sizes and other seals always; against writing as it was asked for."""
    expected = {"writable": 0, "read_only": FUTURE_WRITE, "sealed": F_SEAL_WRITE}
    for kind, against_writing in expected.items():
        with MemoryObject.create(PAGESIZE) as memory:
            if kind == "sealed":
                memory.seal()
            with memory.right(read_only=kind == "read_only") as right:
                assert seals_of(right) & ~SEAL_EXEC == NEITHER_SIZE | F_SEAL_SEAL | against_writing


def test_nobody_runs_a_program_out_of_it() -> None:
    """Where the kernel knows such memory (6.3); an older one makes plain memory."""
    try:
        os.close(os.memfd_create("probe", MFD_NOEXEC_SEAL))
    except OSError:
        pytest.skip("this kernel does not know MFD_NOEXEC_SEAL")
    found = []
    try:
        for without in (0, lib.MACHRV_WITHOUT_NOEXEC_SEAL):
            lib.machrv_without(without)
            with MemoryObject.from_bytes(b"#!/bin/true") as memory, memory.right() as right:
                fd = fileport_fd(right)
                found.append((bool(seals_of(right) & SEAL_EXEC), bool(os.fstat(fd).st_mode & 0o111)))
                os.close(fd)
    finally:
        lib.machrv_without(0)
    assert found == [(True, False), (False, True)]


def test_memory_that_somebody_else_writes_to_is_not_sealed() -> None:
    """A mapping that this object knows nothing of: the kernel finds it."""
    import mmap

    with MemoryObject.create(PAGESIZE) as memory:
        with memory._right.copy() as right:
            fd = fileport_fd(right)
        with mmap.mmap(fd, PAGESIZE):
            os.close(fd)
            with pytest.raises(MemoryObjectError, match="cannot be sealed: somebody has it mapped"):
                memory.seal()
            assert not memory.sealed and not memory.closed
        memory.seal()


def test_a_mapping_has_its_size_for_ever() -> None:
    """Python's mmap can be resized: not this one, which would reach behind the end of the memory, or cut it short."""
    with MemoryObject.create(2 * PAGESIZE) as memory, memory.map(writable=True) as view:
        for size in (PAGESIZE, 3 * PAGESIZE):
            with pytest.raises(PermissionError):
                view.resize(size)
        assert view[:] == bytes(2 * PAGESIZE)


# -- what arrives -----------------------------------------------------------------------------------------------------


def regular_file(folder: Path) -> int:
    (folder / "file").write_bytes(bytes(PAGESIZE))
    return os.open(folder / "file", os.O_RDWR)


def shared_memory_file(_: Path) -> int:
    fd = os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR, 0o600)
    os.ftruncate(fd, PAGESIZE)
    return fd


def pipe(_: Path) -> int:
    read, write = os.pipe()
    os.close(write)
    return read


def huge_pages(_: Path) -> int:
    try:
        return memfd(2 << 20, flags=os.MFD_ALLOW_SEALING | MFD_HUGETLB)
    except OSError:
        pytest.skip("this kernel has no huge pages")


def to_write_only(_: Path) -> int:
    fd = memfd()
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
    finally:
        os.close(fd)


ARRIVALS = {
    "a regular file": (regular_file, "a regular file came"),
    "a file in shared memory": (shared_memory_file, "not sealed against shrinking"),
    "a pipe": (pipe, "a pipe came"),
    "a socket": (lambda _: socket.socket(socket.AF_UNIX).detach(), "a socket came"),
    "a directory": (lambda folder: os.open(folder, os.O_RDONLY), "a directory came"),
    "a path": (lambda folder: os.open(folder, os.O_PATH), "a directory came"),
    "a device": (lambda _: os.open("/dev/zero", os.O_RDWR), "something else than a file came"),
    "memory that cannot be sealed": (lambda _: memfd(seals=0, flags=0), "not sealed against shrinking"),
    "memory that is not sealed": (lambda _: memfd(seals=0), "not sealed against shrinking"),
    "memory sealed against growing": (
        lambda _: memfd(seals=F_SEAL_GROW | F_SEAL_WRITE),
        "not sealed against shrinking",
    ),
    "memory of huge pages": (huge_pages, "memory of huge pages"),
    "memory of no bytes": (lambda _: memfd(0), "memory of no bytes"),
    "memory to write to only": (to_write_only, "opened for writing only"),
}


@pytest.mark.parametrize("what", ARRIVALS)
def test_what_is_not_safe_to_map_is_refused(tmp_path: Path, what: str) -> None:
    """With an error that says what came and what to do; the right stays the caller's."""
    make, says = ARRIVALS[what]
    with as_right(make(tmp_path)) as right:
        with pytest.raises(MemoryObjectError, match=f"{says}.* the sender ") as caught:
            MemoryObject.from_right(right)
        assert not right.closed and isinstance(caught.value, ValueError)


def test_memory_of_others_is_taken_as_it_is_sealed() -> None:
    """What is sealed against shrinking will do, however it was made; what may be written is what its seals let be."""
    for seals, writable, sealed in (
        (F_SEAL_SHRINK, True, False),
        (NEITHER_SIZE | F_SEAL_SEAL, True, False),
        (NEITHER_SIZE | F_SEAL_SEAL | F_SEAL_WRITE, False, True),
        (NEITHER_SIZE | F_SEAL_SEAL | FUTURE_WRITE, False, False),
    ):
        with MemoryObject.from_right(as_right(memfd(100, seals))) as memory:
            assert (memory.size, memory.read_only, memory.sealed) == (100, not writable, sealed)
            with memory.map() as view:
                assert view[:] == bytes(100)
            with memory.right() as right:  # It goes on as what it came for, and nobody can seal it otherwise.
                assert seals_of(right) & F_SEAL_SHRINK
                assert not writable or seals_of(right) & ~SEAL_EXEC == NEITHER_SIZE | F_SEAL_SEAL


def test_memory_that_was_opened_to_be_read() -> None:
    """Is memory to read, whatever its seals."""
    fd = memfd()
    with as_right(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)) as right:
        os.close(fd)
        with MemoryObject.from_right(right) as memory:
            assert memory.read_only and not memory.sealed
            with pytest.raises(ReadOnlyMemoryError):
                memory.map(writable=True)
            with memory.map() as view, memory.right() as again:
                assert view[:] == bytes(PAGESIZE)
                with MemoryObject.from_right(again) as other:
                    assert other.read_only


def test_a_size_that_no_address_space_has_room_for() -> None:
    """It is what came, so it is told; mapping it fails, and a part that the reader chose is mapped."""
    with as_right(memfd(1 << 60)) as right:
        whole = MemoryObject.from_right(right)
    with whole, whole.right() as again:
        assert whole.size == 1 << 60
        with pytest.raises(MachError, match=f"mmap of {1 << 60} bytes .*KERN_RESOURCE_SHORTAGE"):
            whole.map()
        with MemoryObject.from_right(again, PAGESIZE) as part, part.map() as view:
            assert view[:] == bytes(PAGESIZE)


# -- a sender that takes away what it gave -----------------------------------------------------------------------------


@pytest.fixture
def gift(server: RendezvousServer, program: Program, request: pytest.FixtureRequest) -> Iterator[Gift]:
    """What a hostile child has sent, and the child, which waits to spoil it."""
    with ReceiveRight.allocate() as inbox, ReceiveRight.allocate() as turn, turn.make_send() as go:
        child = launch(program("memory_object", "bait", request.param), {"told": inbox.make_send(), "turn": turn})
        (right,) = take_rights(inbox.receive(PATIENCE))
        assert isinstance(right, SendRight)
        with right:
            yield Gift(inbox, go, right)
        assert finish(child) == 0


class Gift:
    """See the fixture."""

    def __init__(self, inbox: ReceiveRight, go: SendRight, right: SendRight) -> None:
        self.right = right
        self._inbox, self._go = inbox, go

    def spoil(self) -> None:
        """Let the child do its worst, and wait until it is done."""
        self._go.send(Message(0))
        assert self._inbox.receive(PATIENCE).id == 2


@pytest.mark.parametrize("gift", ["shrinks"], indirect=True)
def test_memory_that_is_cut_short_is_never_read(gift: Gift) -> None:
    """The sender truncates: here that meets a reader who has refused. One who had mapped it is killed (SIGBUS)."""
    with pytest.raises(MemoryObjectError, match="could cut it short"):
        MemoryObject.from_right(gift.right)
    fd = fileport_fd(gift.right)
    careless = "import mmap, os, sys; view = mmap.mmap(int(sys.argv[1]), 1 << 20); print(view[:4].decode(), flush=True)"
    careless += "; sys.stdin.readline(); print(view[4096])"
    command = [sys.executable, "-c", careless, str(fd)]
    with subprocess.Popen(command, pass_fds=[fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        os.close(fd)
        assert reader.stdout is not None and reader.stdout.readline() == b"bait\n"
        gift.spoil()
        reader.communicate(b"\n", PATIENCE)
        assert reader.returncode == -signal.SIGBUS


@pytest.mark.parametrize("gift", ["grows"], indirect=True)
def test_memory_that_grows_or_gets_holes_is_read_all_the_same(gift: Gift) -> None:
    """What was mapped keeps its size, and where the sender punched holes there are zeros."""
    with MemoryObject.from_right(gift.right) as memory, memory.map() as view:
        assert view[:4] == b"bait"
        gift.spoil()
        assert memory.size == len(view) == 1 << 20 and view[:] == bytes(1 << 20)


# -- a process that has no room ---------------------------------------------------------------------------------------


def test_without_a_free_descriptor_everything_fails_and_nothing_is_lost() -> None:
    """KERN_RESOURCE_SHORTAGE from each call; afterwards each works, and nothing more is open than before."""
    memory, right = MemoryObject.create(PAGESIZE), as_right(memfd())
    before = open_descriptors()
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, before)) + 1, hard))
    taken = []
    try:
        while True:
            try:
                taken.append(os.dup(0))
            except OSError:
                break
        calls = [
            lambda: MemoryObject.create(1),
            lambda: MemoryObject.from_right(right),
            memory.map,
            memory.seal,
            memory.right,
        ]
        for call in calls:
            with pytest.raises(MachError, match="KERN_RESOURCE_SHORTAGE"):
                call()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        for fd in taken:
            os.close(fd)
    assert open_descriptors() == before
    with memory, MemoryObject.from_right(right) as other:
        memory.seal()
        with memory.map() as view, memory.right():
            assert view[:] == bytes(PAGESIZE) and not other.read_only
