"""The site's build is strict, and what it makes needs nothing from elsewhere. (.ci/run builds the whole site.)"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import ROOT

for module in ("sphinx", "myst_parser", "furo"):
    pytest.importorskip(module, reason="pip install -e '.[docs]'")

TABLE = "```{toctree}\nother\n```\n"
REFERENCE = "```{eval-rst}\n.. autofunction:: machrv.base_bundle_id\n```\n"

#: What is wrong with a page, and how the build says so.
MISTAKES = {
    "[a page](nowhere.md)": "nowhere.md",
    "[an anchor](#nowhere-here)": "nowhere-here",
    "[another page's anchor](other.md#nowhere-there)": "nowhere-there",
    "![a picture](nowhere.svg)": "nowhere.svg",
    "{py:class}`machrv.NowhereRight`": "NowhereRight",
    "```{eval-rst}\n.. autoclass:: machrv.NoSuchRight\n```": "NoSuchRight",
    "```{nonsense}\n```": "nonsense",
}


def build(folder: Path, index: str) -> subprocess.CompletedProcess[str]:
    """Build a site of two pages with the settings of the real one."""
    source = folder / "docs"
    source.mkdir()
    shutil.copy(ROOT / "docs" / "conf.py", source)
    shutil.copytree(ROOT / "docs" / "_static", source / "_static")
    (source / "index.md").write_text(f"# Title\n\n{index}\n\n{TABLE}", encoding="utf-8")
    (source / "other.md").write_text("# Other\n\n## A place\n\n[there](index.md#title)\n", encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", str(source), str(folder / "site")]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_mistake_ends_the_build(tmp_path: Path) -> None:
    """A link, an anchor, a picture or a name that leads nowhere: each is named, and the build fails."""
    done = build(tmp_path, "\n\n".join(MISTAKES))
    assert done.returncode != 0
    assert [wrong for wrong, sign in MISTAKES.items() if sign not in done.stderr] == []


def test_a_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    """No script, style, font or picture of another host, in what a browser loads."""
    done = build(tmp_path, f"[there](other.md#a-place)\n\n{REFERENCE}")
    assert (done.returncode, done.stderr) == (0, "")
    loaded = r"""(?:src=|@import |url\(|<link[^>]+href=|integrity=|fetch\()["']?(?:https?:)?//[^"')\s]+"""
    for path in (tmp_path / "site").rglob("*"):
        if path.suffix in (".html", ".css"):
            assert re.findall(loaded, path.read_text(encoding="utf-8")) == [], path
