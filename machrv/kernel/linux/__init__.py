"""Mach ports on Linux: `LinuxKernel`, a port space made of sockets. See docs/linux.md for how each idea is made.

The rooms, each built on those before it: `answers` (of system calls), `transit` (rights on their way), `port` and `pset`
(queues), `entry` (names), `space`, `copyin`, `copyout`, `notify`, `death`, `outgoing`, `sending`, `incoming`,
`receiving`, `members`, `calls`, `kernel`; beside them `wire` (the in-flight form), `identity` (who sent it), `bootstrap`
(names for processes), `events` (waiting).
"""

from __future__ import annotations

from machrv.kernel.linux.kernel import LinuxKernel

__all__ = ["LinuxKernel"]
