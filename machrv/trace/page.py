"""The page: a story as one HTML file that needs nothing else.

The policy in the page lets a browser run the script of this package, known by its hash, and nothing else: neither from
the network nor out of the data.
"""

# What belongs here: markup, and the data as the script reads it. What must never happen here: a word of a traced
# program that is not escaped, or anything that a browser would fetch or run besides the one script and the one style.

from __future__ import annotations

import base64
import hashlib
import json
import time
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machrv.trace.holding import RECEIVE
from machrv.trace.recording import title as program
from machrv.trace.wording import plural, title

if TYPE_CHECKING:
    from machrv.trace.events import Event, Story

#: More events than this make a page that browsers labour with: those in the middle are left out.
MOST_EVENTS = 20_000
#: More failures than this are counted.
_MOST_FAILURES = 100
#: More notes than this are counted.
_MOST_NOTES = 12
#: A name or a text of a traced program goes so far.
_LONGEST = 2000

_FOLDER = Path(__file__).parent

_FILTERS = (
    ("messages", "send receive kernel", True),
    ("rights", "right", True),
    ("names", "name", True),
    ("processes", "life", True),
    ("waits", "wait", True),
)


class _Strings:
    """Each text once, by its number."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        """-1 for no text."""
        if not text:
            return -1
        text = text[:_LONGEST]
        number = self._numbers.setdefault(text, len(self.texts))
        if number == len(self.texts):
            self.texts.append(text)
        return number


def page(story: Story, command: list[str], most: int = MOST_EVENTS) -> str:
    """The page as text. `command` is what was traced."""
    events, left_out, gap = _shown(story.events, most)
    data = _data(story, events)
    data.update(gap=gap, left_out=left_out)
    style, script = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    name = program(command)
    notes = list(story.notes)
    if left_out:
        notes.insert(0, f"{plural(left_out, 'event')} in the middle are left out: the page shows {most:,} at most")
    lanes = "".join(_lane(process) for process in story.lanes)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>machrv trace: {escape(name)}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>machrv trace <code>{escape(name)}</code></h1>
<p>{escape(_summary(story))}</p>
{_failures(story, events)}
{_notes(notes)}
{_tools()}
{_processes(story)}
</header>
<main class="columns">
<div id="chart" tabindex="0" role="group" aria-label="What happened, one event a row, one lane a process" aria-describedby="keys">
<div id="lanes">{lanes}</div>
<div id="space"><svg id="picture" aria-hidden="true"></svg></div>
</div>
<section id="details" aria-live="polite" aria-label="Details"><h2>Details</h2>
<p>Point at a row, or tap it. The details of a message are its fields, as <code>machrv decode</code> shows them; the rows of its port are ringed then, and the band in a lane is where the port's receive right was.</p>
<p id="keys">Keys, once the lanes have the focus: ↑ ↓ for the rows, Enter for a message's other end, f for the next failure, / to search, + and − to zoom.</p>
</section>
</main>
<footer>{_legend()}<noscript><p>The lanes are drawn by the script in this page: a browser that runs none shows what failed, and no more.</p></noscript></footer>
<script type="application/json" id="data">{_as_json(data)}</script>
<script>{script}</script>
</body>
</html>
"""


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _as_json(data: object) -> str:
    """JSON that no HTML parser finds an end, a comment or a tag in."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _shown(events: list[Event], most: int) -> tuple[list[Event], int, int]:
    """The events that have room; how many have not; before which one of those that have they are missing."""
    left_out = len(events) - most
    if left_out <= 0:
        return events, 0, -1
    half = most // 2
    return events[:half] + events[half + left_out :], left_out, half


def _data(story: Story, events: list[Event]) -> dict[str, Any]:
    strings = _Strings()
    number_of = {id(event): number for number, event in enumerate(events)}
    lane_of = {id(process): lane for lane, process in enumerate(story.lanes)}
    first = events[0].at if events else 0
    rows: list[list[object]] = []
    begins, ends = [-1] * len(story.lanes), [-1] * len(story.lanes)
    for number, event in enumerate(events):
        lane = lane_of[id(event.process)]
        begins[lane] = number if begins[lane] < 0 else begins[lane]
        ends[lane] = number
        texts = [strings.number(text) for text in (event.text, event.more, event.failure, event.port)]
        since = max(0, event.since - first) if event.since else -1
        details = [strings.number(text) for row in event.rows() for text in row]
        rows.append([lane, event.at - first, event.kind, *texts, event.rights, since, *details])
    arrows = []
    for arrow in story.arrows:
        sent, received = (number_of.get(id(event), -1) for event in (arrow.sent, arrow.received))
        if sent >= 0 or received >= 0:
            arrows.append([sent, received, int(arrow.certain), arrow.rights, strings.number(arrow.words)])
    holds = [
        [
            strings.number(hold.port),
            lane_of[id(hold.process)],
            hold.since - first,
            (hold.until or 0) - first,
            strings.number(hold.right),
        ]
        for hold in story.holds
    ]
    names = {hold.port: story.labels.full(hold.port) for hold in story.holds}
    last = events[-1].at - first if events else 0
    return {
        "lanes": [
            [title(process), _about(process), int(process.recorded), max(0, begins[lane]), ends[lane]]
            for lane, process in enumerate(story.lanes)
        ],
        "events": rows,
        "arrows": arrows,
        "stays": [hold[:4] for hold, told in zip(holds, story.holds) if told.right == RECEIVE],
        "holds": holds,
        "ports": {strings.number(port): strings.number(name) for port, name in names.items()},
        "failures": [number for number, event in enumerate(events) if event.alarming],
        "pause": max(1_000_000, last // 25),
        "strings": strings.texts,
    }


def _about(process: Any) -> str:
    if process.silent:
        return f"pid {process.pid}, did not use machrv"
    if not process.recorded:
        return "not recorded"
    return f"pid {process.pid}" + (f", {_ending(process)}" if process.ended is None else "")


def _ending(process: Any) -> str:
    return "still running" if process.survived else "end not seen"


def _processes(story: Story) -> str:
    """A list to jump from: a button for each lane, and a box to hide it."""
    lines = "".join(
        f'<li><input type="checkbox" data-lane="{lane}" checked aria-label="Show {escape(title(process))}">'
        f'<button data-jump="{lane}">{escape(title(process))} <small>{escape(_about(process))}</small></button></li>'
        for lane, process in enumerate(story.lanes)
    )
    return (
        f'<details id="processes"><summary>{plural(len(story.lanes), "lane")}: jump to one, or hide it</summary>'
        f'<p><button id="all">Show all</button> <button id="none">Hide all</button></p><ul>{lines}</ul></details>'
    )


def _lane(process: Any) -> str:
    return f'<div title="{escape(title(process))}, {escape(_about(process))}"><b>{escape(title(process))}</b><small>{escape(_about(process))}</small></div>'


def _summary(story: Story) -> str:
    count = sum(process.recorded for process in story.lanes)
    processes = "1 process" if count == 1 else f"{count:,} processes"
    span = (story.events[-1].at - story.events[0].at) / 1e6 if story.events else 0.0
    lasted = f"{span:.1f} ms" if span < 1000 else f"{span / 1000:.2f} s"
    bodies = "with the beginnings of bodies" if story.has_bodies else "bodies were not recorded"
    when = time.strftime("%Y-%m-%d %H:%M:%S")
    messages = plural(story.messages, "message")
    return f"{processes}, {messages}, {plural(len(story.events), 'event')} in {lasted}; {bodies}. Drawn {when}."


def _failures(story: Story, events: list[Event]) -> str:
    failures = story.failures
    if not failures:
        return '<p class="fine">No call failed, and no process ended otherwise than it should.</p>'
    number_of = {id(event): number for number, event in enumerate(events)}
    lines = []
    for event in failures[:_MOST_FAILURES]:
        more = f" ({event.more})" if event.more else ""
        text = f"{title(event.process)}, pid {event.process.pid}: {event.text}{more}"
        line = f"{escape(text[:_LONGEST])}: <b>{escape(event.failure[:_LONGEST])}</b>"
        number = number_of.get(id(event))
        lines.append(
            f"<li>{line}</li>" if number is None else f'<li><button data-event="{number}">{line}</button></li>'
        )
    if len(failures) > _MOST_FAILURES:
        lines.append(f"<li>and {len(failures) - _MOST_FAILURES:,} more</li>")
    return f'<section class="failures"><h2>{len(failures):,} failed</h2><ol>{"".join(lines)}</ol></section>'


def _notes(notes: list[str]) -> str:
    if not notes:
        return ""
    lines = [f"<li>{escape(note)}</li>" for note in notes[:_MOST_NOTES]]
    if len(notes) > _MOST_NOTES:
        lines.append(f"<li>and {len(notes) - _MOST_NOTES:,} more of this kind</li>")
    return f'<ul class="notes">{"".join(lines)}</ul>'


def _tools() -> str:
    boxes = "".join(
        f'<label><input type="checkbox" data-kinds="{kinds}"{" checked" if on else ""}>{name}</label>'
        for name, kinds, on in _FILTERS
    )
    search = (
        '<span><input id="search" type="search" placeholder="Search" aria-label="Search the rows: Enter for the next">'
        '<output id="found" for="search"></output></span>'
    )
    zoom = '<button id="out" aria-label="Zoom out">−</button><button id="in" aria-label="Zoom in">+</button>'
    return f'<div class="tools" role="toolbar" aria-label="What is shown">{boxes}<span>{zoom}</span>{search}</div>'


def _legend() -> str:
    def line(colour: str, dashes: str = "", width: str = "2") -> str:
        return (
            f'<svg width="34" height="10" aria-hidden="true"><path d="M1 5h24" stroke="var(--{colour})" stroke-width="{width}"'
            f' stroke-dasharray="{dashes}"/><path d="M24 0l9 5l-9 5z" fill="var(--{colour})"/></svg>'
        )

    def shape(inside: str) -> str:
        return f'<svg width="14" height="14" aria-hidden="true">{inside}</svg>'

    hollow = 'fill="none" stroke="var(--l0)" stroke-width="2"'
    parts = (
        (line("arrow"), "a message"),
        (line("right", width="3"), "a message that moves rights"),
        (line("arrow", "5 4"), "not certain that it is this one"),
        (shape(f'<path d="M7 1l6 6l-6 6l-6 -6z" {hollow}/>'), "from the kernel"),
        (shape(f'<circle cx="7" cy="7" r="4" {hollow}/>'), "a right or a name"),
        (shape(f'<rect x="4" y="0" width="7" height="14" rx="3" {hollow}/>'), "waits"),
        (shape('<path d="M2 2l10 10m0 -10l-10 10" stroke="var(--bad)" stroke-width="2.4"/>'), "failed"),
        (shape('<circle cx="9" cy="7" r="4" fill="none" stroke="var(--arrow)"/>'), "the other end was not seen"),
    )
    return f'<div id="legend">{"".join(f"<span>{picture}{text}</span>" for picture, text in parts)}</div>'
