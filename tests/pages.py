"""The pages of the documentation as programs: what is in them, and running it as a reader would.

What belongs here: the blocks of a page, in order, in a directory of the page's own. What must never happen here: a block
that is passed over without a reason that the page itself gives.

    ```python     begins with `# name.py`: a file, written; otherwise a program, run
    ```sh         commands, run; a ```text right behind it, or behind a program, is what it prints
    ```console    a session: `$ command`, and what it prints
    ```text       behind "`command` prints:", what that prints; otherwise a picture

`...` in what is printed stands for anything. Before a block that cannot be run here stands `<!-- not run: why -->`; before
one that is run where a package is installed, `<!-- needs: numpy -->`.
Every command must exit with 0 and, but for sessions, write nothing to its standard error. Warnings are errors.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import machrv
from tests.conftest import PATIENCE

ROOT = Path(__file__).parent.parent

#: Every page: those of the site, and those that are read in the repository.
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
)

_FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_NAME = re.compile(r"# ([\w/]+\.\w+)\n")
_PRINTS = re.compile(r"`([^`]+)` prints:$")
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->$")
_NEEDS = re.compile(r"<!-- needs: (\w+) -->$")
_SHOWN = ("text", "json", "toml", "c", "ini", "yaml")


class Block(NamedTuple):
    """A fenced block: what it is in, what it holds, where it begins, and what stands before it."""

    language: str
    code: str
    line: int
    before: str

    @property
    def file(self) -> str | None:
        """The name of the file that a program is to be saved as."""
        name = _NAME.match(self.code)
        return name[1] if name and self.language == "python" else None

    @property
    def not_run(self) -> str | None:
        """Why it is not run, if the page says so."""
        reason = _NOT_RUN.search(self.before)
        return reason[1] if reason else None

    @property
    def needs(self) -> str | None:
        """The package that it imports and that a reader may not have."""
        package = _NEEDS.search(self.before)
        return package[1] if package else None


def blocks(page: str) -> list[Block]:
    """The blocks of a page, but for the directives of the site."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for fence in _FENCE.finditer(text):
        indent, language, code = fence.groups()
        if language.startswith("{"):
            continue
        code = re.sub(rf"^{indent}", "", code, flags=re.MULTILINE)
        found.append(Block(language, code, text.count("\n", 0, fence.start()) + 1, text[: fence.start()].rstrip()))
    return found


class Reader:
    """Does what a page says, in a directory of its own."""

    def __init__(self, page: str, folder: Path) -> None:
        self.page = page
        self.folder = folder
        self.files: dict[str, str] = {}
        self.commands: list[str] = []
        self.where = page
        bin = folder / ".bin"
        bin.mkdir()
        for name, command in (("python", ""), ("machrv", "-m machrv ")):
            (bin / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {command}"$@"\n')
            (bin / name).chmod(0o755)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("MACH_PORT_", "MACHRV_"))},
            "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(Path(machrv.__file__).parent.parent),
            "PYTHONWARNINGS": "error",
            "COLUMNS": "80",
            "NO_COLOR": "1",
        }

    def read(self) -> None:
        """Run the page. AssertionError says where it does not do as it says."""
        printed: str | None = None  # What the block just before has printed.
        for block in blocks(self.page):
            self.where = f"{self.page}:{block.line}"
            was, printed = printed, None
            if block.not_run or block.needs and find_spec(block.needs) is None:
                continue
            if block.file:
                self.files[block.file] = block.code
                (self.folder / block.file).parent.mkdir(exist_ok=True, parents=True)
                (self.folder / block.file).write_text(block.code, encoding="utf-8")
            elif block.language == "python":
                printed = self.run([sys.executable, "-c", block.code])
            elif block.language == "sh":
                printed = self.run(["bash", "-euc", block.code])
                self.commands.append(block.code)
            elif block.language == "console":
                self.session(block.code)
            elif block.language == "text":
                announced = _PRINTS.search(block.before)
                if announced:
                    self.commands.append(announced[1])
                    self.compare(block.code, self.run(["bash", "-euc", announced[1]]))
                elif was is not None and block.before.endswith("```"):
                    self.compare(block.code, was)
            else:
                assert block.language in _SHOWN, f"{self.where}: nothing is known of blocks in {block.language!r}"
        self.check_files()

    def session(self, text: str) -> None:
        """Each command of a session, and what it prints on both streams."""
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            self.commands.append(command)
            self.compare(expected, self.run(["bash", "-euc", command], together=True))

    def run(self, command: list[str], together: bool = False) -> str:
        """What the command prints. It must succeed, and not complain."""
        errors = subprocess.STDOUT if together else subprocess.PIPE
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            timeout=PATIENCE,
        )
        assert (done.returncode, done.stderr or "") == (0, ""), f"{self.where}: {done}"
        return done.stdout

    def compare(self, expected: str, printed: str) -> None:
        """AssertionError unless this was printed. `...` stands for anything."""
        alike = doctest.OutputChecker().check_output(expected, printed, doctest.ELLIPSIS)
        assert alike, f"{self.where}: expected\n{expected}\nprinted\n{printed}"

    def check_files(self) -> None:
        """AssertionError for a file that nothing on the page runs or imports."""
        for name in self.files:
            users = [*self.commands, *(code for other, code in self.files.items() if other != name)]
            used = re.compile(rf"\b{re.escape(name)}\b|\bimport {re.escape(Path(name).stem)}\b")
            assert any(used.search(text) for text in users), f"{self.page}: nothing runs {name}"
