"""Messages to bytes and back: what a rendezvous sends."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from machrv import AuditToken, Disposition, Message, PortDescriptor, Trailer, four_char_code

_COUNTS = [0, 1, 5, 64]


def reply(count: int) -> Message:
    """A rendezvous reply with so many ports; without any, the request."""
    if not count:
        return Message(four_char_code("mrzv"), local_port=0x103, local_disposition=Disposition.MAKE_SEND_ONCE)
    body = b"".join(key.to_bytes(4, "little") for key in range(count)) + bytes(8)
    descriptors = [PortDescriptor(0x103 + 256 * key, Disposition.MOVE_SEND) for key in range(count)]
    return Message(four_char_code("MRZV"), body, descriptors)


@pytest.mark.parametrize("count", _COUNTS)
def test_encode(benchmark: BenchmarkFixture, count: int) -> None:
    """From a message that stands there as objects."""
    message = reply(count)
    assert Message.decode(benchmark(message.encode)) == message


@pytest.mark.parametrize("count", _COUNTS)
def test_decode(benchmark: BenchmarkFixture, count: int) -> None:
    """With an audit trailer, as a server or a client receives it."""
    message = reply(count)
    message.trailer = Trailer(0, (0, 0), AuditToken(pid=100, pidversion=1000))
    assert benchmark(Message.decode, message.encode()) == message
