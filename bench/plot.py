"""Growth drawn: `python -m bench.plot FIGURES.json` writes docs/growth-*.svg. (`python -m bench` measures and draws.)

What belongs here: lines on logarithmic axes, as SVG with text as text, legible on a light page and on a dark one. What
must never happen here: a figure that is not in the file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from html import escape
from math import ceil, floor, log10
from pathlib import Path
from typing import NamedTuple

from bench.measure import HERE

DOCS = HERE.parent / "docs"
_WIDTH, _HEIGHT = 430, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 96, 44, 48
_STYLE = """
 text{fill:#1f2328} .dim{fill:#57606a;font-size:12px} .b{font-weight:600}
 .grid{stroke:#d0d7de;stroke-width:1} .line{fill:none;stroke:currentColor;stroke-width:2} .label{fill:currentColor;font-size:12px}
 circle{fill:#ffffff;stroke:currentColor;stroke-width:2}
 .c0{color:#0969da} .c1{color:#9a6700} .c2{color:#8250df} .c3{color:#1a7f37} .c4{color:#cf222e}
 @media (prefers-color-scheme: dark){
  text{fill:#e6edf3} .dim{fill:#9ea7b3} .grid{stroke:#30363d} circle{fill:#0d1117}
  .c0{color:#58a6ff} .c1{color:#d29922} .c2{color:#bc8cff} .c3{color:#3fb950} .c4{color:#ff7b72} .label{fill:currentColor}
 }"""

#: by number of things, a figure
Points = Mapping[int, float]


class Panel(NamedTuple):
    """One pair of axes: what is along them, and the lines by their labels."""

    title: str
    along: str
    lines: Mapping[str, Points]
    #: what the ticks upwards are measured in
    unit: str = ""


def _decades(values: Iterable[float]) -> tuple[int, int]:
    """The powers of ten around positive values."""
    logs = [log10(value) for value in values if value > 0]
    low, high = floor(min(logs)), ceil(max(logs))
    return low, high if high > low else low + 1


def _panel(panel: Panel, at: int) -> list[str]:
    every = [(x, y) for points in panel.lines.values() for x, y in points.items() if y > 0]
    (x0, x1), (y0, y1) = _decades(x for x, _ in every), _decades(y for _, y in every)
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def across(x: float) -> float:
        return at + _LEFT + (log10(x) - x0) / (x1 - x0) * wide

    def up(y: float) -> float:
        return _TOP + high - (log10(y) - y0) / (y1 - y0) * high

    parts = [f'<text class="b" x="{at + 12}" y="24">{escape(panel.title)}</text>']
    for power in range(y0, y1 + 1):
        y = up(10**power)
        parts.append(f'<line class="grid" x1="{at + _LEFT}" x2="{at + _LEFT + wide}" y1="{y:.1f}" y2="{y:.1f}"/>')
        tick = f"{10**power:,g}" + (f" {panel.unit}" if panel.unit else "")
        parts.append(f'<text class="dim" x="{at + _LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>')
    for power in range(x0, x1 + 1):
        x = across(10**power)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_TOP + high}"/>')
        parts.append(f'<text class="dim" x="{x:.1f}" y="{_TOP + high + 18}" text-anchor="middle">{10**power:,}</text>')
    middle = at + _LEFT + wide / 2
    parts.append(
        f'<text class="dim" x="{middle:.1f}" y="{_HEIGHT - 10}" text-anchor="middle">{escape(panel.along)}</text>'
    )
    ends = _apart({name: up(max(points.items())[1]) for name, points in panel.lines.items()})
    for number, (name, points) in enumerate(panel.lines.items()):
        places = [(across(x), up(y)) for x, y in sorted(points.items()) if y > 0]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="line c{number}" points="{path}"/>')
        parts += [f'<circle class="c{number}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places]
        parts.append(
            f'<text class="label c{number}" x="{places[-1][0] + 9:.1f}" y="{ends[name] + 4:.1f}">{escape(name)}</text>'
        )
    return parts


def _apart(heights: dict[str, float], room: float = 14) -> dict[str, float]:
    """Where the labels stand, so that none covers another."""
    placed: dict[str, float] = {}
    for name, height in sorted(heights.items(), key=lambda one: one[1]):
        placed[name] = max(height, *(other + room for other in placed.values())) if placed else height
    return placed


def drawing(title: str, description: str, panels: list[Panel]) -> str:
    """An SVG with the panels side by side."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH * len(panels)} {_HEIGHT}"'
        ' font-family="system-ui, sans-serif" font-size="13" role="img" aria-labelledby="t d">',
        f'<title id="t">{escape(title)}</title>',
        f'<desc id="d">{escape(description)}</desc>',
        f"<style>{_STYLE}\n</style>",
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, number * _WIDTH)
    return "\n".join([*parts, "</svg>", ""])


def _said(points: Points, unit: str) -> str:
    return ", ".join(f"{count:,}: {figure:,.3g} {unit}" for count, figure in sorted(points.items()))


def drawings(growth: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, str]:
    """By file name, the pictures of what `bench.growth` has measured."""
    clients, registrations, names = (
        {what: {int(count): figure for count, figure in points.items()} for what, points in growth[of].items()}
        for of in ("clients", "registrations", "names")
    )
    rates = {
        name: {count: 1e6 / figure for count, figure in clients[what].items()}
        for name, what in (("machrv", "claim"), ("plain sockets", "plain sockets"))
    }
    return {
        "growth-clients.svg": drawing(
            "Claims per second, by clients at once",
            f"On one server, by client processes at once. {_said(rates['machrv'], 'claims per second')}.",
            [Panel("claims per second", "client processes at once", rates)],
        ),
        "growth-registrations.svg": drawing(
            "What one registration costs, by registrations",
            f"By registered processes. To register: {_said(registrations['register'], 'µs')}. "
            f"Memory: {_said(registrations['resident'], 'bytes')}.",
            [
                Panel(
                    "time for each",
                    "registered processes",
                    {"register": registrations["register"], "end": registrations["end"]},
                    "µs",
                ),
                Panel("memory for each", "registered processes", {"memory": registrations["resident"]}, "B"),
            ],
        ),
        "growth-names.svg": drawing(
            "What one name costs, by names in the space",
            f"By names in the port space. A message: {_said(names['message'], 'µs')}. "
            f"Memory: {_said(names['resident'], 'bytes')}.",
            [
                Panel(
                    "time for each",
                    "names in the space",
                    {what: names[what] for what in ("make", "destroy", "message", "look", "list")},
                    "µs",
                ),
                Panel("memory for each", "names in the space", {"memory": names["resident"]}, "B"),
            ],
        ),
    }


def write(growth: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """Put the pictures into docs/."""
    for name, picture in drawings(growth).items():
        (DOCS / name).write_text(picture)


if __name__ == "__main__":
    write(json.loads(Path(sys.argv[1]).read_text())["growth"])
