"""Programs that are run under `machrv trace`, and what the page holds of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .conftest import PATIENCE

#: What most programs below begin with.
HEAD = "import os, sys, subprocess\nfrom machrv import *\nfrom machrv.kernel import current\n"


class Traced(NamedTuple):
    """A run: the exit status, what it said, and its page ("" if there is none)."""

    status: int
    output: bytes
    said: str
    page: str

    @property
    def data(self) -> dict[str, Any]:
        """What the script in the page draws."""
        found = re.search(r'<script type="application/json" id="data">(.*?)</script>', self.page, re.DOTALL)
        assert found is not None, self.said
        data: dict[str, Any] = json.loads(found[1])
        return data

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events by the names of their fields."""
        data = self.data
        text = [*data["strings"], ""]
        return [
            {
                "process": data["lanes"][lane][0],
                "lane": lane,
                "at": at,
                "kind": kind,
                "text": text[what],
                "more": text[more],
                "failure": text[failure],
                "port": text[port],
                "rights": rights,
                "rows": dict(zip(map(text.__getitem__, rows[0::2]), map(text.__getitem__, rows[1::2]))),
            }
            for lane, at, kind, what, more, failure, port, rights, _, *rows in data["events"]
        ]

    @property
    def messages(self) -> list[tuple[str, str, str, bool]]:
        """Each message: who sent it, who received it ("" where that was not seen), what it is, whether that is certain."""
        events = self.events

        def end(number: int) -> tuple[str, str]:
            return (events[number]["process"], events[number]["text"].partition(" ")[2]) if number >= 0 else ("", "")

        found = []
        for sent, received, certain, *_ in self.data["arrows"]:
            (sender, what), (receiver, seen) = end(sent), end(received)
            assert not what or not seen or what == seen
            found.append((sender, receiver, what or seen, bool(certain)))
        return found

    @property
    def failures(self) -> list[str]:
        """What the page lists as failed."""
        return [f"{self.events[number]['text']}: {self.events[number]['failure']}" for number in self.data["failures"]]


def command(*arguments: str | Path) -> list[str]:
    """The command line of `machrv trace`."""
    return [sys.executable, "-m", "machrv", "trace", *map(str, arguments)]


def trace(
    folder: Path, *program: str, options: tuple[str, ...] = (), env: Mapping[str, str] | None = None, **run: Any
) -> Traced:
    """Trace a program that ends; its page is written into `folder`."""
    file = folder / "page.html"
    run = {"stdin": subprocess.DEVNULL, **run}
    done = subprocess.run(
        command("-o", file, *options, "--", *program),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=PATIENCE,
        env={**os.environ, **(env or {})},
        **run,
    )
    page = file.read_text() if file.exists() else ""
    return Traced(done.returncode, done.stdout, done.stderr.decode(errors="replace"), page)


def python(code: str) -> list[str]:
    """A Python program."""
    return [sys.executable, "-c", HEAD + code]
