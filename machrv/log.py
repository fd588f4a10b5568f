"""What machrv tells of that nobody can catch: the logger "machrv"."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from logging import Logger


_INFO = 20  #: logging.INFO
_log: Logger | None = None


def log() -> Logger:
    """The logger "machrv"."""
    global _log
    if _log is None:
        import logging  # Late: it is dear, and most processes have nothing to say.

        _log = logging.getLogger("machrv")
    return _log


def listens() -> bool:
    """Whether anybody wants to know what is no trouble (INFO). Who has not even imported `logging` does not."""
    return "logging" in sys.modules and log().isEnabledFor(_INFO)
