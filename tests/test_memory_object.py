"""Memory objects: one process's bytes in another one, who owns what, and when memory can still be sealed."""

from __future__ import annotations

import os
import sys
import threading
from array import array
from collections.abc import Callable, Iterator
from mmap import PAGESIZE, mmap

import pytest

from machrv import (
    MachrvError,
    MemoryObject,
    MemoryObjectError,
    Message,
    ReadOnlyMemoryError,
    ReceiveRight,
    RendezvousServer,
    RightError,
    SendRight,
    launch,
    take_rights,
)
from machrv.message import MACH_PORT_RIGHT_SEND

from .conftest import PATIENCE, Program, finish
from .test_import_path import modules_after

SIZE = 3 * PAGESIZE


@pytest.fixture
def memory() -> Iterator[MemoryObject]:
    """Memory of a few pages."""
    with MemoryObject.create(SIZE) as memory:
        yield memory


def received(memory: MemoryObject, read_only: bool = False, size: int | None = None) -> MemoryObject:
    """The memory as somebody has it who was given a right to it."""
    return MemoryObject.from_right(memory.right(read_only), size)


def contents(memory: MemoryObject) -> bytes:
    """All of it."""
    with memory.map() as view:
        return view[:]


def write(memory: MemoryObject, at: int, data: bytes) -> None:
    """Through a mapping of its own."""
    with memory.map(writable=True) as view:
        view[at : at + len(data)] = data


# -- from process to process ------------------------------------------------------------------------------------------


def test_parent_and_child_share_memory(server: RendezvousServer, program: Program) -> None:
    """Registered for the child, taken by the child: each reads what the other one has written."""
    with MemoryObject.create(100_000) as memory, memory.map(writable=True) as view:
        view[:8] = b"question"
        child = launch(program("memory_object", "answer", memory.size), {"memo": memory.right()})
        assert finish(child) == 0
        assert view[-6:] == b"answer" and view[8:-6].count(0) == memory.size - 14


@pytest.mark.parametrize("how", ["sealed", "read_only"])
def test_a_child_that_may_only_read(server: RendezvousServer, program: Program, how: str) -> None:
    """Sealed before it left, or handed on to be read: the child sees it, and gets no mapping to write to."""
    with MemoryObject.from_bytes(b"for your eyes" + bytes(5000)) as memory:
        if how == "sealed":
            memory.seal()
        right = memory.right(read_only=how == "read_only")
        assert finish(launch(program("memory_object", "only_read", "for your eyes"), {"memo": right})) == 0


def test_memory_travels_in_a_message(memory: MemoryObject) -> None:
    """The right is sent as any other; the memory lives on though everything of the sender's is closed."""
    write(memory, 0, b"sent")
    with ReceiveRight.allocate() as port, port.make_send() as to:
        to.send(Message(1, descriptors=[memory.right()]))
        memory.close()
        (right,) = take_rights(port.receive(PATIENCE))
    assert isinstance(right, SendRight)
    with MemoryObject.from_right(right) as arrived:
        assert contents(arrived)[:4] == b"sent"


def test_a_right_that_nobody_took_leaves_nothing(memory: MemoryObject) -> None:
    """Destroyed in the queue of a port that goes. (The fixture counts.)"""
    with ReceiveRight.allocate() as port, port.make_send() as to:
        to.send(Message(1, descriptors=[memory.right()]))


# -- making it --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, PAGESIZE - 1, PAGESIZE, PAGESIZE + 1, 5_000_000])
def test_memory_begins_as_zeros(size: int) -> None:
    """As many as were asked for; the first and the last can be written to."""
    with MemoryObject.create(size) as memory:
        assert memory.size == size and not memory.read_only and not memory.sealed
        assert contents(memory) == bytes(size)
        write(memory, size - 1, b"e")
        with received(memory, size=size) as other:
            assert other.size == size and contents(other) == bytes(size - 1) + b"e"


@pytest.mark.parametrize("size", [0, -1, sys.maxsize + 1, 1 << 70])
def test_sizes_that_no_memory_has(memory: MemoryObject, size: int) -> None:
    """Refused when made, and as the claim of a sender, whose right stays the caller's."""
    with pytest.raises(MemoryObjectError, match=f"memory has 1 to .* bytes, not {size}"):
        MemoryObject.create(size)
    with memory.right() as right:
        with pytest.raises(MemoryObjectError, match=f"not {size}"):
            MemoryObject.from_right(right, size)
        assert not right.closed


def test_a_size_is_an_integer() -> None:
    """Anything else is a TypeError, as everywhere in Python."""
    for size in (None, "4096", 1.5):
        with pytest.raises(TypeError):
            MemoryObject.create(size)  # type: ignore[arg-type]


def test_more_than_this_process_can_see_at_once() -> None:
    """The system refuses to make it or to map it: a MachError that tells the size."""
    with pytest.raises(MachrvError, match=str(1 << 62)):
        with MemoryObject.create(1 << 62) as memory:
            memory.map()


