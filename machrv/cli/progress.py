"""What a run says that takes longer than somebody waits without wondering."""

# What belongs here: one line on standard error, later, if at all. What must never happen here: a line of a quick run.

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: Seconds until a run says what it is doing, and between two such lines.
FIRST = 2.0
NEXT = 10.0


class Progress:
    """A context in which `doing()` is printed after two seconds, and every ten seconds from then on.

    `quiet` can be set at any time: the run shows by other means that it goes on.
    """

    def __init__(self, command: str, doing: Callable[[], str]) -> None:
        self.quiet = False
        self._command = command
        self._doing = doing
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._speak, name="machrv-progress", daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._thread.join()

    def _speak(self) -> None:
        wait = FIRST
        while not self._over.wait(wait):
            wait = NEXT
            if not self.quiet:
                try:
                    print(f"{self._command}: {self._doing()}", file=sys.stderr, flush=True)
                except (OSError, ValueError):
                    return  # Nobody listens.
