"""Memory entries, the macOS kernel's form of memory objects: what is asked of libSystem, and what is not believed. Over the
stand-in; the other rooms' tests of memory objects run over it in test_darwin_rendezvous.py."""

from __future__ import annotations

import os
from mmap import PAGESIZE
from typing import Any

import pytest

from machrv import MachError, MemoryObject, MemoryObjectError, ReadOnlyMemoryError, SendRight, fileport
from machrv._mach import lib
from tests.standin.fixtures import mac, port, space
from tests.standin.kernel import StandInKernel

__all__ = ["mac"]


def test_it_is_a_named_entry_that_can_be_written_to(mac: StandInKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of as many bytes, made anew, in no address space."""
    asked = []
    made = mac.task.functions.mach_make_memory_entry_64

    def entry(task: int, size: Any, offset: int, permission: int, *others: Any) -> int:
        asked.append((size[0], permission))
        return made(task, size, offset, permission, *others)

    monkeypatch.setattr(mac.task.functions, "mach_make_memory_entry_64", entry)
    with MemoryObject.create(100, mac) as memory:
        assert asked == [(100, lib.MAP_MEM_NAMED_CREATE | lib.VM_PROT_READ | lib.VM_PROT_WRITE)]
        assert memory.size == 100 and len(space(mac)) == 1


@pytest.mark.parametrize("pages", [1, 2, 3, 4, 5, 7, 8, 1000, 1 << 20, (1 << 20) + 1])
def test_the_size_of_what_came_is_found(mac: StandInKernel, pages: int) -> None:
    """In whole pages, by asking for parts; no entry is left over from asking."""
    with MemoryObject.create(pages * PAGESIZE - 1, mac) as memory:
        with MemoryObject.from_right(memory.right()) as other:
            assert other.size == pages * PAGESIZE
        with MemoryObject.from_right(memory.right(), pages * PAGESIZE - 1) as other:
            assert other.size == pages * PAGESIZE - 1
        assert len(space(mac)) == 1


def test_to_read_is_another_entry(mac: StandInKernel) -> None:
    """Whoever gets it has no way to the one that can be written to; who made the memory gives that one up."""
    with MemoryObject.create(3 * PAGESIZE, mac) as memory:
        ((before, _),) = mac.mach_port_names()
        with memory.map(writable=True) as view, memory.right(read_only=True) as right:
            ((after, _),) = mac.mach_port_names()
            assert before != after == right.name
            view[:5] = b"later"
            with MemoryObject.from_right(right.copy()) as other, other.map() as reader:
                assert other.read_only and reader[:5] == b"later" and other.size == 3 * PAGESIZE
                with pytest.raises(ReadOnlyMemoryError):
                    other.map(writable=True)


def test_the_kernel_itself_refuses_to_write(mac: StandInKernel) -> None:
    """Whatever the adapter thinks of an entry to read."""
    with MemoryObject.create(PAGESIZE, mac) as memory:
        memory.seal()
        with pytest.raises(MachError, match="vm_map of 4096 bytes: KERN_INVALID_RIGHT"):
            mac.memory().map(memory._right.name, PAGESIZE, True)


def test_sealing_that_fails_leaves_all_as_it_was(mac: StandInKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without room: the object has its entry still, can be written to, and can be sealed later."""
    with MemoryObject.create(PAGESIZE, mac) as memory:
        with monkeypatch.context() as short:
            short.setattr(mac.task.functions, "mach_make_memory_entry_64", lambda *_: lib.KERN_RESOURCE_SHORTAGE)
            for call in (memory.seal, lambda: memory.right(read_only=True)):
                with pytest.raises(MachError, match="mach_make_memory_entry_64 of .*KERN_RESOURCE_SHORTAGE"):
                    call()
            with memory.right() as right, pytest.raises(MachError, match="KERN_RESOURCE_SHORTAGE"):
                MemoryObject.from_right(right)  # That nothing more is to be had is not what the memory is like.
        assert not memory.sealed and not memory.read_only


@pytest.mark.parametrize("call", ["mach_make_memory_entry_64", "vm_map", "vm_region_64"])
def test_what_a_failing_kernel_leaves(mac: StandInKernel, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """No mapping and no entry more than before. (The fixtures count.)"""
    with MemoryObject.create(PAGESIZE, mac) as memory, memory.right() as right:
        before = space(mac)
        monkeypatch.setattr(mac.task.functions, call, lambda *_: lib.KERN_FAILURE)
        with pytest.raises((MachError, MemoryObjectError)):
            MemoryObject.from_right(right)
        if call != "vm_region_64":
            with pytest.raises(MachError, match=f"{call} of {PAGESIZE} bytes: KERN_FAILURE"):
                memory.map() if call == "vm_map" else MemoryObject.create(PAGESIZE, mac)
        assert space(mac) == before and not right.closed


def test_an_entry_of_a_file_is_refused(mac: StandInKernel, tmp_path: Any) -> None:
    """Its contents come from a pager: whoever has the file could cut it short under the reader."""
    (tmp_path / "file").write_bytes(bytes(PAGESIZE))
    with open(tmp_path / "file", "rb+") as file, fileport(file.fileno(), mac) as right:
        with pytest.raises(MemoryObjectError, match="a mapped file.*MAP_MEM_NAMED_CREATE"):
            MemoryObject.from_right(right)
        assert not right.closed


def test_a_port_is_no_entry(mac: StandInKernel) -> None:
    """The kernel maps nothing for it. (Asked for a part of what is no entry, it would give one of this task's memory.)"""
    name = port(mac, send=1)
    with SendRight(name, mac) as right:
        with pytest.raises(MemoryObjectError, match="no memory that can be read: vm_map: KERN_INVALID_OBJECT"):
            MemoryObject.from_right(right)
    mac.mach_port_mod_refs(name, lib.MACH_PORT_RIGHT_RECEIVE, -1)


def test_an_entry_of_a_part_of_an_address_space_is_refused(mac: StandInKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have several objects behind it, and the one that was looked at says nothing of the others. The kernel gives
    no parts of such an entry."""
    with MemoryObject.create(PAGESIZE, mac) as memory, memory.right() as right:
        monkeypatch.setattr(mac.task.functions, "mach_make_memory_entry_64", lambda *_: lib.KERN_INVALID_ARGUMENT)
        with pytest.raises(MemoryObjectError, match="a part of an address space"):
            MemoryObject.from_right(right)


def test_the_entry_is_laid_over_a_mapping_of_pythons_own(mac: StandInKernel) -> None:
    """All of its pages and no more, and Python's close unmaps it."""
    with MemoryObject.create(2 * PAGESIZE + 1, mac) as memory:
        view = memory.map(writable=True)
        (where,) = [at for at, (size, _) in mac.task.functions.regions.items() if size == 3 * PAGESIZE]
        with open("/proc/self/maps") as maps:
            (line,) = [line for line in maps if line.startswith(f"{where:x}-{where + 3 * PAGESIZE:x} rw-s")]
        view.close()
        with open("/proc/self/maps") as maps:
            assert line not in maps.readlines()


def test_nothing_is_left_open(mac: StandInKernel) -> None:
    """A mapping of a memory entry costs no descriptor of the process's."""
    with MemoryObject.create(PAGESIZE, mac) as memory:
        before = len(os.listdir("/proc/self/fd"))
        with memory.map():
            assert len(os.listdir("/proc/self/fd")) == before
