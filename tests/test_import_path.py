"""A child pays for every import before it does anything useful: what its path must never load."""

from __future__ import annotations

import subprocess
import sys

import pytest

FORBIDDEN = {"socket", "asyncio", "typing", "dataclasses", "re", "inspect", "ctypes", "subprocess", "logging", "enum"}


def modules_after(program: str) -> set[str]:
    """What a fresh interpreter has loaded at the end of a program, beyond what it loads for an empty one."""
    show = "\nimport sys; print(*sys.modules)"
    # -I -S: what a user's site brings along is none of machrv's doing; the path is handed on instead.
    command = [sys.executable, "-I", "-S", "-c"]
    path = f"import sys; sys.path[:] = {sys.path!r}\n"
    bare, loaded = (
        set(subprocess.check_output([*command, path + body + show], text=True).split()) for body in ("", program)
    )
    return loaded - bare


@pytest.mark.parametrize(
    "program",
    [
        "import machrv",
        "import machrv.rendezvous.client",
        "from machrv import RendezvousClient; from machrv.kernel import current; current()",
        "from machrv import ReceiveRight\nwith ReceiveRight.allocate() as port, port.make_send() as right:\n"
        "    from machrv import Message\n    right.send(Message(1)); port.receive(timeout=0)",
    ],
    ids=["import", "client", "client and kernel", "a message"],
)
def test_the_childs_path_loads_no_heavy_module(program: str) -> None:
    """Importing the client, setting the kernel up and sending a message load none of the expensive modules."""
    assert modules_after(program) & FORBIDDEN == set()
