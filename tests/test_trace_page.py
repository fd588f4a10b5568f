"""The page of a trace in a real browser: drawn, usable by hand and by keyboard, safe from whatever was traced."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from machrv.trace import SUFFIX
from machrv.trace.events import tell
from machrv.trace.page import page
from machrv.trace.reading import read

from .browser import Browser, browser as a_browser
from .traces import Traced, python, trace

HOSTILE = "</script><img src=x onerror=window.owned=1>\"'&<svg/onload=window.owned=2><!--\u2028]]>"
DOWN, UP, END, ENTER = "\ue015", "\ue013", "\ue010", "\ue007"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with a_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Traced]:
    """The demo's page."""
    folder = tmp_path_factory.mktemp("demo")
    return folder / "page.html", trace(folder, sys.executable, "-m", "machrv", "demo")


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Traced]:
    """The page of a program in which one look-up fails."""
    folder = tmp_path_factory.mktemp("failing")
    code = (
        "port = ReceiveRight.allocate()\nright = port.make_send()\nright.send(Message(7))\nport.receive(10)\n"
        "try:\n    current().bootstrap_look_up('nobody')\nexcept MachError:\n    pass\nright.close()\nport.close()"
    )
    return folder / "page.html", trace(folder, *python(code))


def texts(browser: Browser) -> list[str]:
    """What stands in the picture."""
    found: list[str] = browser.run("return [...document.querySelectorAll('#picture text')].map(t => t.textContent)")
    return found


def details(browser: Browser) -> str:
    return str(browser.run("return document.getElementById('details').innerText.replace(/\\n+/g, '\\n')"))


def drawn(browser: Browser) -> int:
    """How many rows there are; the script sets it last."""
    return int(browser.run("return document.documentElement.dataset.drawn"))


@pytest.mark.parametrize("width", [1280, 500])
def test_every_lane_event_and_arrow_is_drawn(browser: Browser, demo: tuple[Path, Traced], width: int) -> None:
    """In a window as tall as the whole picture, whatever its width; nothing is fetched, nothing is complained of."""
    file, traced = demo
    browser.open(file, width=width, height=4000)
    browser.run("document.getElementById('chart').style.maxHeight = 'none'")
    assert drawn(browser) == len(traced.events)
    lanes = browser.run("return [...document.querySelectorAll('#lanes b')].map(b => b.textContent)")
    assert lanes == ["machrv demo", "demo_child stranger", "demo_child child"]
    browser.open(file, width=width, height=4000)
    counted = browser.run(
        "document.getElementById('chart').style.maxHeight = 'none'; dispatchEvent(new Event('resize'));"
        "return new Promise(done => requestAnimationFrame(() => setTimeout(() => done("
        "[document.querySelectorAll('#picture path[d$=z]').length, document.querySelectorAll('#picture .when').length]), 50)))"
    )
    assert counted == [len(traced.messages), len(traced.events)]
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    assert browser.complaints() == []
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth") is True


def test_a_row_that_is_clicked_tells_its_details(browser: Browser, demo: tuple[Path, Traced]) -> None:
    """The first row is the parent's first event; pointing at one shows it too."""
    browser.open(demo[0])
    browser.click("#lanes", 0, 28 + 32)
    assert details(browser).startswith("begins to use ports\nmachrv demo, pid ")
    browser.click("#lanes", 0, 28 + 32 + 37)
    assert "org.machrv.MachPortRendezvousServer." in details(browser)


def test_the_keyboard_goes_everywhere(browser: Browser, demo: tuple[Path, Traced]) -> None:
    """From row to row, to a message's other end and back, to the next failure, to the end; closer and further off."""
    file, traced = demo
    [reply] = [n for n, event in enumerate(traced.events) if event["kind"] == "receive" and event["rights"] == 5]
    browser.open(file, f"#event={reply}")
    browser.run("document.getElementById('chart').focus()")
    assert details(browser).startswith("receives a rendezvous reply") and "24 msgh_descriptor_count" in details(browser)
    browser.keys(ENTER)
    assert details(browser).startswith("sends a rendezvous reply\nmachrv demo")
    browser.keys(ENTER, DOWN, UP)
    assert details(browser).startswith("receives a rendezvous reply")
    browser.keys(END)
    assert details(browser).startswith("ends")
    before = browser.run("return document.getElementById('space').clientHeight")
    browser.keys("-", "-", "-", "-")
    assert browser.run("return document.getElementById('space').clientHeight") < before / 3
    browser.keys("+", "+", "+", "+")
    assert browser.run("return document.getElementById('space').clientHeight") == before
    assert browser.complaints() == []


