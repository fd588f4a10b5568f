"""mach_msg on macOS: time, signals, buffers, and what a send that fails leaves behind. Over the stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from struct import pack

import pytest

from machrv._mach import ffi, lib
from machrv.errors import MachError
from machrv.kernel.darwin.messages import RenamedError
from machrv.message import Disposition, Message, OutOfLineDescriptor, OutOfLinePortsDescriptor, PortDescriptor
from tests.standin.kernel import StandInKernel

RECEIVE, SEND, SEND_ONCE = lib.MACH_PORT_RIGHT_RECEIVE, lib.MACH_PORT_RIGHT_SEND, lib.MACH_PORT_RIGHT_SEND_ONCE
AUDIT = lib.MACH_RCV_MSG | lib.MACH_RCV_TRAILER_AUDIT << 24
#: seconds that no test waits unless it fails
PATIENCE = 30.0
#: how a send can fail after it has taken what the message has
FAILURES = (lib.MACH_SEND_TIMED_OUT, lib.MACH_SEND_NO_BUFFER)

Space = dict[int, tuple[int, int, int]]


@pytest.fixture
def mac() -> Iterator[StandInKernel]:
    """A hardened task: a mistake about a right ends the test. Whatever it was handed has been given back in the end."""
    kernel = StandInKernel(hardened=True)
    yield kernel
    kernel.close()


def port(mac: StandInKernel, send: int = 0) -> int:
    """A receive right, with so many send references under the same name."""
    name = mac.mach_port_allocate(RECEIVE)
    for _ in range(send):
        mac.mach_port_insert_right(name, name, Disposition.MAKE_SEND)
    return name


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


def space(mac: StandInKernel) -> Space:
    """Every name: its types, its send references, its make-send count."""
    found = {}
    for name, bits in mac.mach_port_names():
        found[name] = bits, mac.mach_port_get_refs(name, SEND), mac.mach_port_get_refs(name, SEND_ONCE)
    return found


def right_for(mac: StandInKernel, others: list[StandInKernel], disposition: Disposition, references: int = 1) -> int:
    """A name that this disposition can be used on, with nothing else under it."""
    if disposition in (Disposition.MOVE_RECEIVE, Disposition.MAKE_SEND, Disposition.MAKE_SEND_ONCE):
        return port(mac)
    if disposition == Disposition.MOVE_SEND_ONCE:
        return mac.mach_port_extract_right(port(mac), Disposition.MAKE_SEND_ONCE)[0]
    return other_port(mac, others, references)


def receive(mac: StandInKernel, name: int) -> Message:
    data = mac.mach_msg(None, AUDIT, None, name, PATIENCE)
    assert data is not None
    return Message.decode(data)


DISPOSITIONS = [
    Disposition.MOVE_RECEIVE,
    Disposition.MOVE_SEND,
    Disposition.MOVE_SEND_ONCE,
    Disposition.COPY_SEND,
    Disposition.MAKE_SEND,
    Disposition.MAKE_SEND_ONCE,
]

# -- what a failed send leaves behind ---------------------------------------------------------------------------------


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
    """The kernel maps out-of-line data anew when a send fails; the sender's own stays where it is, `deallocate` or not."""
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
    """Another thread got a port in the old name's place meanwhile: the error tells the new name, and nothing is lost."""
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


# -- time and signals -------------------------------------------------------------------------------------------------


def test_every_wait_can_be_interrupted(mac: StandInKernel) -> None:
    """Both halves ask for interruption, with a deadline and without, and with no more options than were asked for."""
    name = port(mac, send=1)
    message = Message(1).encode_to(name, Disposition.COPY_SEND)
    send, receive = lib.MACH_SEND_MSG | lib.MACH_SEND_INTERRUPT, AUDIT | lib.MACH_RCV_INTERRUPT
    for timeout in (None, 0, PATIENCE):
        mac.task.functions.calls.clear()
        mac.mach_msg(message, lib.MACH_SEND_MSG | AUDIT, 100, name, timeout)
        timed = timeout is not None
        assert [option for option, _ in mac.task.functions.calls] == [
            send | lib.MACH_SEND_TIMEOUT * timed,
            receive | lib.MACH_RCV_TIMEOUT * timed,
        ]


