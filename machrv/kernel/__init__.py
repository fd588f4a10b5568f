"""The seam: the Mach API in Python, the same on both systems, and which kernel this process has.

What belongs here: names, handed on. What must never happen here, or in any room below: policy. Everything above this package
talks to a `Kernel`; nothing above it touches the compiled module.

The rooms: `calls` (ports and memory), `comeback` and `messages` (mach_msg), `kernel` (the whole), `choice` (which one),
`waiting` (what a thread waits on), `memory` and `status` (values); `linux` and `darwin` have what only that system does.
"""

from machrv.kernel.choice import current
from machrv.kernel.kernel import Kernel
from machrv.kernel.status import PortStatus
from machrv.kernel.waiting import EventQueue, Process, Readiness

__all__ = ["EventQueue", "Kernel", "PortStatus", "Process", "Readiness", "current"]
