"""Findings: what was looked at, what was found, what follows from it."""

# What belongs here: the four states that a finding has. What must never happen here: an exception of a check that ends
# the examination.

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

#: As it should be; worth knowing; works, at a price; machrv does not work like this.
OK, NOTE, WARNING, WRONG = "ok", "note", "warning", "wrong"


class Finding(NamedTuple):
    """One thing that was looked at. `fallback` says what machrv does instead, where the system lacks something."""

    section: str
    what: str
    state: str
    found: str
    advice: str = ""
    fallback: str = ""


def examined(section: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a room; one more if it cannot be looked at to the end."""
    try:
        yield from look()
    except Exception as error:  # Whatever it is: the other rooms are still worth looking at.
        yield Finding(section, "this could not be looked at to the end", WARNING, f"{type(error).__name__}: {error}")
