"""Memory that processes share."""

from __future__ import annotations

from mmap import mmap

from typing_extensions import assert_type

from machrv import Kernel, MemoryObject, MemoryObjectError, ReadOnlyMemoryError, SendRight, current
from machrv.kernel.memory import MemoryCalls, MemoryFacts


def sharing(right: SendRight) -> None:
    """Made, filled, sealed, handed on; taken from a right, and read."""
    assert_type(MemoryObject.create(4096, current()), MemoryObject)
    with MemoryObject.from_bytes(b"contents") as memory:
        assert_type(memory, MemoryObject)
        assert_type(memory.size, int)
        assert_type((memory.sealed, memory.read_only, memory.closed), "tuple[bool, bool, bool]")
        memory.seal()
        assert_type(memory.right(read_only=True), SendRight)
    try:
        memory = MemoryObject.from_right(right, size=4096)
        assert_type(memory.map(writable=True), mmap)
    except ReadOnlyMemoryError as error:
        permission: PermissionError = error
        print(permission)
    except MemoryObjectError as error:
        value: ValueError = error
        print(value)
    memory.close()


def calls(kernel: Kernel, name: int) -> None:
    """What a kernel does for it."""
    memory = kernel.memory()
    assert_type(memory, MemoryCalls)
    facts = memory.examine(memory.create(4096), 4096)
    assert_type(facts, MemoryFacts)
    assert_type(facts.size, int)
    assert_type((facts.writable, facts.sealed), "tuple[bool, bool]")
    assert_type(memory.map(name, 4096, True), mmap)
    assert_type(memory.protect(name, for_ever=True), int)
    assert_type(memory.hand_on(name), int)
