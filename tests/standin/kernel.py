"""`DarwinKernel` over a task of the stand-in."""

from __future__ import annotations

from machrv.kernel.darwin import DarwinKernel

from .libsystem import LibSystem


class StandInKernel(DarwinKernel):
    """A task of its own. `close()` is its end, and checks that no memory of it is left."""

    def __init__(self, hardened: bool = False) -> None:
        self.task = LibSystem(hardened=hardened)
        super().__init__(self.task)

    def close(self) -> None:
        self.task.end()
        memory = self.task.functions.memory
        assert not memory, f"memory that was never given back: {memory}"
