"""Control groups: where their hierarchy is mounted, and which systemd unit one belongs to.

A cgroup's id is the inode of its directory, and is never given out again. The id of a process's cgroup comes from its pidfd
(PIDFD_GET_INFO, Linux 6.13); the path in /proc is what it is looked up by, and counts only where it leads to that very id.
"""

# What must never happen here: a path that is believed. Whoever may make cgroups can give them any name, within their own.

from __future__ import annotations

import os

#: What systemd gives a cgroup to (unit types with processes), apart from slices, which only contain.
_UNITS = (".service", ".scope", ".socket", ".mount", ".swap")
_SLICE = ".slice"


def hierarchy() -> str | None:
    """Where cgroup2 is mounted; None if it is not."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            mount, _, kind = line.partition(" - ")
            root, place = mount.split(" ")[3:5]
            if kind.startswith("cgroup2 ") and (root == "/" or root.startswith("/..")):
                return place.encode("latin-1", "surrogateescape").decode("unicode_escape") if "\\" in place else place
    return None


def id_of(path: str) -> int:
    """The id of the cgroup at a path within the hierarchy. Raises OSError."""
    top = hierarchy()
    if top is None:
        raise FileNotFoundError(2, "cgroup2 is not mounted here")
    return os.stat(top + path).st_ino


def is_unit(name: str) -> bool:
    """Whether a name is a unit's that has processes of its own."""
    return name.endswith(_UNITS) and len(name) < 256 and name.isprintable() and "/" not in name and name[0] != "."


def unit_of(path: str) -> tuple[str, int | None] | None:
    """The systemd unit that a cgroup belongs to, and the user whose manager it is of (None: the system's). None: to none.

    systemd puts slices into slices, and one unit into the last; what is below that is the unit's own. The manager of a user
    is such a unit, user@UID.service, and has slices and units of its own below.
    """
    words = [word[1:] if word.startswith("_") else word for word in path.split("/") if word]  # systemd escapes some so.
    unit, rest = _first_unit(words)
    manager, _, number = unit.rpartition(".service")[0].partition("@")
    if manager == "user" and number.isdecimal() and words[: len(words) - len(rest)][:1] == ["user.slice"]:
        inner, _ = _first_unit(rest)
        if inner:
            return inner, int(number)
    return (unit, None) if unit else None


def _first_unit(words: list[str]) -> tuple[str, list[str]]:
    at = 0
    while at < len(words) and words[at].endswith(_SLICE):
        at += 1
    return (words[at], words[at + 1 :]) if at < len(words) and is_unit(words[at]) else ("", [])
