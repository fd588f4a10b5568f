"""`machrv ports`: what a process has, seen from outside."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from machrv import Message, ReceiveRight, RendezvousServer, SendOnceRight, SendRight
from machrv._mach import lib
from machrv.cli import main
from machrv.cli.ports import Row, tables
from machrv.doctor.sockets import command_of
from machrv.kernel import current
from machrv.kernel.linux import LinuxKernel

from .conftest import PATIENCE, Program

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="on macOS there is lsmp")


def rows(pid: int) -> dict[str, list[Row]]:
    """The rights of a process by kind."""
    found: dict[str, list[Row]] = {}
    for row in tables([pid])[pid]:
        found.setdefault(row.right, []).append(row)
    return found


def test_a_child_and_its_parent_see_each_other(server: RendezvousServer) -> None:
    """The rights that a child has taken are its own, their other ends are its parent's, and a message waits."""
    code = (
        "import sys\nfrom machrv import *\nclient = RendezvousClient.connect()\n"
        "client.take_send_right(1).send(Message(7, bytes(100)))\nprint('ready', flush=True)\nsys.stdin.read()"
    )
    port = ReceiveRight.allocate()
    moved = ReceiveRight.allocate()
    with port, moved.make_send() as back:
        with server.lock:
            child = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], stdin=-1, stdout=-1)
            given = {1: port.make_send(), 2: moved, 3: port.make_send_once(), 4: port.make_send()}
            server.register_ports_for_pid(child.pid, given)
        with child:
            assert child.stdout is not None and child.stdin is not None
            assert child.stdout.readline() == b"ready\n"
            own, theirs = rows(os.getpid()), rows(child.pid)
            assert back.name
            service = next(row for row in own["receive"] if row.service)
            assert service.service == server.service_name
            (received,) = theirs["receive"]
            assert received.holders == {os.getpid(): 1} and received.ends == 1
            (once,) = theirs["send-once"]
            assert once.holders == {os.getpid(): 1}
            mine = next(row for row in own["receive"] if row.port == once.port)
            assert mine.holders[child.pid] >= 2 and mine.waiting == 100 + 32 and mine.messages is None
            assert [row.port for row in own["send"]].count(received.port) == 1
        destroyed = port.receive(PATIENCE)
        assert destroyed.id == 7


@contextmanager
def elsewhere(*rights: SendRight | SendOnceRight, received: bool) -> Iterator[None]:
    """Rights in another port space of this process, where they are sockets; or still on their way there."""
    other, name = LinuxKernel(), f"org.machrv.test.ports.{os.getpid()}"
    door = other.bootstrap_check_in(name)
    with SendRight(current().bootstrap_look_up(name)) as way:
        way.send(Message(1, b"", rights))
    if received:
        other.mach_msg(None, lib.MACH_RCV_MSG, None, door, PATIENCE)
    try:
        yield
    finally:
        other.close()


def test_a_right_on_its_way_is_in_nobodys_hands() -> None:
    """What waits in a message is held by no process."""
    with ReceiveRight.allocate() as other, elsewhere(other.make_send(), received=False):
        row = next(row for row in rows(os.getpid())["receive"] if 0 in row.holders)
        assert row.holders == {0: 1} and row.ends == 1


def test_the_table_and_its_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each right; the same for machines."""
    with ReceiveRight.allocate() as port, elsewhere(port.make_send_once(), received=True):
        assert main(["ports", str(os.getpid())]) == 0
        text = capsys.readouterr().out
        assert f"process {os.getpid()}" in text and "receive" in text and "itself" in text and "send-once" in text
        assert main(["ports", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert {row["right"] for row in found[str(os.getpid())]} >= {"receive", "send-once"}


SPACE = """
import sys
from machrv import *
inbox, other, gone = ReceiveRight.allocate(), ReceiveRight.allocate(), ReceiveRight.allocate()
sends = [inbox.make_send() for _ in range(3)]
once, dead, members, file = inbox.make_send_once(), gone.make_send(), PortSet.allocate(), fileport(0)
gone.close()
members.insert(other)
for number in range(7):
    sends[0].send(Message(number, b"some" * number))
print(inbox.name, once.name, dead.name, members.name, file.name, flush=True)
sys.stdin.read()
received = [inbox.receive(0).id for _ in range(7)]
print(received, flush=True)
"""


@contextmanager
def telling() -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process that tells its names, and the names of some of its rights."""
    command = [sys.executable, "-W", "ignore", "-c", SPACE]
    environment = {**os.environ, "MACHRV_PORTS": "1"}
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=environment) as process:
        assert process.stdout is not None
        yield process, [int(name) for name in process.stdout.readline().split()]


