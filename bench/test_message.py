"""One message, sent and received: within a process, and to another process and back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from bench.conftest import HERE, Held
from bench.measure import worker

_HEADER = 24
_KINDS = [(0, 0), (1024, 0), (16384, 0), (65536 - _HEADER, 0), (0, 1), (0, 16)]


@pytest.mark.parametrize("where", ["within", "between"])
@pytest.mark.parametrize(("size", "rights"), _KINDS)
def test_message(held: Held, compiled: Callable[[str], str], where: str, size: int, rights: int) -> None:
    """`size` is the body's; C and Pipe send the 24 bytes of a header too."""
    python = [sys.executable, str(HERE / "programs" / "message.py")]
    common = [where, str(size), str(rights)]
    c = [compiled("message"), where, "{}", str(_HEADER + size), str(rights)]
    commands = {
        "machrv": [*python, "machrv", *common],
        "C": [part.format("plain") for part in c],
        "C, attested": [part.format("attested") for part in c],
        "Pipe": [*python, "Pipe", *common],
    }
    with ExitStack() as stack:
        sides = {side: stack.enter_context(worker(command)) for side, command in commands.items()}
        held("message", f"{where}, {f'{rights} rights' if rights else f'{size} bytes'}", sides, seconds=0.05)


@pytest.mark.parametrize("size", [size for size, rights in _KINDS if not rights])
def test_mach_msg(held: Held, compiled: Callable[[str], str], size: int) -> None:
    """Without objects, as C does it: `Kernel.mach_msg`, bytes to bytes; and the C functions below it."""
    python, common = [sys.executable, str(HERE / "programs" / "message.py")], ["within", str(size), "0"]
    c = [compiled("message"), "within", "{}", str(_HEADER + size), "0"]
    commands = {
        "machrv": [*python, "Kernel", *common],
        "C": [part.format("plain") for part in c],
        "C, attested": [part.format("attested") for part in c],
        "primitives": [*python, "primitives", *common],
    }
    with ExitStack() as stack:
        sides = {side: stack.enter_context(worker(command)) for side, command in commands.items()}
        held("message", f"within, {size} bytes, mach_msg", sides, seconds=0.05)
