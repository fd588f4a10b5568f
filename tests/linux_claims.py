"""A server that answers every claim, and a space to claim from, for tests of claims on Linux.

What belongs here: what more than one file of them uses. What must never happen here: a test.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from machrv import AuditToken, Disposition, ReceiveRight, RendezvousPort, RendezvousServerBase
from machrv.kernel.linux import LinuxKernel

from .conftest import PATIENCE


class Server(RendezvousServerBase):
    """Answers everybody, as soon as `may_answer` is set: as many new send rights to `target` as `count` says, and one to
    each of `more` other ports."""

    def __init__(self, kernel: LinuxKernel, name: str, count: int = 1, more: int = 0) -> None:
        self.target = ReceiveRight.allocate(kernel=kernel)
        self.others = [ReceiveRight.allocate(kernel=kernel) for _ in range(more)]
        self.count = count
        self.may_answer = threading.Event()
        self.may_answer.set()
        try:
            super().__init__(ReceiveRight(kernel.bootstrap_check_in(name), kernel))
        except BaseException:
            self._close_ports()
            raise

    def ports_for_client(self, audit_token: AuditToken) -> dict[int, RendezvousPort]:
        """New rights for each."""
        assert self.may_answer.wait(PATIENCE)
        ports = [self.target] * self.count + self.others
        return {key: RendezvousPort(port.name, Disposition.MAKE_SEND) for key, port in enumerate(ports)}

    def close(self) -> None:
        """The ports too."""
        self.may_answer.set()
        super().close()
        self._close_ports()

    def _close_ports(self) -> None:
        for port in (self.target, *self.others):
            port.close()


@pytest.fixture
def client() -> Iterator[LinuxKernel]:
    """A space of its own for whoever claims; nothing may be left in it."""
    space = LinuxKernel()
    yield space
    assert space.mach_port_names() == []
    space.close()
