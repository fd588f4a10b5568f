"""A story as Chrome trace JSON, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

The format is that of "Trace Event Format": a process a lane, a slice a call, an arrow (a flow) a message. Times are in
microseconds since the first event.
"""

# What belongs here: the format. What must never happen here: something that the page does not show.

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from machrv.trace.wording import title

if TYPE_CHECKING:
    from machrv.trace.events import Event, Story
    from machrv.trace.reading import Process

#: How long what has no duration is drawn, in nanoseconds: an arrow needs a slice to begin and to end in.
_SHORTEST = 1000


def chrome_json(story: Story) -> str:
    """The whole story, as text."""
    first = story.events[0].at if story.events else 0
    numbers = _numbers(story.lanes)
    events: list[dict[str, Any]] = []
    for order, process in enumerate(story.lanes):
        pid = numbers[id(process)]
        events.append({"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": title(process)}})
        events.append({"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": order}})
    for event in story.events:
        events.append(_event(event, first, numbers))
    for number, arrow in enumerate(story.arrows):
        if arrow.sent is not None and arrow.received is not None:
            common = {"name": arrow.words or "message", "cat": "message", "id": number}
            begins = {"ph": "s", "ts": _microseconds(_span(arrow.sent)[0] - first), **_place(arrow.sent, numbers)}
            ends = {"ph": "f", "bp": "e", "ts": _microseconds(_span(arrow.received)[1] - 1 - first)}
            events += [{**common, **begins}, {**common, **ends, **_place(arrow.received, numbers)}]
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ns", "otherData": {"notes": story.notes}})


def _numbers(lanes: list[Process]) -> dict[int, int]:
    """A number for each lane: its pid, but for what another program or another process with that pid has had before."""
    taken: set[int] = set()
    numbers = {}
    for process in lanes:
        number = process.pid
        while number in taken:
            number += 1 << 24
        taken.add(number)
        numbers[id(process)] = number
    return numbers


def _place(event: Event, numbers: dict[int, int]) -> dict[str, int]:
    return {"pid": numbers[id(event.process)], "tid": event.thread or event.process.pid}


def _span(event: Event) -> tuple[int, int]:
    """When a slice begins and ends."""
    begins = event.since or event.at
    return begins, max(event.until, event.at, begins + _SHORTEST)


def _event(event: Event, first: int, numbers: dict[int, int]) -> dict[str, Any]:
    arguments = {**({"about": event.more} if event.more else {}), **dict(event.rows())}
    if event.failure:
        arguments["failed"] = event.failure
    common = {"name": event.text, "cat": event.kind, **_place(event, numbers), "args": arguments}
    if event.kind == "life":
        return {"ph": "i", "s": "p", "ts": _microseconds(event.at - first), **common}
    begins, ends = _span(event)
    return {"ph": "X", "ts": _microseconds(begins - first), "dur": _microseconds(ends - begins), **common}


def _microseconds(nanoseconds: int) -> float:
    return nanoseconds / 1000
