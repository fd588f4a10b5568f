"""The in-flight form, received by the C alone: see native/packets.c."""

from __future__ import annotations

from .native import Program

COUNTED = "inputs"


class Target(Program):
    """One call: up to four packets over one connection."""

    def __init__(self) -> None:
        super().__init__("packets")


def seeds() -> list[bytes]:
    """Where to begin: from the process itself (0) and from another one (1)."""
    return [
        bytes([sender]) + rest
        for sender in (0, 1)
        for rest in (b"", bytes(40), bytes([0, 0, 0, 1, 1] * 8), bytes(range(100)), bytes([0, 3, 0, 0, 2, 0, 1] * 12))
    ]
