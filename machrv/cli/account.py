"""What a process of the demo says of what it did, in a form that another one can read; and what it counts.

A child writes its account to standard output, a JSON array a line: ["event", *Event] or ["fact", name, value].
"""

# What belongs here: the parts that parent and children share. What must never happen here: an import that slows a child
# down.

from __future__ import annotations

import os
from typing import NamedTuple

from machrv.kernel import current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.message.audit import AuditToken

    Leftovers = dict[str, int]

#: Seconds that no wait of the demo takes unless something is wrong.
PATIENCE = 10.0

#: What either writes into the file.
PARENTS_LINE = b"parent\n"
CHILDS_LINE = b"child\n"


class Identity(NamedTuple):
    """Who sent a message, in the kernel's words. `pidversion` tells a process from the next one that gets its pid."""

    pid: int
    pidversion: int
    uid: int

    @classmethod
    def of(cls, token: AuditToken | None) -> Identity | None:
        """What an audit token says; None where there is none, so that nothing was attested."""
        return None if token is None else cls(token.pid, token.pidversion, token.euid)

    def __str__(self) -> str:
        return f"pid {self.pid} v{self.pidversion} uid {self.uid}"


class Event(NamedTuple):
    """Something that a process did.

    `at` is CLOCK_MONOTONIC in seconds, which all processes of a system share; `process` the one that did it: "parent",
    "child" or "stranger"; `sends` whether something left for the other side; `attested` who sent what arrived, None
    where nothing did.
    """

    at: float
    process: str
    what: str
    sends: bool
    attested: Identity | None


def left_over() -> Leftovers:
    """How much this process has open: descriptors and port names.

    A kernel that has waited once keeps what it waits with; so that it is not taken for something left behind, it waits
    before the first count.
    """
    kernel = current()
    kernel.event_queue().close()
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    return {"descriptors": len(os.listdir(folder)), "port names": len(kernel.mach_port_names())}
