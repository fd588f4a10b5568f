"""A child that has claimed its rights: what it has, how it shares, forks and gives up, and what is left of it."""

from __future__ import annotations

import subprocess
import sys

from machrv import Disposition, ReceiveRight, RendezvousPort, RendezvousServer, launch

from .conftest import PATIENCE, wait_for_no_senders

CLAIM = """
import os, sys
from machrv import RendezvousClient
import machrv.kernel

def descriptors():  # But for the one that lists them, which is closed by then.
    return sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}"))

bare = descriptors()
client = RendezvousClient.connect()
right = client.take_send_right("port")
"""


def claims(server: RendezvousServer, program: str, sent: int = 0) -> None:
    """Have a child claim a right and go on like that; it sends so many messages, and no right is left when it ends."""
    with ReceiveRight.allocate() as port:
        ports = {"port": RendezvousPort(port.name, Disposition.MAKE_SEND)}
        with launch([sys.executable, "-c", CLAIM + program], ports, stderr=subprocess.PIPE, text=True) as child:
            _, told = child.communicate(timeout=PATIENCE)
        assert (child.returncode, told) == (0, "")
        assert [port.receive(PATIENCE).id for _ in range(sent)] == sorted(range(sent))
        wait_for_no_senders(port)


def test_it_is_the_kernel_of_the_process(server: RendezvousServer) -> None:
    """The right's kernel is `current()`, and has the right's name."""
    claims(
        server,
        """
from machrv import Kernel, current
from machrv.kernel.linux import LinuxKernel
before = right._kernel
assert isinstance(right.kernel, Kernel) and type(right.kernel) is LinuxKernel
assert current() is before is right.kernel
assert [name for name, _ in current().mach_port_names()] == [right.name]
right.close()
assert current().mach_port_names() == []
""",
    )


def test_it_is_the_kernel_that_sends(server: RendezvousServer) -> None:
    """Nobody has asked for the kernel: the right has it."""
    claims(
        server,
        """
from machrv import Message
right.send(Message(0), timeout=30)
assert machrv.kernel.current() is right.kernel
right.close()
""",
        sent=1,
    )


def test_threads_use_it_at_the_same_time(server: RendezvousServer) -> None:
    """Each gets names of its own."""
    claims(
        server,
        """
import threading
together, failures = threading.Barrier(8), []
def use():
    try:
        together.wait()
        name = right._kernel.mach_reply_port()
        right._kernel.mach_port_mod_refs(name, 1, -1)
    except BaseException as error:
        failures.append(error)
threads = [threading.Thread(target=use) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert failures == []
right.close()
assert machrv.kernel.current().mach_port_names() == []
""",
    )


def test_a_fork_inherits_nothing_of_it(server: RendezvousServer) -> None:
    """The child of a fork has an empty space and no descriptor of the parent's; the parent's right lives on."""
    claims(
        server,
        """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and newer warn of a fork beside the library's thread
pid = os.fork()
if pid == 0:
    assert right.closed and descriptors() == bare
    kernel = machrv.kernel.current()
    assert kernel is right._kernel and kernel.mach_port_names() == []
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
from machrv import Message
right.send(Message(0), timeout=30)
right.close()
""",
        sent=1,
    )


def test_what_came_is_given_up_without_a_descriptor_to_spare(server: RendezvousServer) -> None:
    """A child whose descriptors are used up closes its right: nothing has to be loaded for that."""
    claims(
        server,
        """
import resource
before = len(descriptors())
resource.setrlimit(resource.RLIMIT_NOFILE, (before, before))
right.close()
assert right.closed and len(os.listdir("/proc/self/fd")) == before
""",
    )


MORE = """
import os, sys
from machrv import RendezvousClient
import machrv.kernel
from machrv._mach import lib

def descriptors():  # Once those are closed that were given up; but for the one that lists them, which is closed by then.
    lib.machrv_settle(1000)
    return sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}"))

# What a kernel opens to wait with, it keeps.
with machrv.ReceiveRight.allocate() as port:
    try:
        port.receive(timeout=0.001)
    except machrv.ReceiveTimeout:
        pass
before = descriptors()
"""


def registers(server: RendezvousServer, ports: dict[str, RendezvousPort], program: str) -> None:
    """Have a child with these ports carry the program out, after `MORE`."""
    with launch([sys.executable, "-c", MORE + program], ports, stderr=subprocess.PIPE, text=True) as child:
        _, told = child.communicate(timeout=PATIENCE)
    assert (child.returncode, told) == (0, "")


