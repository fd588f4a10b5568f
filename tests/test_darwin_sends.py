"""What a send that fails leaves behind on macOS: every right and all memory as before. Over the stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from struct import pack

import pytest

from machrv._mach import ffi, lib
from machrv.errors import MachError
from machrv.kernel.messages import RenamedError
from machrv.message import Disposition, Message, OutOfLineDescriptor, OutOfLinePortsDescriptor, PortDescriptor
from tests.standin.fixtures import PATIENCE, mac, port, receive, space
from tests.standin.kernel import StandInKernel

__all__ = ["mac"]

RECEIVE, SEND = lib.MACH_PORT_RIGHT_RECEIVE, lib.MACH_PORT_RIGHT_SEND
#: how a send can fail after it has taken what the message has
FAILURES = (lib.MACH_SEND_TIMED_OUT, lib.MACH_SEND_NO_BUFFER)


@pytest.fixture
def others() -> Iterator[list[StandInKernel]]:
    """Other tasks, that send rights lead to."""
    kernels: list[StandInKernel] = []
    yield kernels
    for kernel in kernels:
        kernel.close()


def other_port(mac: StandInKernel, others: list[StandInKernel], references: int = 1) -> int:
    """A send right whose receiver is somebody else: nothing but it is under the name."""
    others.append(StandInKernel())
    service = f"other.{id(others[-1])}"
    others[-1].bootstrap_check_in(service)
    send = mac.bootstrap_look_up(service)
    mac.mach_port_mod_refs(send, SEND, references - 1)
    return send


def right_for(mac: StandInKernel, others: list[StandInKernel], disposition: Disposition, references: int = 1) -> int:
    """A name that this disposition can be used on, with nothing else under it."""
    if disposition in (Disposition.MOVE_RECEIVE, Disposition.MAKE_SEND, Disposition.MAKE_SEND_ONCE):
        return port(mac)
    if disposition == Disposition.MOVE_SEND_ONCE:
        return mac.mach_port_extract_right(port(mac), Disposition.MAKE_SEND_ONCE)[0]
    return other_port(mac, others, references)


DISPOSITIONS = [
    Disposition.MOVE_RECEIVE,
    Disposition.MOVE_SEND,
    Disposition.MOVE_SEND_ONCE,
    Disposition.COPY_SEND,
    Disposition.MAKE_SEND,
    Disposition.MAKE_SEND_ONCE,
]


@pytest.mark.parametrize("count", [2, 3, 7])
def test_rights_that_came_back_in_each_others_places(mac: StandInKernel, count: int) -> None:
    """A name that was moved away is given out again, to the next one that comes back: each gets its own all the same."""
    destination = port(mac, send=1)
    moved = [port(mac) for _ in range(count)]
    before = space(mac)
    message = Message(7, b"", [PortDescriptor(name, Disposition.MOVE_RECEIVE) for name in moved])
    mac.task.functions.failing_sends.append(lib.MACH_SEND_TIMED_OUT)
    with pytest.raises(MachError) as raised:
        mac.mach_msg(message.encode_to(destination, Disposition.COPY_SEND), lib.MACH_SEND_MSG, timeout=0)
    assert type(raised.value) is MachError and space(mac) == before


@pytest.mark.parametrize("code", FAILURES, ids=["timed out", "no buffer"])
@pytest.mark.parametrize("disposition", DISPOSITIONS, ids=lambda disposition: disposition.name)
def test_a_failed_send_gives_every_right_back_under_its_name(
    mac: StandInKernel, others: list[StandInKernel], disposition: Disposition, code: int
) -> None:
    """In a descriptor, in an array of names, and with a second reference or none: all is as it was."""
    destination = port(mac, send=1)
    single, listed = right_for(mac, others, disposition), right_for(mac, others, disposition)
    before = space(mac)
    names = ffi.new("natural_t[]", [listed, 0, 0xFFFFFFFF])
    array = OutOfLinePortsDescriptor(
        disposition=disposition, address=int(ffi.cast("uintptr_t", names)), count=3, copy=lib.MACH_MSG_VIRTUAL_COPY
    )
    message = Message(7, b"body", [PortDescriptor(single, disposition), array])
    mac.task.functions.failing_sends.append(code)
    with pytest.raises(MachError) as raised:
        mac.mach_msg(message.encode_to(destination, Disposition.COPY_SEND), lib.MACH_SEND_MSG, timeout=0)
    assert raised.value.code == code and type(raised.value) is MachError
    assert space(mac) == before
    mac.mach_msg(message.encode_to(destination, Disposition.COPY_SEND), lib.MACH_SEND_MSG, timeout=0)
    received = receive(mac, destination).descriptors[1]
    assert isinstance(received, OutOfLinePortsDescriptor) and received.count == 3
    mac.vm_deallocate(received.address, 12)


@pytest.mark.parametrize("disposition", DISPOSITIONS[1:], ids=lambda disposition: disposition.name)
@pytest.mark.parametrize("references", [1, 2])
def test_a_failed_send_gives_the_header_s_rights_back(
    mac: StandInKernel, others: list[StandInKernel], disposition: Disposition, references: int
) -> None:
    """The destination and the reply right are as before, too, whether the last reference was moved or one of two."""
    reply = port(mac)
    destination = right_for(mac, others, disposition, references)
    before = space(mac)
    bits = disposition | Disposition.MAKE_SEND_ONCE << 8
    message = pack("=6I", bits, 24, destination, reply, 0, 1)
    mac.task.functions.failing_sends.append(lib.MACH_SEND_TIMED_OUT)
    with pytest.raises(MachError, match="MACH_SEND_TIMED_OUT"):
        mac.mach_msg(message, lib.MACH_SEND_MSG, timeout=0)
    assert space(mac) == before


def test_a_reply_port_stays_as_it_is_when_the_send_fails(mac: StandInKernel) -> None:
    """The kernel itself takes the send-once right of a reply port back: nothing is left to give up."""
    destination, reply = port(mac, send=1), mac.mach_reply_port()
    before = space(mac)
    message = pack("=6I", Disposition.COPY_SEND | Disposition.MAKE_SEND_ONCE << 8, 24, destination, reply, 0, 1)
    mac.task.functions.failing_sends.append(lib.MACH_SEND_TIMED_OUT)
    with pytest.raises(MachError, match="MACH_SEND_TIMED_OUT"):
        mac.mach_msg(message, lib.MACH_SEND_MSG, timeout=0)
    assert space(mac) == before


def test_memory_that_comes_back_is_given_back(mac: StandInKernel) -> None:
    """The kernel maps data anew when a send fails; the sender's own stays where it is, `deallocate` or not."""
    destination = port(mac, send=1)
    address = mac.task.functions.hand_out(b"x" * 5000)
    data = OutOfLineDescriptor(address=address, size=5000, deallocate=True, copy=lib.MACH_MSG_VIRTUAL_COPY)
    message = Message(7, b"", [data]).encode_to(destination, Disposition.COPY_SEND)
    mac.task.functions.failing_sends.append(lib.MACH_SEND_TIMED_OUT)
    with pytest.raises(MachError, match="MACH_SEND_TIMED_OUT"):
        mac.mach_msg(message, lib.MACH_SEND_MSG, timeout=0)
    assert list(mac.task.functions.memory) == [address]
    assert mac.vm_read(address, 5000) == b"x" * 5000
    mac.mach_msg(message, lib.MACH_SEND_MSG, timeout=0)
    assert mac.task.functions.memory == {}  # Sent with `deallocate`: gone.
    (received,) = receive(mac, destination).descriptors
    assert isinstance(received, OutOfLineDescriptor)
    assert mac.vm_read(received.address, received.size) == b"x" * 5000
    mac.vm_deallocate(received.address, received.size)


