"""What type checkers make of machrv as it is installed: its py.typed, its stub, its annotations."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import distribution, surface

pytest.importorskip("mypy", reason="comes with the extra 'dev'")
pytest.importorskip("pyright", reason="comes with the extra 'dev'")
pytest.importorskip("build")

PROGRAMS = Path(__file__).parent / "typing"
OLDEST = "3.10"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel in it, and nothing from here."""
    return distribution.installed(tmp_path_factory.mktemp("typing") / "environment")


@pytest.fixture(scope="module")
def complaints(python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[int, str]]]:
    """What each checker finds, strictly: by its name, by the file, by the line."""
    folder = tmp_path_factory.mktemp("programs")
    for path in PROGRAMS.glob("*.py"):
        (folder / path.name).write_text(path.read_text())
    return {"mypy": mypy(python, folder), "pyright": pyright(python, folder)}


def mypy(python: Path, folder: Path) -> dict[str, dict[int, str]]:
    command = [sys.executable, "-m", "mypy", "--strict", "--python-version", OLDEST, "--no-error-summary"]
    command += ["--config-file", "", "--cache-dir", str(folder / "cache"), "--python-executable", str(python)]
    done = subprocess.run([*command, *sources(folder)], cwd=folder, capture_output=True, text=True)
    assert "" == done.stderr
    found: dict[str, dict[int, str]] = {}
    for file, line, text in re.findall(r"^([\w.]+):(\d+): error: (.*)$", done.stdout, re.MULTILINE):
        found.setdefault(file, {})[int(line)] = text
    return found


def pyright(python: Path, folder: Path) -> dict[str, dict[int, str]]:
    (folder / "pyrightconfig.json").write_text(
        json.dumps({"typeCheckingMode": "strict", "pythonVersion": OLDEST, "reportMissingModuleSource": "none"})
    )
    report = asked_of_pyright(python, folder, *sources(folder))
    found: dict[str, dict[int, str]] = {}
    for one in report["generalDiagnostics"]:
        line = one["range"]["start"]["line"] + 1
        found.setdefault(Path(one["file"]).name, {})[line] = one["message"]
    return found


def asked_of_pyright(python: Path, folder: Path, *arguments: str) -> Any:
    """What pyright reports. It finds the environment by the interpreter that comes first in the path."""
    path = f"{python.parent}:{os.environ['PATH']}"
    command = [sys.executable, "-m", "pyright", "--outputjson", *arguments]
    done = subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout[done.stdout.index("{") :])


def sources(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.py"))


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_program_that_is_right_passes(complaints: dict[str, dict[str, dict[int, str]]], checker: str) -> None:
    """Every type that a user relies on is the one that both checkers see."""
    found = complaints[checker]
    assert {file: lines for file, lines in found.items() if file != "misuses.py"} == {}


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_program_that_is_wrong_is_refused(complaints: dict[str, dict[str, dict[int, str]]], checker: str) -> None:
    """Each line that is marked, and no other."""
    lines = (PROGRAMS / "misuses.py").read_text().splitlines()
    marked = [f"{number}: {line}" for number, line in enumerate(lines, 1) if line.endswith("# wrong")]
    refused = sorted(complaints[checker]["misuses.py"])
    assert marked == [f"{number}: {lines[number - 1]}" for number in refused]
    assert len(marked) > 50


def test_everything_public_is_in_the_programs() -> None:
    """Every name that users may import, and every member of every class, is used where the checkers look."""
    text = "\n".join(path.read_text() for path in PROGRAMS.glob("uses_*.py"))
    recorded = surface.RECORD.read_text().partition("## constants")[0]
    names = set(re.findall(r"^(?:class |def |async def )?(\w+)(?:\(|:|$)", recorded, re.MULTILINE))
    members = set(
        re.findall(r"^    +(?:(?:abstract|classmethod|staticmethod|async|def) )*([a-z]\w*)[(:]", recorded, re.M)
    )
    fields = {name for line in re.findall(r"in this order: (.*)$", recorded, re.M) for name in line.split(", ")}
    used = set(re.findall(r"\w+", text))
    unused = sorted((names | members | fields) - used)
    assert not unused, f"use these in a program in tests/typing: {', '.join(unused)}"


def test_the_types_are_complete(python: Path, tmp_path: Path) -> None:
    """Pyright knows the type of everything that can be imported, from annotations alone: nothing is left to be inferred,
    which checkers do differently."""
    report = asked_of_pyright(python, tmp_path, "--verifytypes", "machrv", "--ignoreexternal")["typeCompleteness"]
    unknown = [
        f"{symbol['name']}: {one['message'].splitlines()[0]}"
        for symbol in report["symbols"]
        if symbol["isExported"] and not symbol["isTypeKnown"]
        for one in symbol["diagnostics"]
    ]
    causes = [text for text in unknown if not text.endswith("is partially unknown")]
    assert not unknown, "\n".join(causes or unknown)
    assert 1 == report["completenessScore"]
