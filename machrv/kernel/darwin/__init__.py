"""Mach ports on macOS: `DarwinKernel`, over libSystem. The rooms: `kernel` (the whole), `kqueue`, `waiting`, `memory`.

What must never happen in any of them: knowing whether the library they are given is Apple's.
"""

from machrv.kernel.darwin.kernel import DarwinKernel

__all__ = ["DarwinKernel"]
