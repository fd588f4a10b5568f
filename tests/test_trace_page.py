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
from .traces import Traced, trace

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
    browser.keys("f")
    assert "BOOTSTRAP_UNKNOWN_SERVICE" in details(browser)
    browser.keys(END)
    assert details(browser).startswith("ends")
    before = browser.run("return document.getElementById('space').clientHeight")
    browser.keys("-", "-", "-", "-")
    assert browser.run("return document.getElementById('space').clientHeight") < before / 3
    browser.keys("+", "+", "+", "+")
    assert browser.run("return document.getElementById('space').clientHeight") == before
    assert browser.complaints() == []


def test_a_failure_in_the_list_leads_to_its_row(browser: Browser, demo: tuple[Path, Traced]) -> None:
    """It is a button, with the symbol."""
    browser.open(demo[0])
    assert "BOOTSTRAP_UNKNOWN_SERVICE" in browser.run("return document.querySelector('.failures').innerText")
    browser.click(".failures button")
    assert "BOOTSTRAP_UNKNOWN_SERVICE" in details(browser)
    browser.painted()
    assert any("BOOTSTRAP_UNKNOWN_SERVICE" in text for text in texts(browser))


def test_what_is_not_wanted_can_be_left_out(browser: Browser, demo: tuple[Path, Traced]) -> None:
    """By kind; what failed stays."""
    file, traced = demo
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
