"""Bootstrap names: a directory that only one user can enter, names that are taken, stale, long, strange."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from machrv._mach import lib
from machrv.errors import MachError
from machrv.kernel.linux import LinuxKernel
from machrv.message import Disposition, PortDescriptor

from .conftest import PATIENCE
from .linux_tasks import bootstrap, nursery, other, peer, task  # noqa: F401 (fixtures)
from .linux_tasks import (
    RECEIVE,
    SEND,
    Peer,
    allocate,
    code_of,
    descriptors,
    end,
    in_thread,
    introduce,
    names,
    nothing_waits,
    receive,
    refs,
    send,
    started,
)

IN_USE, UNKNOWN, NOT_PRIVILEGED = (
    lib.BOOTSTRAP_NAME_IN_USE,
    lib.BOOTSTRAP_UNKNOWN_SERVICE,
    lib.BOOTSTRAP_NOT_PRIVILEGED,
)


def files(directory: Path) -> list[str]:
    return sorted(file for file in os.listdir(directory) if file != ".lock")


# -- names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "x",
        "org.machrv.MachPortRendezvousServer.1",
        ".hidden",
        "%percent",
        "a/b/../c",
        "with space",
        "ü" * 60,
        "n" * 5000,
    ]
    + ["line\nbreak", "nul\0nul", ".lock", ".", "..", "/", "\udcff", "-rf"],
)
def test_any_name_can_be_taken(bootstrap: Path, task: LinuxKernel, peer: Peer, name: str) -> None:
    """Checked in by one process, looked up by another, and no more than two files while it lives."""
    door = task.bootstrap_check_in(name)
    assert len(files(bootstrap)) == 2
    way = peer.bootstrap_look_up(name)
    send(peer, way, 4)
    assert receive(task, door).id == 4
    assert code_of(peer.bootstrap_check_in, name) == IN_USE
    end(task, door)
    assert files(bootstrap) == []
    assert code_of(peer.bootstrap_look_up, name) == UNKNOWN
    peer.mach_port_deallocate(way)


def test_the_empty_name_is_nobodys(task: LinuxKernel) -> None:
    """It can neither be taken nor found."""
    assert code_of(task.bootstrap_check_in, "") == UNKNOWN
    assert code_of(task.bootstrap_look_up, "") == UNKNOWN


def test_names_that_look_alike_are_different(task: LinuxKernel, peer: Peer) -> None:
    """A name that is written as a digest does not meet the name that reads like that digest."""
    taken = {name: task.bootstrap_check_in(name) for name in ("a/b", "a\0b", "a", "a ", "A")}
    written = {file for file in files(Path(os.environ["MACHRV_BOOTSTRAP_DIR"])) if file.startswith("%")}
    for file in written:
        assert code_of(peer.bootstrap_look_up, file) == UNKNOWN
    for name, door in taken.items():
        way = peer.bootstrap_look_up(name)
        send(peer, way, 1, name.encode())
        assert receive(task, door).body[: len(name)] == name.encode()
        peer.mach_port_deallocate(way)
        end(task, door)


def test_a_directory_with_a_long_path(tmp_path: Path, task: LinuxKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than a socket's address can be: names are taken, found, merged and removed all the same."""
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("MACHRV_BOOTSTRAP_DIR", str(deep))
    with started() as peer:
        before = descriptors()
        door = task.bootstrap_check_in("door")
        way = peer.bootstrap_look_up("door")
        assert peer.bootstrap_look_up("door") == way
        send(peer, way, 1, descriptors=[PortDescriptor(way, Disposition.COPY_SEND)])
        assert names(receive(task, door)) == [door]
        assert code_of(peer.bootstrap_check_in, "door") == IN_USE
        task.mach_port_deallocate(door)
        end(task, door)
        assert files(deep) == [] and descriptors() == before
        peer.mach_port_mod_refs(way, lib.MACH_PORT_RIGHT_DEAD_NAME, -2)


