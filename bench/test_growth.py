"""What becomes slower, or larger, with more: clients at once, registrations. `python -m bench.growth` has the whole picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


from bench.conftest import Held
from bench.growth import crowds, registrations

KIB = 1024


def test_clients_at_once(held: Held, full: bool, tmp_path: Path) -> None:
    """Time per claim, with so many client processes that ask one server at once."""
    many = 500 if full else 64
    with crowds(tmp_path, (many, 8)) as sides:
        found = {f"{count} clients": side for count, side in sides.items()}
        held("growth", f"{many} clients", found, count=20 * many, rounds=5)


def test_memory_of_a_registration(compiled: Callable[[str], str]) -> None:
    """A registration costs one descriptor, its process's pidfd, and at most a KiB beyond."""
    of_one = registrations(compiled("sleepers"), (1000,), rounds=3)
    assert of_one["descriptors"][1000] == 1
    assert of_one["resident"][1000] <= KIB
