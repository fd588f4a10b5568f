"""Mach ports on Linux: `LinuxKernel`, a port space made of sockets. See docs/linux.md for how each idea is made.

The rooms, each built on those before it: `entry` (names), `space`, `asking` (all that most children come to see), `answers`
(of system calls), `transit` (rights on their way), `port` and `pset` (queues), `held`, `copyin`, `copyout`, `notify`, `death`, `outgoing`, `sending`, `incoming`,
`receiving`, `members`, `calls`, `kernel`; beside them `wire` (the in-flight form), `identity` (who sent it), `bootstrap`
and `directory` (names for processes), `events` (waiting).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.kernel.linux.kernel import LinuxKernel as LinuxKernel

__all__ = ["LinuxKernel"]


if not TYPE_CHECKING:  # A checker knows what there is.

    def __getattr__(name: str) -> object:
        if (
            name == "LinuxKernel"
        ):  # Imported when somebody wants it: a child that only asks gets on with the first rooms.
            from machrv.kernel.linux.kernel import LinuxKernel

            return LinuxKernel
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
