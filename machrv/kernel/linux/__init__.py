"""Mach ports on Linux: `LinuxKernel`, a port space over the C of machrv/native/linux, which docs/linux.md describes.

The rooms: `kernel` (the whole), `waiting` (epoll, pidfds), `memory` (memfds), `bootstrap` (the directory of names, for
people), `account` (what `machrv ports` asks).
"""

from machrv.kernel.linux.kernel import LinuxKernel

__all__ = ["LinuxKernel"]
