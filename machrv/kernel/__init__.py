"""The seam: the Mach API in Python, the same on both systems, and which kernel this process has.

What belongs here: names, handed on. What must never happen here, or in any room below: policy. Everything above this package
talks to a `Kernel`; nothing above it touches the compiled module.

The rooms: `calls` (ports and memory), `comeback` and `messages` (mach_msg), `kernel` (the whole), `choice` (which one),
`waiting` (what a thread waits on), `memory` (memory objects); `linux` and `darwin` have what only that system does.
"""

from machrv.kernel.calls import PortStatus
from machrv.kernel.choice import current
from machrv.kernel.kernel import Kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.kernel.waiting import EventQueue as EventQueue, Process as Process, Readiness as Readiness
else:

    def __getattr__(name: str) -> object:
        """What most children have no use for, when it is asked for."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import machrv.kernel.waiting as home

        return getattr(home, name)


__all__ = ["EventQueue", "Kernel", "PortStatus", "Process", "Readiness", "current"]
