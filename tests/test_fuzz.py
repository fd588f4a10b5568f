"""Fuzzing for a bounded time: see tests/fuzz. `python -m tests.fuzz` does it for as long as wanted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from .fuzz import NATIVE, TARGETS, engine, machines
from .fuzz.native import has_libfuzzer

SECONDS = 2


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
@pytest.mark.parametrize("target", [target for target in TARGETS if target not in NATIVE])
def test_what_coverage_leads_to_finds_nothing(target: str) -> None:
    """The same targets, guided."""
    fuzz(target)


@pytest.mark.skipif(not has_libfuzzer(), reason="clang's libFuzzer is not installed (apt install clang)")
@pytest.mark.parametrize("target", NATIVE)
def test_what_coverage_of_the_c_leads_to_finds_nothing(target: str) -> None:
    """The C alone, guided."""
    fuzz(target)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(("target", "examples"), [("codec", 100), ("packets", 100), ("server", 25), ("client", 100)])
def test_no_order_of_events_finds_anything(target: str, examples: int) -> None:
    """Registering, claiming, refusing, killing, clearing, attacking; what waits, what is taken and what is not."""
    machines.run(target, examples)