def test_names_references_and_messages_are_told_by_the_process_itself() -> None:
    """Everything that lsmp shows. The messages that were counted are there afterwards, in their order."""
    with telling() as (process, (inbox, once, dead, members, file)):
        found = {(row.name, row.right): row for row in tables([process.pid])[process.pid]}
        own = {process.pid: 1}
        receive = found[inbox, "receive"]
        assert (receive.messages, receive.waiting) == (7, 7 * 32 + 4 * sum(range(7)))
        assert found[inbox, "send"].references == 3 and found[inbox, "send"].holders == own
        assert found[once, "send-once"].holders == own and found[once, "send-once"].port == receive.port
        assert found[dead, "dead-name"].references == 1 and found[members, "port-set"].ends == 1
        assert found[file, "file"].references == 1
        assert len(found) == 7 and all(name is not None for name, _ in found)  # `other` is the seventh
        output, _ = process.communicate("")
        assert output == f"{list(range(7))}\n"


FORK = r"""
import os, sys
from machrv import *
inbox = ReceiveRight.allocate()
pid = os.fork()
mine = ReceiveRight.allocate()
sys.stdout.write(f"{os.getpid()} {mine.name}\n")  # in one piece: two processes write at once
sys.stdout.flush()
sys.stdin.read()
if pid:
    os.waitpid(pid, 0)
"""


def test_the_child_of_a_fork_tells_its_own_names() -> None:
    """And not those of its parent."""
    command = [sys.executable, "-W", "ignore", "-c", FORK]
    environment = {**os.environ, "MACHRV_PORTS": "1"}
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=environment) as process:
        assert process.stdout is not None
        names = dict(map(int, process.stdout.readline().split()) for _ in range(2))
        for pid, name in names.items():
            found = [row.name for row in tables([pid])[pid]]
            assert name in found and len(found) == 1 + (pid == process.pid)
        process.communicate("")


def test_a_table_with_names(capsys: pytest.CaptureFixture[str]) -> None:
    """As a person sees it."""
    with telling() as (process, (inbox, *_)):
        assert main(["ports", str(process.pid)]) == 0
        title, head, *lines = capsys.readouterr().out.splitlines()
        assert "\n" not in title and head.split()[:6] == ["NAME", "RIGHT", "REFS", "ENDS", "MSGS", "BYTES"]
        first = next(line.split() for line in lines if line.split()[1] == "receive")
        assert first[:1] == [hex(inbox)] and first[4] == "7" and first[-2:-1] == ["itself"]


def in_a_fork(work: Callable[[], str]) -> str:
    """What `work` returns or raises in a child of this process."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = work()
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with open(read) as answer:
        said = answer.read()
    os.waitpid(pid, 0)
    return said


@pytest.mark.skipif(os.getuid() != 0, reason="needs to become somebody else")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_what_belongs_to_another_user_is_not_shown() -> None:
    """Whose it is, and what would help."""
    parent = os.getpid()

    def look() -> str:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        return str(tables([parent]))

    assert in_a_fork(look).startswith(f"PermissionError: process {parent} is not yours to look at: it belongs to root")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_another_network_has_other_sockets() -> None:
    """A table without a right would be a lie."""
    parent = os.getpid()

    def look() -> str:
        if ctypes.CDLL(None).unshare(0x40000000):  # CLONE_NEWNET
            return "skip"
        return str(tables([parent]))

    said = in_a_fork(look)
    if said == "skip":
        pytest.skip("needs a network namespace of its own")
    assert said.startswith("UnsupportedError") and f"nsenter --net=/proc/{parent}/ns/net" in said


def test_nobody_else_tells_for_a_process() -> None:
    """Whoever squats the address is not believed."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as idle:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as squatter:
            squatter.bind(b"\0machrv-ports/%d" % idle.pid)
            squatter.listen()
            assert tables([idle.pid]) == {idle.pid: []}
        idle.communicate(b"\n")


def test_who_is_not_there_has_no_ports(capsys: pytest.CaptureFixture[str], program: Program) -> None:
    """No such process: an error that says so. One without ports: that."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert main(["ports", str(gone.pid)]) == 1
    assert f"no process {gone.pid}" in capsys.readouterr().err
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as idle:
        assert main(["ports", str(idle.pid)]) == 0
        assert "no port rights" in capsys.readouterr().out
        assert idle.stdin is not None
        idle.stdin.write(b"\n")


def test_a_process_is_found_by_its_name(capsys: pytest.CaptureFixture[str], program: Program) -> None:
    """The program's, or that of the script that it runs, with its ending or without; what is not there is said."""
    with subprocess.Popen(program("client", "exit_when_told"), stdin=subprocess.PIPE) as idle:
        deadline = time.monotonic() + PATIENCE
        while "client.py" not in command_of(idle.pid) and time.monotonic() < deadline:
            pass  # Until it has exec'ed.
        for name in ("client.py", "client"):
            assert main(["ports", name]) == 0
            assert f"process {idle.pid}: " in capsys.readouterr().out
        assert main(["ports", "--json", "client.py"]) == 0
        assert str(idle.pid) in json.loads(capsys.readouterr().out)
        idle.communicate(b"")
    assert main(["ports", "no-such-program"]) == 1
    assert "'no-such-program'" in capsys.readouterr().err
