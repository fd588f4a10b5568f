"""What README.md shows works as it is shown: its programs, its commands, its links, the names it mentions."""

from __future__ import annotations

import builtins
import re
import subprocess
import sys
from pathlib import Path

import pytest

import machrv
from tests.conftest import PATIENCE

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_parent_and_child_run_as_shown(tmp_path: Path) -> None:
    """The two programs, saved under the names in their first lines, print what the README says they print."""
    for program in blocks("python"):
        name = re.match(r"# (\w+\.py)\n", program)
        assert name is not None, "a program begins with its file name"
        (tmp_path / name[1]).write_text(program)
        assert program.count("\n") <= 20, f"{name[1]} is longer than a newcomer reads"
    (printed,) = blocks("text")
    result = subprocess.run(
        [sys.executable, "-W", "error", "parent.py"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE
    )
    assert (result.stdout, result.stderr, result.returncode) == (printed, "", 0)


def test_each_command_is_complete_by_itself() -> None:
    """One line for the demo and one for the tests, in this order; either begins with nothing. (.ci/run runs both.)"""
    demo, tests = blocks("sh")
    for command in (demo, tests):
        assert command.count("\n") == 1 and command.startswith("python3 -m venv .venv && ")
    assert demo.endswith("machrv demo\n") and tests.endswith("pytest\n")


def test_links_lead_somewhere() -> None:
    """Every relative link and picture is a file of this repository."""
    links = re.findall(r"\]\(([^):#]+)\)", README)
    assert "docs/linux.md" in links and "docs/rendezvous.svg" in links
    assert [link for link in links if not (ROOT / link).is_file()] == []


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(\w+(?:Error|Timeout|Warning|Right|Client))\b", README))))
def test_names_exist(name: str) -> None:
    """An exception or a class that the README mentions is there, under that name."""
    assert hasattr(machrv, name) or hasattr(builtins, name)
