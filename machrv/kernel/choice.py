"""Which kernel serves a process.

What belongs here: the choice, by platform and environment. What must never happen here: anything on the way of a child that
only claims its rights, which does without all of a kernel (`machrv.kernel.begun`).
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from machrv.kernel import Kernel


#: What is put around the kernel of this process when it is made.
_wrappers: list[Callable[[Kernel], Kernel]] = []


def observe(wrap: Callable[[Kernel], Kernel]) -> None:
    """Put `wrap` around the kernel that is made from now on. For those above who look on, such as `machrv.trace`."""
    _wrappers.append(wrap)


def new_kernel() -> Kernel:
    """The kernel of this platform, with whoever observes it around it. Raises UnsupportedError."""
    kernel: Kernel
    if sys.platform.startswith("linux"):
        from machrv.kernel.linux import LinuxKernel

        kernel = LinuxKernel()
        if os.environ.get("MACHRV_PORTS", "0") != "0":
            from machrv.kernel.linux.account import give

            give()
    elif sys.platform == "darwin":
        from machrv._mach import lib
        from machrv.kernel.darwin import DarwinKernel

        kernel = DarwinKernel(lib)
    else:
        from machrv.errors import UnsupportedError

        raise UnsupportedError(f"machrv has kernels for Linux and macOS, not for {sys.platform!r}")
    for wrap in _wrappers:
        kernel = wrap(kernel)
    return kernel
