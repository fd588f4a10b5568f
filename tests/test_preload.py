"""A process that loses its way to the files: what it has preloaded is all that it needs."""

from __future__ import annotations

import subprocess
import sys

from machrv import Disposition, ReceiveRight, RendezvousPort, RendezvousServer, launch, preload

from .conftest import PATIENCE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.rendezvous.port import Ports


def succeeds(program: str, ports: Ports, *options: str) -> None:
    """A child that runs `program`, with these ports registered, ends well."""
    child = launch([sys.executable, *options, "-c", program], ports, stderr=subprocess.PIPE, text=True)
    _, said = child.communicate(timeout=PATIENCE)
    assert child.returncode == 0, said


# What the child does once it can import nothing any more: a whole rendezvous, messages, memory, failures.
CHILD = """
import machrv, sys, encodings.ascii
machrv.preload()
loaded = set(sys.modules)

class Nothing:
    def find_spec(self, name, path=None, target=None):
        raise ImportError(f"{name} is out of reach")

sys.meta_path.insert(0, Nothing())
from machrv import (
    DirectRendezvousClient, DirectRendezvousServer, Disposition, MemoryObject, Message, PortDescriptor, PortSet,
    ProcessRequirement, ReceiveRight, RendezvousClient, RendezvousServer, ServerNotFoundError, fileport, fileport_fd,
    take_rights,
)
ports = RendezvousClient.get_instance()
right = ports.take_send_right("port")
with ReceiveRight.allocate() as port, PortSet.allocate() as group, MemoryObject.from_bytes(b"kept") as memory:
    group.insert(port)
    with port.make_send() as way:
        way.send(Message(1, descriptors=[memory.right(), fileport(1)]))
    with take_rights(group.receive(timeout=30))[0] as arrived:
        pass
    with DirectRendezvousServer({"port": port.make_send()}) as direct:
        DirectRendezvousClient.initialize(direct.send_right()).close()
try:
    RendezvousClient.connect("org.machrv.test.nobody")
except ServerNotFoundError:
    pass
RendezvousServer.get_instance().close()
with right:
    right.send(Message(7))
assert set(sys.modules) == loaded, set(sys.modules) - loaded
"""


def test_nothing_is_imported_after_preloading(server: RendezvousServer) -> None:
    """A rendezvous, messages with rights, memory, a server of one's own, and errors: all is there."""
    with ReceiveRight.allocate() as port:
        succeeds(CHILD, {"port": RendezvousPort(port.name, Disposition.MAKE_SEND)}, "-W", "ignore::ResourceWarning")
        assert port.receive(timeout=PATIENCE).id == 7


def test_preloading_twice_does_nothing() -> None:
    """Not even to a kernel in use."""
    preload()
    loaded = set(sys.modules)
    preload()
    assert set(sys.modules) == loaded


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
    assert "preload" in str(error), error
else:
    raise SystemExit("no error")
for fd in full:
    os.close(fd)
RendezvousClient.connect().take_send_right("port").close()
"""


def test_a_child_without_descriptors_is_told_so_and_can_ask_later(server: RendezvousServer) -> None:
    """Not even what says it can be loaded any more; the error is typed all the same."""
    with ReceiveRight.allocate() as port:
        succeeds(EXHAUSTED, {"port": RendezvousPort(port.name, Disposition.MAKE_SEND)})


MIXED = """
import os, sys
from machrv import RendezvousClient, RendezvousError
from machrv.kernel import begun
before = sorted(os.listdir("/proc/self/fd"))
sys.modules["machrv.rendezvous.steps"] = None  # As if it could not be read any more.
try:
    RendezvousClient.connect()
except RendezvousError as error:
    assert "preload" in str(error), error
else:
    raise SystemExit("no error")
assert begun().mach_port_names() == [], begun().mach_port_names()
assert sorted(os.listdir("/proc/self/fd")) == before
"""


def test_what_came_is_given_up_where_it_cannot_be_looked_at(server: RendezvousServer) -> None:
    """A receive right and a send right: neither a name is left of them, nor a descriptor."""
    with ReceiveRight.allocate() as port:
        send = RendezvousPort(port.name, Disposition.MAKE_SEND)
        succeeds(MIXED, {"port": send, "more": ReceiveRight.allocate()})
