"""Rights that are forgotten: each is named in a warning that says which line it was made at."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator

import pytest

from machrv import ReceiveRight

from .conftest import PATIENCE, PROGRAMS

PROGRAM = PROGRAMS / "forget.py"

#: what the program forgets, by the mark at the line that makes it: the kinds of right
FORGOTTEN = {
    "ReceiveRight": ["ReceiveRight"],
    "SendRight": ["SendRight"],
    "SendOnceRight": ["SendOnceRight"],
    "PortSet": ["PortSet"],
    "copy": ["SendRight"],
    "fileport": ["SendRight"],
    "registered": ["SendRight"],
    "claimed": ["SendOnceRight", "SendRight"],
    "received": ["ReceiveRight"],
    "at the end": ["ReceiveRight"],
}


def warnings_of(*options: str) -> list[str]:
    """Run the program: what it says on its standard error, a line each."""
    command = [sys.executable, *options, str(PROGRAM)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()


def line_of(mark: str) -> int:
    """The number of the line that ends with this mark."""
    lines = PROGRAM.read_text().splitlines()
    (found,) = (number for number, line in enumerate(lines, 1) if line.endswith(f"  # {mark}"))
    return found


@pytest.fixture
def tracing() -> Iterator[None]:
    """Memory is traced, from now on."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


def test_each_right_that_is_forgotten_is_said_to_be_made_where_it_was() -> None:
    """One frame is all that tracemalloc keeps, unless it is told otherwise: the line is the program's all the same."""
    said = [line for line in warnings_of("-X", "tracemalloc", "-W", "always::ResourceWarning") if "forgotten" in line]
    expected = Counter((kind, line_of(mark)) for mark, kinds in FORGOTTEN.items() for kind in kinds)
    found = Counter(
        (
            line.partition("ResourceWarning: <")[2].split()[0],
            int(line.partition(f", made at {PROGRAM}:")[2].split(",")[0]),
        )
        for line in said
    )
    assert found == expected, said


def test_a_warning_points_to_the_line_that_dropped_the_right() -> None:
    """Nothing is traced: the line is the one that forgot it, and Python says how to learn more."""
    said = warnings_of("-X", "dev", "-W", "always::ResourceWarning")
    forgotten = [line for line in said if "was forgotten" in line]
    assert len(forgotten) == sum(map(len, FORGOTTEN.values())) and not any("made at" in line for line in forgotten)
    assert any(line.startswith(f"{PROGRAM}:{line_of('PortSet') + 1}: ResourceWarning: <PortSet") for line in said)
    assert any("Enable tracemalloc" in line for line in said)


def test_nobody_who_has_not_asked_for_warnings_gets_any() -> None:
    """Not even a right that is still held when Python ends."""
    assert warnings_of() == []


@pytest.mark.usefixtures("tracing")
def test_tracing_may_begin_later() -> None:
    """With tracemalloc.start(), wherever that is called."""
    right: ReceiveRight | None = ReceiveRight.allocate()
    with pytest.warns(ResourceWarning, match=rf"made at {__file__}:\d+, was forgotten"):
        del right
