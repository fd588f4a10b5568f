"""The log of a process that has no descriptor left for those who look its names up."""

from __future__ import annotations

from machrv._mach import lib
from machrv.log import log

_told = 0


def prepare() -> None:
    """Load what a warning takes, while there is a descriptor to load it with."""
    try:
        log()
    except (ImportError, OSError):
        pass  # There is none left now: checking in will say so.


def check() -> None:
    """Warn once for each time that it begins: the log says why nobody gets an answer."""
    global _told
    starved = int(lib.machrv_starved)
    if starved != _told:
        _told = starved
        log().warning(
            "no descriptor is free: whoever looks a name up waits until one is (raise `ulimit -n`, or close rights)"
        )
