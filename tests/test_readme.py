"""README.md is what a newcomer needs: short programs, and commands that are complete by themselves."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_its_programs_are_short() -> None:
    """What a newcomer reads first fits on one screen. (tests/test_docs.py runs it.)"""
    for program in blocks("python"):
        assert program.startswith("# ") and program.count("\n") <= 20, program


def test_each_command_is_complete_by_itself() -> None:
    """One line for the demo and one for the tests, in this order; either begins with nothing. (.ci/run runs both.)"""
    demo, tests = blocks("sh")
    for command in (demo, tests):
        assert command.count("\n") == 1 and command.startswith("python3 -m venv .venv && ")
    assert demo.endswith("machrv demo\n") and tests.endswith("pytest\n")
