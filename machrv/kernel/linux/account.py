"""What the C tells of a port space, for `machrv ports` and `machrv doctor`.

What belongs here: values. What must never happen here: a change to a right or to a message that waits.
"""

from __future__ import annotations

from machrv._mach import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_AT_ONCE = 256


def features() -> int:
    """The MACHRV_WITHOUT_* bits of what this system has, and was not switched off for a test."""
    return lib.machrv_features()


def account(task: int = 0) -> list[dict[str, Any]]:
    """One for each name of a port space; of this process's own, if no other is told."""
    task, found = task or lib.mach_task_self(), []
    entries = ffi.new("machrv_account_t[]", _AT_ONCE)
    first = 0
    while (left := lib.machrv_account(task, first, entries, _AT_ONCE)) > 0:
        for entry in entries[0 : min(left, _AT_ONCE)]:
            ends = ffi.new("uint64_t[]", max(1, entry.ends))
            count = min(entry.ends, lib.machrv_account_ends(task, entry.name, ends, entry.ends))
            found.append(
                {
                    "name": entry.name,
                    "type": entry.type,
                    "references": entry.urefs,
                    "port": ffi.string(entry.id).decode("ascii", "replace"),
                    "file": bool(entry.file),
                    "sockets": [entry.socket] if entry.socket else [],
                    "ends": list(ends[0 : max(0, count)]),
                    "own": entry.own,
                    "messages": entry.messages,
                    "bytes": entry.bytes,
                    "members": entry.members,
                }
            )
        first += _AT_ONCE
    return found
