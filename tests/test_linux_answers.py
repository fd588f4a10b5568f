"""What XNU answers where few programs ask: the calls in C, their arguments at the edges (xnu-7195 and xnu-11417, osfmk/ipc)."""

from __future__ import annotations

import os
from typing import Any

import pytest

from machrv._mach import ffi, lib
from machrv.errors import MachError
from machrv.kernel.linux import LinuxKernel
from machrv.message import (
    Disposition,
    GuardedPortDescriptor,
    Message,
    OutOfLineDescriptor,
    OutOfLinePortsDescriptor,
    PortDescriptor,
)

from .linux_tasks import bootstrap, nursery, peer, task  # noqa: F401 (fixtures)
from .linux_tasks import Peer, allocate, code_of, end, introduce, nothing_waits, receive, request, send

MAKE_SEND, COPY_SEND, MOVE_RECEIVE = Disposition.MAKE_SEND, Disposition.COPY_SEND, Disposition.MOVE_RECEIVE
RECEIVE, SEND = lib.MACH_PORT_TYPE_RECEIVE, lib.MACH_PORT_TYPE_SEND
SUCCESS = lib.KERN_SUCCESS
NOBODY, NEVER = 0xFFFFFFFF, 0x770003


def attributes(task: LinuxKernel, name: int, flavor: int, count: int) -> tuple[int, int, list[int]]:
    """(code, how many words were told, the words)."""
    info, told = ffi.new("integer_t[]", 40), ffi.new("mach_msg_type_number_t *", count)
    code = lib.mach_port_get_attributes(task._task, name, flavor, info, told)
    return code, told[0], list(info)


def flags_of(task: LinuxKernel, name: int) -> int:
    status: Any = task.mach_port_get_attributes(name, lib.MACH_PORT_RECEIVE_STATUS)
    return int(status.flags)


@pytest.mark.parametrize("name, code", [(0, "NAME"), (NOBODY, "NAME"), (NEVER, "NAME")])
def test_the_guard_of_no_name(task: LinuxKernel, name: int, code: str) -> None:
    """KERN_INVALID_NAME, of null and dead names too; of a context those are KERN_INVALID_RIGHT."""
    assert code_of(task.mach_port_guard, name, 1) == lib.KERN_INVALID_NAME
    assert code_of(task.mach_port_unguard, name, 1) == lib.KERN_INVALID_NAME
    wanted = lib.KERN_INVALID_NAME if name == NEVER else lib.KERN_INVALID_RIGHT
    assert code_of(task.mach_port_set_context, name, 1) == wanted


def test_immovable_is_what_a_guarded_port_is(task: LinuxKernel) -> None:
    """MPO_IMMOVABLE_RECEIVE counts with MPO_CONTEXT_AS_GUARD alone: without it the port can be moved."""
    port = allocate(task)
    task.mach_port_insert_right(port, port, MAKE_SEND)
    both = lib.MPO_CONTEXT_AS_GUARD | lib.MPO_IMMOVABLE_RECEIVE
    fixed, loose = task.mach_port_construct(both, context=7), task.mach_port_construct(lib.MPO_IMMOVABLE_RECEIVE)
    guarded = lib.MACH_PORT_STATUS_FLAG_GUARDED | lib.MACH_PORT_STATUS_FLAG_GUARD_IMMOVABLE_RECEIVE
    assert flags_of(task, fixed) == guarded and flags_of(task, loose) == 0
    task.mach_port_unguard(fixed, 7)
    assert flags_of(task, fixed) == 0  # and it cannot be moved for all that
    moving = [PortDescriptor(fixed, MOVE_RECEIVE)]
    assert code_of(send, task, port, 1, descriptors=moving) == lib.MACH_SEND_INVALID_RIGHT
    send(task, port, 1, descriptors=[PortDescriptor(loose, MOVE_RECEIVE)])
    assert code_of(task.mach_port_type, loose) == lib.KERN_INVALID_NAME
    end(task, fixed)
    task.mach_port_destroy(port)


@pytest.mark.parametrize(
    "flags, code",
    [
        (lib.MPO_REPLY_PORT | lib.MPO_EXCEPTION_PORT, lib.KERN_INVALID_ARGUMENT),
        (lib.MPO_SERVICE_PORT | lib.MPO_CONNECTION_PORT, lib.KERN_INVALID_ARGUMENT),
        (lib.MPO_CONNECTION_PORT, lib.KERN_INVALID_ARGUMENT),
        (lib.MPO_SERVICE_PORT, lib.KERN_DENIED),
        (lib.MPO_TG_BLOCK_TRACKING, lib.KERN_DENIED),
    ],
)
def test_ports_that_are_not_for_everybody(task: LinuxKernel, flags: int, code: int) -> None:
    """Those of launchd, its services and the window server; two kinds at once are none."""
    assert code_of(task.mach_port_construct, flags) == code
    assert task.mach_port_names() == []


