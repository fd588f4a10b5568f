"""Who holds which right, and when: counted from the calls and messages that make, move and give up rights.

A right in a message on its way is nobody's. When a receive right is destroyed, its port dies, and the rights to it end.
"""

# What belongs here: user references, counted as the kernel counts them. What must never happen here: a word for a page, or a
# count that is carried on past what was recorded.

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from machrv.trace.matching import was_sent
from machrv.trace.reading import Identity
from machrv.trace.wording import rights_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from machrv.trace.reading import Call, Exchange, Parcel, Process

RECEIVE, SEND, ONCE = "receive right", "send right", "send-once right"
_BITS = {RECEIVE: 1 << 17, SEND: 1 << 16, ONCE: 1 << 18}
#: By MACH_PORT_RIGHT_*, and by disposition: what a right is once it has arrived, and what moves and makes one.
_RIGHTS = {0: SEND, 1: RECEIVE, 2: ONCE}
_ARRIVES = {16: RECEIVE, 17: SEND, 18: ONCE}
_MAKES = {17: SEND, 18: ONCE, 19: SEND, 20: SEND, 21: ONCE}
_ALL = -(1 << 40)


@dataclass
class Hold:
    """For how long a process had a right to a port. `until` is None where it had it to the end."""

    port: str
    process: Process
    right: str
    since: int
    until: int | None = None


@dataclass
class _Step:
    """At this time the process has so many references more, or less. `dies`: the port goes with them."""

    at: int
    process: Process
    port: str
    right: str
    count: int
    dies: bool = False


def holds(processes: list[Process]) -> list[Hold]:
    """Every right of every process that recorded itself, in the order in which they came."""
    steps = [step for process in processes for step in _steps(process) if step.port and step.port != "file"]
    steps.sort(key=lambda step: step.at)
    counts: dict[tuple[str, int, str], int] = {}
    there: dict[tuple[str, int, str], Hold] = {}
    found: list[Hold] = []
    for step in steps:
        key = step.port, id(step.process), step.right
        counts[key] = max(0, counts.get(key, 0) + step.count)
        if counts[key] and key not in there:
            there[key] = Hold(step.port, step.process, step.right, step.at)
            found.append(there[key])
        elif not counts[key] and key in there:
            there.pop(key).until = step.at
            for other in [other for other in there if step.dies and other[0] == step.port]:
                there.pop(other).until = step.at
                counts[other] = 0
    for hold in there.values():
        hold.until = hold.process.ended
    return found


def _steps(process: Process) -> Iterator[_Step]:
    for call in process.calls:
        if call.failure is None:
            for port, right, count, dies in _called(call):
                yield _Step(call.began if count < 0 else call.ended, process, port, right, count, dies)
    for exchange in process.exchanges:
        yield from _exchanged(exchange)


def _called(call: Call) -> Iterator[tuple[str, str, int, bool]]:
    """(port, right, so many references more or less, whether the port dies)."""
    first = call.rights[0] if call.rights else None
    made, operation = call.made, call.operation
    arguments = [argument if type(argument) is int else 0 for argument in call.arguments] + [0] * 3
    if operation in ("bootstrap_look_up", "right_makeport"):
        if made is not None:
            yield made.port, SEND, 1, False
    elif operation == "mach_port_extract_right":
        if made is not None and arguments[1] in _MAKES:
            yield made.port, _MAKES[arguments[1]], 1, False
    elif made is not None and made.bits & _BITS[RECEIVE]:
        yield made.port, RECEIVE, 1, False
    if operation == "mach_port_insert_right" and arguments[2] in _MAKES and call.rights[-1] is not None:
        yield call.rights[-1].port, _MAKES[arguments[2]], 1, False
    if first is None:
        return
    if operation == "mach_port_deallocate":
        yield first.port, SEND if first.bits & _BITS[SEND] else ONCE, -1, False
    elif operation == "mach_port_mod_refs" and arguments[1] in _RIGHTS:
        right = _RIGHTS[arguments[1]]
        yield first.port, right, arguments[2], right == RECEIVE and arguments[2] < 0
    elif operation in ("mach_port_destroy", "mach_port_destruct"):
        for right, bit in _BITS.items():
            if first.bits & bit:
                yield first.port, right, _ALL, right == RECEIVE


def _exchanged(exchange: Exchange) -> Iterator[_Step]:
    process = exchange.process
    if exchange.sent is not None and was_sent(exchange):
        message = exchange.sent.message
        taken = [(_ARRIVES.get(disposition), port) for disposition, port in _each(exchange.sent)]
        if message.remote_disposition in (17, 18):
            taken.append((_ARRIVES[message.remote_disposition], _port(exchange.sent, 0)))
        for right, port in taken:
            if right is not None:
                yield _Step(exchange.began, process, port, right, -1)
    if exchange.received is not None:
        message, at = exchange.received.message, exchange.ended or exchange.began
        brought = [(_ARRIVES.get(disposition), port) for disposition, port in _each(exchange.received)]
        brought.append((_ARRIVES.get(message.remote_disposition), _port(exchange.received, 0)))
        for right, port in brought:
            if right is not None:
                yield _Step(at, process, port, right, 1)


def _each(parcel: Parcel) -> Iterator[tuple[int, str]]:
    for disposition, identity in rights_in(parcel):
        for one in identity if isinstance(identity, list) else [identity]:
            yield disposition, one.port


def _port(parcel: Parcel, at: int) -> str:
    found = parcel.identities[at] if at < len(parcel.identities) else Identity()
    return found.port if isinstance(found, Identity) else ""
