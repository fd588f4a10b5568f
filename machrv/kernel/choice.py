"""Which kernel serves this process.

What belongs here: the choice, by system and environment. What must never happen here: a second kernel for one process: the
rights of one are nothing to another.
"""

# Without `from __future__ import annotations`, which loads a module that a child does without.

import os
import sys
from _thread import RLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from machrv.kernel.kernel import Kernel

_current: "Kernel | None" = None
_making = RLock()
#: What is put around the kernel of this process when it is made.
_wrappers: "list[Callable[[Kernel], Kernel]]" = []


def observe(wrap: "Callable[[Kernel], Kernel]") -> None:
    """Put `wrap` around the kernel that is made from now on. For those above who look on, such as `machrv.trace`."""
    _wrappers.append(wrap)


#: Who is told what a program does besides calls of its kernel.
_listeners: "list[Callable[..., None]]" = []


def listen(listener: "Callable[..., None]") -> None:
    """Have `listener` called with whatever `tell` is called with. For those above who look on."""
    _listeners.append(listener)


def tell(what: str, *facts: object) -> None:
    """Tell those who look on, if any, what no call of the kernel shows: that a child was launched, or ended."""
    for listener in _listeners:
        listener(what, *facts)


def current() -> "Kernel":
    """The kernel of this process: one per process, made on first use, emptied in the child of a fork.

    From any thread. Raises UnsupportedError where there is none for the system.
    """
    global _current
    if _current is None:
        with _making:
            kernel = _new() if _current is None else _current
            if _current is None:  # A signal handler may have asked meanwhile.
                _current = kernel
    return _current


def _new() -> "Kernel":
    kernel: "Kernel"
    if sys.platform.startswith("linux"):
        from machrv._mach import lib
        from machrv.kernel.linux.kernel import LinuxKernel

        kernel = LinuxKernel(lib.mach_task_self())
    elif sys.platform == "darwin":
        from machrv._mach import lib
        from machrv.kernel.darwin.kernel import DarwinKernel

        kernel = DarwinKernel(lib)
    else:
        from machrv.errors import UnsupportedError

        raise UnsupportedError(f"machrv has kernels for Linux and macOS, not for {sys.platform!r}")
    for wrap in _wrappers:
        kernel = wrap(kernel)
    return kernel


def _renew_lock() -> None:
    """In the child of a fork: whoever held it is not there."""
    global _making
    _making = RLock()


os.register_at_fork(after_in_child=_renew_lock)