@pytest.mark.parametrize("copy", [lib.MACH_MSG_VIRTUAL_COPY, lib.MACH_MSG_PHYSICAL_COPY], ids=["virtual", "physical"])
@pytest.mark.parametrize("deallocate", [True, False])
def test_an_interrupted_send_goes_on_with_what_came_back(
    mac: StandInKernel, others: list[StandInKernel], copy: int, deallocate: bool
) -> None:
    """Signals come in between tries; the message arrives once, with every right, and no reference is left over."""
    destination, moved = port(mac, send=1), port(mac)
    copied = other_port(mac, others)
    before = space(mac)
    address = mac.task.functions.hand_out(b"memory")
    message = Message(
        7,
        b"body",
        [
            PortDescriptor(moved, Disposition.MOVE_RECEIVE),
            PortDescriptor(copied, Disposition.COPY_SEND),
            OutOfLineDescriptor(address=address, size=6, deallocate=deallocate, copy=copy),
        ],
    )
    mac.task.functions.failing_sends += [lib.MACH_SEND_INTERRUPTED] * 3
    mac.mach_msg(message.encode_to(destination, Disposition.COPY_SEND), lib.MACH_SEND_MSG, timeout=PATIENCE)
    received = receive(mac, destination)
    first, second, third = received.descriptors
    assert isinstance(first, PortDescriptor) and isinstance(second, PortDescriptor)
    assert isinstance(third, OutOfLineDescriptor) and mac.vm_read(third.address, third.size) == b"memory"
    mac.vm_deallocate(third.address, third.size)
    assert list(mac.task.functions.memory) == ([] if deallocate else [address])
    if not deallocate:
        mac.vm_deallocate(address, 6)
    assert mac.mach_port_type(first.name) == lib.MACH_PORT_TYPE_RECEIVE
    assert second.name == copied and mac.mach_port_get_refs(copied, SEND) == 2
    mac.mach_port_deallocate(copied)
    mac.mach_port_mod_refs(first.name, RECEIVE, -1)
    assert space(mac) == {name: entry for name, entry in before.items() if name != moved}


