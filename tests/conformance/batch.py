"""Many vectors, in this process or in several.

What belongs here: who replays which vector. In a module of its own because a process that is spawned cannot import what
stands in `__main__`.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from .kernels import KERNELS
from .replay import Difference, replay
from .vectors import Vector

#: A vector and the file that it stands in.
Work = tuple[str, Vector]
#: The file, how many steps ran, where the vector differs.
Outcome = tuple[str, int, Difference | None]

BATCH = 50


def replay_all(work: list[Work], kernel: str, jobs: int) -> Iterator[Outcome]:
    """What becomes of every vector, in their order."""
    batches = [work[start : start + BATCH] for start in range(0, len(work), BATCH)]
    if jobs == 1:
        for batch in batches:
            yield from replay_batch(kernel, batch)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for outcomes in pool.map(replay_batch, [kernel] * len(batches), batches):
            yield from outcomes


def replay_batch(kernel: str, work: list[Work]) -> list[Outcome]:
    """What becomes of some vectors, replayed in this process."""
    return [(source, *replay(vector, KERNELS[kernel])) for source, vector in work]
