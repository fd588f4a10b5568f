"""Sequences of calls over two tasks, of the C alone: see native/calls.c."""

from __future__ import annotations

from .native import Program

COUNTED = "sequences"


class Target(Program):
    """One call: up to a hundred calls, and the end of both tasks."""

    def __init__(self) -> None:
        super().__init__("calls")


def seeds() -> list[bytes]:
    """Where to begin: allocate, send with a right, receive; and anything."""
    return [
        b"",
        bytes([0, 0, 0, 1, 1, 0, 27, 4, 0, 0, 1, 0, 1, 0, 0, 4, 0, 0, 30, 0, 0, 3]),
        bytes([0, 0, 0, 1, 1, 0, 0, 0, 2, 1, 0, 27, 4, 0, 0, 0, 1, 1, 1, 0, 0, 5, 2, 0, 0, 8, 1, 0, 30, 0, 0, 3]),
        bytes([0, 23, 1, 1, 24, 2, 1, 27, 4, 0, 2, 0, 0, 0, 0, 0, 31, 0, 1, 3]),
        bytes(range(200)),
    ]
