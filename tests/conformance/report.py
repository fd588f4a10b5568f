"""Differences in a form that a person can follow.

What belongs here: text. What must never happen here: a decision about what counts as a difference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .replay import Difference
from .vectors import Step

#: Steps shown before the one that differs.
HISTORY = 12


def describe(source: str, difference: Difference) -> str:
    """The vector, the steps that led there, the call, and what is different after it."""
    return "\n".join(_lines(source, difference))


def _lines(source: str, difference: Difference) -> Iterator[str]:
    vector, index = difference.vector, difference.at
    steps = vector["steps"]
    yield f"{source}: {vector['id']}, step {index + 1} of {len(steps)}"
    first = max(0, index - HISTORY)
    if first:
        yield f"      ... {first} steps before"
    for number in range(first, index):
        yield f"    {number + 1:3} {_step(steps[number])}"
    yield f"  > {index + 1:3} {_call(steps[index])}"
    for what, expected, got in difference.mismatches:
        yield f"        {what}"
        yield f"          expected  {expected}"
        yield f"          got       {got}"


def _step(step: Step) -> str:
    parts = [_call(step), "->", str(step.get("result"))]
    parts += _pairs(step.get("out"))
    if "message" in step:
        parts.append(f"({', '.join(_pairs(step['message']))})")
    return " ".join(parts)


def _call(step: Any) -> str:
    if not isinstance(step, dict):
        return repr(step)
    return f"{step.get('task')} {step.get('call')}({', '.join(_pairs(step.get('args')))})"


def _pairs(fields: Any) -> list[str]:
    if not isinstance(fields, dict):
        return [] if fields is None else [str(fields)]
    return [f"{field}={_value(value)}" for field, value in fields.items()]


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value or "''"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(_pairs(value))}}}"
    return json.dumps(value)