def test_importance_is_kept_and_told(task: LinuxKernel) -> None:
    """It has no consequence here, but whoever asks for it is not refused."""
    donates = lib.MACH_PORT_STATUS_FLAG_IMP_DONATION
    owned = donates | lib.MACH_PORT_STATUS_FLAG_TEMPOWNER
    for flag, wanted in (
        (lib.MPO_TEMPOWNER, owned),
        (lib.MPO_IMPORTANCE_RECEIVER, donates),
        (lib.MPO_DENAP_RECEIVER, donates),
    ):
        name = task.mach_port_construct(flag)
        assert flags_of(task, name) == wanted
        end(task, name)
    name = allocate(task)
    for flavor, wanted in ((lib.MACH_PORT_DENAP_RECEIVER, donates), (lib.MACH_PORT_TEMPOWNER, owned)):
        assert lib.mach_port_set_attributes(task._task, name, flavor, ffi.NULL, 0) == SUCCESS
        assert flags_of(task, name) == wanted
    assert lib.mach_port_set_attributes(task._task, 0, flavor, ffi.NULL, 0) == lib.KERN_INVALID_RIGHT
    end(task, name)


def test_every_flavor_of_attributes(task: LinuxKernel) -> None:
    """Too few words: KERN_FAILURE; another flavor: KERN_INVALID_ARGUMENT; of no name, limits and requests are nothing."""
    name = allocate(task)
    limits, status, requests, extended = (
        lib.MACH_PORT_LIMITS_INFO,
        lib.MACH_PORT_RECEIVE_STATUS,
        lib.MACH_PORT_DNREQUESTS_SIZE,
        lib.MACH_PORT_INFO_EXT,
    )
    for flavor, words in ((limits, 1), (status, 10), (requests, 1), (extended, 17)):
        assert attributes(task, name, flavor, 40)[:2] == (SUCCESS, words)
        assert attributes(task, name, flavor, words - 1)[0] == lib.KERN_FAILURE
    assert attributes(task, name, extended, 17)[2][:17] == [0, 0, 0, 5] + [0] * 13
    assert attributes(task, name, lib.MACH_PORT_TEMPOWNER, 40)[0] == lib.KERN_INVALID_ARGUMENT
    assert attributes(task, 0, limits, 1)[:2] == (SUCCESS, 0)
    assert attributes(task, NOBODY, requests, 1)[:2] == (SUCCESS, 1)
    assert attributes(task, 0, status, 10)[0] == attributes(task, 0, extended, 17)[0] == lib.KERN_INVALID_RIGHT
    assert lib.mach_port_set_attributes(task._task, name, requests, ffi.new("integer_t *"), 1) == SUCCESS
    assert lib.mach_port_set_attributes(task._task, name, status, ffi.NULL, 0) == lib.KERN_INVALID_ARGUMENT
    end(task, name)


def test_a_port_in_two_sets_is_in_a_set(task: LinuxKernel) -> None:
    """The status says that, and not in how many."""
    name = allocate(task)
    sets = [task.mach_port_allocate(lib.MACH_PORT_RIGHT_PORT_SET) for _ in range(2)]
    for each in sets:
        task.mach_port_insert_member(name, each)
    status: Any = task.mach_port_get_attributes(name, lib.MACH_PORT_RECEIVE_STATUS)
    assert status.pset == 1
    for each in (name, *sets):
        task.mach_port_destroy(each)


def test_a_look_at_the_queue_tells_who_sent(task: LinuxKernel, peer: Peer) -> None:
    """Whole of one's own message; of another process its ids, and no pidversion: that is known once it is received."""
    own, (theirs, to) = allocate(task), introduce(task, peer)
    task.mach_port_insert_right(own, own, MAKE_SEND)
    send(task, own, 1)
    send(peer, to, 2, bytes(100))
    elements = 3 << 24
    words = [list(ffi.from_buffer("unsigned[]", task.mach_port_peek(name, elements)[3])) for name in (own, theirs)]
    assert words[0][5:13] == list(task.audit_token())
    assert words[1][3:5] == [os.geteuid(), os.getegid()]
    assert words[1][5:13] == [NOBODY, os.getuid(), os.getgid(), os.getuid(), os.getgid(), peer.pid, 0, 0]
    assert task.mach_port_peek(theirs)[1:3] == (124, 2)
    told = ffi.new("mach_msg_type_number_t *", 100), ffi.new("char[]", 100)
    outs = ffi.new("mach_port_seqno_t *"), ffi.new("mach_msg_size_t *"), ffi.new("mach_msg_id_t *")
    assert lib.mach_port_peek(task._task, own, 4 << 24, *outs, told[1], told[0]) == lib.KERN_INVALID_VALUE
    assert lib.mach_port_peek(task._task, own, 0, *outs, told[1], told[0]) == SUCCESS
    assert outs[1][0] == 24 + 8  # as in xnu-11417, tests/ipc/port_peek.c
    for name in (own, theirs):
        task.mach_port_destroy(name)
    peer.mach_port_deallocate(to)