def test_a_failure_in_the_list_leads_to_its_row(browser: Browser, failing: tuple[Path, Traced]) -> None:
    """It is a button, with the symbol; and a key leads there too."""
    browser.open(failing[0])
    browser.run("document.getElementById('chart').focus()")
    browser.keys("f")
    assert "BOOTSTRAP_UNKNOWN_SERVICE" in details(browser)
    browser.open(failing[0])
    assert "BOOTSTRAP_UNKNOWN_SERVICE" in browser.run("return document.querySelector('.failures').innerText")
    browser.click(".failures button")
    assert "BOOTSTRAP_UNKNOWN_SERVICE" in details(browser)
    browser.painted()
    assert any("BOOTSTRAP_UNKNOWN_SERVICE" in text for text in texts(browser))


def test_what_was_to_fail_does_not_greet_in_red(browser: Browser, demo: tuple[Path, Traced]) -> None:
    """The demo looks a name up that must be free."""
    browser.open(demo[0])
    assert browser.run("return document.querySelectorAll('.failures').length") == 0
    assert "No call failed" in browser.run("return document.querySelector('.fine').innerText")


def test_what_is_not_wanted_can_be_left_out(browser: Browser, failing: tuple[Path, Traced]) -> None:
    """By kind; what failed stays."""
    file, traced = failing
    browser.open(file, "#show=messages", height=2000)
    kinds = [event["kind"] for event in traced.events]
    assert drawn(browser) == sum(kind in ("send", "receive", "kernel") for kind in kinds) + 1
    assert not any(text.startswith("makes") for text in texts(browser))
    assert any(text == "BOOTSTRAP_UNKNOWN_SERVICE" for text in texts(browser)) or len(traced.events) > 20


def test_hostile_names_are_text(browser: Browser, tmp_path: Path) -> None:
    """A program's name, a service's, a port's, a failure's, a body: markup in them is shown, never taken for markup."""
    records = tmp_path / "records"
    records.mkdir()
    body = HOSTILE.encode().hex()
    head = (bytes(4) + (24 + len(HOSTILE.encode())).to_bytes(4, "little") + bytes(16)).hex()
    lines: list[list[object]] = [
        ["start", 1, 1, 4711, 1, 0, HOSTILE, None, HOSTILE],
        ["call", 2, 3, 1, "bootstrap_check_in", [HOSTILE], [], 1, [HOSTILE, 1 << 17], [HOSTILE, None]],
        ["call", 4, 5, 1, HOSTILE, [HOSTILE, [HOSTILE]], [[HOSTILE, 1]], HOSTILE, None, None],
        ["began", 1, 6, 1, 1, -1, 0, None, [head, [[HOSTILE, 1], [HOSTILE, 1]], "", body]],
        ["ended", 1, 7, [HOSTILE, None], None],
    ]
    (records / f"4711-1{SUFFIX}").write_text("".join(json.dumps(line) + "\n" for line in lines))
    story = tell(read(str(records)))
    file = tmp_path / "page.html"
    file.write_text(page(story, [f"/{HOSTILE}", HOSTILE]), encoding="utf-8")
    for event in range(len(story.events)):
        browser.open(file, f"#event={event}")
        assert drawn(browser) == len(story.events) == 4
        assert browser.run("return [typeof window.owned, document.querySelectorAll('img').length]") == ["undefined", 0]
        assert browser.run("return document.querySelectorAll('script').length") == 2
        assert browser.complaints() == []
    assert "<svg/onload" in details(browser) and "onerror" in browser.run(
        "return document.querySelector('#lanes').innerText"
    )


