"""A child from its start to its end: one that claims a right, beside one that does nothing, and beside other ways."""

from __future__ import annotations

import multiprocessing
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from bench.conftest import HERE, Held
from bench.measure import repeated
from bench.peers.spawn import close
from machrv import Disposition, ReceiveRight, RendezvousPort, RendezvousServer, launch


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Bytecode is cached, as it is for every installed program; the C child looks for names in a folder of its own."""
    folder = tmp_path_factory.mktemp("launch")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        patch.setenv("PYTHONPYCACHEPREFIX", str(folder / "bytecode"))
        patch.setenv("PYTHONPATH", str(HERE.parent))
        (folder / "names").mkdir(mode=0o700)
        patch.setenv("MACHRV_BOOTSTRAP_DIR", str(folder / "names"))
        yield
        RendezvousServer.get_instance().close()  # Its name is in that folder.


def _claiming(port: ReceiveRight, command: list[str]) -> None:
    with launch(command, {"port": RendezvousPort(port.name, Disposition.MAKE_SEND)}) as process:
        assert process.wait() == 0


def _bare(command: list[str]) -> None:
    with subprocess.Popen(command) as process:
        assert process.wait() == 0


def _inheriting(program: str) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        fd = theirs.fileno()
        with subprocess.Popen([sys.executable, program, str(fd)], pass_fds=[fd]) as process:
            assert process.wait() == 0


def _spawned() -> None:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    with ours, theirs:
        process = spawn.Process(target=close, args=(theirs,))
        process.start()
        process.join()
        assert process.exitcode == 0
        process.close()


def test_launch_python(held: Held, full: bool, environment: None) -> None:
    """From the start to the exit, as the parent sees it: an interpreter, what it imports, a claim."""
    child, with_fd = str(HERE / "programs" / "child.py"), str(HERE / "programs" / "child_fd.py")
    with ReceiveRight.allocate() as port:
        sides = {
            "machrv": repeated(lambda: _claiming(port, [sys.executable, child])),
            "bare Python": repeated(lambda: _bare([sys.executable, child, "nothing"])),
            "pass_fds": repeated(lambda: _inheriting(with_fd)),
            "multiprocessing, spawn": repeated(_spawned),
        }
        held("launch", "a child in Python", sides, rounds=24 if full else 6)


def test_launch_c(held: Held, compiled: Callable[[str], str], environment: None) -> None:
    """The same with a child in C, which speaks the packets of the Linux kernel: what the parent's side costs."""
    program = compiled("child")
    with ReceiveRight.allocate() as port:
        sides = {
            "machrv": repeated(lambda: _claiming(port, [program])),
            "bare C": repeated(lambda: _bare([program, "nothing"])),
        }
        held("launch", "a child in C", sides)


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
    assert "machrv.rendezvous" in loaded
    assert loaded & HEAVY == set()
