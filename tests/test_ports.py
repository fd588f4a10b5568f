"""`machrv ports`: what a process has, seen from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from machrv import Message, ReceiveRight, RendezvousServer, fileport
from machrv.cli import main
from machrv.cli.ports import Row, tables

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
            assert received.holders == {os.getpid(): 1} and received.references == 1
            (once,) = theirs["send-once"]
            assert once.holders == {os.getpid(): 1}
            mine = next(row for row in own["receive"] if row.port == once.port)
            assert mine.holders[child.pid] >= 2 and mine.waiting == 100 + 32
            assert [row.port for row in own["send"]].count(received.port) == 1
        destroyed = port.receive(PATIENCE)
        assert destroyed.id == 7


def test_a_right_on_its_way_is_in_nobodys_hands() -> None:
    """What waits in a message is held by no process."""
    with ReceiveRight.allocate() as port, port.make_send() as right, ReceiveRight.allocate() as other:
        right.send(Message(1, b"", [other.make_send()]))
        row = next(row for row in rows(os.getpid())["receive"] if 0 in row.holders)
        assert row.holders == {0: 1} and row.references == 1


def test_the_table_and_its_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each right; the same for machines."""
    with ReceiveRight.allocate() as port, port.make_send_once(), open(os.devnull) as file, fileport(file.fileno()):
        assert main(["ports", str(os.getpid())]) == 0
        text = capsys.readouterr().out
        assert f"process {os.getpid()}" in text and "receive" in text and "itself" in text and "send-once" in text
        assert main(["ports", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert {row["right"] for row in found[str(os.getpid())]} >= {"receive", "send-once"}


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
