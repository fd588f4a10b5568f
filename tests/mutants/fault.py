"""What a fault is."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Fault(NamedTuple):
    """One small change that makes something wrong."""

    #: what goes wrong, in one line; no two faults say the same
    what: str
    #: the file, from the root of the tree
    file: str
    #: the text that is exchanged, which the file must have exactly once, and what for
    old: str
    new: str
    #: who ought to notice: what pytest is told, from the folder of the tests
    tests: tuple[str, ...]
    #: further texts of the same file that are exchanged
    more: tuple[tuple[str, str], ...] = ()

    @property
    def compiled(self) -> bool:
        """Whether the compiled module has to be made anew."""
        return self.file.endswith(".c")


class NoLongerApplies(Exception):
    """A fault's text is not in its file, or more than once."""


def planted(fault: Fault, root: Path) -> str:
    """The text of the fault's file with the fault in it. Raises NoLongerApplies."""
    text = (root / fault.file).read_text()
    for old, new in ((fault.old, fault.new), *fault.more):
        if text.count(old) != 1:
            raise NoLongerApplies(
                f"{fault.what}: this text is {text.count(old)} times in {fault.file}, and must be there once; anchor the "
                f"fault on what the file says now\n    {old!r}"
            )
        text = text.replace(old, new)
    return text