def test_a_full_queue_of_ones_own_tells_of_room_later(task: LinuxKernel) -> None:
    """MACH_NOTIFY_SEND_POSSIBLE with sync: at once where there is room, and not before there is."""
    port, inbox = allocate(task), allocate(task)
    task.mach_port_insert_right(port, port, MAKE_SEND)
    request(task, port, lib.MACH_NOTIFY_SEND_POSSIBLE, inbox, sync=1)
    assert receive(task, inbox, 0).id == lib.MACH_NOTIFY_SEND_POSSIBLE
    sent = 0
    with pytest.raises(MachError, match="MACH_SEND_TIMED_OUT"):
        for sent in range(100_000):
            send(task, port, sent, timeout=0)
    request(task, port, lib.MACH_NOTIFY_SEND_POSSIBLE, inbox, sync=1)
    assert nothing_waits(task, inbox)
    for _ in range(sent):
        receive(task, port, 0)
    assert receive(task, inbox, 0).id == lib.MACH_NOTIFY_SEND_POSSIBLE
    for name in (port, inbox):
        task.mach_port_destroy(name)


def test_memory_that_was_given_away_with_a_message_that_fails_is_gone(task: LinuxKernel) -> None:
    """What stands before the descriptor that is refused is destroyed with the message; what stands behind it is not."""
    port = allocate(task)
    task.mach_port_insert_right(port, port, MAKE_SEND)
    before, names, behind = (task.vm_allocate(4096) for _ in range(3))
    task.vm_write(names, port.to_bytes(4, "little"))
    bad = PortDescriptor(NEVER, COPY_SEND)
    kinds = [OutOfLineDescriptor(b""), OutOfLinePortsDescriptor((), COPY_SEND), bad, OutOfLineDescriptor(b"")]
    data = bytearray(Message(1, descriptors=kinds, remote_port=port, remote_disposition=COPY_SEND).encode())
    for at, address, size in ((28, before, 4096), (44, names, 1), (72, behind, 4096)):
        data[at : at + 8] = address.to_bytes(8, "little")
        data[at + 8] = 1  # deallocate
        data[at + 12 : at + 16] = size.to_bytes(4, "little")
    message = ffi.from_buffer("mach_msg_header_t *", data)
    sending = lib.machrv_msg(task._task, message, lib.MACH_SEND_MSG, len(data), 0, 0, 0, 0)
    assert sending & 0xFFFFFFFF == lib.MACH_SEND_INVALID_RIGHT
    assert code_of(task.vm_read, before, 1) == code_of(task.vm_read, names, 1) == lib.KERN_INVALID_ADDRESS
    assert task.vm_read(behind, 4096) == bytes(4096)
    task.vm_deallocate(behind, 4096)
    task.mach_port_destroy(port)


def test_the_flags_of_a_guarded_right_that_is_not_immovable(task: LinuxKernel, peer: Peer) -> None:
    """It arrives without a guard, and the descriptor says how it was sent: as ipc_right_copyout leaves it."""
    port, to = introduce(task, peer)
    theirs = allocate(peer)
    flags = lib.MACH_MSG_GUARD_FLAGS_UNGUARDED_ON_SEND
    send(peer, to, descriptors=[GuardedPortDescriptor(theirs, MOVE_RECEIVE, flags=flags)])
    data = task.mach_msg(None, lib.MACH_RCV_MSG | lib.MACH_RCV_GUARDED_DESC, None, port, 0)
    assert data is not None
    (descriptor,) = Message.decode(data).descriptors
    assert isinstance(descriptor, GuardedPortDescriptor) and (descriptor.flags, descriptor.context) == (flags, 0)
    assert flags_of(task, descriptor.name) == 0
    end(task, descriptor.name)
    peer.mach_port_deallocate(to)
    end(task, port)
