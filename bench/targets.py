"""What is to be reached: ratios of machrv's time to another side's, within one run.

What belongs here: the one place where a target stands. What must never happen here: a time. A run fails above the ceiling
only, and by its best rounds: it leaves room for a noisy machine, and catches a step back.
"""

from __future__ import annotations

from typing import NamedTuple

#: how far above its target the best rounds of a run may be
MARGIN = 1.5


class Target(NamedTuple):
    """`ratio` is what is to be reached; a run fails above `ceiling`."""

    ratio: float
    #: the ceiling where the target is missed by more than the margin: to be taken away as soon as it is not
    known: float = 0

    @property
    def ceiling(self) -> float:
        """What a run fails above."""
        return self.known or self.ratio * MARGIN


#: by group, name and side
TARGETS: dict[tuple[str, str, str], Target] = {
    ("launch", "a child that claims and sends", "bare Python"): Target(1.35, 2.6),
    ("launch", "import of the kernel", "bare Python"): Target(1.15),
    ("launch", "a child in C", "bare C"): Target(1.5, 3.0),
    ("there and back", "0 bytes, one CPU", "Pipe"): Target(1.5, 5.5),
    ("there and back", "64 KiB, one CPU", "Pipe"): Target(1.2, 4.0),
    ("fresh rights", "1 right, one CPU", "Pipe"): Target(1.0, 6.0),
    ("fresh rights", "8 rights, one CPU", "Pipe"): Target(0.6, 4.0),
    ("channel", "0 bytes, one CPU", "Pipe"): Target(1.5, 14),
    ("channel", "64 KiB, one CPU", "Pipe"): Target(1.2, 14),
    ("channel", "1 file, one CPU", "send_handle"): Target(1.0, 12),
    ("within", "16 rights", "C, attested"): Target(2.0, 5),
    ("mach_msg in C", "empty", "C, attested"): Target(1.3),
    ("mach_msg in C", "16 rights", "C, attested"): Target(1.6),
    ("claims", "1 port, free", "C"): Target(1.75, 11),
    ("claims", "1 port, one CPU", "C"): Target(1.6, 9),
}
for _placement in ("free", "one CPU"):
    TARGETS["claims", f"1 port, {_placement}", "plain sockets"] = Target(1.0, 6)
    TARGETS["claims", f"1 port, {_placement}", "send_handle, authkey"] = Target(0.71, 4)
TARGETS["growth", "500 clients", "8 clients"] = Target(1 / 0.8)
TARGETS["growth", "64 clients", "8 clients"] = Target(1 / 0.8)  # in place of 500, where there is little time
for _group in ("encode", "decode"):
    TARGETS[_group, "reply, 5 ports", "struct"] = Target(2.0)
    TARGETS[_group, "reply, 5 ports", "ctypes"] = Target(1.0)
    TARGETS[_group, "reply, 5 ports", "construct"] = Target(0.1)
    TARGETS[_group, "reply, 5 ports", "dissect.cstruct"] = Target(0.1)
