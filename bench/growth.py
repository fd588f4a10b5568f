"""What becomes slower, or larger, with more: clients at once, registrations, names. `python -m bench.growth` prints JSON.

What belongs here: the series of issue and page, each point measured in turn with the others, so that one disturbance does
not make a slope. What must never happen here: a verdict; that is `bench.targets`, in the short form that CI runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from bench.measure import HERE, compiled, server, worker

CLIENTS = (1, 8, 64, 500)
REGISTRATIONS = (10, 100, 1000, 10_000)
NAMES = (10, 100, 1000, 10_000, 100_000)
ROUNDS = 5

#: by what is counted, a point for each number: what was measured, in microseconds or bytes
Series = dict[str, dict[int, float]]


def series(counts: tuple[int, ...], rounds: int, once: Callable[[int], dict[str, float]]) -> Series:
    """Every count in every round; the medians of the rounds."""
    taken: dict[str, dict[int, list[float]]] = {}
    for _ in range(rounds):
        for count in counts:
            for what, figure in once(count).items():
                taken.setdefault(what, {}).setdefault(count, []).append(figure)
    return {what: {count: median(figures) for count, figures in points.items()} for what, points in taken.items()}


def _program(name: str, *arguments: str, given: str = "") -> dict[str, float]:
    command = [sys.executable, str(HERE / "programs" / f"{name}.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    answered = subprocess.run(command, input=given, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    figures: dict[str, float] = json.loads(answered.stdout)
    return figures


def names(counts: tuple[int, ...] = NAMES, rounds: int = ROUNDS) -> Series:
    """Of one name in a space of so many; see bench/programs/names.py."""
    return series(counts, rounds, lambda count: _program("names", str(count)))


@contextmanager
def sleepers(program: str, count: int) -> Iterator[list[int]]:
    """The pids of so many processes that are there and do nothing."""
    with subprocess.Popen([program, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        yield [int(process.stdout.readline()) for _ in range(count)]
        process.stdin.close()
        assert process.wait(60) == 0


def registrations(program: str, counts: tuple[int, ...] = REGISTRATIONS, rounds: int = ROUNDS) -> Series:
    """Of one registration among so many, each for a process of its own; `program` is bench/c/sleepers.c, compiled."""

    def once(count: int) -> dict[str, float]:
        with sleepers(program, count) as pids:
            return _program("registrations", given="\n".join(map(str, pids)))

    return series(counts, rounds, once)


@contextmanager
def crowds(folder: Path, counts: tuple[int, ...], peer: str = "machrv") -> Iterator[dict[int, Callable[[int], float]]]:
    """For each count, the side that lets so many client processes claim from one server, the same for all."""
    address = str(folder / f"org.machrv.bench.crowd.{os.getpid()}.{peer.replace(' ', '-')}")
    with ExitStack() as stack:
        programs = HERE / "programs"
        stack.enter_context(server([sys.executable, str(programs / "rendezvous.py"), "serve", peer, address, "1"]))
        crowd = [sys.executable, str(programs / "crowd.py"), peer, address]
        yield {count: stack.enter_context(worker([*crowd, str(count)])) for count in counts}


def clients(folder: Path, counts: tuple[int, ...] = CLIENTS, rounds: int = ROUNDS, claims: int = 4000) -> Series:
    """Microseconds per claim, so many clients being at it at once; `claims` in each round, by all of them together."""
    with crowds(folder, counts) as ours, crowds(folder, counts, "plain sockets") as sockets:
        return series(
            counts,
            rounds,
            lambda count: {"claim": ours[count](claims) / 1000, "plain sockets": sockets[count](claims) / 1000},
        )


def measured() -> dict[str, Series]:
    """All of it."""
    with tempfile.TemporaryDirectory() as folder:
        return {
            "clients": clients(Path(folder)),
            "registrations": registrations(compiled("sleepers", Path(folder))),
            "names": names(),
        }


if __name__ == "__main__":
    print(json.dumps(measured(), indent=1))