def test_a_process_looks_itself_up(task: LinuxKernel) -> None:
    """A send reference of the port's own name; nothing else is left of the connection."""
    door = task.bootstrap_check_in("door")
    for expected in (1, 2, 3):
        assert task.bootstrap_look_up("door") == door
        assert refs(task, door) == expected
    assert task.mach_port_type(door) == RECEIVE | SEND
    assert nothing_waits(task, door)
    assert task.mach_port_get_attributes(door, lib.MACH_PORT_RECEIVE_STATUS).mscount == 3  # type: ignore[union-attr]
    task.mach_port_destroy(door)


def test_of_many_who_want_a_name_one_gets_it(task: LinuxKernel, peer: Peer, other: Peer) -> None:
    """Processes and threads at once, over and over: one owner each time, everybody else is told."""
    third = LinuxKernel()
    for number in range(20):
        name = f"wanted-{number}"
        for who in (peer, other):
            who.begin("bootstrap_check_in", name)
        results: list[int] = []
        threads = [in_thread(lambda k=kernel: results.append(try_check_in(k, name))) for kernel in (task, third)]
        for thread in threads:
            thread.join(PATIENCE)
        for who in (peer, other):
            try:
                results.append(who.end())
            except MachError as error:
                assert error.code == IN_USE
                results.append(0)
        assert sum(result != 0 for result in results) == 1, results
        way = task.bootstrap_look_up(name)
        task.mach_port_deallocate(way)
        for kernel in (task, third, peer, other):
            for found, kind in kernel.mach_port_names():
                kernel.mach_port_destroy(found)
    third.close()


def try_check_in(kernel: LinuxKernel, name: str) -> int:
    try:
        return kernel.bootstrap_check_in(name)
    except MachError as error:
        assert error.code == IN_USE
        return 0


# -- what the killed leave behind ------------------------------------------------------------------------------------------


def test_a_stale_name_is_replaced(bootstrap: Path, task: LinuxKernel, peer: Peer) -> None:
    """Its owner was killed: the name is unknown, can be taken, and its files go."""
    peer.bootstrap_check_in("door")
    peer.bootstrap_check_in("another")
    peer.kill()
    assert len(files(bootstrap)) == 4
    assert code_of(task.bootstrap_look_up, "door") == UNKNOWN
    door = task.bootstrap_check_in("door")
    assert len(files(bootstrap)) == 2
    assert task.bootstrap_look_up("door") == door
    task.mach_port_destroy(door)


def test_a_check_in_that_was_killed_half_way(bootstrap: Path, task: LinuxKernel) -> None:
    """A socket without a name, a name without a socket: in nobody's way, and swept."""
    bootstrap.mkdir(0o700)
    socket_file = bootstrap / ("." + "0" * 32)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as one:
        one.bind(str(socket_file))
    (bootstrap / "door").symlink_to("." + "1" * 32)
    assert code_of(task.bootstrap_look_up, "door") == UNKNOWN
    door = task.bootstrap_check_in("door")
    assert not socket_file.exists()
    assert task.bootstrap_look_up("door") == door
    task.mach_port_destroy(door)


@pytest.mark.parametrize("kind", ["file", "socket", "listener"])
@pytest.mark.parametrize("absolute", [False, True])
def test_a_link_that_leads_out_of_the_directory(bootstrap: Path, task: LinuxKernel, kind: str, absolute: bool) -> None:
    """It is no name of ours: looked up, it is unknown, and who listens there hears nothing; checking in, under it or another
    name, leaves alone what it points to."""
    bootstrap.mkdir(0o700)
    there = "." + "2" * 32
    canary = bootstrap.parent / there
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as one:
        if kind == "file":
            canary.write_text("precious")
        else:
            one.bind(str(canary))
        if kind == "listener":
            one.listen()
            one.setblocking(False)
        else:
            one.close()
        for name in ("door", there):
            (bootstrap / name).symlink_to(canary if absolute else f"../{there}")
        (bootstrap / "through").symlink_to(there)
        for name in ("door", there, "through"):
            assert code_of(task.bootstrap_look_up, name) == UNKNOWN
        end(task, task.bootstrap_check_in("another"))
        assert canary.is_socket() or kind == "file"
        for name in ("door", "through"):
            try:
                end(task, task.bootstrap_check_in(name))
            except MachError as error:
                assert error.code == IN_USE
            assert canary.exists()
        if kind == "listener":
            with pytest.raises(BlockingIOError):
                one.accept()
    for file in files(bootstrap):
        (bootstrap / file).unlink()


