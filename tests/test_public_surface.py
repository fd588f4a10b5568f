"""The public surface is what tests/public_surface.txt says: nothing of it changes by accident, and nothing unseen."""

from __future__ import annotations

import ast
import pkgutil
import sys
from difflib import unified_diff
from pathlib import Path

import pytest

import machrv
from tests import surface


@pytest.mark.skipif(sys.platform != "linux", reason="recorded on Linux: some defaults are the platform's")
def test_the_surface_is_the_recorded_one() -> None:
    """Names, signatures, defaults, members, bases, constants and options are those on record."""
    recorded, found = surface.RECORD.read_text(), surface.surface()
    difference = "\n".join(
        unified_diff(recorded.splitlines(), found.splitlines(), "on record", "as it is now", n=1, lineterm="")
    )
    assert not difference, (
        "the public surface has changed. If that is meant, renew the record with `python -m tests.surface --renew` and "
        f"tell users in CHANGELOG.md:\n{difference}"
    )


def test_no_default_is_an_address() -> None:
    """The text is the same in every run: nothing in it is the place of an object in memory."""
    assert " at 0x" not in surface.surface()


def test_every_public_name_can_be_listed_and_had() -> None:
    """What dir() and __all__ tell is there, what a checker is told of is there, and nothing more is."""
    assert set(machrv.__all__) <= set(dir(machrv))
    assert [name for name in machrv.__all__ if getattr(machrv, name, None) is None] == []
    tree = ast.parse(Path(machrv.__file__).with_suffix(".pyi").read_text())
    told = [name.asname for node in tree.body if isinstance(node, ast.ImportFrom) for name in node.names]
    told += [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert sorted(map(str, told)) == machrv.__all__


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    """hasattr() and `from machrv import ...` of what there is not behave as with any module."""
    assert not hasattr(machrv, "no_such_name")
    with pytest.raises(ImportError, match="no_such_name"):
        from machrv import no_such_name  # type: ignore[attr-defined]  # noqa: F401


def test_no_public_name_is_a_modules_name() -> None:
    """Importing a module binds its name in the package: a function of that name would be gone, for whoever asks later."""
    assert {module.name for module in pkgutil.iter_modules(machrv.__path__)} & set(machrv.__all__) == set()
