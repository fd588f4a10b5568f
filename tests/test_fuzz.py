"""Fuzzing for a bounded time: see tests/fuzz. `python -m tests.fuzz` does it for as long as wanted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from .fuzz import TARGETS, engine
from .fuzz.stateful import Rendezvous

SECONDS = 3


def fuzz(target: str, *options: str) -> None:
    """In a process of its own: the target counts what is left, and libFuzzer ends the process that it runs in."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", f"--seconds={SECONDS}", *options, target],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_kept_and_its_mutations_find_nothing(target: str) -> None:
    """Every input of the corpus, then mutations of them."""
    fuzz(target, "--plain")


@pytest.mark.skipif(
    not engine.has_atheris(), reason="atheris is not installed (pip install 'machrv[dev]'): no guidance"
)
@pytest.mark.parametrize("target", TARGETS)
def test_what_coverage_leads_to_finds_nothing(target: str) -> None:
    """The same targets, guided."""
    fuzz(target)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_no_order_of_events_loses_a_right() -> None:
    """Registering, claiming, refusing, killing, clearing, flooding: see tests/fuzz/stateful.py."""
    run_state_machine_as_test(Rendezvous, settings=settings(max_examples=25, stateful_step_count=20, deadline=None))
