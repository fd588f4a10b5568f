"""Round trips over all messages: what hypothesis can think of, and what a hostile peer could make of it."""

from __future__ import annotations

from sys import byteorder
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from machrv.errors import MessageFormatError
from machrv.message import (
    AuditToken,
    GuardedPortDescriptor,
    Message,
    OutOfLineDescriptor,
    OutOfLinePortsDescriptor,
    PortDescriptor,
    Trailer,
)

settings.register_profile("machrv", max_examples=300, deadline=None)
settings.load_profile("machrv")

COMPLEX = 0x80000000

uint8, uint16, uint32, uint64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
int32 = st.integers(-(2**31), 2**31 - 1)

descriptors = st.one_of(
    st.builds(PortDescriptor, uint32, uint8, pad1=uint32, pad2=uint16),
    st.builds(PortDescriptor, uint32, uint8),
    st.builds(
        OutOfLineDescriptor,
        address=uint64,
        size=uint32,
        deallocate=uint8,
        copy=uint8,
        type=st.sampled_from([1, 3]),
        pad1=uint8,
    ),
    st.builds(
        OutOfLinePortsDescriptor,
        disposition=uint8,
        address=uint64,
        count=uint32,
        deallocate=uint8,
        copy=uint8,
    ),
    st.builds(GuardedPortDescriptor, uint32, uint8, context=uint64, flags=uint16),
)
tokens = st.builds(AuditToken, *[uint32] * 8)


@st.composite
def trailers(draw: Any) -> Trailer | None:
    count = draw(st.sampled_from([None, 0, 1, 2, 3, 4, 6]))
    fields = (uint32, st.tuples(uint32, uint32), tokens, uint64, int32, uint32)
    return None if count is None else Trailer(*(draw(field) for field in fields[:count]))


messages = st.builds(
    Message,
    int32,
    st.binary(max_size=100),
    st.lists(descriptors, max_size=8),
    bits=uint32,
    remote_port=uint32,
    local_port=uint32,
    voucher_port=uint32,
    trailer=trailers(),
)


def check(image: bytes) -> None:
    """Either the bytes are refused with a place and a reason, or they come back bit for bit."""
    try:
        message = Message.decode(image)
    except MessageFormatError as error:
        assert error.offset is not None
        assert 0 <= error.offset <= len(image)
    else:
        assert image == message.encode()
        assert repr(message)


@given(messages)
def test_a_message_comes_back_as_it_was(message: Message) -> None:
    """decode(encode(m)) == m."""
    image = message.encode()
    assert message == Message.decode(image)
    assert image == Message.decode(image).encode()


@given(messages, st.integers(0, 31))
def test_what_is_sent_is_what_was_meant(message: Message, disposition: int) -> None:
    """Sending changes the destination, the padding and the trailer, and nothing else."""
    sent = Message.decode(message.encode_to(0x903, disposition))
    assert (0x903, disposition, None) == (sent.remote_port, sent.remote_disposition, sent.trailer)
    assert message.body + bytes(-len(message.body) % 4) == sent.body
    assert message.descriptors == sent.descriptors
    assert message.bits & ~0x1F == sent.bits & ~0x1F


@given(messages, st.data())
def test_a_truncated_message_is_refused(message: Message, data: Any) -> None:
    """No prefix is taken for the message; only what stands before a trailer is a message of its own."""
    image = message.encode()
    size = data.draw(st.integers(0, len(image) - 1))
    if message.trailer is not None and size == int.from_bytes(image[4:8], byteorder):
        return
    with pytest.raises(MessageFormatError):
        Message.decode(image[:size])


@given(messages, st.data())
def test_a_tampered_message_is_refused_or_read_bit_for_bit(message: Message, data: Any) -> None:
    """encode(decode(b)) == b for whatever is left of a message after some of its bytes were changed."""
    image = bytearray(message.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, len(image) - 1))
        image[index] = data.draw(st.sampled_from([0, 1, 2, 3, 4, 5, 8, 0x7F, 0x80, 0xFF]) | uint8)
    check(bytes(image))


@given(st.binary(max_size=200), int32, uint32)
@example(b"", 0, COMPLEX)
@example(bytes(100), 0, COMPLEX)
def test_any_bytes_are_refused_or_read_bit_for_bit(tail: bytes, delta: int, bits: int) -> None:
    """A header with a true or nearly true size before any bytes whatever: an error, or all of them come back."""
    size = 24 + len(tail) + (delta % 256 - 128 if delta < 0 else 0)
    header = bits.to_bytes(4, byteorder) + (size & 0xFFFFFFFF).to_bytes(4, byteorder) + bytes(16)
    check(header + tail)
    check(tail)


@given(st.lists(descriptors, max_size=4), st.binary(max_size=40), uint32)
def test_a_count_that_lies_is_refused_or_read_bit_for_bit(found: list[Any], body: bytes, count: int) -> None:
    """Any count before any descriptors: those that do not fit are an error, the rest come back."""
    image = bytearray(Message(body=body, descriptors=found, bits=COMPLEX).encode())
    for lie in (count, count % 8):
        image[24:28] = lie.to_bytes(4, byteorder)
        check(bytes(image))
