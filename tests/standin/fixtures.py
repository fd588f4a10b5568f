"""What the tests of the macOS kernel stand on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from machrv._mach import lib
from machrv.message import Disposition, Message

from .kernel import StandInKernel

AUDIT: int = lib.MACH_RCV_MSG | lib.MACH_RCV_TRAILER_AUDIT << 24
#: seconds that no test waits unless it fails
PATIENCE = 30.0

Space = dict[int, tuple[int, int, int]]


@pytest.fixture
def mac() -> Iterator[StandInKernel]:
    """A hardened task: a mistake about a right ends the test. Whatever it was handed has been given back in the end."""
    kernel = StandInKernel(hardened=True)
    yield kernel
    kernel.close()


def port(mac: StandInKernel, send: int = 0) -> int:
    """A receive right, with so many send references under the same name."""
    name = mac.mach_port_allocate(lib.MACH_PORT_RIGHT_RECEIVE)
    for _ in range(send):
        mac.mach_port_insert_right(name, name, Disposition.MAKE_SEND)
    return name


def space(mac: StandInKernel) -> Space:
    """Every name: its types, its send references, its send-once right."""
    found = {}
    for name, bits in mac.mach_port_names():
        once = mac.mach_port_get_refs(name, lib.MACH_PORT_RIGHT_SEND_ONCE)
        found[name] = bits, mac.mach_port_get_refs(name, lib.MACH_PORT_RIGHT_SEND), once
    return found


def receive(mac: StandInKernel, name: int) -> Message:
    data = mac.mach_msg(None, AUDIT, None, name, PATIENCE)
    assert data is not None
    return Message.decode(data)
