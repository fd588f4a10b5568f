"""Colours for people, none for programs."""

# What belongs here: whether output is coloured, and the few colours that there are. What must never happen here: a
# meaning that only a colour tells.

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from typing import IO

_CODES = {"strong": "1", "faint": "2", "wrong": "1;31", "odd": "33", "good": "32", "name": "36"}


def add_option(parser: ArgumentParser) -> None:
    """Add --color."""
    parser.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="colours: on a terminal (the default), always, or never; NO_COLOR and FORCE_COLOR count too",
    )


class Palette:
    """Colours a text, or leaves it as it is."""

    def __init__(self, wanted: str, output: IO[str]) -> None:
        self.on: bool = wanted == "always" or (wanted == "auto" and _wished(output))

    def __call__(self, colour: str, text: str) -> str:
        return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if self.on and text else text


def _wished(output: IO[str]) -> bool:
    """What the environment says (no-color.org, force-color.org), else whether somebody looks."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return output.isatty() and os.environ.get("TERM", "") != "dumb"
