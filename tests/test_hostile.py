"""Hostile peers: each attacker of tests/hostile, on a server, a well-behaved child and clocks of its own.

`python -m tests.hostile` does the same for as long as wanted, and one line for each.
"""

from __future__ import annotations

import sys
import time

import pytest

if sys.platform != "linux":
    pytest.skip("attackers of the Linux port space", allow_module_level=True)

from .hostile import scenes_claims, scenes_closing, scenes_others  # noqa: F401 (they enter their scenes)
from .hostile.scenes import ATTACKS, Attack
from .hostile.stage import Stage

#: every number of the table in docs/security.md
NUMBERS = [f"F{number}" for number in range(1, 18)]


def test_every_number_has_an_attacker() -> None:
    """None was forgotten."""
    assert sorted({attack.number for attack in ATTACKS}) == sorted(NUMBERS)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("attack", ATTACKS, ids=[f"{one.number}-{one.name}" for one in ATTACKS])
def test_what_must_hold(attack: Attack) -> None:
    """What each says in its own words. Beside a machine's other work, one try may be a bad one."""
    missing = attack.missing()
    if missing:
        pytest.skip(missing)
    for tries in (2, 1, 0):
        try:
            with Stage(slack=10.0) as stage:  # The bound itself is the command's, on a machine without other work.
                stage.quick(5)
                attack.run(stage)
            return
        except AssertionError:
            if not tries:
                raise
            time.sleep(0.1)
