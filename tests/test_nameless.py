"""Launching without a name: the child inherits a right to the server as a descriptor."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("on macOS a right is no descriptor", allow_module_level=True)

from machrv import (
    ENFORCE_PEER_REQUIREMENTS,
    MachError,
    Message,
    NoSenders,
    ProcessRequirement,
    ReceiveRight,
    RendezvousServer,
    SendRight,
    UnsupportedError,
    aio,
    current,
    fileport,
    launch,
)
from machrv.kernel import Kernel
from machrv.kernel.linux.bootstrap import directory
from machrv.rendezvous.names import SERVER_FD_VARIABLE

from .conftest import PATIENCE, Program, finish, wait_for_no_senders


@pytest.fixture(autouse=True)
def servers() -> Iterator[None]:
    """The servers that tests make are theirs."""
    yield
    for server in (RendezvousServer._instance, RendezvousServer._nameless):
        if server is not None:
            server.close()


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No name can be checked in: as where mach-register is denied."""
    monkeypatch.setenv("MACHRV_BOOTSTRAP_DIR", str(tmp_path / "not" / "there"))
    (tmp_path / "not").write_text("a file")
    return tmp_path


def test_a_child_in_another_mount_namespace_has_its_rights(program: Program, tmp_path: Path) -> None:
    """There, the bootstrap directory is empty. A child that looks a name up finds nobody; one that inherits a right does."""
    path = directory()[0]
    wrapped = [*program("shut_in", "namespace", path), *program("client", "take_send_right")]
    with ReceiveRight.allocate() as port:
        child = launch(wrapped, {"port": port.make_send()}, stderr=subprocess.PIPE)
        said = child.communicate(timeout=PATIENCE)[1].decode()
        if child.returncode == 77:
            pytest.skip("no mount namespaces here")
        assert child.returncode == 1 and "no rendezvous with the parent" in said
        child = launch(wrapped, {"port": port.make_send()}, nameless=True)
        message = port.receive(PATIENCE)
        assert message.body == b"" and message.audit_token.pid == child.pid
        assert finish(child) == 0


def test_no_name_is_checked_in(program: Program, nowhere: Path) -> None:
    """The parent can have no name either."""
    with ReceiveRight.allocate() as port:
        child = launch(program("client", "take_send_right"), {"port": port.make_send()}, nameless=True)
        assert port.receive(PATIENCE).audit_token.pid == child.pid
        assert finish(child) == 0
        wait_for_no_senders(port)
    server = RendezvousServer.get_instance(nameless=True)
    assert server.service_name == "" and server.registration_count == 0


def test_there_is_one_server_if_it_has_a_name(program: Program) -> None:
    """And children with and without names are launched from it."""
    with RendezvousServer.get_instance() as server, ReceiveRight.allocate() as port:
        assert RendezvousServer.get_instance(nameless=True) is server
        for nameless in (True, False):
            child = launch(program("client", "take_send_right"), {"port": port.make_send()}, nameless=nameless)
            assert port.receive(PATIENCE).audit_token.pid == child.pid
            assert finish(child) == 0


def test_the_registration_is_for_the_child_alone(nowhere: Path) -> None:
    """Whoever else inherits the descriptor, from a wrapper here, gets nothing, and is told why."""
    code = "from machrv import RendezvousClient as C\ntry: C.connect()['port']\nexcept KeyError as e: print(e)"
    wrapper = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {code!r}], close_fds=False))"
    inherit = f"import os; os.set_inheritable(int(os.environ['{SERVER_FD_VARIABLE}'].partition(':')[0]), True); "
    with ReceiveRight.allocate() as port:
        command = [sys.executable, "-c", inherit + wrapper]
        child = launch(command, {"port": port.make_send()}, nameless=True, stdout=subprocess.PIPE)
        said = child.communicate(timeout=PATIENCE)[0].decode()
        assert "most likely started by a wrapper" in said, said
        assert finish(child) == 0
        wait_for_no_senders(port)


