"""A process that can load nothing any more: what it has named before is all that it needs."""

from __future__ import annotations

import subprocess
import sys

from machrv import Disposition, ReceiveRight, RendezvousPort, RendezvousServer, launch

from .conftest import PATIENCE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.rendezvous.port import Ports


def succeeds(program: str, ports: Ports, *options: str) -> None:
    """A child that runs `program`, with these ports registered, ends well."""
    child = launch([sys.executable, *options, "-c", program], ports, stderr=subprocess.PIPE, text=True)
    _, said = child.communicate(timeout=PATIENCE)
    assert child.returncode == 0, said


# What the child does once it can import nothing any more: a rendezvous of either kind, messages with rights, failures.
CHILD = """
import sys, encodings.ascii
from machrv import (
    DirectRendezvousClient, DirectRendezvousServer, Message, ReceiveRight, RendezvousClient, ServerNotFoundError,
    current, fileport, take_rights,
)
current()
loaded = set(sys.modules)

class Nothing:
    def find_spec(self, name, path=None, target=None):
        raise ImportError(f"{name} is out of reach")

sys.meta_path.insert(0, Nothing())
ports = RendezvousClient.connect()
right = ports.take_send_right("port")
with ReceiveRight.allocate() as port:
    with port.make_send() as way:
        way.send(Message(1, descriptors=[fileport(1)]))
    with take_rights(port.receive(timeout=30))[0] as arrived:
        pass
try:
    RendezvousClient.connect("org.machrv.test.nobody")
except ServerNotFoundError as error:
    assert "1102" in str(error), error
with right:
    right.send(Message(7))
assert set(sys.modules) == loaded, set(sys.modules) - loaded
"""


def test_nothing_is_imported_after_what_is_used_was_named(server: RendezvousServer) -> None:
    """A rendezvous, messages with rights, and errors: all is there."""
    with ReceiveRight.allocate() as port:
        succeeds(CHILD, {"port": RendezvousPort(port.name, Disposition.MAKE_SEND)}, "-W", "ignore::ResourceWarning")
        assert port.receive(timeout=PATIENCE).id == 7


EXHAUSTED = """
import os, resource
from machrv import RendezvousClient, RendezvousError
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
full = []
try:
    while True:
        full.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
try:
    RendezvousClient.connect()
except RendezvousError as error:
    assert "close" in str(error), error
else:
    raise SystemExit("no error")
for fd in full:
    os.close(fd)
RendezvousClient.connect().take_send_right("port").close()
"""


def test_a_child_without_descriptors_is_told_so_and_can_ask_later(server: RendezvousServer) -> None:
    """The error is typed, and says what to do."""
    with ReceiveRight.allocate() as port:
        succeeds(EXHAUSTED, {"port": RendezvousPort(port.name, Disposition.MAKE_SEND)})