def test_what_a_page_does_not_hold_itself_is_not_run(
    browser: Browser, demo: tuple[Path, Traced], tmp_path: Path
) -> None:
    """The policy in the page: had something got through, the browser would not run it, nor fetch anything."""
    file = tmp_path / "page.html"
    inside = "<script>window.owned = 1</script><img src='file:///etc/hostname' onerror='window.owned = 2'>"
    file.write_text(demo[1].page.replace("<header>", f"<header>{inside}"), encoding="utf-8")
    browser.open(file)
    assert browser.run("return typeof window.owned") == "undefined"
    complaints = browser.complaints()
    assert len(complaints) >= 2 and all("Content Security Policy" in complaint for complaint in complaints)


def test_tens_of_thousands_of_events_stay_usable(browser: Browser, tmp_path: Path) -> None:
    """More than a page holds: it says so; the script draws what is seen, and jumping to the end takes no time."""
    records = tmp_path / "records"
    records.mkdir()
    token = [0, 0, 0, 0, 0, 1, 0, 9]
    head = (bytes(4) + (24).to_bytes(4, "little") + bytes(12) + (7).to_bytes(4, "little")).hex()
    trailer = (
        bytes(4) + (52).to_bytes(4, "little") + bytes(12) + b"".join(n.to_bytes(4, "little") for n in token)
    ).hex()
    with (
        open(records / f"1-1{SUFFIX}", "w", encoding="utf-8") as sender,
        open(records / f"2-1{SUFFIX}", "w", encoding="utf-8") as receiver,
    ):
        sender.write(json.dumps(["start", 1, 1, 1, 0, 0, "linux", token, "sender"]) + "\n")
        receiver.write(json.dumps(["start", 1, 1, 2, 1, 0, "linux", [0, 0, 0, 0, 0, 2, 0, 9], "receiver"]) + "\n")
        for n in range(10, 120_010, 10):
            sent = f'["{head}",[["p",65536],["",0]],"",""]'
            sender.write(f'["began",{n},{n},1,1,-1,0,null,{sent}]\n["ended",{n},{n + 1},null,null]\n')
            got = f'["{head}",[["",0],["p",131072]],"{trailer}",""]'
            receiver.write(f'["began",{n},{n},1,2,0,7,["p",131072],null]\n["ended",{n},{n + 5},null,{got}]\n')
    story = tell(read(str(records)))
    file = tmp_path / "page.html"
    file.write_text(page(story, ["x"]), encoding="utf-8")
    assert file.stat().st_size < 20 << 20
    browser.open(file)
    assert drawn(browser) == 20_000
    assert "4,002 events in the middle are left out" in browser.run("return document.querySelector('.notes').innerText")
    browser.run("document.getElementById('chart').focus()")
    browser.keys(END)
    took = browser.run(
        "const chart = document.getElementById('chart'), began = performance.now(); chart.scrollTop = chart.scrollHeight / 3;"
        "return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began))))"
    )
    assert took < 1000 and 5 < browser.run("return document.querySelectorAll('#picture .when').length") < 100
    assert details(browser).startswith("receives message 7")


