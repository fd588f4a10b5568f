"""What happened in several processes, in the order in which it happened, and whether it was what must happen."""

# What belongs here: events, checks, and how they are printed. What must never happen here: a word about something that
# nobody has reported.

from __future__ import annotations

import shutil
import textwrap
from typing import Any, NamedTuple

from machrv.cli.account import Event
from machrv.cli.colour import Palette

#: Between these, the page is as wide as the terminal, or as COLUMNS says.
_NARROWEST, _WIDEST = 60, 160
#: What is not lanes: the time, what is between the lanes, and the spaces.
_BESIDE = 8 + 3 + 3
#: Where the text of a check begins.
_LABEL = 8
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

    def as_text(self, paint: Palette) -> str:
        """Two lanes, the parent's and everybody else's, as wide as the terminal; below them the checks."""
        width = max(_NARROWEST, min(shutil.get_terminal_size((80, 24)).columns, _WIDEST))
        lane = (width - _BESIDE) // 2
        lines = [paint("strong", _row(lane, "ms", self._title("parent"), "", self._title("child")))]
        for ms, event in self._in_order():
            lines += self._event_lines(lane, f"{ms:.2f}", event)
        lines += ["", *textwrap.wrap(_LEGEND, width), ""]
        for check in self.checks:
            first, *others = _check_lines(check, width)
            lines += [paint("good" if check.ok else "wrong", first[:_LABEL]) + first[_LABEL:], *others]
        wrong = sum(not check.ok for check in self.checks)
        count = len(self.checks)
        verdict = f"{count} checks: all is as it must be." if self.ok else f"{wrong} of {count} checks FAILED."
        return "\n".join([*lines, "", paint("good" if self.ok else "wrong", verdict)])

    def _in_order(self) -> list[tuple[float, Event]]:
        events = sorted(self.events, key=lambda event: event.at)
        return [((event.at - events[0].at) * 1000, event) for event in events]

    def _title(self, process: str) -> str:
        return f"{process.upper()}, pid {self.pids.get(process, 'none')}"

    def _event_lines(self, lane: int, when: str, event: Event) -> list[str]:
        left = event.process == "parent"
        what = event.what
        if event.process not in ("parent", "child"):
            what = f"{self._title(event.process)}: {what}"
        arrow = ("-->" if left else "<--") if event.sends else ""
        lines = []
        texts = textwrap.wrap(what, lane, subsequent_indent="  ")
        if event.attested is not None:
            texts += textwrap.wrap(f"[{event.attested}]", lane, initial_indent="  ", subsequent_indent="   ")
        for text in texts:
            lines.append(_row(lane, when, text, arrow, "") if left else _row(lane, when, "", arrow, text))
            when = arrow = ""
        return lines


def _row(lane: int, when: str, left: str, arrow: str, right: str) -> str:
    """8 columns for the time, so many for either lane, 3 between the lanes, and a space where two of them meet."""
    return f"{when:>8} {left:<{lane}} {arrow:<3} {right}".rstrip()


def _check_lines(check: Check, width: int) -> list[str]:
    found = _readable(check.found)
    text = f"{check.what}: {found}" if check.ok else f"{check.what}: {found}, expected {_readable(check.expected)}"
    return textwrap.wrap(text, width, initial_indent="  ok    " if check.ok else "  FAIL  ", subsequent_indent=" " * 8)


def _readable(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{count} {what}" for what, count in value.items())
    return str(value)
