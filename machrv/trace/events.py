"""What there is to see, in the order in which it happened: lanes, events, arrows, what failed, what is not known."""

# What belongs here: the story that a page tells. What must never happen here: words for a single call (`wording`), or
# anything that a page looks like.

from __future__ import annotations

import signal
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from machrv.trace.holding import holds
from machrv.trace.matching import match, port_received_from, was_sent
from machrv.trace.reading import Call, Exchange, Identity, Parcel, Process
from machrv.trace.wording import (
    Labels,
    call_rows,
    exchange_rows,
    launch_rows,
    message_name,
    parcel_rows,
    plural,
    rights_words,
    title,
    told,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from machrv.message.audit import AuditToken
    from machrv.trace.holding import Hold
    from machrv.trace.matching import Pair
    from machrv.trace.wording import Row


@dataclass(eq=False)
class Event:
    """A point in a lane. `kind` is "send", "receive", "kernel" (a notification), "right", "name", "life" or "wait"."""

    process: Process
    at: int
    kind: str
    text: str
    more: str = ""
    #: since when it waited for this
    since: int = 0
    #: the symbol of what went wrong
    failure: str = ""
    #: it belongs into the list of what failed
    alarming: bool = False
    port: str = ""
    rights: int = 0
    #: makes the details; most of them nobody ever looks at
    rows: Callable[[], list[Row]] = list
    thread: int = 0
    #: when the call came back; 0 where it did not, or is none
    until: int = 0


@dataclass
class Arrow:
    """A message between two events; one of them is None where only one end was seen."""

    sent: Event | None
    received: Event | None
    certain: bool = True
    rights: int = 0
    words: str = ""


@dataclass
class Story:
    """All that a page shows."""

    lanes: list[Process]
    events: list[Event]
    arrows: list[Arrow]
    holds: list[Hold]
    notes: list[str]
    labels: Labels

    @property
    def failures(self) -> list[Event]:
        """What went wrong, in order."""
        return [event for event in self.events if event.alarming]

    @property
    def has_bodies(self) -> bool:
        """Whether something of them was recorded."""
        parcels = (parcel for lane in self.lanes for one in lane.exchanges for parcel in (one.sent, one.received))
        return any(parcel is not None and parcel.body for parcel in parcels)

    @property
    def messages(self) -> int:
        """How many were sent or received."""
        return len(self.arrows)


def tell(processes: Iterable[Process]) -> Story:
    """The story of these processes."""
    lanes = list(processes)
    _recognise(lanes)
    labels = Labels(_services(lanes))
    pairs = match(lanes)
    teller = _Teller(lanes, labels, pairs)
    for process in list(lanes):
        teller.tell_process(process)
    teller.events.sort(key=lambda event: event.at)
    return Story(lanes, teller.events, teller.arrows, holds(lanes), _notes(lanes, teller), labels)


def _recognise(lanes: list[Process]) -> None:
    """A child that was launched and did not record itself, but sent messages: the kernel told their receivers who it is."""
    tokens: dict[int, AuditToken] = {}
    for process in lanes:
        for exchange in process.exchanges:
            token = None if exchange.received is None else exchange.received.token
            if token is not None:
                tokens.setdefault(token.pid, token)
    for process in lanes:
        if process.silent and process.pid in tokens:
            process.silent, process.token, process.title = False, tokens[process.pid], ""


def _services(processes: list[Process]) -> dict[str, str]:
    services: dict[str, str] = {}
    for process in processes:
        for call in process.calls:
            if call.operation.startswith("bootstrap_") and call.made is not None and call.made.port and call.arguments:
                services.setdefault(call.made.port, str(call.arguments[0])[:200])
    return services


class _Teller:
    """Collects events and arrows. Processes that are only known as senders are added to `lanes`."""

    def __init__(self, lanes: list[Process], labels: Labels, pairs: list[Pair]) -> None:
        self.lanes = lanes
        self.events: list[Event] = []
        self.arrows: list[Arrow] = []
        self._labels = labels
        self._keys = {process.key: process for process in lanes}
        self._by_sent = {id(pair.sent): pair for pair in pairs}
        self._by_received = {id(pair.received): pair for pair in pairs}
        self._arrows: dict[int, Arrow] = {}
        self.not_received = 0

    def tell_process(self, process: Process) -> None:
        """Everything of one lane."""
        who = f"process {process.pid}, started by {process.parent}"
        rows = [("program", process.title), ("pid", str(process.pid)), ("parent", str(process.parent))]
        begins = "comes from a fork" if process.forked else "begins to use ports"
        begins = "is launched" if process.parent and not process.recorded else begins
        self.events.append(Event(process, process.began, "life", begins, who, rows=lambda: rows))
        for launch in process.launches:
            with_keys = f", with {', '.join(map(repr, launch.keys))}" if launch.keys else ""
            event = Event(process, launch.at, "life", f"launches {launch.title}", f"process {launch.pid}{with_keys}")
            event.rows = partial(launch_rows, launch)
            self.events.append(event)
        for call in process.calls:
            self._tell_call(call)
        for exchange in process.exchanges:
            self._tell_exchange(exchange)
        self._tell_end(process)

    def _tell_end(self, process: Process) -> None:
        """How it ended, as far as anybody knows. Nothing is behind the end but what a finaliser did."""
        if process.ended is None:
            return
        text, failure = "ends", ""
        if process.status is not None and process.status < 0:
            failure = _signal_name(-process.status)
            text = "is killed"
        elif process.status:
            text = "ends otherwise than it should"
            failure = f"exit status {process.status}"
        elif process.executed:
            text = "becomes another program"
        elif process.status is None and not process.said_goodbye and process.recorded:
            text, failure = "is gone", "it did not end in the usual way; how is not known"
        at = max([process.ended, *(call.began for call in process.calls), *(e.began for e in process.exchanges)])
        self.events.append(Event(process, at, "life", text, failure=failure, alarming=bool(failure)))

    def _tell_call(self, call: Call) -> None:
        kind = "name" if call.operation.startswith("bootstrap_") else "right"
        port = next((right.port for right in [*call.rights, call.made] if right is not None and right.port), "")
        more = self._labels.cut(str(call.arguments[0])) if kind == "name" and call.arguments else ""
        event = Event(call.process, call.began, kind, told(call, self._labels), more, port=port, thread=call.thread)
        event.rows, event.until = partial(call_rows, call, self._labels), call.ended
        if call.failure is not None and call.expected:
            event.more = f"{event.more}: {call.failure}, as expected"
        elif call.failure is not None:
            event.failure, event.alarming = call.failure, True
        self.events.append(event)

    def _tell_exchange(self, exchange: Exchange) -> None:
        if exchange.sent is not None:
            self._tell_sent(exchange, exchange.sent)
        if exchange.received is not None:
            self._tell_received(exchange, exchange.received)
        elif exchange.option & 2 and was_sent(exchange) or exchange.sent is None:
            self._tell_wait(exchange)

    def _tell_sent(self, exchange: Exchange, parcel: Parcel) -> None:
        port = _port_of(parcel.identities[0]) if parcel.identities else ""
        rights, words = rights_words(parcel)
        more = f"to {self._labels.short(port)}{_with(rights)}"
        event = Event(exchange.process, exchange.began, "send", f"sends {message_name(parcel)}", more, port=port)
        event.rights, event.thread, event.until = rights, exchange.thread, exchange.ended or 0
        remarks: list[Row] = []
        event.rows = lambda: [*remarks, *exchange_rows(exchange), *parcel_rows(parcel, self._labels, False)]
        self.events.append(event)
        if not was_sent(exchange):
            event.failure, event.alarming = exchange.failure or "", True
            return
        if exchange.ended is None:
            event.failure, event.alarming = "did not come back", True
        pair = self._by_sent.get(id(exchange))
        if pair is None:
            self.not_received += 1
            remarks.append(("received", "by no process that was recorded"))
            self.arrows.append(Arrow(event, None, True, rights, words))
        else:
            self._arrow(pair, rights, words).sent = event
            if not pair.certain:
                remarks.append(("not certain", f"which message it is at the other end: {pair.doubt}"))

    def _arrow(self, pair: Pair, rights: int, words: str) -> Arrow:
        arrow = self._arrows.get(id(pair))
        if arrow is None:
            arrow = self._arrows[id(pair)] = Arrow(None, None, pair.certain, rights, words)
            self.arrows.append(arrow)
        return arrow

    def _tell_received(self, exchange: Exchange, parcel: Parcel) -> None:
        token, port = parcel.token, port_received_from(exchange)
        rights, words = rights_words(parcel)
        event = Event(exchange.process, exchange.ended or exchange.began, "receive", f"receives {message_name(parcel)}")
        event.port, event.rights, event.thread = port, rights, exchange.thread
        event.since = exchange.began if exchange.timeout else 0
        remarks: list[Row] = []
        event.rows = lambda: [*remarks, *exchange_rows(exchange), *parcel_rows(parcel, self._labels, True)]
        self.events.append(event)
        if token is None:
            event.more = f"on {self._labels.short(port)}; nobody attests who sent it{_with(rights)}"
        elif token.is_kernel:
            event.kind, event.more = "kernel", f"from the kernel, on {self._labels.short(port)}"
            return
        else:
            event.more = f"from {token.pid}, on {self._labels.short(port)}"
        pair = self._by_received.get(id(exchange))
        if pair is not None:
            self._arrow(pair, rights, words).received = event
            if not pair.certain:
                remarks.append(("not certain", f"which message it is at the other end: {pair.doubt}"))
        else:
            remarks.append(("sent", "was not recorded"))
            self._stranger(event, parcel, words)

    def _stranger(self, event: Event, parcel: Parcel, words: str) -> None:
        """The sending of this message was not recorded; the sender may be somebody who was not recorded at all."""
        sender = None
        token = parcel.token
        if token is not None:
            key = (token.pid, token.pidversion, token.asid)
            if key not in self._keys:
                self._keys[key] = Process(token.pid, began=event.at, recorded=False, token=token)
                self.lanes.append(self._keys[key])
            sender = Event(self._keys[key], event.at, "send", f"sent {message_name(parcel)}", "at a time not known")
            sender.port, sender.rights = event.port, event.rights
            sender.rows = lambda: [("known", "from the message that arrived, whose sender the kernel told")]
            self.events.append(sender)
        self.arrows.append(Arrow(sender, event, True, event.rights, words))

    def _tell_wait(self, exchange: Exchange) -> None:
        """It waited, and no message came of it."""
        process, port = exchange.process, exchange.port.port
        event = Event(process, exchange.ended or exchange.began, "wait", f"waits on {self._labels.short(port)}")
        event.port, event.thread, event.rows = port, exchange.thread, partial(exchange_rows, exchange)
        event.since = exchange.began
        if exchange.failure is not None and not exchange.failure.startswith("MACH_RCV_TIMED_OUT"):
            event.text = f"receives nothing from {self._labels.short(port)}"
            event.failure, event.alarming = exchange.failure, True
        elif exchange.ended is not None:
            event.more, event.failure, event.alarming = "in vain", exchange.failure or "nothing", True
        else:
            event.more = "and never comes back"
            event.alarming = process.survived or bool(process.status) or not process.said_goodbye
            event.failure = "still waiting" if event.alarming else ""
        self.events.append(event)


def _port_of(identity: Identity | list[Identity] | None) -> str:
    return identity.port if isinstance(identity, Identity) else ""


def _with(rights: int) -> str:
    return f" · {plural(rights, 'right')}" if rights else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _notes(lanes: list[Process], teller: _Teller) -> list[str]:
    """What whoever looks must know: what is missing, and what is not certain."""
    notes = []
    for process in lanes:
        who = f"{title(process)} ({process.pid})" if process.recorded else title(process)
        if process.silent:
            notes.append(
                f"{who} ({process.pid}) was launched, and has not used machrv: of it is known what its parent knows"
            )
        elif not process.recorded:
            notes.append(f"{who} was not recorded: of it is known what others received from it")
        if process.survived:
            notes.append(f"{who} was still running when the recording ended: what it did later is not here")
        if process.lost or process.damaged:
            notes.append(f"{plural(process.lost + process.damaged, 'record')} of {who} could not be written or read")
        if process.full:
            notes.append(f"{who} did more than is recorded of one process: the rest is not here")
    if teller.not_received:
        notes.append(f"{plural(teller.not_received, 'message')} sent were received by no process that was recorded")
    doubtful = sum(not arrow.certain for arrow in teller.arrows)
    if doubtful:
        notes.append(f"{plural(doubtful, 'arrow')} (dashed) may belong to other messages: see their details")
    return notes
