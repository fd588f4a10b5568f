"""What machrv tells of that nobody can catch: the logger "machrv"."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from logging import Logger


def log() -> Logger:
    """The logger "machrv"."""
    import logging  # Late: it is dear, and most processes have nothing to say.

    return logging.getLogger("machrv")
