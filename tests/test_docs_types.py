"""What the documentation shows is what a type checker accepts: its programs pass mypy --strict, as ours do."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import machrv
from tests.pages import PAGES, blocks

pytest.importorskip("mypy", reason="comes with the extra 'dev'")

PYTHON = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all pages: most of the work is machrv itself."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("page", PYTHON)
def test_the_programs_of_a_page_pass_strictly(page: str, cache: Path, tmp_path: Path) -> None:
    """Each program as it is shown; those that are files can import one another."""
    names = []
    for block in blocks(page):
        if block.language == "python" and not (block.needs and find_spec(block.needs) is None):
            names.append(block.file or f"line_{block.line}.py")
            (tmp_path / names[-1]).parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / names[-1]).write_text(block.code, encoding="utf-8")
    root = str(Path(machrv.__file__).parent.parent)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file", ""]
    done = subprocess.run(
        [*command, "--cache-dir", str(cache), *dict.fromkeys(names)],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": root, "PYTHONPATH": root},
        capture_output=True,
        text=True,
    )
    # What is imported without types (cffi) is told of in passing, of files of machrv's own.
    wrong = [line for line in done.stdout.splitlines() if ": error: " in line and not line.startswith(("/", ".."))]
    assert wrong == [] and done.stderr == "", f"{page}:\n{done.stdout}{done.stderr}"
