"""What `multiprocessing` runs in a child of its own. It imports nothing: the child would pay for it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from typing import Any


def speak(given: Connection[Any, Any]) -> None:
    """Send one message into what was handed over."""
    given.send_bytes(bytes(24))
    given.close()
