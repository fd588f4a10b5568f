"""One message, sent and received: within a process, to another process and back, and with rights that are made for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import pytest

from bench.conftest import Held
from bench.measure import HERE, worker

_HEADER = 24
_KIB = 1024
#: by name, the size of the body: that of a message is 24 more, and that is what C and Pipe send too
SIZES = {"0 bytes": 0, "1 KiB": _KIB - _HEADER, "64 KiB": 64 * _KIB - _HEADER, "1 MiB": _KIB * _KIB - _HEADER}
#: what one packet of a socket holds, and so how far bench/c/message.c goes
ONE_PACKET = 128 * _KIB
PYTHON = [sys.executable, str(HERE / "programs" / "message.py")]


def _held(held: Held, group: str, name: str, commands: Mapping[str, Sequence[str]]) -> None:
    with ExitStack() as stack:
        sides = {side: stack.enter_context(worker(command)) for side, command in commands.items()}
        held(group, name, sides, seconds=0.05)


@pytest.mark.parametrize("name", SIZES)
def test_there_and_back(held: Held, compiled: Callable[[str], str], placement: str, name: str) -> None:
    """A `Message` to another process, and one back."""
    size = SIZES[name]
    commands = {
        "machrv": [*PYTHON, "machrv", "between", str(size), "0"],
        "Pipe": [*PYTHON, "Pipe", "between", str(size), "0"],
        "mach_msg in C": [compiled("mach_msg"), "between", str(_HEADER + size), "0"],
    }
    if size < ONE_PACKET:
        commands["C, attested"] = [compiled("message"), "between", "attested", str(_HEADER + size), "0"]
    _held(held, "there and back", f"{name}, {placement}", commands)


@pytest.mark.parametrize("rights", [1, 8])
def test_fresh_rights(held: Held, placement: str, rights: int) -> None:
    """So many rights that were made for this message, in either direction; each is used once, and closed."""
    commands = {way: [*PYTHON, way, "fresh", "0", str(rights)] for way in ("machrv", "Pipe")}
    _held(held, "fresh rights", f"{rights} right{'s' * (rights > 1)}, {placement}", commands)


@pytest.mark.parametrize("name", ["0 bytes", "64 KiB"])
def test_channel(held: Held, placement: str, name: str) -> None:
    """A request over a channel, and the answer; the same of a message to a port. Both bring the right to answer with."""
    numbers = [str(SIZES[name]), "0"]
    commands = {
        "Channel": [*PYTHON, "machrv", "channel", *numbers],
        "Pipe": [*PYTHON, "Pipe", "between", *numbers],
        "SendRight.request": [*PYTHON, "machrv", "request", *numbers],
    }
    _held(held, "channel", f"{name}, {placement}", commands)


def test_channel_with_a_file(held: Held, placement: str) -> None:
    """A request that brings an open file, which is taken and closed."""
    commands = {
        "Channel": [*PYTHON, "machrv", "channel", "0", "1"],
        "send_handle": [*PYTHON, "Pipe", "files", "0", "1"],
    }
    _held(held, "channel", f"1 file, {placement}", commands)


@pytest.mark.parametrize(
    ("size", "rights"), [(0, 0), (64 * _KIB - _HEADER, 0), (0, 1), (0, 16)], ids=lambda number: str(number)
)
def test_within(held: Held, compiled: Callable[[str], str], size: int, rights: int) -> None:
    """Within a process, beside the bare system calls. The rights are copies of such that are there."""
    numbers = [str(size), str(rights)]
    commands = {
        "machrv": [*PYTHON, "machrv", "within", *numbers],
        "C, attested": [compiled("message"), "within", "attested", str(_HEADER + size), str(rights)],
        "Pipe": [*PYTHON, "Pipe", "within", *numbers],
    }
    if not rights:
        commands["Kernel.mach_msg"] = [*PYTHON, "Kernel", "within", *numbers]
    _held(held, "within", f"{rights} rights" if rights else f"{size} bytes", commands)


@pytest.mark.parametrize("rights", [0, 1, 16])
def test_mach_msg_in_c(held: Held, compiled: Callable[[str], str], rights: int) -> None:
    """The Mach calls in C without Python, beside the bare system calls."""
    common = [str(_HEADER), str(rights)]
    commands = {
        "mach_msg in C": [compiled("mach_msg"), "within", *common],
        "C, attested": [compiled("message"), "within", "attested", *common],
        "C": [compiled("message"), "within", "plain", *common],
    }
    _held(held, "mach_msg in C", f"{rights} rights" if rights else "empty", commands)
