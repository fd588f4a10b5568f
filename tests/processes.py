"""Processes that wait to be looked at, and what a requirement says of them. The fixtures are imported where needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from machrv import AuditToken, ProcessRequirement, current
from machrv.requirement.process import Builder

from .conftest import PATIENCE

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root, to start processes of others")

#: As `cat`: stays until its standard input ends.
WAITS = "import sys; print(flush=True); sys.stdin.read()"

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a program that waits for the end of its standard input; all are gone when the test is over."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*args: str | Path, **popen: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **popen)
        started.append(process)
        return process

    yield start
    for process in started:
        process.communicate(timeout=PATIENCE)


def python(start: Start, code: str = WAITS, **popen: Any) -> subprocess.Popen[bytes]:
    """Python, running `code` so far that it has printed a line."""
    process = start(sys.executable, "-c", code, **popen)
    assert process.stdout is not None
    assert process.stdout.readline() == b"\n"
    return process


def token_of(pid: int) -> AuditToken:
    """The token that the process's messages bear, as far as requirements look at it."""
    with current().open_process(pid) as process:  # type: ignore[attr-defined]
        return AuditToken(pid=pid, pidversion=process.pidversion)


def ask() -> Builder:
    """A builder for this platform."""
    return ProcessRequirement.Builder()


def why_not(builder: Builder, process: subprocess.Popen[bytes]) -> str | None:
    """What keeps a process from meeting the requirement; None if nothing does."""
    requirement = builder.build()
    token = token_of(process.pid)
    reason = requirement.mismatch(token)
    assert requirement.validate(token) == (reason is None)
    return reason


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    """A program of this test's own."""
    copy = tmp_path / "cat"
    shutil.copy(shutil.which("cat") or "/bin/cat", copy)
    return copy


def wait_for_program(process: subprocess.Popen[bytes], name: str) -> None:
    """Until it has exec'ed: it says what it is told."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"there?\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"there?\n"
    assert os.readlink(f"/proc/{process.pid}/exe").endswith(name)
