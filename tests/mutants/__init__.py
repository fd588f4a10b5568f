"""Faults that are planted one at a time, to see that the tests notice: see `python -m tests.mutants --help`.

`fault`: what a fault is. `identity`, `memory`, `rights`, `loops`: the faults. `stage`: a copy of the tree in which one is
planted, and the tests that ought to notice are run.
"""

from __future__ import annotations

from . import identity, loops, memory, rights

FAULTS = [*identity.FAULTS, *memory.FAULTS, *rights.FAULTS, *loops.FAULTS]
