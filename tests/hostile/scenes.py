"""The attacks by number, and what must hold: see the table in docs/security.md.

A scene is a function of a stage that says what it saw, and fails by an assertion. What must never happen here: a time that is not
compared with something measured beside it, unless it is tenfold what it takes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from statistics import median
from time import monotonic, perf_counter
from typing import NamedTuple

from machrv import MachError, ReceiveRight, ReceiveTimeout

from .stage import Program, Stage

Run = Callable[[Stage], str]


class Attack(NamedTuple):
    """One scene: its number in the table, its name, and what it needs to be tried at all ("" if it can)."""

    number: str
    name: str
    run: Run
    missing: Callable[[], str]


ATTACKS: list[Attack] = []


def attack(number: str, missing: Callable[[], str] = lambda: "") -> Callable[[Run], Run]:
    """Enter a scene into the list, by the name of its function."""

    def enter(run: Run) -> Run:
        ATTACKS.append(Attack(number, run.__name__, run, missing))
        return run

    return enter


#: seconds of claims beside an attacker
SECONDS = 0.7
#: a claim beside a flood takes no more than this, in seconds, or twice what it takes beside processes that compute
FLOOD = 0.005
#: what nothing that waits may be late by, in seconds: the rule is 0.1, and this machine may be busy
LATE = 1.0


def root() -> str:
    """What needs to be root."""
    return "" if os.geteuid() == 0 else "needs to be root"


def fuse() -> str:
    """What needs a file system of the attacker's own."""
    return root() or ("" if os.path.exists("/dev/fuse") else "there is no /dev/fuse")


@contextmanager
def limited(descriptors: int) -> Iterator[None]:
    """This process may have so many."""
    soft, hard = getrlimit(RLIMIT_NOFILE)
    setrlimit(RLIMIT_NOFILE, (descriptors, hard))
    try:
        yield
    finally:
        setrlimit(RLIMIT_NOFILE, (soft, hard))


def beside(stage: Stage, file: str, what: str, *arguments: object, seconds: float = SECONDS) -> str:
    """Claims beside an attacker: all are served, nothing that waits is late, and no descriptor is left."""
    stage.quick(5)
    before = stage.descriptors()
    attacker = stage.attacker(file, what, *arguments)
    times = stage.claims(seconds)
    stage.end(attacker)
    assert max(times.late) < LATE and max(times.registering) < LATE, times.text()
    assert max(times.claims) < 10 * LATE, times.text()
    wait_for_descriptors(stage, before)
    return times.text()


@contextmanager
def moved_here(stage: Stage, what: str) -> Iterator[tuple[Program, ReceiveRight]]:
    """An attacker that has moved a receive right to this process, kept a copy of its ends, and done the first of what it does."""
    with ReceiveRight.allocate() as port:
        attacker = stage.attacker("packets", what, ports={1: port.make_send()})
        with port.receive(10) as message:
            right = message.rights.pop()
        assert isinstance(right, ReceiveRight)
        with right:
            attacker.tell()
            assert attacker.hear() == "sent"
            yield attacker, right
        stage.end(attacker)


def wait_for_descriptors(stage: Stage, before: int) -> None:
    """What the attacker had is given up: soon after it is gone, when the server has looked."""
    until = monotonic() + 10
    while stage.descriptors() > before and monotonic() < until:
        stage.quick(1)
    assert stage.descriptors() <= before, f"{stage.descriptors()} descriptors, {before} before"


def flooded(stage: Stage, processes: int, *command: object) -> str:
    """The median of claims beside a flood, against that beside as many processes that compute."""
    stage.quick(5)
    before = stage.descriptors()
    tried = []
    for _ in range(3):  # Where the machine has other work, one comparison says little.
        spinner = stage.attacker("spin", "spin", processes)
        usual = median(stage.claims(SECONDS / 2).claims)
        stage.end(spinner)
        attacker = stage.attacker("connections", *map(str, command))
        times = stage.claims(SECONDS)
        stage.end(attacker)
        found = median(times.claims)
        tried.append(f"{times.text()}; beside computing {usual * 1e3:.2f} ms")
        if found <= stage.slack * max(2 * usual, FLOOD):
            break
    else:
        raise AssertionError(tried)
    assert max(times.late) < LATE, tried
    wait_for_descriptors(stage, before)
    return tried[-1]


def drained(port: ReceiveRight, timeout: float = 1.0, most: int = 100_000) -> tuple[int, int]:
    """Receive whatever comes, until nothing does for so long, in its time: how many messages, and how many errors."""
    messages = errors = 0
    while messages + errors < most:
        began = perf_counter()
        try:
            port.receive(timeout, wait_for_senders=True).close()
            messages += 1
        except ReceiveTimeout:
            late = perf_counter() - began - timeout
            assert -0.01 < late < LATE, f"a receive of {timeout} s was late by {late:.3f} s"
            break
        except MachError:
            errors += 1
        took = perf_counter() - began
        assert took < timeout + LATE, f"a message took {took:.3f} s"
    return messages, errors
