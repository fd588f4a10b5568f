"""What the documentation shows is what type checkers accept: its programs pass mypy --strict, as ours do, and pyright."""

from __future__ import annotations

import json
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


def written(page: str, folder: Path) -> list[str]:
    """The programs of a page, each as a file."""
    names = []
    for block in blocks(page):
        if block.language == "python" and not (block.needs and find_spec(block.needs) is None):
            names.append(block.file or f"line_{block.line}.py")
            (folder / names[-1]).parent.mkdir(exist_ok=True, parents=True)
            (folder / names[-1]).write_text(block.code, encoding="utf-8")
    return names


@pytest.mark.parametrize("page", PYTHON)
def test_the_programs_of_a_page_pass_strictly(page: str, cache: Path, tmp_path: Path) -> None:
    """Each program as it is shown; those that are files can import one another."""
    names = written(page, tmp_path)
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


def test_the_programs_of_all_pages_pass_pyright(tmp_path: Path) -> None:
    """With its usual settings, and no complaint of any kind. One run for all: each page is a folder, and a root for imports."""
    pytest.importorskip("pyright", reason="comes with the extra 'dev'")
    root = str(Path(machrv.__file__).parent.parent)
    places = []
    for number, page in enumerate(PYTHON):
        (tmp_path / f"page{number}").mkdir()
        written(page, tmp_path / f"page{number}")
        places.append({"root": f"page{number}", "extraPaths": [root]})
    settings = {"executionEnvironments": places, "extraPaths": [root], "reportMissingModuleSource": "none"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout[done.stdout.index("{") :])
    wrong = []
    for one in report["generalDiagnostics"]:
        folder, _, file = one["file"].rpartition("/page")[2].partition("/")
        wrong.append(f"{PYTHON[int(folder)]}: {file}:{one['range']['start']['line'] + 1}: {one['message']}")
    assert wrong == [], "\n".join(wrong)
    assert report["summary"]["filesAnalyzed"] > 40
