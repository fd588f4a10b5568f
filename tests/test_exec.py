"""`machrv exec`: a program in C that knows nothing of machrv finds its files and sockets where it expects them."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from machrv import MemoryObject, ReceiveRight, RendezvousServer, launch

from .conftest import PATIENCE, finish

EXEC = [sys.executable, "-m", "machrv", "exec"]

#: Answers on descriptor 3, writes what LISTEN_* say to standard output, and how many descriptors are open.
SERVER = r"""
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int count, char **words) {
    char heard[100];
    ssize_t size = read(3, heard, sizeof heard);
    if (size < 0 || write(3, heard, (size_t)size) != size) return 1;
    const char *fds = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID"), *names = getenv("LISTEN_FDNAMES");
    struct sigaction pipe;
    sigaction(SIGPIPE, NULL, &pipe);
    int open = 0;
    DIR *folder = opendir("/proc/self/fd");
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) open += entry->d_name[0] != '.';
    printf("%s %s %s %s %s %d\n", words[count - 1], fds ? fds : "-", names ? names : "-",
           pid && atol(pid) == getpid() ? "me" : "-", pipe.sa_handler == SIG_DFL ? "default" : "ignored", open - 1);
    return 7;
}
"""


@pytest.fixture(scope="module")
def c_program(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("c")
    (folder / "server.c").write_text(SERVER)
    subprocess.run([compiler, "-Wall", "-o", folder / "server", folder / "server.c"], check=True)
    return str(folder / "server")


def talk(command: list[str], values: dict[str, Any], ours: socket.socket) -> tuple[int, str]:
    """Launch, say something, and hear it back; the exit status and what was printed."""
    ours.settimeout(PATIENCE)
    child = launch(command, values, stdout=subprocess.PIPE)
    values["sock"].close()
    ours.sendall(b"ping")
    heard = ours.recv(100)
    out = child.communicate(timeout=PATIENCE)[0].decode()
    assert heard == b"ping", out
    return finish(child), out


def test_a_program_in_c_finds_its_socket_at_3(server: RendezvousServer, c_program: str) -> None:
    """And nothing else but standard input, output and error; its exit status is the child's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found = talk([*EXEC, "sock=3", "--", c_program, "--word"], {"sock": theirs}, ours)
    assert found == (7, "--word - - - default 4\n")


def test_with_listen_it_is_told_as_systemd_tells(server: RendezvousServer, c_program: str, tmp_path: Path) -> None:
    """Numbers in the order of what is asked for; names; and its own pid."""
    ours, theirs = socket.socketpair()
    with ours, theirs, open(tmp_path / "log", "w") as log:
        found = talk([*EXEC, "--listen", "sock", "log", "--", c_program, "x"], {"sock": theirs, "log": log}, ours)
    assert found == (7, "x 2 sock:log me default 5\n")


def test_any_number_will_do(server: RendezvousServer, tmp_path: Path) -> None:
    """Standard output, those that machrv would have taken itself, and memory that the program can map."""
    shell = "cat <&9; cat <&4; echo to the log"
    with open(tmp_path / "in", "w+") as first, open(tmp_path / "out", "w+") as out:
        first.write("from a file\n")
        first.flush()
        first.seek(0)
        with MemoryObject.from_bytes(b"from memory\n") as memory, ReceiveRight.allocate() as port:
            values = {"in": first, "out": out, "memo": memory, "port": port.make_send()}
            command = [*EXEC, "in=9", "out=1", "memo=4", "--", "/bin/sh", "-c", shell]
            assert finish(launch(command, values)) == 0
        out.seek(0)
        assert out.read() == "from a file\nfrom memory\nto the log\n"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["sock=3"], 2, "no program was given"),
        (["--", "true"], 2, "nothing is to be claimed"),
        (["sock", "--", "true"], 2, "KEY=FD"),
        (["sock=x", "--", "true"], 2, "no number of a descriptor"),
        (["sock=99999999999", "--", "true"], 2, "no number of a descriptor"),
        (["a long key=3", "--", "true"], 2, "one to four characters"),
        (["sock=3", "log=3", "--", "true"], 2, "given twice"),
        (["sock=3", "sock=4", "--", "true"], 2, "given twice"),
        (["--listen", "sock=4", "--", "true"], 2, "3, 4"),
        (["none=3", "--", "true"], 125, "'file', 'port'"),
        (["port=3", "--", "true"], 125, "not an open file"),
        (["file=3", "--", "/nonexistent/program"], 127, "No such file"),
        (["file=3", "--", "/"], 126, "Permission denied"),
    ],
)
def test_what_makes_no_sense_is_said(
    server: RendezvousServer, words: list[str], status: int, said: str, tmp_path: Path
) -> None:
    """And what does not come: the program is not run then."""
    with open(tmp_path / "file", "w") as file, ReceiveRight.allocate() as port:
        values = {"file": file, "port": port.make_send()}
        child = launch([*EXEC, *words], values, stderr=subprocess.PIPE)
        complaint = child.communicate(timeout=PATIENCE)[1].decode()
    assert child.returncode == status and said in complaint, complaint
    assert "Traceback" not in complaint


def test_who_reads_no_more_ends_each_command_as_a_closed_pipe() -> None:
    """`machrv doctor | head -1`, and the like: 141 for a shell, and not a word."""
    for command in (["doctor", "--quick"], ["decode", "00" * 24], ["demo", "--json"], ["--version"]):
        with subprocess.Popen(
            [sys.executable, "-m", "machrv", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None and process.stderr is not None
            process.stdout.close()
            assert process.wait(PATIENCE) == 128 + signal.SIGPIPE, command
            assert process.stderr.read() == b""
