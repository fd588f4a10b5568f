"""What benchmarks share: C programs compiled on the spot, and ratios taken in alternating rounds."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest

HERE = Path(__file__).parent

#: Rounds that each side of a ratio takes, in turn, so that what disturbs one disturbs the other.
ROUNDS = 7

Side = Callable[[], float]
Compare = Callable[..., float]

_lines: list[str] = []


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The path of a program compiled from bench/c/NAME.c."""
    folder = tmp_path_factory.mktemp("c")

    def compile(name: str) -> str:
        program = folder / name
        if not program.exists():
            compiler = shlex.split(os.environ.get("CC", "cc"))
            subprocess.run([*compiler, "-O2", "-o", str(program), str(HERE / "c" / f"{name}.c")], check=True)
        return str(program)

    return compile


@pytest.fixture
def compare() -> Compare:
    """A function that takes two sides, each a callable that runs for a moment and returns nanoseconds per unit.

    It runs them in turn, writes both medians and their ratio into the summary, and returns the ratio.
    """

    def compare(what: str, side: Side, unit: str, limit: Side) -> float:
        figures: list[tuple[float, float]] = [(side(), limit()) for _ in range(ROUNDS)]
        ours, theirs = (median(column) for column in zip(*figures))
        ratio = median(one / other for one, other in figures)
        _lines.append(f"{what:<38} {ours / 1000:8.2f} us   {unit:<22} {theirs / 1000:8.2f} us   {ratio:6.2f}")
        return ratio

    return compare


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _lines:
        terminalreporter.section(f"ratios: medians of {ROUNDS} alternating rounds")
        for line in _lines:
            terminalreporter.write_line(line)
    _lines.clear()
