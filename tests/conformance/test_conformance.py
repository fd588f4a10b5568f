"""Every recorded vector over every kernel: all answers are XNU's, and nothing is left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .kernels import KERNELS, private_bootstrap_directory
from .replay import Difference, replay
from .report import describe
from .vectors import check_step, read

FILES = sorted((Path(__file__).parent / "vectors").glob("*.jsonl.gz"))
CHUNK = 100
CHUNKS = [
    pytest.param(path, first, id=f"{path.name.partition('.')[0]}-{first}")
    for path in FILES
    for first in range(0, sum(1 for _ in read(path)), CHUNK)
]


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else []


def test_all_recorded_vectors_are_here() -> None:
    """The four files hold the whole recording, and the replayer knows every field in it."""
    vectors = [vector for path in FILES for vector in read(path)]
    assert len(vectors) == 2170
    assert sum(len(vector["steps"]) for vector in vectors) == 30412
    for vector in vectors:
        for step in vector["steps"]:
            check_step(step)


@pytest.mark.parametrize("kernel", sorted(KERNELS))
@pytest.mark.parametrize(("path", "first"), CHUNKS)
def test_kernel_answers_as_xnu(path: Path, first: int, kernel: str) -> None:
    """Nothing differs in any step of these vectors; afterwards no descriptor and no service name is left."""
    vectors = list(read(path))[first : first + CHUNK]
    differences: list[Difference] = []
    with private_bootstrap_directory() as directory:
        replay(vectors[0], KERNELS[kernel])  # what a first use opens for good is not a leak
        before = descriptors()
        for vector in vectors:
            _, difference = replay(vector, KERNELS[kernel])
            if difference is not None:
                differences.append(difference)
        assert descriptors() == before
        # The Linux kernel's directory keeps the file that its check-ins lock; nothing else may be left.
        assert [file for file in os.listdir(directory) if file != ".lock"] == []
    if differences:
        shown = "\n\n".join(describe(path.name, difference) for difference in differences[:3])
        pytest.fail(f"{len(differences)} of {len(vectors)} vectors differ:\n\n{shown}", pytrace=False)
