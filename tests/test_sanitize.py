"""The C of machrv/native/linux under compilers, sanitizers and valgrind, and with every call of the C library failing in turn:
see tests/sanitize, which also runs the tests under sanitizers."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .sanitize import programs, static

ROOT = Path(__file__).parent.parent


def run(*what: str) -> str:
    """One of the commands: what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.sanitize", *what],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_no_compiler_that_is_here_warns() -> None:
    """gcc and clang, every warning that the project asks for."""
    run("warnings")


@pytest.mark.slow
def test_no_analyzer_that_is_here_finds_anything() -> None:
    """gcc's and clang's."""
    run("analyze")


@pytest.mark.skipif(not static.has_ziglang(), reason="ziglang is not installed (pip install 'machrv[release]')")
@pytest.mark.slow
def test_it_compiles_for_musl_and_for_aarch64() -> None:
    """Without a warning."""
    run("cross")


def test_whatever_fails_nothing_is_left_and_nothing_crashes() -> None:
    """Every allocation and every system call of a scenario in two tasks, under both sanitizers where there are any."""
    said = run("faults")
    places = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+) places", said, re.MULTILINE)}
    assert places["memory"] > 100 and places["sendmsg"] > 20 and places["socketpair"] > 20, said


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed (apt install valgrind)")
def test_the_scenario_under_valgrind() -> None:
    """No leak, and nothing is read that was never written."""
    run("valgrind")


@pytest.mark.skipif(
    not programs.supports(*programs.THREAD), reason="the compiler has no ThreadSanitizer (apt install gcc)"
)
def test_threads_do_not_touch_anything_at_once() -> None:
    """Under ThreadSanitizer."""
    assert int(re.findall(r"^(\d+) calls", run("threads", "2"), re.MULTILINE)[0]) > 1000
