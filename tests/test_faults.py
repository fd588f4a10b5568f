"""A claim with one system call broken: see tests/faults. `python -m tests.faults` plays every case."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .faults.strace import why_not


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_whatever_call_of_a_claim_fails_nothing_is_lost_and_the_next_client_is_served() -> None:
    """Each side has a claim or a typed error in bounded time, every right is given up exactly once. Every fourth case."""
    played = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--quick"],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert played.returncode == 0, played.stdout
