"""Rights, dispatch, launching and the whole rendezvous over the macOS kernel: parents and children, all of them.

The tests of those rooms run once more in a process whose kernel, and that of every process it starts, is the macOS
adapter over the stand-in (tests/standin/site).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tests.standin  # noqa: F401  (skips where it cannot run)

TESTS = Path(__file__).resolve().parent
SITE = TESTS / "standin" / "site"
RENDEZVOUS = {*TESTS.glob("test_rendezvous*.py"), TESTS / "test_validation.py", TESTS / "test_validation_hostile.py"}

#: What a hardened process must get through; the tests of rights make mistakes on purpose, which would end one.
ROOMS = [
    "channel",
    "channel_methods",
    "chromium_golden",
    "dispatch",
    "launch",
    "memory_object",
    "pid_reuse",
    *sorted(path.stem[5:] for path in RENDEZVOUS),
]


def run(*arguments: str, hardened: bool) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SITE), str(TESTS.parent)])}
    environment.pop("STANDIN_HARDENED", None)
    if hardened:
        environment["STANDIN_HARDENED"] = "1"
    return subprocess.run(
        [sys.executable, *arguments], cwd=TESTS.parent, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("room", ["rights", *ROOMS])
def test_everything_holds_over_the_macos_kernel(room: str) -> None:
    """Every test of the room passes; in the rooms of the rendezvous no process makes a mistake about a right."""
    options = ["-q", "--tb=short", "-p", "no:cacheprovider"]
    done = run("-m", "pytest", *options, f"tests/test_{room}.py", hardened=room in ROOMS)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    assert " passed" in done.stdout or " skipped" in done.stdout


def test_it_is_the_macos_kernel_that_they_run_over() -> None:
    """In such a process, and in one that it starts, the kernel is the adapter."""
    ask = "from machrv.kernel import current; print(type(current()).__mro__[1].__name__, current().name)"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ask!r}], check=True)"
    assert run("-c", nested, hardened=True).stdout == "DarwinKernel darwin\n"
