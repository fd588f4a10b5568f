"""The tables of docs/performance.md, from the figures in docs/performance.json: `python -m bench.page` writes them anew.

What belongs here: figures put into words and rows. What must never happen here: a figure that somebody typed. What stands
between `<!-- NAME -->` and `<!-- end -->` in the page is replaced; everything else in it is the author's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bench.plot import DOCS, write
from bench.targets import TARGETS

PAGE, FIGURES = DOCS / "performance.md", DOCS / "performance.json"

#: what `python -m bench` has put into the file
Figures = Mapping[str, Any]


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = list(head)
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)], *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _time(microseconds: float) -> str:
    if microseconds >= 10_000:
        return f"{microseconds / 1000:,.1f} ms"
    return f"{microseconds:,.0f}" if microseconds >= 100 else f"{microseconds:.3g}"


def _said(microseconds: float) -> str:
    """A time in a sentence, with its unit."""
    time = _time(microseconds)
    return time if time.endswith("ms") else f"{time} µs"


def _short(figures: Figures) -> str:
    """What a user wants to know, a line for each: machrv's figure, and what the others take beside it."""
    asked = (
        (
            "a child that is given a right and sends a message with it, from its start to its end",
            "launch",
            SHORT_LAUNCH,
        ),
        ("a message to another process and an answer, both processes on one CPU", "there and back", "0 bytes, one CPU"),
        ("the same of 64 KiB", "there and back", "64 KiB, one CPU"),
        ("a new right handed over and used, and one back", "fresh rights", "1 right, one CPU"),
        ("a claim: who am I, and what is there for me?", "claims", "1 port, one CPU"),
    )
    rows = []
    for what, group, name in asked:
        result = _result(figures, group, name)
        mine, *others = result["times"]
        beside = [
            f"{_called(group, side)} {_said(result['times'][side])} ({result['ratios'][side]:.2f})"
            for side in others
            if side in OTHERS
        ]
        rows.append((what, f"**{_said(result['times'][mine])}**", ", ".join(beside)))
    head = _table(("what it costs", "machrv", "beside"), rows).splitlines()
    return "\n".join([head[0], "| --- | ---: | --- |", *head[2:]])


def _called(group: str, side: str) -> str:
    return "`Pipe` with `send_handle`" if (group, side) == ("fresh rights", "Pipe") else OTHERS[side]


SHORT_LAUNCH = "a child that claims and sends"
#: what the sides of the first table are called in it
OTHERS = {
    "bare Python": "a child that does nothing",
    "pass_fds": "`pass_fds`",
    "multiprocessing, spawn": "`multiprocessing` spawn",
    "multiprocessing, forkserver": "forkserver",
    "Pipe": "`multiprocessing.Pipe`",
    "C": "C",
    "plain sockets": "plain sockets in Python",
    "send_handle, authkey": "`send_handle` with an authkey",
}


def _result(figures: Figures, group: str, name: str) -> Any:
    for result in figures["results"]:
        if (result["group"], result["name"]) == (group, name):
            return result
    raise KeyError(f"{group}: {name} was not measured")


def _targets(figures: Figures) -> str:
    """Every target, and whether this run has reached it."""
    rows = []
    for (group, name, side), target in TARGETS.items():
        for result in figures["results"]:
            if (result["group"], result["name"]) == (group, name) and side in result["ratios"]:
                ratio = result["ratios"][side]
                rows.append(
                    (f"{group}: {name}", side, f"{target.ratio:.2f}", f"{ratio:.2f}", _verdict(ratio, target.ratio))
                )
    memory = max(figures["growth"]["registrations"]["resident"].values())
    rows.append(("memory of a registration", "bytes", "1024", f"{memory:.0f}", _verdict(memory, 1024)))
    return _table(("what", "beside", "at most", "measured", ""), rows)


def _verdict(measured: float, target: float) -> str:
    return "reached" if measured <= target else "**missed**"


