"""One message within a process: beside the same two system calls in C."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from time import perf_counter_ns

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.conftest import Compare
from machrv import Disposition, Message, ReceiveRight, SendRight
from machrv.message import MACH_RCV_MSG, MACH_SEND_MSG

_PAIRS = 4000


@pytest.fixture
def port() -> Iterator[ReceiveRight]:
    with ReceiveRight.allocate() as port:
        yield port


@pytest.fixture
def right(port: ReceiveRight) -> Iterator[SendRight]:
    with port.make_send() as right:
        yield right


def by_objects(port: ReceiveRight, right: SendRight) -> Callable[[], object]:
    """One message as programs send it: `Message` objects and owned rights, an audit trailer, decoded."""
    message = Message(1)

    def send_and_receive() -> object:
        right.send(message)
        return port.receive()

    return send_and_receive


def by_kernel(port: ReceiveRight, right: SendRight) -> Callable[[], object]:
    """One message as bytes, through `Kernel.mach_msg`."""
    mach_msg, name = port.kernel.mach_msg, port.name
    image = Message(1).encode_to(right.name, Disposition.COPY_SEND)

    def send_and_receive() -> object:
        mach_msg(image, MACH_SEND_MSG)
        return mach_msg(None, MACH_RCV_MSG, None, name)

    return send_and_receive


@pytest.mark.parametrize("made", [by_objects, by_kernel])
def test_empty_message_within_a_process(
    benchmark: BenchmarkFixture, port: ReceiveRight, right: SendRight, made: Callable[..., Callable[[], object]]
) -> None:
    """Send and receive a message of 24 bytes."""
    benchmark(made(port, right))


@pytest.mark.parametrize("made", [by_objects, by_kernel])
@pytest.mark.parametrize("options", [["attested"], []], ids=["attested", "bare"])
def test_ratio_to_c(
    port: ReceiveRight,
    right: SendRight,
    made: Callable[..., Callable[[], object]],
    options: list[str],
    compiled: Callable[[str], str],
    compare: Compare,
) -> None:
    """The same beside sendmsg and recvmsg in C: over a socket as a right has it, and over one without options."""
    program = compiled("message")
    send_and_receive = made(port, right)

    def ours() -> float:
        for _ in range(_PAIRS // 10):
            send_and_receive()
        began = perf_counter_ns()
        for _ in range(_PAIRS):
            send_and_receive()
        return (perf_counter_ns() - began) / _PAIRS

    def in_c() -> float:
        return float(subprocess.check_output([program, *options, str(5 * _PAIRS)]))

    name = f"message within a process, {made.__name__}"
    assert compare(name, ours, f"C, {options[0] if options else 'no options'}", in_c) > 0
