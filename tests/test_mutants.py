"""The faults that `python -m tests.mutants` plants: each still fits the tree, and what is missed is told."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from .mutants import FAULTS
from .mutants.__main__ import QUICK, drawn, play
from .mutants.fault import Fault, NoLongerApplies, planted
from .mutants.stage import ROOT, Stage

HARMLESS = Fault(
    "harmless", "machrv/log.py", 'the logger "machrv"."""', 'the logger "machrv", no other."""', ("test_audit.py",)
)
HARMFUL = Fault(
    "harmful", "machrv/message/audit.py", "        return not any(self)", "        return any(self)", ("test_audit.py",)
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_fault_still_applies(fault: Fault) -> None:
    """Its texts are in the file, each once, and make it another one; the tests that ought to notice are there."""
    assert planted(fault, ROOT) != (ROOT / fault.file).read_text()
    assert fault.tests
    for test in fault.tests:
        file, _, function = test.partition("::")
        text = (ROOT / "tests" / file).read_text()
        assert not function or f"def {function}(" in text, f"there is no {test}"


def test_there_are_many_and_no_two_are_the_same() -> None:
    """Over C and Python."""
    assert len({fault.what for fault in FAULTS}) == len(FAULTS) >= 60
    assert {Path(fault.file).suffix for fault in FAULTS} == {".c", ".py"}
    assert len({(fault.file, planted(fault, ROOT)) for fault in FAULTS}) == len(FAULTS)


def test_the_day_draws_twelve() -> None:
    """The same all day long, and others the next day."""
    day = datetime.date(2026, 2, 28)
    assert drawn(day) == drawn(day) != drawn(day + datetime.timedelta(1))
    assert len({fault.what for fault in drawn(day)}) == QUICK


def test_a_fault_that_no_longer_applies_is_an_error(tmp_path: Path) -> None:
    """Not a fault that was noticed."""
    (tmp_path / "file.c").write_text("one two two")
    for old, count in (("three", 0), ("two", 2)):
        with pytest.raises(NoLongerApplies, match=f"{count} times in file.c"):
            planted(Fault("what", "file.c", old, "four", ()), tmp_path)
    assert planted(Fault("what", "file.c", "one", "four", ()), tmp_path) == "four two two"


def test_what_is_missed_is_told_and_the_tree_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One fault is noticed, one is not: that is said, and fails. Afterwards the copy is as it was, and so is the tree."""
    before = {file: (ROOT / file).stat().st_mtime_ns for file in (HARMLESS.file, HARMFUL.file)}
    stage = Stage(tmp_path)
    assert play(stage, [HARMFUL, HARMLESS], False) == 1
    said = capsys.readouterr().out.splitlines()
    assert any("noticed" in line and "harmful" in line for line in said)
    assert said[-2].startswith("2 faults, 1 missed") and said[-1].startswith("MISSED: machrv/log.py: harmless")
    assert play(stage, [HARMFUL], False) == 0
    for file, when in before.items():
        assert (stage.root / file).read_text() == (ROOT / file).read_text()
        assert (ROOT / file).stat().st_mtime_ns == when
