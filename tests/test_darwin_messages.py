"""mach_msg on macOS: time, signals, buffers. Over the stand-in."""

from __future__ import annotations

from struct import pack

import pytest

from machrv._mach import ffi, lib
from machrv.errors import MachError
from machrv.message import Disposition, Message, PortDescriptor
from tests.standin.fixtures import AUDIT, PATIENCE, mac, port, receive, space
from tests.standin.kernel import StandInKernel

__all__ = ["mac"]

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
    monkeypatch.setattr("machrv.kernel.messages.monotonic", lambda: now[0])
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
    monkeypatch.setattr("machrv.kernel.messages.monotonic", lambda: now[0])
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
    mac._buffers.clear()  # The one that it was sent from has room for it, too.
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
    mac._buffers.clear()  # The one that it was sent from has room for it, too.
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
    """Its type or size is not what was asked for, or does not fit: the message and its rights are destroyed."""
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
