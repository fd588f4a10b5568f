"""What happened in several processes, in the order in which it happened, and whether it was what must happen."""

# What belongs here: events, checks, and how they are printed. What must never happen here: a word about something that
# nobody has reported.

from __future__ import annotations

import textwrap
from typing import Any, NamedTuple

from machrv.cli.account import Event

_WIDTH = 80
_LANE = 33
_LEGEND = (
    "In brackets: who sent what arrived, in the kernel's words. The number after the v tells a process from the next "
    "one that gets its pid."
)


class Check(NamedTuple):
    """Something that must be so, and what was found."""

    what: str
    expected: object
    found: object

    @property
    def ok(self) -> bool:
        """Whether it is so."""
        return self.expected == self.found


class Timeline:
    """Collects events and checks. Events may be added from any thread, in any order."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.checks: list[Check] = []
        self.pids: dict[str, int] = {}

    @property
    def ok(self) -> bool:
        """Whether there were checks, and each found what it expected."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    def check(self, what: str, expected: object, found: object) -> None:
        """Write down whether `found` is what must be."""
        self.checks.append(Check(what, expected, found))

    def as_json(self) -> dict[str, Any]:
        """Everything, for machines. Times are milliseconds since the first event."""
        return {
            "ok": self.ok,
            "processes": self.pids,
            "events": [
                {
                    "ms": round(ms, 3),
                    "process": event.process,
                    "what": event.what,
                    "sends": event.sends,
                    "attested": event.attested._asdict() if event.attested else None,
                }
                for ms, event in self._in_order()
            ],
            "checks": [{**check._asdict(), "ok": check.ok} for check in self.checks],
        }

    def as_text(self) -> str:
        """Two lanes, the parent's and everybody else's, 80 columns wide; below them the checks."""
        lines = [_row("ms", self._title("parent"), "", self._title("child"))]
        for ms, event in self._in_order():
            lines += self._event_lines(f"{ms:.2f}", event)
        lines += ["", *textwrap.wrap(_LEGEND, _WIDTH), ""]
        for check in self.checks:
            lines += _check_lines(check)
        wrong = sum(not check.ok for check in self.checks)
        count = len(self.checks)
        lines += ["", f"{count} checks: all is as it must be." if self.ok else f"{wrong} of {count} checks FAILED."]
        return "\n".join(lines)

    def _in_order(self) -> list[tuple[float, Event]]:
        events = sorted(self.events, key=lambda event: event.at)
        return [((event.at - events[0].at) * 1000, event) for event in events]

    def _title(self, process: str) -> str:
        return f"{process.upper()}, pid {self.pids.get(process, 'none')}"

    def _event_lines(self, when: str, event: Event) -> list[str]:
        left = event.process == "parent"
        what = event.what
        if event.process not in ("parent", "child"):
            what = f"{self._title(event.process)}: {what}"
        arrow = ("-->" if left else "<--") if event.sends else ""
        lines = []
        texts = textwrap.wrap(what, _LANE, subsequent_indent="  ")
        if event.attested is not None:
            texts += textwrap.wrap(f"[{event.attested}]", _LANE, initial_indent="  ", subsequent_indent="   ")
        for text in texts:
            lines.append(_row(when, text, arrow, "") if left else _row(when, "", arrow, text))
            when = arrow = ""
        return lines


def _row(when: str, left: str, arrow: str, right: str) -> str:
    """80 columns: 8 for the time, 33 for either lane, 3 between the lanes, and a space where two of them meet."""
    return f"{when:>8} {left:<{_LANE}} {arrow:<3} {right}".rstrip()


def _check_lines(check: Check) -> list[str]:
    found = _readable(check.found)
    text = f"{check.what}: {found}" if check.ok else f"{check.what}: {found}, expected {_readable(check.expected)}"
    return textwrap.wrap(text, _WIDTH, initial_indent="  ok    " if check.ok else "  FAIL  ", subsequent_indent=" " * 8)


def _readable(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{count} {what}" for what, count in value.items())
    return str(value)
