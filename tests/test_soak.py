"""Load, for a short time: see tests/soak. `python -m tests.soak` does it with 100,000 claims."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_claims_kills_refusals_and_floods_leave_nothing_and_slow_nobody_down() -> None:
    """16 children at once; every right is accounted for, memory and descriptors stay flat, good children are served."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--claims", "1500"],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
