"""What is to be reached: ratios of machrv's time to another side's, within one run.

What belongs here: the one place where a target stands. What must never happen here: a time. A run fails above the
ceiling only: it leaves room for a noisy machine, and catches a step back.
"""

from __future__ import annotations

from typing import NamedTuple


class Target(NamedTuple):
    """`ratio` is what is to be reached, `ceiling` is where a run fails."""

    ratio: float
    ceiling: float


#: by group, name and side
TARGETS: dict[tuple[str, str, str], Target] = {
    ("rendezvous", "1 port, free", "C"): Target(1.35, 3.5),
    ("rendezvous", "1 port, one CPU", "C"): Target(1.5, 3),
    ("rendezvous", "64 ports, free", "C"): Target(1.5, 2.5),
    ("rendezvous", "64 ports, one CPU", "C"): Target(1.5, 2.5),
}
for _placement in ("free", "one CPU"):
    TARGETS["rendezvous", f"1 port, {_placement}", "plain sockets"] = Target(1.0, 1.75)
    TARGETS["rendezvous", f"1 port, {_placement}", "send_handle, authkey"] = Target(1 / 1.4, 1.25)
TARGETS["launch", "a child in Python", "bare Python"] = Target(1.2, 2)
for _group in ("encode", "decode"):
    TARGETS[_group, "reply, 5 ports", "struct"] = Target(2.0, 2.5)
    TARGETS[_group, "reply, 5 ports", "ctypes"] = Target(1.0, 1.0)
    TARGETS[_group, "reply, 5 ports", "construct"] = Target(0.1, 0.1)
    TARGETS[_group, "reply, 5 ports", "dissect.cstruct"] = Target(0.1, 0.13)
# Two system calls and Python: where the former are fast for the processor (Sapphire Rapids: 0.5 µs each), the latter is
# more of it than on an EPYC.
TARGETS["message", "within, 0 bytes", "C, attested"] = Target(2.0, 5)
TARGETS["message", "within, 0 bytes, mach_msg", "C, attested"] = Target(2.0, 3.5)
TARGETS["growth", "500 clients", "8 clients"] = Target(1 / 0.8, 2)
TARGETS["growth", "64 clients", "8 clients"] = Target(1 / 0.8, 2)
