"""What benchmarks share: C programs compiled on the spot, how long to measure, and the table at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import measure
from bench.measure import HERE, Result, Side, compare, pinned, results
from bench.targets import TARGETS

Held = Callable[..., Result]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("machrv benchmarks")
    group.addoption("--full", action="store_true", help="measure for minutes, not for seconds")
    group.addoption("--figures", metavar="FILE", help="write what was measured to FILE, as JSON")


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether there is time for everything."""
    return bool(request.config.getoption("--full"))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Compiles bench/c/NAME.c, once."""
    folder = tmp_path_factory.mktemp("c")
    return lambda name: measure.compiled(name, folder)


@pytest.fixture(params=["free", "one CPU"])
def placement(request: pytest.FixtureRequest) -> Iterator[str]:
    """Everything that is started meanwhile runs where it likes, or on one CPU."""
    with pinned(request.param == "one CPU"):
        yield request.param


@pytest.fixture
def held(full: bool, benchmark: BenchmarkFixture) -> Held:
    """`compare`, with as much time as there is; fails where a ratio of the best rounds is above its ceiling in bench.targets.

    pytest-benchmark runs the rounds. Its own table shows whole rounds; microseconds and ratios go into its `extra_info`.
    """

    def held(
        group: str, name: str, sides: dict[str, Side], seconds: float = 0.1, count: int = 0, rounds: int = 0
    ) -> Result:
        benchmark.group = group
        # Many short rounds: what disturbs a few of them does not move the median.
        seconds, rounds = (seconds, rounds or 45) if full else (seconds / 4, rounds or 15)
        result = compare(group, name, sides, seconds, rounds, benchmark.pedantic, count)
        benchmark.extra_info.update(microseconds=result.times, ratios=result.ratios)
        for side, ratio in result.best.items():
            found = TARGETS.get((group, name, side))
            assert found is None or ratio <= found.ceiling, (
                f"{group}, {name}: {ratio:.2f} times {side} in the best rounds ({result.ratios[side]:.2f} in the middle), and more "
                f"than {found.ceiling:.2f} is a step back (the target is {found.ratio:.2f})"
            )
        return result

    return held


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if results:
        terminalreporter.section("microseconds, and ratios of machrv to the others: medians of alternating rounds")
    group = ""
    for result in results:
        if result.group != group:
            group = result.group
            terminalreporter.write_line(f"\n{group}", bold=True)
        parts = []
        for side, time in result.times.items():
            ratio = f" ({result.ratios[side]:.2f})" if side in result.ratios else ""
            target = TARGETS.get((group, result.name, side))
            mark = "" if target is None else " ok" if result.ratios[side] <= target.ratio else f" MISSED {target.ratio}"
            parts.append(f"{side} {time:.2f}{ratio}{mark}")
        terminalreporter.write_line(f"  {result.name:<28} {'; '.join(parts)}")
    file = config.getoption("--figures")
    if file:
        Path(file).write_text(json.dumps([result._asdict() for result in results], indent=1) + "\n")
