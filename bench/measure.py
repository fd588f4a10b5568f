"""Measuring: ratios between several ways of doing one thing, taken in alternating rounds; processes that do the work.

What belongs here: how figures are taken and kept. What must never happen here: knowledge of what is measured, or a
figure of one run held against a figure of another.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import NamedTuple

HERE = Path(__file__).resolve().parent

#: Does its work so many times, and returns the nanoseconds that one of them took.
Side = Callable[[int], float]


class Result(NamedTuple):
    """One thing measured: who was measured beside whom, microseconds each, and ratios to the first."""

    group: str
    name: str
    #: by side, in microseconds
    times: dict[str, float]
    #: how much longer the first side takes than each other one: medians of the rounds' ratios
    ratios: dict[str, float]
    #: the same of the best round of each side, which other programs have disturbed least
    best: dict[str, float]


#: What this run has measured so far.
results: list[Result] = []


def compare(
    group: str,
    name: str,
    sides: Mapping[str, Side],
    seconds: float,
    rounds: int,
    conduct: Callable[..., object],
    count: int = 0,
) -> Result:
    """Run the sides in turn, each for about `seconds` at a time, so that what disturbs one disturbs the others, and hold the
    first against the others. Each round begins with another one of those, so that what one leaves behind (cold caches, say)
    is not always found by the same.

    `count`: how often each side does its work in a round, where that is not to be found out.
    `conduct` runs the rounds, as the `pedantic` of pytest-benchmark does: the first side is its target.
    """
    counts = {side: count or _calibrated(run, seconds) for side, run in sides.items()}
    taken: dict[str, list[float]] = {side: [] for side in sides}
    first, *others = sides

    def measure(*which: str) -> None:
        for side in which:
            taken[side].append(sides[side](counts[side]))

    def measure_others() -> None:
        begin = len(taken[first]) % len(others)
        measure(*others[begin:], *others[:begin])

    conduct(lambda: measure(first), setup=measure_others, rounds=rounds, iterations=1)
    result = Result(
        group,
        name,
        {side: median(figures) / 1000 for side, figures in taken.items()},
        {side: median(one / other for one, other in zip(taken[first], taken[side])) for side in others},
        {side: min(taken[first]) / min(taken[side]) for side in others},
    )
    results.append(result)
    return result


def _calibrated(run: Side, seconds: float) -> int:
    """How often in `seconds`. What the first runs load and set up does not count, and the last of them warms up."""
    run(1)
    count = 1
    while True:
        spent = run(count) * count / 1e9
        if spent >= seconds / 4:
            count = max(1, int(count * seconds / spent))
            return max(1, int(seconds * 1e9 / run(count)))
        count *= 2 if spent > seconds / 100 else 10


def repeated(work: Callable[[], object], clock: Callable[[], int] = perf_counter_ns) -> Side:
    """A side within this process. `clock`: where nothing is waited for, the time that this thread runs (thread_time_ns) is
    the same, but for what other processes take away."""

    def run(count: int) -> float:
        began = clock()
        for _ in range(count):
            work()
        return (clock() - began) / count

    return run


@contextmanager
def worker(command: Sequence[str]) -> Iterator[Side]:
    """A side that is a process: for each number on its standard input it does its work so many times, and answers with
    the nanoseconds that each took. `answer` below is its end in Python."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        lines_in, lines_out = process.stdin, process.stdout

        def run(count: int) -> float:
            lines_in.write(f"{count}\n")
            lines_in.flush()
            line = lines_out.readline()
            if not line:
                raise RuntimeError(f"{' '.join(command)} has ended early: {process.wait()}")
            return float(line)

        yield run
        process.stdin.close()
        assert process.wait(30) == 0


@contextmanager
def server(command: Sequence[str]) -> Iterator[None]:
    """A process that serves from its "ready" on until its standard input ends."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"ready\n", f"{' '.join(command)} does not serve"
        yield
        process.stdin.close()
        assert process.wait(30) == 0


def answer(run: Side) -> None:
    """Be a `worker`: answer until standard input ends."""
    import gc
    import sys

    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        print(run(int(line)), flush=True)


@contextmanager
def pinned(pin: bool) -> Iterator[None]:
    """This process, and all that it starts meanwhile, on one CPU; or as they are."""
    before = os.sched_getaffinity(0)
    try:
        if pin:
            os.sched_setaffinity(0, {max(before)})
        yield
    finally:
        os.sched_setaffinity(0, before)


def compiled(name: str, folder: Path) -> str:
    """The path of a program compiled from bench/c/NAME.c into a folder; what it includes of machrv is linked in."""
    program, source, root = folder / name, HERE / "c" / f"{name}.c", HERE.parent
    if not program.exists():
        command = [
            *shlex.split(os.environ.get("CC", "cc")),
            "-O2",
            "-pthread",
            f"-I{root / 'include'}",
            "-o",
            str(program),
            str(source),
        ]
        if "machrv/linux.h" in source.read_text():
            command += map(str, sorted((root / "machrv" / "native" / "linux").glob("*.c")))
        subprocess.run(command, check=True)
    return str(program)