def _group(*groups: str) -> Callable[[Figures], str]:
    """A table of what was measured in these groups: microseconds each, machrv's ratio to the others in brackets."""

    def table(figures: Figures) -> str:
        results = [result for result in figures["results"] if result["group"] in groups]
        if not results:
            return "(Not among these figures.)"
        sides = list(dict.fromkeys(side for result in results for side in result["times"]))
        rows = []
        for result in results:
            cells = [f"{result['group']}: {result['name']}" if len(groups) > 1 else result["name"]]
            for side in sides:
                time, ratio = result["times"].get(side), result["ratios"].get(side)
                cells.append("" if time is None else _time(time) + ("" if ratio is None else f" ({ratio:.2f})"))
            rows.append(cells)
        return _table(("µs (ratio)", *sides), rows)

    return table


def _growth(figures: Figures) -> str:
    """Clients at once, registrations, names: a row for each figure, a column for each number of them."""
    clients, registrations, names = (figures["growth"][what] for what in ("clients", "registrations", "names"))
    rates = {what: {count: 1e6 / each for count, each in points.items()} for what, points in clients.items()}
    tables = []
    for first, rows in (
        ("clients at once", {"claims per second": rates["claim"], "plain sockets": rates["plain sockets"]}),
        (
            "registrations",
            {
                "register one, µs": registrations["register"],
                "end one, µs": registrations["end"],
                "memory of one, bytes": registrations["resident"],
                "descriptors of one": registrations["descriptors"],
            },
        ),
        (
            "names in the space",
            {
                "make one, µs": names["make"],
                "destroy one, µs": names["destroy"],
                "message through one, µs": names["message"],
                "look one up, µs": names["look"],
                "list all, µs for each": names["list"],
                "memory of one, bytes": names["resident"],
            },
        ),
    ):
        counts = list(next(iter(rows.values())))
        cells = [[what, *(_plain(points[count]) for count in counts)] for what, points in rows.items()]
        tables.append(_table((first, *(f"{int(count):,}" for count in counts)), cells))
    return "\n\n".join(tables)


def _plain(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 or figure == round(figure) else f"{figure:.3g}"


def _calls(figures: Figures) -> str:
    """The system calls for one of each thing: a row for each, columns for who makes it."""
    tables = []
    for what, sides in figures["calls"].items():
        names = sorted({name for calls in sides.values() for name in calls})
        rows = [
            [f"`{name}`", *(_plain(calls[name]) if name in calls else "" for calls in sides.values())] for name in names
        ]
        rows.append(["all", *(_plain(round(sum(calls.values()), 1)) for calls in sides.values())])
        tables.append(_table((what, *sides), rows))
    return "\n\n".join(tables)


def _machine(figures: Figures) -> str:
    return "\n".join(f"- {what}: {said}" for what, said in figures["machine"].items())


SECTIONS: dict[str, Callable[[Figures], str]] = {
    "machine": _machine,
    "short": _short,
    "launch": _group("launch"),
    "message": _group("there and back"),
    "rights": _group("fresh rights"),
    "channel": _group("channel"),
    "claims": _group("claims"),
    "growth": _growth,
    "within": _group("within", "mach_msg in C"),
    "codec": _group("encode", "decode"),
    "targets": _targets,
    "calls": _calls,
}


def rendered(page: str, figures: Figures) -> str:
    """The page with every section made anew."""

    def section(found: re.Match[str]) -> str:
        return f"<!-- {found[1]} -->\n\n{SECTIONS[found[1]](figures)}\n\n<!-- end -->"

    return re.sub(r"(?s)<!-- (\w+) -->\n.*?<!-- end -->", section, page)


def renew() -> None:
    """Write tables and pictures from the figures at hand."""
    figures = json.loads(FIGURES.read_text())
    PAGE.write_text(rendered(PAGE.read_text(), figures))
    write(figures["growth"])


if __name__ == "__main__":
    renew()
