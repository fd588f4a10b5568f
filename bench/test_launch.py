"""A child from its start to its end: one that claims a right and sends a message with it, beside other ways and beside one
that does nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack

import pytest

from bench.conftest import Held
from bench.measure import HERE, worker
from bench.peers.launch import C_WAYS, WAYS
from machrv import Disposition, ReceiveRight, RendezvousPort, launch

PARENT = [sys.executable, str(HERE / "programs" / "launch.py")]
#: what is measured beside something else: the kernel alone, and a claim that nothing is sent with
PARTS = {"the kernel", "claim only"}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Bytecode is cached, as it is for every installed program; names are looked for in a folder of their own."""
    folder = tmp_path_factory.mktemp("launch")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        patch.setenv("PYTHONPYCACHEPREFIX", str(folder / "bytecode"))
        patch.setenv("PYTHONPATH", str(HERE.parent))
        (folder / "names").mkdir(mode=0o700)
        patch.setenv("MACHRV_BOOTSTRAP_DIR", str(folder / "names"))
        yield


def _held(held: Held, name: str, parents: Mapping[str, Sequence[str]], rounds: int) -> None:
    with ExitStack() as stack:
        sides = {side: stack.enter_context(worker(command)) for side, command in parents.items()}
        held("launch", name, sides, count=1, rounds=rounds)


def test_launch_python(held: Held, full: bool, environment: None) -> None:
    """From the start to the exit, as the parent sees it: an interpreter, what it imports, a claim, a message."""
    parents = {way: [*PARENT, way] for way in WAYS if way not in PARTS}
    _held(held, "a child that claims and sends", parents, 40 if full else 12)


@pytest.mark.parametrize(
    ("name", "way"), [("import of the kernel", "the kernel"), ("a child that only claims", "claim only")]
)
def test_parts_of_a_launch(held: Held, full: bool, environment: None, name: str, way: str) -> None:
    """What of it is the import of machrv.kernel with its C, and what the claim alone costs."""
    parents = {"machrv": [*PARENT, way], "bare Python": [*PARENT, "bare Python"]}
    _held(held, name, parents, 40 if full else 12)


def test_launch_c(held: Held, full: bool, compiled: Callable[[str], str], environment: None) -> None:
    """A child in C, which makes the Mach calls without Python: what the parent's side costs."""
    program = compiled("child")
    parents = {way: [*PARENT, way, program] for way in C_WAYS}
    _held(held, "a child in C", parents, 100 if full else 30)


#: what a child does not pay for (the modules that the target names, and two more as dear)
HEAVY = {"socket", "asyncio", "typing", "dataclasses", "re", "inspect", "ctypes", "subprocess", "logging", "enum"}


def test_imports_of_a_child(environment: None) -> None:
    """What the child that is measured has loaded when it has given its right up again: nothing heavy."""
    child = (HERE / "programs" / "child.py").read_text()
    # -I -S: what a user's site brings along is none of machrv's doing; the path is handed on instead.
    show = f"import sys; sys.path[:] = {sys.path!r}; sys.argv[1:] = []\n{child}\nprint(*sys.modules)"
    with ReceiveRight.allocate() as port:
        ports = {"port": RendezvousPort(port.name, Disposition.MAKE_SEND)}
        with launch([sys.executable, "-I", "-S", "-c", show], ports, stdout=subprocess.PIPE, text=True) as process:
            loaded = set(process.communicate()[0].split())
        port.receive(timeout=30)
    assert "machrv.rendezvous" in loaded
    assert loaded & HEAVY == set()
