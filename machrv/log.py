"""What machrv tells of that nobody can catch: the logger "machrv"."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from logging import Logger


def log() -> Logger:
    """The logger "machrv"."""
    import logging  # Late: it is dear, and most processes have nothing to say.

    return logging.getLogger("machrv")


def listens() -> bool:
    """Whether anybody wants to know what is no trouble (INFO). Who has not even imported `logging` does not."""
    logging = sys.modules.get("logging")
    return logging is not None and log().isEnabledFor(logging.INFO)
