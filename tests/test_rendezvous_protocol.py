"""Requests and replies, byte for byte; and everything that is none is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, strategies as st

from machrv import AuditToken, Disposition, Message, MessageFormatError, OutOfLineDescriptor, PortDescriptor, Trailer
from machrv.message import MACH_MSGH_BITS_COMPLEX, MACH_NOTIFY_SEND_ONCE
from machrv.rendezvous.protocol import (
    REPLY_ID,
    REQUEST_ID,
    REQUEST_SIZE,
    REQUEST_WITH_INFO_PLIST_ID,
    is_refusal,
    parse_reply,
    parse_request,
    reply,
    request,
)

PEER = AuditToken(euid=501, pid=4711, pidversion=7)
FROM_PEER = Trailer(0, (501, 20), PEER)
FROM_KERNEL = Trailer(0, (0, 0), AuditToken.KERNEL)
SEND = PortDescriptor(0x1003, Disposition.PORT_SEND)
RECEIVE = PortDescriptor(0x1103, Disposition.PORT_RECEIVE)


def received_request(**changes: object) -> Message:
    """A request as the server receives it."""
    fields = {"remote_port": 0x903, "remote_disposition": Disposition.PORT_SEND_ONCE, "trailer": FROM_PEER, **changes}
    return Message(REQUEST_ID, **fields)  # type: ignore[arg-type]


def received_reply(
    keys: tuple[int, ...], descriptors: tuple[object, ...], rest: bytes, *, trailer: Trailer | None = FROM_PEER
) -> Message:
    body = struct.pack(f"={len(keys)}I", *keys) + rest
    return Message(REPLY_ID, body, descriptors, bits=MACH_MSGH_BITS_COMPLEX, trailer=trailer)


NO_DATA = struct.pack("=Q", 0)


def test_the_ids_are_chromiums() -> None:
    """Four characters, the first in the highest byte."""
    assert (REQUEST_ID, REQUEST_WITH_INFO_PLIST_ID, REPLY_ID) == (0x6D727A76, 0x6D727A56, 0x4D525A56)
    assert REQUEST_SIZE == 24


def test_a_request_on_the_wire() -> None:
    """A bare header: remote MOVE_SEND, local MAKE_SEND_ONCE, nothing else."""
    wire = request(0x1507).encode_to(0x0E03, Disposition.MOVE_SEND)
    assert wire == struct.pack("=IIIIIi", 17 | 21 << 8, 24, 0x0E03, 0x1507, 0, 0x6D727A76)


def test_a_reply_on_the_wire() -> None:
    """Complex; count, descriptors, keys ascending, an unaligned length, data, zeros up to four bytes."""
    ports = {
        0x706F7274: PortDescriptor(0x1003, Disposition.MOVE_SEND),
        2: PortDescriptor(0x1103, Disposition.MAKE_SEND),
    }
    wire = reply(ports, b"<x/>!").encode_to(0x0903, Disposition.MOVE_SEND_ONCE)
    assert wire == (
        struct.pack("=IIIIIi", 18 | 0x8000_0000, 76, 0x0903, 0, 0, 0x4D525A56)
        + struct.pack("=I", 2)
        + struct.pack("=IIHBB", 0x1103, 0, 0, 20, 0)
        + struct.pack("=IIHBB", 0x1003, 0, 0, 17, 0)
        + struct.pack("=II", 2, 0x706F7274)
        + struct.pack("=Q", 5)
        + b"<x/>!\0\0\0"
    )


def test_an_empty_reply_on_the_wire() -> None:
    """No ports: still complex, with a count of 0 and the length."""
    wire = reply({}).encode_to(0x0903, Disposition.MOVE_SEND_ONCE)
    assert wire == struct.pack("=IIIIIiIQ", 18 | 0x8000_0000, 36, 0x0903, 0, 0, 0x4D525A56, 0, 0)


@pytest.mark.parametrize("count", [0, 1, 5, 128, 253])
@pytest.mark.parametrize("data", [b"", b"a", b"abcd", b"<plist/>" * 2000])
def test_what_one_end_writes_the_other_reads(count: int, data: bytes) -> None:
    """Any number of ports with any additional data come out as they went in."""
    ports = {key * 7: PortDescriptor(key + 1, Disposition.PORT_SEND) for key in range(count)}
    message = Message.decode(reply(ports, data).encode_to(0, 0))
    message.trailer = FROM_PEER
    assert parse_reply(message) == (ports, data)


def test_a_reply_without_ports_may_lack_the_complex_bit() -> None:
    """A kernel may take the bit from a message without descriptors; the count of 0 then stands in the body."""
    message = Message(REPLY_ID, bytes(4) + NO_DATA, trailer=FROM_PEER)
    assert parse_reply(message) == ({}, b"")


NOT_REPLIES = {
    "another id": Message(REPLY_ID + 1, NO_DATA, bits=MACH_MSGH_BITS_COMPLEX, trailer=FROM_PEER),
    "from the kernel": received_reply((), (), NO_DATA, trailer=FROM_KERNEL),
    "without a trailer": received_reply((), (), NO_DATA, trailer=None),
    "no keys": received_reply((), (SEND,), b""),
    "a key too few": received_reply((1,), (SEND, RECEIVE), b""),
    "half a length": received_reply((1,), (SEND,), bytes(4)),
    "data beyond the end": received_reply((1,), (SEND,), struct.pack("=Q", 5) + b"abcd"),
    "a length of 2**64 - 1": received_reply((1,), (SEND,), struct.pack("=Q", 2**64 - 1) + b"abcd"),
    "a key more": received_reply((1, 9), (SEND,), NO_DATA),
    "bytes behind": received_reply((1,), (SEND,), NO_DATA + bytes(4)),
    "padding that is not zero": received_reply((1,), (SEND,), struct.pack("=Q", 1) + b"a\0\1\0"),
    "no padding": received_reply((1,), (SEND,), struct.pack("=Q", 1) + b"a"),
    "the same key twice": received_reply((1, 1), (SEND, RECEIVE), NO_DATA),
    "keys that descend": received_reply((2, 1), (SEND, RECEIVE), NO_DATA),
    "memory in it": received_reply((1,), (OutOfLineDescriptor(b"x"),), NO_DATA),
    "not complex and no count": Message(REPLY_ID, b"", trailer=FROM_PEER),
    "not complex and a count": Message(REPLY_ID, struct.pack("=I", 1) + NO_DATA, trailer=FROM_PEER),
}


@pytest.mark.parametrize("message", NOT_REPLIES.values(), ids=NOT_REPLIES.keys())
def test_what_is_no_reply_is_refused(message: Message) -> None:
    """One rule broken each: a MessageFormatError, and no other."""
    with pytest.raises(MessageFormatError):
        parse_reply(message)


def test_a_reply_without_a_length_is_read() -> None:
    """Chromium before 2025 sends keys, and nothing behind them."""
    assert parse_reply(received_reply((), (), b"")) == ({}, b"")
    descriptors, additional_data = parse_reply(received_reply((1, 2), (SEND, RECEIVE), b""))
    assert list(descriptors) == [1, 2] and additional_data == b""


def test_every_truncation_of_a_reply_is_refused() -> None:
    """Cut anywhere in the body, a reply is none; but right behind the keys it is one of an older Chromium."""
    whole = reply({1: SEND, 2: RECEIVE}, b"data")
    for length in sorted({*range(len(whole.body))} - {8}):
        cut = Message(REPLY_ID, whole.body[:length], whole.descriptors, trailer=FROM_PEER)
        with pytest.raises(MessageFormatError):
            parse_reply(cut)


def test_a_request_is_known_by_its_form() -> None:
    """A bare header that can be answered once, from a process."""
    assert parse_request(Message.decode(received_request().encode())) == PEER


@pytest.mark.parametrize(
    "changes",
    [
        {"body": b"four"},
        {"descriptors": [SEND]},
        {"bits": MACH_MSGH_BITS_COMPLEX},
        {"remote_port": 0},
        {"remote_disposition": Disposition.PORT_SEND},
        {"remote_port": 0, "remote_disposition": 0},
        {"voucher_port": 0x77, "voucher_disposition": Disposition.PORT_SEND},
        {"trailer": None},
        {"trailer": FROM_KERNEL},
    ],
    ids=str,
)
def test_what_is_no_request_is_not_read_as_one(changes: dict[str, object]) -> None:
    """A body, a right, memory, no way or another way to answer, nobody who sent it."""
    with pytest.raises(MessageFormatError):
        parse_request(received_request(**changes))


def test_only_the_kernel_can_say_that_the_server_refused() -> None:
    """A SEND_ONCE notification that a process sent is a forgery."""
    assert is_refusal(Message(MACH_NOTIFY_SEND_ONCE, trailer=FROM_KERNEL))
    assert not is_refusal(Message(MACH_NOTIFY_SEND_ONCE, trailer=FROM_PEER))
    assert not is_refusal(Message(MACH_NOTIFY_SEND_ONCE))
    assert not is_refusal(Message(REPLY_ID, trailer=FROM_KERNEL))
