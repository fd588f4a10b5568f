"""Looking at descriptors as an event loop does, for the tests of `fileno()`."""

from __future__ import annotations

import select
from typing import Any

import pytest

from machrv import ReceiveTimeout
from machrv.kernel.linux import LinuxKernel

from .conftest import PATIENCE


def readable(port: Any, timeout: float = 0) -> bool:
    """What a loop would be told."""
    return bool(select.select([port], [], [], timeout)[0])


def comes(port: Any) -> bool:
    """Whether it becomes readable, and stays so when it is looked at again."""
    return readable(port, PATIENCE) and readable(port)


def is_quiet(port: Any) -> bool:
    """Whether it is unreadable; if it was readable for nothing, once that was tried."""
    if readable(port):
        with pytest.raises(ReceiveTimeout):
            port.receive(timeout=0)
    return not readable(port)


class SecondKernel(LinuxKernel):
    """Another space of this process, closed in the end."""

    def __enter__(self) -> SecondKernel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