OVERPRINTED = """
const over = [], labels = [...document.querySelectorAll('#picture .label')].map(label => [label.textContent, label.getBBox()]);
for (const path of document.querySelectorAll('#picture path[fill=none]')) {
  if (!path.getAttribute('stroke').includes('--')) continue;
  for (let at = 0; at <= path.getTotalLength(); at += 2) {
    const { x, y } = path.getPointAtLength(at);
    for (const [text, box] of labels)
      if (x > box.x && x < box.x + box.width && y > box.y + 1 && y < box.y + box.height - 1) over.push(text);
  }
}
return [[...new Set(over)], labels.length];
"""


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Messages to the left and to the right, and in both lanes other things that happen before they are received."""
    folder = tmp_path_factory.mktemp("busy")
    head = (bytes(4) + (24).to_bytes(4, "little") + bytes(12) + (7).to_bytes(4, "little")).hex()
    for own, other in ((1, 2), (2, 1)):
        token = b"".join(n.to_bytes(4, "little") for n in (0, 0, 0, 0, 0, other, 0, 9))
        trailer = (bytes(4) + (52).to_bytes(4, "little") + bytes(12) + token).hex()
        lines: list[list[object]] = [
            ["start", own, 1, own, 1, 0, "linux", [0, 0, 0, 0, 0, own, 0, 9], f"process {own}"]
        ]
        for n in range(10):
            sent, got = 100 * n + own, 100 * n + 50 + own
            port, others = [f"port of {own}", 1 << 17], [f"port of {other}", 1 << 16]
            lines += [
                ["began", 2 * n, sent, own, 1, -1, 0, None, [head, [others, ["", 0]], "", ""]],
                ["ended", 2 * n, sent + 1, None, None],
                *(
                    [
                        "call",
                        sent + 10 + 2 * k,
                        sent + 11 + 2 * k,
                        own,
                        "bootstrap_check_in",
                        ["org.example.long"],
                        [],
                        7,
                        port,
                        None,
                    ]
                    for k in range(5)
                ),
                ["began", 2 * n + 1, got, own, 2, 0, 7, port, None],
                ["ended", 2 * n + 1, got, None, [head, [["", 0], port], trailer, ""]],
            ]
        (folder / f"{own}-1{SUFFIX}").write_text("".join(json.dumps(line) + "\n" for line in lines))
    story = tell(read(str(folder)))
    assert sum(arrow.sent is not None and arrow.received is not None for arrow in story.arrows) == 20
    (folder / "page.html").write_text(page(story, ["busy"]), encoding="utf-8")
    return folder / "page.html"


@pytest.mark.parametrize("zoom", [1, 2, 3])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("which", ["demo", "busy"])
def test_no_arrow_is_drawn_over_a_label(
    browser: Browser, demo: tuple[Path, Traced], busy: Path, which: str, zoom: int, width: int
) -> None:
    """Whichever way it goes: every point of every arrow is outside of every label."""
    browser.open(demo[0] if which == "demo" else busy, f"#zoom={zoom}", width=width, height=6000)
    browser.run(
        "document.querySelector('.columns').style.height = 'auto'; document.getElementById('chart').style.maxHeight = 'none'"
    )
    browser.painted()
    over, labels = browser.run(OVERPRINTED)
    assert over == [] and labels > 20


def test_the_selected_row_is_never_under_the_details(browser: Browser, demo: tuple[Path, Traced]) -> None:
    """At 400 pixels, whichever row it is, however it is come to; and the details are in sight."""
    file, traced = demo
    see = """
    const chart = document.getElementById('chart').getBoundingClientRect(), mark = document.querySelector('#picture rect[fill="var(--mark)"]');
    const row = mark.getBoundingClientRect(), level = (row.top + row.bottom) / 2, details = document.getElementById('details').getBoundingClientRect();
    const there = document.elementFromPoint(chart.left + chart.width / 2, level);
    return [there !== null && there.closest('#picture') !== null, level > chart.top + 56 && level < chart.bottom, level < details.top, details.top < innerHeight - 40];
    """
    for event in (0, len(traced.events) // 2, len(traced.events) - 1):
        browser.open(file, f"#event={event}", width=400, height=800)
        browser.painted()
        assert browser.run(see) == [True] * 4
    browser.run("document.getElementById('chart').focus()")
    for key in [UP] * 12 + [DOWN] * 5:
        browser.keys(key)
        browser.painted()
        assert browser.run(see) == [True] * 4


def twenty(folder: Path) -> Path:
    """The page of twenty processes; each of them makes a port and destroys it."""
    records = folder / "records"
    records.mkdir()
    for n in range(1, 21):
        port = [f"{n:016x}", 1 << 17]
        lines: list[list[object]] = [
            ["start", n * 100, 1, n, 1, 0, "linux", [0, 0, 0, 0, 0, n, 0, 9], f"worker{n}"],
            ["call", n * 100 + 1, n * 100 + 2, n, "mach_port_allocate", [1], [], 7, port, None],
            ["call", n * 1000, n * 1000 + 1, n, "mach_port_mod_refs", [7, 1, -1], [port], None, None, None],
        ]
        (records / f"{n}-1{SUFFIX}").write_text("".join(json.dumps(line) + "\n" for line in lines))
    file = folder / "page.html"
    file.write_text(page(tell(read(str(records))), ["many"]), encoding="utf-8")
    return file


def test_twenty_lanes_are_narrower_when_zoomed_out(browser: Browser, tmp_path: Path) -> None:
    """All of them are seen at once then."""
    file = twenty(tmp_path)
    widths = []
    for zoom in (3, 2, 1, 0):
        browser.open(file, f"#zoom={zoom}")
        widths.append(browser.run("return document.getElementById('space').clientWidth"))
    assert widths == sorted(widths, reverse=True) and widths[0] > 4000 and len(set(widths)) == 4
    assert browser.run("const c = document.getElementById('chart'); return c.scrollWidth <= c.clientWidth + 120")


def test_a_lane_is_jumped_to_and_hidden(browser: Browser, tmp_path: Path) -> None:
    """From a list. A row of a hidden lane that is come to brings its lane back."""
    browser.open(twenty(tmp_path))
    browser.run("document.getElementById('processes').open = true")
    assert browser.run("return document.querySelectorAll('[data-jump]').length") == 20
    browser.run("document.querySelectorAll('[data-jump]')[18].click()")
    browser.painted()
    assert details(browser).startswith("begins to use ports\nworker19, pid 19")
    seen = "const h = document.querySelectorAll('#lanes div')[18].getBoundingClientRect(), c = document.getElementById('chart').getBoundingClientRect(); return h.left >= c.left && h.left < c.right - 20"
    assert browser.run(seen) is True
    before = browser.run("return document.getElementById('space').clientHeight")
    browser.run("document.querySelectorAll('[data-lane]')[4].click()")
    hidden = "return [...document.querySelectorAll('#lanes div')].filter(head => head.offsetParent === null).map(head => head.firstChild.textContent)"
    assert browser.run(hidden) == ["worker5"]
    assert browser.run("return document.getElementById('space').clientHeight") == before - 3 * 37
    browser.run("document.getElementById('none').click()")
    assert len(browser.run(hidden)) == 20
    browser.run("document.querySelectorAll('[data-jump]')[2].click()")
    assert len(browser.run(hidden)) == 19 and "worker3" not in browser.run(hidden)
    browser.run("document.getElementById('all').click()")
    assert browser.run(hidden) == [] and browser.complaints() == []


def test_a_search_leads_from_row_to_row(browser: Browser, tmp_path: Path) -> None:
    """What stands in a row, in its details, or on its lane; Enter for the next, and round."""
    browser.open(twenty(tmp_path))
    browser.run("document.getElementById('chart').focus()")
    browser.keys("/", *"worker17")
    assert browser.run("return document.getElementById('found').textContent") == "3 found"
    for begins in ("begins to use ports", "makes port", "destroys port", "begins to use ports"):
        browser.keys("\ue007")
        assert details(browser).startswith(begins) and "worker17, pid 17" in details(browser)
    assert browser.run("return document.getElementById('found').textContent") == "1 of 3"
    browser.run(
        "const field = document.getElementById('search'); field.value = 'nothing of it'; field.dispatchEvent(new Event('input'))"
    )
    assert browser.run("return document.getElementById('found').textContent") == "0 found"


def test_who_holds_which_right_at_the_selected_moment(browser: Browser, demo: tuple[Path, Traced]) -> None:
    """Before the reply the parent has the receive right that it gives away; afterwards the child, until it destroys it."""
    file, traced = demo
    [reply] = [n for n, event in enumerate(traced.events) if event["kind"] == "receive" and event["rights"] == 5]
    data = traced.data
    [port] = {stay[0] for stay in data["stays"] if [other[0] for other in data["stays"]].count(stay[0]) == 2}
    name = data["strings"][data["ports"][str(port)]]
    [destroyed] = [
        n
        for n, e in enumerate(traced.events)
        if e["port"] == data["strings"][port] and e["text"].startswith("destroys")
    ]
    held = """
    document.getElementById('holders').open = true;
    const names = [...document.querySelectorAll('#holders dt')].map(e => e.textContent), at = names.indexOf(arguments[0]);
    return at < 0 ? '' : document.querySelectorAll('#holders dd')[at].textContent;
    """
    sent = next(n for n, event in enumerate(traced.events) if event["kind"] == "send" and event["rights"] == 5)
    for event, expected in (
        (sent - 1, "machrv demo: receive right"),
        (reply, "demo_child child: receive right"),
        (destroyed, ""),
    ):
        browser.open(file, f"#event={event}")
        found = browser.run(held, name)
        assert expected in found if expected else "receive right" not in found, (event, found)
        if event == reply:
            assert "machrv demo: send right" in found and "machrv demo: receive right" not in found