@pytest.mark.parametrize(
    "data",
    [b"bytes", bytearray(b"bytearray"), array("d", [1.5, 2.5]), memoryview(b"every other one")[::2], b"x" * 1_000_000],
    ids=["bytes", "bytearray", "array", "not contiguous", "many"],
)
def test_a_copy_of_bytes(data: bytes) -> None:
    """Of whatever has a buffer; it is a copy, and can be written to until it is sealed."""
    expected = memoryview(data).tobytes()
    with MemoryObject.from_bytes(data) as memory:
        assert memory.size == len(expected) and contents(memory) == expected
        write(memory, 0, b"X")
        assert memoryview(data).tobytes() == expected


def test_nothing_to_copy() -> None:
    """No bytes are no memory; what has no buffer is a TypeError."""
    with pytest.raises(MemoryObjectError, match="not 0"):
        MemoryObject.from_bytes(b"")
    with pytest.raises(TypeError):
        MemoryObject.from_bytes("text")  # type: ignore[arg-type]


# -- seeing it --------------------------------------------------------------------------------------------------------


def test_mappings_show_the_same_bytes(memory: MemoryObject) -> None:
    """What is written through one is read through the others, at once; one to read refuses to be written to."""
    with memory.map(writable=True) as first, memory.map(writable=True) as second, memory.map() as reader:
        assert type(first) is mmap
        first[10:15] = b"first"
        memoryview(second)[PAGESIZE] = 7
        assert reader[10:15] == b"first" and first[PAGESIZE] == reader[PAGESIZE] == 7
        with pytest.raises(TypeError):
            reader[0] = 1
        assert memoryview(reader).readonly and not memoryview(first).readonly


def test_numpy_sees_it_without_a_copy(memory: MemoryObject) -> None:
    """An array is a view; one of memory to read cannot be made writable; while it lives, the mapping stays."""
    numpy = pytest.importorskip("numpy")
    view, reader = memory.map(writable=True), memory.map()
    numbers = numpy.frombuffer(view, dtype=numpy.uint32)
    same = numpy.frombuffer(reader, dtype=numpy.uint32)
    numbers[:] = numpy.arange(len(numbers))
    assert same[-1] == SIZE // 4 - 1 and (same == numbers).all()
    with pytest.raises(ValueError):
        same.flags.writeable = True
    with pytest.raises(BufferError):
        view.close()
    numbers[0] = 5
    assert same[0] == 5
    del numbers, same
    view.close()
    reader.close()


def test_a_mapping_that_is_looked_at_does_not_close(memory: MemoryObject) -> None:
    """BufferError, as Python's own mmap has it, for a view and for a part of one; nothing has happened."""
    view = memory.map(writable=True)
    part = memoryview(view)[5:10]
    with pytest.raises(BufferError):
        view.close()
    part[:] = b"still"
    part.release()
    view.close()
    assert contents(memory)[5:10] == b"still"


def test_a_mapping_lives_on_after_its_memory_object(memory: MemoryObject) -> None:
    """And after the right, and after every other mapping: it alone keeps the pages."""
    view = memory.map(writable=True)
    other = received(memory)
    memory.close()
    view[:4] = b"here"
    assert contents(other)[:4] == b"here"
    other.close()
    assert view[:5] == b"here\0"
    view.close()


def test_a_mapping_that_is_forgotten_goes(memory: MemoryObject) -> None:
    """It does not stand in the way of sealing, either."""
    view = memory.map(writable=True)
    view[:4] = b"gone"
    del view
    memory.seal()
    assert contents(memory)[:4] == b"gone"


# -- sealing it -------------------------------------------------------------------------------------------------------


def test_sealed_memory_cannot_be_written_to(memory: MemoryObject) -> None:
    """Neither by who sealed it nor by who gets it; sealing again is nothing."""
    write(memory, 0, b"fixed")
    memory.seal()
    memory.seal()
    assert memory.sealed and memory.read_only
    with received(memory) as other:
        for one in (memory, other):
            assert one.read_only and contents(one)[:5] == b"fixed"
            with pytest.raises(ReadOnlyMemoryError, match="Map it with writable=False") as caught:
                one.map(writable=True)
            assert isinstance(caught.value, PermissionError) and isinstance(caught.value, MemoryObjectError)
        with received(other) as third:
            assert third.read_only


@pytest.mark.parametrize("writable", [False, True], ids=["to read", "to write"])
def test_memory_that_is_mapped_is_not_sealed(memory: MemoryObject, writable: bool) -> None:
    """An error that says what to do; after that, it works."""
    view = memory.map(writable=writable)
    with pytest.raises(MemoryObjectError, match="close its mappings first"):
        memory.seal()
    assert not memory.sealed and not memory.read_only
    view.close()
    memory.seal()


def test_one_writes_and_the_others_read(memory: MemoryObject) -> None:
    """Handed on to be read only: the mapping from before writes on, and no new one does, anywhere."""
    with memory.map(writable=True) as view:
        with received(memory, read_only=True) as other, other.map() as reader:
            view[:5] = b"later"
            assert reader[:5] == b"later"
            for one in (memory, other):
                assert one.read_only and not one.sealed
                with pytest.raises(ReadOnlyMemoryError):
                    one.map(writable=True)
            with received(memory) as third:
                assert third.read_only


