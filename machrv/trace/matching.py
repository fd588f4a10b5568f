"""Which message that was received is which that was sent.

Both ends know the port (`Kernel.port_identity`), and the kernel tells the receiver who sent. Among what one process sent
to one port, messages of the same id, size and number of descriptors are paired in the order in which they were sent: a
port is one queue. That is certain if each was sent before the next one was begun. It is not where two threads sent at the
same time, where records of the port's users are missing, or where the system does not tell which port a right leads to.
"""

# What belongs here: pairs, and whether they are certain. What must never happen here: a guess that does not say so.

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from machrv.trace.reading import Exchange, Parcel, Process

    Key = tuple[str, tuple[int, int, int], int, int, int]


@dataclass
class Pair:
    """A message from one process to another, or to itself."""

    sent: Exchange
    received: Exchange
    certain: bool
    #: why not
    doubt: str = ""


def match(processes: Iterable[Process]) -> list[Pair]:
    """Every message that was seen at both ends."""
    processes = list(processes)
    sent: dict[Key, deque[Exchange]] = {}
    received: dict[Key, list[Exchange]] = {}
    for process in processes:
        for exchange in sorted(process.exchanges, key=lambda exchange: exchange.began):
            key = _sent_key(exchange)
            if key is not None:
                sent.setdefault(key, deque()).append(exchange)
            key = _received_key(exchange)
            if key is not None:
                received.setdefault(key, []).append(exchange)
    leaky = _leaky_ports(processes)
    pairs: list[Pair] = []
    for key, arrivals in received.items():
        waiting = sent.get(key, deque())
        alone = len(waiting) == len(arrivals) == 1
        for arrival in sorted(arrivals, key=lambda exchange: exchange.ended or 0):
            if not waiting or waiting[0].began > (arrival.ended or 0):
                continue  # Its sending was not recorded.
            first = waiting.popleft()
            pairs.append(Pair(first, arrival, True))
            if waiting and (first.ended is None or first.ended > waiting[0].began):
                pairs[-1] = _doubtful(pairs[-1], "another thread sent a message like it at the same time")
            elif not key[0] and not alone:
                pairs[-1] = _doubtful(pairs[-1], "this system does not tell which port a right leads to")
            elif key[0] in leaky and not alone:
                pairs[-1] = _doubtful(pairs[-1], "records of what went through this port are missing")
    return pairs


def _doubtful(pair: Pair, doubt: str) -> Pair:
    return Pair(pair.sent, pair.received, False, doubt)


def was_sent(exchange: Exchange) -> bool:
    """Whether a message has left, as far as is known: a process that died in the call may have sent it."""
    return exchange.sent is not None and (exchange.failure is None or exchange.failure.startswith("MACH_RCV_"))


def _sent_key(exchange: Exchange) -> Key | None:
    key = exchange.process.key
    if exchange.sent is None or key is None or not was_sent(exchange):
        return None
    remote = exchange.sent.identities[0] if exchange.sent.identities else None
    return _key(getattr(remote, "port", ""), key, exchange.sent)


def _received_key(exchange: Exchange) -> Key | None:
    parcel = exchange.received
    if parcel is None or exchange.ended is None or parcel.token is None or parcel.token.is_kernel:
        return None
    token = parcel.token
    return _key(port_received_from(exchange), (token.pid, token.pidversion, token.asid), parcel)


def port_received_from(exchange: Exchange) -> str:
    """The identity of the port that a message came from, where a set may have been asked; "" if not known."""
    if exchange.received is not None and len(exchange.received.identities) > 1:
        return getattr(exchange.received.identities[1], "port", "")
    return exchange.port.port


def _key(port: str, process: tuple[int, int, int], parcel: Parcel) -> Key:
    return port, process, parcel.message.id, parcel.size, len(parcel.message.descriptors)


def _leaky_ports(processes: list[Process]) -> set[str]:
    """The ports of which messages may have been taken, or sent, without a record."""
    leaky = set()
    for process in processes:
        missing = bool(process.lost or process.damaged or process.full)
        for exchange in process.exchanges:
            destroyed = exchange.failure is not None and exchange.failure.startswith(
                ("MACH_RCV_TOO_LARGE", "MACH_RCV_BODY")
            )
            if missing or destroyed:
                leaky.add(exchange.port.port)
            if missing and exchange.sent is not None and exchange.sent.identities:
                leaky.add(getattr(exchange.sent.identities[0], "port", ""))
    return leaky