def test_a_send_interrupted_and_then_out_of_time_has_taken_nothing(mac: StandInKernel) -> None:
    """What came back from one try and was sent again comes back from the next: it is undone all the same."""
    destination, moved = port(mac, send=1), port(mac)
    before = space(mac)
    message = Message(7, b"", [PortDescriptor(moved, Disposition.MOVE_RECEIVE)])
    mac.task.functions.failing_sends += [lib.MACH_SEND_INTERRUPTED, lib.MACH_SEND_TIMED_OUT]
    with pytest.raises(MachError, match="MACH_SEND_TIMED_OUT"):
        mac.mach_msg(message.encode_to(destination, Disposition.COPY_SEND), lib.MACH_SEND_MSG, timeout=PATIENCE)
    assert space(mac) == before


def test_a_signal_handler_that_raises_ends_the_send(mac: StandInKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """KeyboardInterrupt between two tries: the message is not sent, and all is as it was."""
    destination, moved = port(mac, send=1), port(mac)
    before = space(mac)
    functions = mac.task.functions
    functions.failing_sends.append(lib.MACH_SEND_INTERRUPTED)
    real = functions.mach_msg

    def mach_msg(*arguments: int) -> int:
        if functions.calls:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(functions, "mach_msg", mach_msg)
    message = Message(7, b"", [PortDescriptor(moved, Disposition.MOVE_RECEIVE)])
    with pytest.raises(KeyboardInterrupt):
        mac.mach_msg(message.encode_to(destination, Disposition.COPY_SEND), lib.MACH_SEND_MSG)
    assert space(mac) == before


def test_a_right_whose_old_name_is_taken_is_told_where_it_is(
    mac: StandInKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread got the old name's place meanwhile: the error tells the new name, and nothing is lost."""
    destination, moved = port(mac, send=1), port(mac)
    monkeypatch.setattr(mac.task.functions, "mach_port_allocate_name", lambda *_: lib.KERN_FAILURE)
    mac.task.functions.failing_sends.append(lib.MACH_SEND_TIMED_OUT)
    message = Message(7, b"", [PortDescriptor(moved, Disposition.MOVE_RECEIVE)])
    with pytest.raises(RenamedError) as raised:
        mac.mach_msg(message.encode_to(destination, Disposition.COPY_SEND), lib.MACH_SEND_MSG, timeout=0)
    assert raised.value.code == lib.MACH_SEND_TIMED_OUT
    assert list(raised.value.renamed) == [moved]
    assert mac.mach_port_type(raised.value.renamed[moved]) == lib.MACH_PORT_TYPE_RECEIVE


@pytest.mark.parametrize("refused", ["header", "body"])
def test_what_the_kernel_refuses_is_not_undone(refused: str) -> None:
    """A message that is wrong was never put back: nobody gives up a right that is not there."""
    mac = StandInKernel()
    try:
        destination, moved = port(mac, send=1), port(mac)
        rights = [PortDescriptor(moved, Disposition.MOVE_RECEIVE), PortDescriptor(0x4242, Disposition.COPY_SEND)]
        message = Message(7, b"", rights).encode_to(destination if refused == "body" else 0, Disposition.COPY_SEND)
        with pytest.raises(MachError, match="INVALID_RIGHT" if refused == "body" else "INVALID_DEST"):
            mac.mach_msg(message, lib.MACH_SEND_MSG, timeout=0)
        assert mac.mach_port_get_refs(destination, SEND) == 1
        assert (moved in dict(mac.mach_port_names())) == (refused == "header")
    finally:
        mac.close()
