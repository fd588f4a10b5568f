"""A child pays for every import before it does anything useful: what its path must never load."""

from __future__ import annotations

import subprocess
import sys

import pytest

from machrv import Disposition, ReceiveRight, RendezvousPort, RendezvousServer, launch

from .conftest import PATIENCE

#: What a child never loads on its way to its rights, nor to use them.
FORBIDDEN = {"socket", "asyncio", "typing", "dataclasses", "re", "inspect", "ctypes", "subprocess", "logging", "enum"}
FORBIDDEN |= {
    "collections",
    "threading",
    "functools",
    "weakref",
    "heapq",
    "operator",
    "contextlib",
    "keyword",
    "reprlib",
}
#: What it does load of Python's own, besides what is built in; CFFI is all that is nobody's.
ALLOWED = {"__future__", "_cffi_backend", "_heapq", "_struct", "errno", "itertools", "select", "struct"}
#: How many modules of machrv: all, and those above the kernel. Each is a hundredth of a bare start, and more.
MOST, MOST_ABOVE = 60, 26

#: What every interpreter loads for its site, which these here do without.
BARE = "import os"

#: A child that does the least, and one that does something with what it got.
CLAIM = """
from machrv import RendezvousClient
with RendezvousClient.connect() as rights:
    right = rights.take_send_right("port")
    right.close()
"""
USE = """
from machrv import Message, RendezvousClient
with RendezvousClient.connect() as rights, rights.take_send_right("port") as right:
    right.send(Message(1), timeout=30)
"""


def interpreter(program: str) -> list[str]:
    """The command for a program that prints, at its end, what it has loaded."""
    # -I -S: what a user's site brings along is none of machrv's doing; the path is handed on instead.
    path = f"import sys; sys.path[:] = {sys.path!r}\n"
    return [sys.executable, "-I", "-S", "-c", f"{path}{program}\nimport sys; print(*sys.modules)"]


def modules_after(program: str) -> set[str]:
    """What a fresh interpreter has loaded at the end of a program, beyond what it loads for an empty one."""
    bare, loaded = (set(subprocess.check_output(interpreter(body), text=True).split()) for body in (BARE, program))
    return loaded - bare


def modules_of_a_child(program: str, port: ReceiveRight) -> set[str]:
    """The same for a child that this process launches, with a right to the port under "port"."""
    bare = set(subprocess.check_output(interpreter(BARE), text=True).split())
    ports = {"port": RendezvousPort(port.name, Disposition.MAKE_SEND)}
    with launch(interpreter(program), ports, stdout=subprocess.PIPE, text=True) as child:
        loaded = set(child.communicate(timeout=PATIENCE)[0].split())
    assert child.returncode == 0
    return loaded - bare


@pytest.mark.parametrize(
    "program",
    [
        "import machrv",
        "import machrv.rendezvous",
        "from machrv import RendezvousClient; from machrv.kernel import current; current()",
        "from machrv import ReceiveRight\nwith ReceiveRight.allocate() as port, port.make_send() as right:\n"
        "    from machrv import Message\n    right.send(Message(1)); port.receive(timeout=0)",
    ],
    ids=["import", "client", "client and kernel", "a message"],
)
def test_the_childs_path_loads_no_heavy_module(program: str) -> None:
    """Importing the client, setting the kernel up and sending a message load none of the expensive modules."""
    assert modules_after(program) & FORBIDDEN == set()


def test_a_claim_loads_little(server: RendezvousServer) -> None:
    """A child that claims a right and gives it up loads the codec, the kernel, rights and the client, and nothing else."""
    with ReceiveRight.allocate() as port:
        loaded = modules_of_a_child(CLAIM, port)
    ours = {name for name in loaded if name.startswith("machrv")}
    assert loaded - ours <= ALLOWED | set(sys.builtin_module_names)
    above = {name for name in ours if not name.startswith("machrv.kernel")}
    assert "machrv.rendezvous.client" in above and "machrv.rendezvous.server" not in above
    assert len(above) <= MOST_ABOVE and len(ours) <= MOST, sorted(ours)


def test_a_child_that_uses_its_right_loads_no_heavy_module(server: RendezvousServer) -> None:
    """What a claim leaves to be loaded later is not heavy either."""
    with ReceiveRight.allocate() as port:
        assert modules_of_a_child(USE, port) & FORBIDDEN == set()
        assert port.receive(PATIENCE).id == 1