def test_rights_to_one_port_have_one_name(server: RendezvousServer) -> None:
    """Two of a claim."""
    with ReceiveRight.allocate() as port:
        right = RendezvousPort(port.name, Disposition.MAKE_SEND)
        registers(
            server,
            {"one ": right, "two ": right},
            """
with RendezvousClient.connect() as rights:
    one, two = rights.take_send_right("one "), rights.take_send_right("two ")
    assert one.name == two.name
    one.close()
    two.copy().close()
    two.close()
assert descriptors() == before and machrv.kernel.current().mach_port_names() == []
""",
        )
        wait_for_no_senders(port)


def test_ports_beside_each_other_have_their_own_names(server: RendezvousServer) -> None:
    """Each key leads to its own port, whatever order they were registered in."""
    with ReceiveRight.allocate() as first, ReceiveRight.allocate() as second:
        ports = {
            key: RendezvousPort(port.name, Disposition.MAKE_SEND) for key, port in (("zzzz", second), ("aaaa", first))
        }
        registers(
            server,
            ports,
            """
with RendezvousClient.connect() as rights:
    from machrv import Message
    for id, key in enumerate(("aaaa", "zzzz"), 1):
        with rights.take_send_right(key) as right:
            right.send(Message(id), timeout=30)
assert descriptors() == before
""",
        )
        assert (first.receive(PATIENCE).id, second.receive(PATIENCE).id) == (1, 2)


def test_what_is_no_plain_send_right_arrives_too(server: RendezvousServer) -> None:
    """A receive right, a send-once right and a send right in one claim."""
    with ReceiveRight.allocate() as port:
        moved = ReceiveRight.allocate()
        ports = {
            "recv": RendezvousPort(moved.release(), Disposition.MOVE_RECEIVE),
            "once": RendezvousPort(port.name, Disposition.MAKE_SEND_ONCE),
            "send": RendezvousPort(port.name, Disposition.MAKE_SEND),
        }
        registers(
            server,
            ports,
            """
with RendezvousClient.connect() as rights:
    assert rights.port_count == 3
    assert rights.take_receive_right("send") is None and rights.take_send_right("recv") is None
    rights.take_receive_right("recv").close()
    assert type(rights.take_send_right("once")).__name__ == "SendOnceRight"
assert descriptors() == before and machrv.kernel.current().mach_port_names() == []
""",
        )


def test_a_second_claim_beside_the_right_of_the_first(server: RendezvousServer) -> None:
    """One right is held, and another one to the same port comes: it has the same name."""
    again = """
first = RendezvousClient.connect().take_send_right("port")
print("claimed", flush=True)
sys.stdin.readline()
second = RendezvousClient.connect().take_send_right("port")
assert first.name == second.name
first.close()
second.copy().close()
second.close()
assert descriptors() == before and machrv.kernel.current().mach_port_names() == []
"""
    with ReceiveRight.allocate() as port:
        ports = {"port": RendezvousPort(port.name, Disposition.MAKE_SEND)}
        command = [sys.executable, "-c", MORE + again]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with launch(command, ports, text=True, **pipes) as child:
            assert child.stdout is not None and child.stdout.readline() == "claimed\n"
            with server.lock:
                server.register_ports_for_pid(child.pid, ports)
            _, told = child.communicate("go on\n", timeout=PATIENCE)
        assert (child.returncode, told) == (0, "")
        wait_for_no_senders(port)


INTERRUPTED = """
import signal

class Enough(BaseException):
    pass

def handler(number, frame):
    raise Enough

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    RendezvousClient.connect()
except Enough:
    pass
else:
    raise SystemExit("it was answered")
after = [os.readlink(f"/proc/self/fd/{fd}") for fd in descriptors() if fd not in before]
assert not [link for link in after if link.startswith("socket")], after
"""


def test_a_signal_handler_that_raises_ends_the_wait(server: RendezvousServer) -> None:
    """What it raises comes out, and no descriptor stays open."""
    with server.lock:  # Nobody is answered before it is given back.
        command = [sys.executable, "-c", MORE + INTERRUPTED]
        told = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    assert (told.returncode, told.stderr) == (0, "")
