"""Mach ports on macOS: `DarwinKernel`, the kernel interface as calls into libSystem.

The rooms: `calls` (<mach/mach_port.h>), `messages` (mach_msg), `comeback` (what a failed send gives back), `kqueue`
(kevent), `process` (which is which), `events` (waiting), `kernel` (the whole, with bootstrap and fileports). What must
never happen in any of them: knowing whether the library they are given is Apple's.
"""

from __future__ import annotations

from machrv.kernel.darwin.kernel import DarwinKernel

__all__ = ["DarwinKernel"]