def test_what_a_child_starts_is_not_misled(nowhere: Path) -> None:
    """It has the variable and not the descriptor, or another under its number: it looks its names up."""
    code = (
        "import os, subprocess, sys\n"
        "from machrv import RendezvousClient as C, SendRight, Message\n"
        "number, inherited = os.environ['MACHRV_SERVER_FD'], True\n"
        "with C.connect() as rights, rights.take('port', SendRight) as port: port.send(Message(1))\n"
        "assert not os.get_inheritable(int(number.partition(':')[0]))\n"
        "with C.connect() as again: assert again.port_count == 0\n"  # As often as wanted.
        "child = 'from machrv import RendezvousClient as C; C.connect()'\n"
        "done = subprocess.run([sys.executable, '-c', child], close_fds=False, capture_output=True, text=True)\n"
        "print(done.stderr.splitlines()[-1])\n"
        "os.environ['MACHRV_SERVER_FD'] = '0:1'\n"
        "done = subprocess.run([sys.executable, '-c', child], capture_output=True, text=True)\n"
        "print(done.stderr.splitlines()[-1])\n"
    )
    with ReceiveRight.allocate() as port:
        child = launch([sys.executable, "-c", code], {"port": port.make_send()}, nameless=True, stdout=subprocess.PIPE)
        said = child.communicate(timeout=PATIENCE)[0].decode()
        assert port.receive(PATIENCE).id == 1
        assert finish(child) == 0
    assert said.count("was looked up") == 2, said


def test_a_requirement_holds_there_too(program: Program, nowhere: Path) -> None:
    """The kernel says who asks, whichever way the right to ask came."""
    never = ProcessRequirement.never_matches_for_testing()
    with ENFORCE_PEER_REQUIREMENTS.override(True), ReceiveRight.allocate() as port:
        child = launch(program("client", "no_ports"), {"port": port.make_send()}, never, nameless=True)
        assert finish(child) == 0
        with pytest.raises(NoSenders):
            port.receive(PATIENCE)


def test_descriptors_of_the_callers_are_passed_as_well(program: Program, nowhere: Path) -> None:
    """And a child that cannot be started leaves none behind (the fixture counts)."""
    read, write = os.pipe()
    code = f"import os; os.write({write}, b'here'); from machrv import *; RendezvousClient.connect().close()"
    with launch([sys.executable, "-c", code], nameless=True, pass_fds=[write]) as child:
        assert os.read(read, 10) == b"here"
    assert child.returncode == 0
    os.close(read)
    os.close(write)
    with ReceiveRight.allocate() as port, pytest.raises(FileNotFoundError):
        launch(["/not/there"], {"port": port.make_send()}, nameless=True)


def test_on_a_loop(program: Program, nowhere: Path) -> None:
    """`aio.launch` has it, and `aio.connect` in the child."""
    code = (
        "import asyncio\nfrom machrv import *\nfrom machrv import aio\n"
        "async def main():\n"
        "    with await aio.connect() as rights, rights.take('port', SendRight) as port: port.send(Message(1, b'aio!'))\n"
        "asyncio.run(main())\n"
    )

    async def main() -> bytes:
        with ReceiveRight.allocate() as port:
            command = [sys.executable, "-c", code]
            async with await aio.launch(command, {"port": port.make_send()}, nameless=True) as child:
                body = (await aio.receive(port, PATIENCE)).body
            assert child.returncode == 0
            return body

    assert asyncio.run(main()) == b"aio!"


def test_a_right_and_its_descriptor(kernel: Kernel, tmp_path: Path) -> None:
    """Both stay their owner's; what is no right to a port has none, and what is no descriptor of one is none."""
    with ReceiveRight.allocate() as port, port.make_send() as right:
        fd = kernel.right_makefd(right.name)
        assert not os.get_inheritable(fd)
        with SendRight(kernel.right_makeport(fd)) as again:
            again.send(Message(5), PATIENCE)
        os.close(fd)
        assert port.receive(PATIENCE).id == 5
        with ReceiveRight.allocate() as other, pytest.raises(MachError, match="KERN_INVALID_RIGHT"):
            kernel.right_makefd(other.name)
        with open(tmp_path / "file", "w") as file, fileport(file) as file_right:
            for refused in (file.fileno(), 9999):
                with pytest.raises(MachError, match="KERN_INVALID_RIGHT"):
                    kernel.right_makeport(refused)
            with pytest.raises(MachError, match="KERN_INVALID_RIGHT"):
                kernel.right_makefd(file_right.name)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs, pytest.raises(MachError, match="KERN_INVALID_RIGHT"):
            kernel.right_makeport(ours.fileno())
        fd = kernel.right_makefd(right.name)
    try:  # The port has died: so has the right.
        name = kernel.right_makeport(fd)
        assert name == 0xFFFFFFFF
    finally:
        os.close(fd)
    with pytest.raises(MachError, match="KERN_INVALID_NAME"):
        kernel.right_makefd(0x1234567)


def test_on_macos_it_says_what_is_possible() -> None:
    """Seen through the part of the kernel that both systems have."""
    with pytest.raises(UnsupportedError, match="DirectRendezvousServer.send_right"):
        Kernel.right_makefd(current(), 1)