def test_an_interrupted_receive_waits_for_the_rest(mac: StandInKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try is told what is left until the deadline, in ms and rounded up; a signal does not start it afresh."""
    now = [100.0]
    monkeypatch.setattr("machrv.kernel.darwin.messages.monotonic", lambda: now[0])
    functions = mac.task.functions
    answers = iter([(0.5, "MACH_RCV_INTERRUPTED"), (1.2, "MACH_RCV_INTERRUPTED"), (0.3999, "MACH_RCV_INTERRUPTED")])
    told: list[int] = []

    def mach_msg(msg: object, option: int, send: int, room: int, name: int, timeout: int, notify: int) -> int:
        told.append(timeout)
        passed, symbol = next(answers, (0.0, "MACH_RCV_TIMED_OUT"))
        now[0] += passed
        return int(getattr(lib, symbol))

    monkeypatch.setattr(functions, "mach_msg", mach_msg)
    with pytest.raises(MachError, match="MACH_RCV_TIMED_OUT"):
        mac.mach_msg(None, AUDIT, None, 1, 2.1)
    assert told == [2100, 1600, 400, 1]


def test_one_deadline_covers_the_send_and_the_receive(mac: StandInKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the send has used is not there for the receive; with nothing left, it looks once and does not wait."""
    now = [100.0]
    monkeypatch.setattr("machrv.kernel.darwin.messages.monotonic", lambda: now[0])
    told: list[int] = []

    def mach_msg(msg: object, option: int, send: int, room: int, name: int, timeout: int, notify: int) -> int:
        told.append(timeout)
        now[0] += 0.75
        return 0 if option & lib.MACH_SEND_MSG else int(lib.MACH_RCV_TIMED_OUT)

    monkeypatch.setattr(mac.task.functions, "mach_msg", mach_msg)
    for timeout, expected in ((1.0, [1000, 250]), (0.5, [500, 0]), (0, [0, 0]), (1e12, [0xFFFFFFFF, 0xFFFFFFFF])):
        told.clear()
        with pytest.raises(MachError, match="MACH_RCV_TIMED_OUT"):
            mac.mach_msg(bytes(24), lib.MACH_SEND_MSG | AUDIT, None, 1, timeout)
        assert told == expected


# -- buffers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 4, 4096 - 24 - 52, 4096 - 24 - 48, 4096, 60000, 300000])
def test_a_message_of_any_size_is_received(mac: StandInKernel, size: int) -> None:
    """The first try has room for most; for a larger one the second has room for it, within the same deadline."""
    name = port(mac, send=1)
    body = bytes(index % 251 for index in range(size))
    mac.mach_msg(Message(3, body).encode_to(name, Disposition.COPY_SEND), lib.MACH_SEND_MSG, timeout=0)
    mac.task.functions.calls.clear()
    message = receive(mac, name)
    assert message.body == body and message.audit_token == mac.audit_token()
    assert len(mac.task.functions.calls) == 1 + (24 + size + 52 > 4096)
    assert all(0 < timeout <= PATIENCE * 1000 for _, timeout in mac.task.functions.calls)


def test_a_larger_message_may_come_first_on_the_second_try(mac: StandInKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread took the message whose size was told, and what is next is larger still: there is a third try."""
    name = port(mac, send=1)
    functions = mac.task.functions
    for size in (8000, 16000):
        mac.mach_msg(Message(size, bytes(size)).encode_to(name, Disposition.COPY_SEND), lib.MACH_SEND_MSG, timeout=0)
    real = functions.mach_msg
    rooms: list[int] = []

    def mach_msg(msg: object, option: int, send: int, room: int, name: int, timeout: int, notify: int) -> int:
        rooms.append(room)
        if len(rooms) == 2:
            functions.kernel.mach_msg(None, AUDIT, None, name, 0)
        return real(msg, option, send, room, name, timeout, notify)

    monkeypatch.setattr(functions, "mach_msg", mach_msg)
    assert receive(mac, name).id == 16000
    assert len(rooms) == 3


def test_a_message_too_large_for_the_caller_is_destroyed_or_kept(mac: StandInKernel) -> None:
    """With MACH_RCV_LARGE it waits, and the error tells its size; without, it is gone, and what was in it."""
    name, moved = port(mac, send=1), port(mac)
    message = Message(1, bytes(200), [PortDescriptor(moved, Disposition.MOVE_RECEIVE)])
    mac.mach_msg(message.encode_to(name, Disposition.COPY_SEND), lib.MACH_SEND_MSG, timeout=0)
    with pytest.raises(MachError) as raised:
        mac.mach_msg(None, AUDIT | lib.MACH_RCV_LARGE, 100, name, 0)
    assert raised.value.code == lib.MACH_RCV_TOO_LARGE and raised.value.size == 24 + 4 + 12 + 200
    with pytest.raises(MachError) as raised:
        mac.mach_msg(None, AUDIT, 100, name, 0)
    assert raised.value.code == lib.MACH_RCV_TOO_LARGE and raised.value.size is None
    with pytest.raises(MachError, match="MACH_RCV_TIMED_OUT"):
        mac.mach_msg(None, AUDIT, 100, name, 0)
    assert set(space(mac)) == {name}


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, 1), (4, 0), (4, 51), (4, 56), (4, 0xFFFFFFFF), (-28, 23), (-28, 4000)],
    ids=["type", "no size", "too short", "beyond the buffer", "2^32-1", "msgh_size small", "msgh_size large"],
)
def test_a_trailer_that_is_not_what_was_asked_for_is_not_read(
    mac: StandInKernel, monkeypatch: pytest.MonkeyPatch, at: int, value: int
) -> None:
    """Its type or size is not what was asked for, or does not fit: the message is destroyed with all that it brought."""
    name, moved = port(mac, send=1), port(mac)
    before = space(mac)
    functions = mac.task.functions
    message = Message(1, b"", [PortDescriptor(moved, Disposition.COPY_SEND)])
    mac.mach_port_insert_right(moved, moved, Disposition.MAKE_SEND)
    mac.mach_msg(message.encode_to(name, Disposition.COPY_SEND), lib.MACH_SEND_MSG, timeout=0)
    mac.mach_port_deallocate(moved)
    real = functions.mach_msg
    room = 24 + 4 + 12 + 52

    def mach_msg(msg: object, option: int, send: int, size: int, name: int, timeout: int, notify: int) -> int:
        code = real(msg, option, send, size, name, timeout, notify)
        place = 4 if at < 0 else 40 + at
        ffi.memmove(ffi.cast("char *", msg) + place, pack("=I", value), 4)
        return code

    destroyed: list[int] = []

    def mach_msg_destroy(msg: object) -> None:
        ffi.cast("mach_msg_header_t *", msg).msgh_size = 40  # The kernel's, not what the test put there.
        destroyed.append(1)
        type(functions).mach_msg_destroy(functions, msg)

    monkeypatch.setattr(functions, "mach_msg", mach_msg)
    monkeypatch.setattr(functions, "mach_msg_destroy", mach_msg_destroy)
    with pytest.raises(MachError, match="MACH_RCV_INVALID_TRAILER"):
        mac.mach_msg(None, AUDIT, room, name, 0)
    assert destroyed == [1] and space(mac) == before


def test_without_a_message_nothing_is_sent(mac: StandInKernel) -> None:
    """MACH_SEND_MSG without a message is an error; neither half asked for is nothing at all."""
    with pytest.raises(MachError, match="MACH_SEND_INVALID_DATA"):
        mac.mach_msg(None, lib.MACH_SEND_MSG)
    assert mac.mach_msg(b"", 0) is None
    assert mac.task.functions.calls == []