def test_what_was_handed_on_is_settled(memory: MemoryObject) -> None:
    """Once others may write, nobody can take that back: neither who made the memory nor who got it."""
    with received(memory) as other:
        for one in (memory, other):
            with pytest.raises(MemoryObjectError, match="was settled when it left"):
                one.seal()
            with pytest.raises(MemoryObjectError, match=r"Seal it before the first `right\(\)`"):
                one.right(read_only=True)
            assert not one.read_only and not one.sealed
        write(other, 0, b"theirs")
        assert contents(memory)[:6] == b"theirs"


def test_no_mapping_slips_past_the_seal() -> None:
    """Threads that map while another one seals: each has its mapping before, or is refused."""
    for _ in range(50):
        with MemoryObject.create(PAGESIZE) as memory:
            views: list[mmap] = []
            refusals: list[BaseException] = []

            def attempt(call: Callable[[], mmap | None]) -> None:
                try:
                    view = call()
                    if view is not None:
                        views.append(view)
                except MemoryObjectError as error:
                    refusals.append(error)

            calls = [lambda: memory.map(writable=True), memory.seal, lambda: memory.map(writable=True)]
            threads = [threading.Thread(target=attempt, args=(call,)) for call in calls]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
            assert memory.sealed == (not views) == (len(refusals) == 2), (views, refusals)
            for view in views:
                view.close()


# -- who owns what ----------------------------------------------------------------------------------------------------


def test_a_right_that_is_taken_is_the_objects(memory: MemoryObject) -> None:
    """It is spent, and its reference is given up with the object; one that is refused stays the caller's."""
    right = memory.right()
    name, kernel = right.name, right.kernel
    references = kernel.mach_port_get_refs(name, MACH_PORT_RIGHT_SEND)
    other = MemoryObject.from_right(right)
    assert right.closed and kernel.mach_port_get_refs(name, MACH_PORT_RIGHT_SEND) == references
    with pytest.raises(RightError):
        MemoryObject.from_right(right)
    other.close()
    other.close()
    assert other.closed and repr(other) == f"<MemoryObject of {SIZE} bytes, spent>"
    assert kernel.mach_port_get_refs(name, MACH_PORT_RIGHT_SEND) == references - 1


def test_a_right_that_is_no_memory(memory: MemoryObject) -> None:
    """One to a port, living or dead, and rights of other kinds: refused, and still the caller's."""
    with ReceiveRight.allocate() as port, port.make_send() as right, port.make_send_once() as once:
        with pytest.raises(MemoryObjectError, match="Ask the sender for a MemoryObject"):
            MemoryObject.from_right(right)
        for other in (port, once, memory, None):
            with pytest.raises(RightError, match="memory comes as a SendRight"):
                MemoryObject.from_right(other)  # type: ignore[arg-type]
        assert not right.closed and not port.closed and not once.closed
        port.close()
        with pytest.raises(MemoryObjectError):
            MemoryObject.from_right(right)
        assert not right.closed


def test_a_claim_is_checked_against_what_came(memory: MemoryObject) -> None:
    """More than came is refused, and the right stays the caller's; of less, only that is shown."""
    write(memory, 0, b"as much as this")
    with memory.right() as right:
        for claimed in (SIZE + 1, 100 * SIZE, sys.maxsize):
            with pytest.raises(MemoryObjectError, match=f"speaks of {claimed} bytes, and {SIZE} came"):
                MemoryObject.from_right(right, claimed)
        assert not right.closed
        with MemoryObject.from_right(right, 7) as part:
            assert part.size == 7 and contents(part) == b"as much"
    with received(memory) as all_of_it:
        assert all_of_it.size == SIZE


def test_after_close_there_is_nothing_to_map(memory: MemoryObject) -> None:
    """RightError from everything that needs the right."""
    memory.close()
    for call in (memory.map, memory.seal, memory.right):
        with pytest.raises(RightError, match="this MemoryObject is spent"):
            call()
    assert memory.size == SIZE


def test_a_forgotten_object_is_closed_with_a_warning() -> None:
    """Its mappings are not."""
    memory = MemoryObject.create(SIZE)
    view = memory.map(writable=True)
    with pytest.warns(ResourceWarning, match=f"<MemoryObject of {SIZE} bytes, writable> was forgotten"):
        del memory
    view[:] = b"x" * SIZE
    view.close()


def test_fork_shares_mappings_and_no_rights(memory: MemoryObject) -> None:
    """As on Mach: the child's object is spent, the child's mapping is the parent's memory."""
    with memory.map(writable=True) as view:
        pid = os.fork()
        if not pid:
            try:
                memory.map()
            except RightError:
                view[:5] = b"child"
            memory.close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert view[:5] == b"child"
    assert not memory.closed


def test_who_has_no_memory_object_pays_nothing() -> None:
    """A child that shares no memory does not load it."""
    loaded = modules_after("from machrv import RendezvousClient; from machrv.kernel import current; current()")
    assert not {name for name in loaded if "memory" in name or name == "mmap"}