def test_a_name_that_is_somebody_elses_by_now_stays(bootstrap: Path, task: LinuxKernel, peer: Peer) -> None:
    """Somebody removed the name, as what clears /tmp does, and another process has taken it: the old port leaves it alone."""
    door = task.bootstrap_check_in("door")
    (bootstrap / "door").unlink()
    theirs = peer.bootstrap_check_in("door")
    end(task, door)
    way = task.bootstrap_look_up("door")
    send(task, way, 5)
    assert receive(peer, theirs).id == 5
    task.mach_port_deallocate(way)
    end(peer, theirs)


def test_a_name_in_another_directory_does_not_come_along(
    bootstrap: Path, task: LinuxKernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A receive right with a name is received where names live elsewhere: it is a port without a name from then on."""
    second = LinuxKernel()  # Another task of this process: to another process no name moves anyway.
    port, to = introduce(second, task)
    door = task.bootstrap_check_in("door")
    monkeypatch.setenv("MACHRV_BOOTSTRAP_DIR", str(tmp_path / "elsewhere"))
    send(task, to, descriptors=[PortDescriptor(door, Disposition.MOVE_RECEIVE)])
    (got,) = names(receive(second, port))
    monkeypatch.setenv("MACHRV_BOOTSTRAP_DIR", str(bootstrap))
    try:
        assert code_of(task.bootstrap_look_up, "door") == UNKNOWN
    finally:
        end(second, got)
        task.mach_port_deallocate(to)
        second.close()
    end(task, task.bootstrap_check_in("door"))  # what was left of it is stale


def test_what_else_lies_in_the_directory(bootstrap: Path, task: LinuxKernel) -> None:
    """Files, folders, links to themselves or to nowhere: errors of Mach's, and nothing of it is removed."""
    bootstrap.mkdir(0o700)
    (bootstrap / "plain").write_text("not a name")
    (bootstrap / "folder").mkdir()
    for name, target in (("loop", "loop"), ("long", "x" * 300)):
        (bootstrap / name).symlink_to(target)
    for name in ("plain", "folder", "loop", "long"):
        code_of(task.bootstrap_look_up, name)
    end(task, task.bootstrap_check_in("door"))
    assert (bootstrap / "plain").read_text() == "not a name" and (bootstrap / "folder").is_dir()
    (bootstrap / "folder").rmdir()
    for file in files(bootstrap):
        (bootstrap / file).unlink()


def test_a_lock_that_is_held(bootstrap: Path, task: LinuxKernel) -> None:
    """Whoever holds the lock file, and does not let go, cannot stop the rest of the space; a check-in ends in time."""
    end(task, task.bootstrap_check_in("first"))
    lock = os.open(bootstrap / ".lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    codes: list[object] = []

    def check_in() -> None:
        try:
            codes.append(("took", task.bootstrap_check_in("door")))
        except MachError as error:
            codes.append(error.code)

    waiter = in_thread(check_in)
    for _ in range(100):
        end(task, allocate(task))
    assert waiter.is_alive() or codes
    os.close(lock)
    waiter.join(PATIENCE)
    assert not waiter.is_alive()
    for found in codes:
        if isinstance(found, tuple):
            end(task, found[1])


# -- the directory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701, 0o777])
def test_a_directory_that_others_can_enter_is_refused(bootstrap: Path, task: LinuxKernel, mode: int) -> None:
    """BOOTSTRAP_NOT_PRIVILEGED, with the directory and what to do in the text."""
    bootstrap.mkdir()
    bootstrap.chmod(mode)
    for call in (task.bootstrap_check_in, task.bootstrap_look_up):
        with pytest.raises(MachError, match="mode 0700") as caught:
            call("door")
        assert caught.value.code == NOT_PRIVILEGED and str(bootstrap) in str(caught.value)


@pytest.mark.parametrize("what", ["a link", "a file", "another's", "nowhere"])
def test_a_directory_that_is_none_is_refused(bootstrap: Path, task: LinuxKernel, what: str) -> None:
    """A symbolic link, even to a good directory; a file; a directory of another user; a path that cannot be made."""
    if what == "a link":
        (bootstrap.parent / "real").mkdir(0o700)
        bootstrap.symlink_to(bootstrap.parent / "real")
    elif what == "a file":
        bootstrap.write_text("")
    elif what == "another's":
        if os.getuid() != 0:
            pytest.skip("needs to give a directory away")
        bootstrap.mkdir(0o700)
        os.chown(bootstrap, 65534, 65534)
    else:
        os.environ["MACHRV_BOOTSTRAP_DIR"] = "/proc/nowhere"
    assert code_of(task.bootstrap_check_in, "door") == NOT_PRIVILEGED
    assert code_of(task.bootstrap_look_up, "door") == NOT_PRIVILEGED
    if what == "a file":
        bootstrap.unlink()
    elif what == "a link":
        bootstrap.unlink()


def test_where_names_live(tmp_path: Path, nursery: object) -> None:
    """$MACHRV_BOOTSTRAP_DIR, else $XDG_RUNTIME_DIR/machrv, else a directory of this user's under /tmp."""
    source = """
import sys
from machrv.kernel.linux.bootstrap import directory
print(directory()[0])
"""

    def where(**variables: str) -> str:
        environment = {key: value for key, value in os.environ.items() if key not in VARIABLES} | variables
        return subprocess.check_output([sys.executable, "-c", source], env=environment, text=True).strip()

    runtime = tmp_path / "runtime"
    runtime.mkdir(0o700)
    named = {"MACHRV_BOOTSTRAP_DIR": str(tmp_path / "here"), "XDG_RUNTIME_DIR": str(runtime)}
    assert where(**named) == str(tmp_path / "here")
    assert where(XDG_RUNTIME_DIR=str(runtime)) == str(runtime / "machrv")
    assert stat.S_IMODE((runtime / "machrv").stat().st_mode) == 0o700
    for useless in ("relative", str(tmp_path / "missing")):
        assert where(XDG_RUNTIME_DIR=useless) == f"/tmp/machrv-{os.getuid()}"


VARIABLES = ("MACHRV_BOOTSTRAP_DIR", "XDG_RUNTIME_DIR")


# -- waiting ---------------------------------------------------------------------------------------------------------------


def test_a_look_up_at_a_full_backlog_lets_signals_in(bootstrap: Path, task: LinuxKernel) -> None:
    """A server that accepts nobody: who looks it up waits, but not deaf, and not for ever."""
    bootstrap.mkdir(0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(bootstrap / ("." + "a" * 32)))
        listener.listen(0)
        (bootstrap / "busy").symlink_to("." + "a" * 32)
        first = task.bootstrap_look_up("busy")
        heard: list[float] = []

        def handler(number: int, frame: object) -> None:
            heard.append(time.monotonic())
            if len(heard) == 3:
                listener.accept()[0].close()

        before = signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        try:
            second = task.bootstrap_look_up("busy")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert len(heard) >= 3
    for name in {first, second}:
        task.mach_port_destroy(name)
    for file in files(bootstrap):
        (bootstrap / file).unlink()
