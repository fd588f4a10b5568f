"""Whether this process meets a requirement: its own, and what is asked for with --require."""

# What belongs here: a requirement, held against this very process. What must never happen here: a verdict about another.

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from machrv.doctor.findings import NOTE, OK, WRONG, Finding
from machrv.errors import RequirementError, UnsupportedRequirementError
from machrv.kernel import current
from machrv.requirement import ProcessRequirement

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

SECTION = "Requirements"
OWN, ASKED = "the own identity", "--require"
#: What the builder has that asks nothing.
_NOT_ASKED = ("build",)


def look(asked: Iterable[str] = ()) -> Iterator[Finding]:
    """What this process is to others who ask for "the same as me"; and for what was given, whether it is that."""
    yield _own()
    asked = list(asked)
    if asked:
        yield _met(asked)


def requirement(asked: Iterable[str]) -> ProcessRequirement:
    """From NAME or NAME=VALUE, each a method of the builder. Raises RequirementError."""
    builder: Any = ProcessRequirement.Builder()
    names = sorted(name for name in dir(builder) if not name.startswith("_") and name not in _NOT_ASKED)
    for text in asked:
        name, given, value = text.partition("=")
        if name not in names:
            raise RequirementError(f"{name!r} is nothing that can be required: there is {', '.join(names)}")
        argument: Any = (
            value.split(",") if name == "identifier_is_one_of" else int(value) if value.isdecimal() else value
        )
        try:
            builder = getattr(builder, name)(*([argument] if given else []))
        except TypeError as error:
            raise RequirementError(f"{name}{'' if given else ' needs a value'}: {error}") from error
    built: ProcessRequirement = builder.build()
    return built


def _own() -> Finding:
    try:
        own = requirement(["signed_with_same_identity"])
    except UnsupportedRequirementError as error:
        return Finding(
            SECTION, OWN, NOTE, str(error), "sign it, with a team and a certificate, for others to tell it by"
        )
    why = own.mismatch(current().audit_token())
    if why is not None:
        advice = "a server of this process would be refused by children that ask for signed_with_same_identity()"
        return Finding(SECTION, OWN, WRONG, f"this process does not meet signed_with_same_identity(): {why}", advice)
    shown = own.text or f"it runs {os.path.realpath('/proc/self/exe')!r}, as user {os.getuid()}"
    return Finding(SECTION, OWN, OK, f"this process meets its own requirement, signed_with_same_identity(): {shown}")


def _met(asked: list[str]) -> Finding:
    what = " and ".join(asked)
    try:
        why = requirement(asked).mismatch(current().audit_token())
    except (RequirementError, ValueError) as error:
        return Finding(SECTION, ASKED, WRONG, f"{what} cannot be required here: {error}")
    if why is None:
        return Finding(SECTION, ASKED, OK, f"this process meets {what}")
    return Finding(
        SECTION, ASKED, WRONG, f"this process does not meet {what}: {why}", "whoever requires that refuses it"
    )
