"""What a machine said, read back; and the table."""

from __future__ import annotations

import re
from typing import NamedTuple

_LACKS = re.compile(r"^ +warn +(\S.*?)  +missing", re.MULTILINE)
_STEP = re.compile(r"^=== step (\w+)\n(.*?)^=== status (\d+) in (\d+) s$", re.MULTILINE | re.DOTALL)
_SKIPPED = re.compile(r"^SKIPPED \[\d+\] (.*)$", re.MULTILINE)


class Result(NamedTuple):
    """What happened on one kernel."""

    wanted: str
    kernel: str
    #: By step: its exit status, seconds.
    steps: dict[str, tuple[int, int]]
    #: What doctor misses in this kernel.
    lacks: list[str]
    #: pytest's last line, without its decoration.
    tests: str
    #: Why tests were skipped.
    skipped: list[str]
    #: Why there is nothing of all that.
    trouble: str

    @property
    def green(self) -> bool:
        """Whether all was run, and all was well."""
        return bool(self.steps) and not self.trouble and not any(status for status, _ in self.steps.values())


def nothing(wanted: str, why: str) -> Result:
    """Of a kernel that was not to be had."""
    return Result(wanted, "", {}, [], "", [], why)


def read(wanted: str, steps: list[str], said: str) -> Result:
    """What a machine that was to go through these steps has printed."""
    said = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1bc|\r", "", said)
    kernel = re.search(r"^=== kernel (.+)$", said, re.MULTILINE)
    parts = {name: (text, int(status), int(seconds)) for name, text, status, seconds in _STEP.findall(said)}
    missing = [name for name in steps if name not in parts]
    tests = parts.get("tests", ("", 0, 0))[0]
    summary = re.search(r"^=*\s*(\d+ (?:passed|failed|error|skipped).*?)\s*=*$", tests, re.MULTILINE)
    return Result(
        wanted,
        kernel[1] if kernel else "",
        {name: (status, seconds) for name, (_, status, seconds) in parts.items()},
        _LACKS.findall(parts.get("doctor", ("", 0, 0))[0]),
        re.sub(r" in [\d.]+s.*", "", summary[1]) if summary else "",
        _SKIPPED.findall(tests),
        "" if not missing else "it did not start" if kernel is None else f"it did not come to: {', '.join(missing)}",
    )


def table(results: list[Result]) -> str:
    """In Markdown, for a person and for docs/linux.md."""
    lines = ["| kernel | doctor | demo | tests | what it lacks |", "|---|---|---|---|---|"]
    for result in results:
        cells = [result.kernel or result.wanted]
        for name in ("doctor", "demo"):
            status = result.steps.get(name)
            cells.append("-" if status is None else "ok" if status[0] == 0 else f"FAILED ({status[0]})")
        status = result.steps.get("tests")
        cells.append(f"{'' if status and status[0] == 0 else 'FAILED: '}{result.tests or result.trouble}")
        cells.append(", ".join(result.lacks) or ("nothing" if result.green else "?"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
