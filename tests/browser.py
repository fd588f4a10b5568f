"""A real browser, driven: Chromium without a window, over the WebDriver protocol that chromedriver speaks."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_OPTIONS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --disable-extensions --hide-scrollbars"
)
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    """One window. Everything is asked over HTTP, of a driver on this machine."""

    def __init__(self, session: str) -> None:
        self._session = session

    def call(self, method: str, path: str, **body: Any) -> Any:
        """A command of the protocol, and its value."""
        data = json.dumps(body).encode() if method == "POST" else None
        request = urllib.request.Request(
            f"{self._session}{path}", data, {"Content-Type": "application/json"}, method=method
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            return json.load(answer)["value"]

    def open(self, file: Path, fragment: str = "", width: int = 1280, height: int = 900) -> None:
        """Show a file in a window of this size."""
        self.call("POST", "/window/rect", width=width, height=height)
        self.call("POST", "/url", url="about:blank")
        self.call("POST", "/url", url=f"{file.as_uri()}{fragment}")

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a script in the page."""
        return self.call("POST", "/execute/sync", script=script, args=list(arguments))

    def painted(self) -> None:
        """Wait until what was asked for is drawn: a page draws at the next frame."""
        self.run("return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def picture(self, selector: str) -> bytes:
        """An element as it looks, all of it: a PNG."""
        element = self.call("POST", "/element", using="css selector", value=selector)
        return base64.b64decode(self.call("GET", f"/element/{element[_ELEMENT]}/screenshot"))

    def keys(self, *keys: str) -> None:
        """Press keys, one after the other."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.call("POST", "/actions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])

    def click(self, selector: str, x: int = 0, y: int = 0) -> None:
        """Click at an offset from the middle of an element."""
        element = self.call("POST", "/element", using="css selector", value=selector)
        move = {"type": "pointerMove", "origin": {_ELEMENT: element[_ELEMENT]}, "x": x, "y": y}
        actions = [move, {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        pointer = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions}
        self.call("POST", "/actions", actions=[pointer])

    def complaints(self) -> list[str]:
        """What the browser wrote into its console since it was last asked: errors, policies that something ran into."""
        return [entry["message"] for entry in self.call("POST", "/se/log", type="browser")]


@contextmanager
def browser(*more: str) -> Iterator[Browser]:
    """A browser of its own, with more options; the test is skipped where there is none."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("there is no Chromium with chromedriver here (Debian: apt install chromium chromium-driver)")
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            port = next(
                line.rpartition(" ")[2].strip(" .\n") for line in process.stdout if "successfully on port" in line
            )
            address = f"http://127.0.0.1:{port}"
            options = {"binary": program, "args": [*_OPTIONS.split(), *more, f"--user-data-dir={profile}"]}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            session = Browser(address).call("POST", "/session", capabilities={"alwaysMatch": wanted})
            window = Browser(f"{address}/session/{session['sessionId']}")
            try:
                yield window
            finally:
                window.call("DELETE", "")
        finally:
            process.terminate()
