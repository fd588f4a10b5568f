"""The seam: the Mach API in Python, and which kernel this process has.

What belongs here: the names of the interface that every kernel keeps (`machrv.kernel.interface`), and `current()`. What
must never happen here: anything that only one platform can do, and any policy. Everything above this package talks to a
`Kernel`; nothing above it touches the compiled module.

Conventions of every method: a port name is an `int` (0 is MACH_PORT_NULL, 0xFFFFFFFF is MACH_PORT_DEAD); a failure is a
`MachError` whose code is the one that Mach returns; on failure the caller owns what it owned before the call.
"""

# Without `from __future__ import annotations`, which loads a module that a child does without.

import os
import sys
from _thread import RLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.kernel.interface import (
        EventQueue as EventQueue,
        Kernel as Kernel,
        Process as Process,
        Readiness as Readiness,
    )
    from machrv.kernel.status import PortStatus as PortStatus

__all__ = ["EventQueue", "Kernel", "PortStatus", "Process", "Readiness", "current"]


if not TYPE_CHECKING:  # A checker knows what there is.

    def __getattr__(name: str) -> object:
        """The interface, for whoever asks for it: most children have no use for it."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name == "PortStatus":
            from machrv.kernel import status as home
        else:
            from machrv.kernel import interface as home
        globals()[name] = value = getattr(home, name)
        return value


_current: "Kernel | None" = None
#: the same one, before anybody has asked for all of it
_begun: "Kernel | None" = None
_making = RLock()


def current() -> "Kernel":
    """The kernel of this process: one per process, made on first use, emptied in the child of a fork."""
    return _current if _current is not None else _made()


def begun() -> "Kernel":
    """As `current()`, for those who may want nothing of it but `ask`, and to give rights up.

    A child pays for every module. On Linux, what the rest is made of is imported when it is needed for the first time.
    """
    if _current is not None:
        return _current
    return _begun if _begun is not None else _begin()


def whole(kernel: "Kernel") -> "Kernel":
    """A kernel as those know it who may look what it is: of one that is no more than `begun()`, all."""
    return current() if kernel is _begun else kernel


def _made() -> "Kernel":
    """Made once, however many threads ask at the same time: rights of one kernel are nothing to another."""
    global _current
    with _making:
        if _current is None:
            if _begun is None:
                from machrv.kernel.choice import new_kernel

                kernel = new_kernel()
            else:
                from machrv.kernel.linux import Begun

                kernel = _begun
                if isinstance(kernel, Begun):  # It is, unless somebody has wanted all of it before.
                    kernel.complete()
            if _current is None:  # A signal handler may have asked meanwhile.
                _current = kernel
        return _current


def _begin() -> "Kernel":
    global _begun
    if not sys.platform.startswith("linux") or "MACHRV_TRACE" in os.environ or "MACHRV_PORTS" in os.environ:
        return current()
    from machrv.kernel.linux import Begun, next_number

    with _making:
        if _current is None and _begun is None:
            kernel: Kernel = Begun(next_number())  # type: ignore[assignment]  # It is one as soon as it is taken for one.
            if _begun is None:  # As above.
                _begun = kernel
    return begun()


def _renew_lock() -> None:
    """In the child of a fork: whoever held it is not there."""
    global _making
    _making = RLock()


os.register_at_fork(after_in_child=_renew_lock)
