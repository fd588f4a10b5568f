"""What a port costs is what is done with it, not how many hold rights to it."""

from __future__ import annotations

import os
import resource
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from machrv.errors import MachError
from machrv.kernel.linux import LinuxKernel

from .linux_tasks import bootstrap, nursery, task  # noqa: F401 (fixtures)
from .linux_tasks import end, receive, send


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """As many as the system lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def lines_of(task: LinuxKernel, door: int) -> int:
    """How many lines of machrv a receive carries out that finds whatever has come."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if "/machrv/" not in frame.f_code.co_filename:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        receive(task, door, 0)
    except MachError:
        pass
    finally:
        sys.settrace(before)
    return count


def test_who_is_let_in_costs_the_same_however_many_are_there(task: LinuxKernel, many_descriptors: None) -> None:
    """A look-up and a message beside three connections that are held, and beside a thousand."""
    door = task.bootstrap_check_in("door")
    folder = Path(os.environ["MACHRV_BOOTSTRAP_DIR"])
    held = []
    costs = []
    for count in (3, 1000):
        while len(held) < count:
            held.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            held[-1].connect(str(folder / os.readlink(folder / "door")))
            if len(held) % 50 == 0:
                lines_of(task, door)
        lines_of(task, door)
        lines_of(task, door)
        other = LinuxKernel()
        way = other.bootstrap_look_up("door")
        send(other, way, 1)
        costs.append(lines_of(task, door))
        other.close()
    for connection in held:
        connection.close()
    end(task, door)
    assert costs[1] < costs[0] + 50, costs
