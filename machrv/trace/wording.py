"""Calls and messages in words."""

# What belongs here: what a line says of one event, and the fields of a message. What must never happen here: which
# event belongs to which.

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import machrv.constants as constants
from machrv.anatomy import dissect, id_name
from machrv.message.descriptor import OutOfLineDescriptor, OutOfLinePortsDescriptor
from machrv.rendezvous.keys import key_text
from machrv.trace.reading import Identity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from machrv.trace.reading import Call, Exchange, Launch, Parcel, Process

    Row = tuple[str, str]

_RIGHTS = ("send right", "receive right", "send-once right", "port set", "dead name")
_TYPES = (
    (int(constants.MACH_PORT_TYPE_RECEIVE), "receive right"),
    (int(constants.MACH_PORT_TYPE_SEND), "send right"),
    (int(constants.MACH_PORT_TYPE_SEND_ONCE), "send-once right"),
    (int(constants.MACH_PORT_TYPE_PORT_SET), "port set"),
    (int(constants.MACH_PORT_TYPE_DEAD_NAME), "dead name"),
)
_NOTIFICATIONS = {
    int(constants.MACH_NOTIFY_DEAD_NAME): "DEAD_NAME",
    int(constants.MACH_NOTIFY_NO_SENDERS): "NO_SENDERS",
    int(constants.MACH_NOTIFY_PORT_DESTROYED): "PORT_DESTROYED",
    int(constants.MACH_NOTIFY_PORT_DELETED): "PORT_DELETED",
    int(constants.MACH_NOTIFY_SEND_ONCE): "SEND_ONCE",
}
_KINDS = {
    16: "receive right",
    17: "send right",
    18: "send-once right",
    19: "send right",
    20: "send right",
    21: "send-once right",
}
_MADE = {
    int(constants.MACH_MSG_TYPE_MAKE_SEND): "makes a send right to",
    int(constants.MACH_MSG_TYPE_MAKE_SEND_ONCE): "makes a send-once right to",
    int(constants.MACH_MSG_TYPE_COPY_SEND): "copies its send right to",
}
#: In the service name of a rendezvous server, before its pid (`machrv.rendezvous`).
_SERVER = ".MachPortRendezvousServer."
#: Of an array of rights, so many are counted.
_MOST_RIGHTS = 4096
#: A message of more bytes is not laid out to show where its trailer lies.
_LARGEST = 1 << 18


class Labels:
    """What the ports are called: by the service name that one was checked in under, else by eight digits."""

    def __init__(self, services: Mapping[str, str]) -> None:
        self._services = services

    def short(self, identity: object) -> str:
        """For a line in a lane."""
        return self.cut(self.full(identity))

    @staticmethod
    def cut(name: str) -> str:
        """The end of a long name: that is where names differ. A rendezvous server is called that."""
        _, server, pid = name.rpartition(_SERVER)
        if server:
            return f"rendezvous server {pid[:12]}"
        return name if len(name) <= 28 else f"…{name[-27:].lstrip('.')}"

    def full(self, identity: object) -> str:
        """For the details. The digits are those that `machrv ports` shows."""
        port = identity if isinstance(identity, str) else getattr(identity, "port", "")
        if port == "file":
            return "a file"
        return self._services.get(port) or (f"port {port[:8]}" if port else "an unknown port")


def message_name(parcel: Parcel) -> str:
    """What a message is, by its id."""
    id = parcel.message.id
    if parcel.token is not None and parcel.token.is_kernel and id in _NOTIFICATIONS:
        return f"the notification {_NOTIFICATIONS[id]}"
    name = id_name(id) if id not in _NOTIFICATIONS else ""
    if name:
        return name
    characters = id.to_bytes(4, "big", signed=True)
    return f"message '{characters.decode()}'" if all(0x20 <= c <= 0x7E for c in characters) else f"message {id}"


def rights_in(parcel: Parcel) -> list[tuple[int, Identity | list[Identity]]]:
    """The rights that a message moves, besides the one to answer with: (disposition, `Identity` or a list of them)."""
    rights: list[tuple[int, Identity | list[Identity]]] = []
    for at, descriptor in enumerate(parcel.message.descriptors):
        if isinstance(descriptor, OutOfLineDescriptor):
            continue
        known = parcel.identities[2 + at] if 2 + at < len(parcel.identities) else Identity()
        if isinstance(descriptor, OutOfLinePortsDescriptor) and not isinstance(known, list):
            known = [known] * min(descriptor.count, _MOST_RIGHTS)  # Of an array that is sent, only the length is known.
        rights.append((descriptor.disposition, known))
    return rights


def rights_words(parcel: Parcel) -> tuple[int, str]:
    """How many rights a message moves, and which."""
    if parcel.keys and len(parcel.keys) == len(parcel.identities) - 2:
        words = [
            f"{key_text(key)} {_kind(disposition, one)}"
            for key, (disposition, one) in zip(parcel.keys, rights_in(parcel))
        ]
        return len(words), ", ".join(words)
    counts: dict[str, int] = {}
    for disposition, identity in rights_in(parcel):
        for one in identity if isinstance(identity, list) else [identity]:
            kind = _kind(disposition, one)
            counts[kind] = counts.get(kind, 0) + 1
    return sum(counts.values()), ", ".join(plural(count, kind) for kind, count in counts.items())


def _kind(disposition: int, identity: Identity | list[Identity]) -> str:
    return "file" if getattr(identity, "port", "") == "file" else _KINDS.get(disposition, "right")


def plural(count: int, what: str) -> str:
    """As people count."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def held(bits: int) -> str:
    """A MACH_PORT_TYPE_* mask."""
    return " and ".join(name for bit, name in _TYPES if bits & bit) or "nothing"


def told(call: Call, labels: Labels) -> str:
    """A call in a few words."""
    first = labels.short(call.rights[0] if call.rights else None)
    made = labels.short(call.made)
    arguments = [argument if isinstance(argument, int) else 0 for argument in call.arguments] + [0] * 5
    operation = call.operation
    if operation == "mach_port_allocate":
        kind = _RIGHTS[arguments[0]] if 0 <= arguments[0] < len(_RIGHTS) else "name"
        return f"makes {made}" if arguments[0] == 1 and call.made else f"makes a {kind}"
    if operation == "mach_reply_port":
        return f"makes {made}, for a reply"
    if operation in ("bootstrap_check_in", "bootstrap_look_up"):
        return "checks a name in" if operation.endswith("in") else "looks a name up"
    if operation == "mach_port_insert_right":
        return f"{_MADE.get(arguments[2], 'names a right to')} {labels.short(call.rights[-1])}"
    if operation == "mach_port_extract_right":
        return f"{_MADE.get(arguments[1], 'takes a right to')} {first}"
    if operation == "mach_port_deallocate":
        bits = call.rights[0].bits if call.rights and call.rights[0] else 0
        return (
            f"gives up a {held(bits & ~int(constants.MACH_PORT_TYPE_RECEIVE))} to {first}"
            if bits
            else "gives a name up"
        )
    if operation == "mach_port_destroy":
        return f"destroys all it has of {first}"
    if operation == "mach_port_mod_refs":
        kind = _RIGHTS[arguments[1]] if 0 <= arguments[1] < len(_RIGHTS) else "right"
        if arguments[1] == 1:
            return f"destroys {first}"
        return f"{'gives up a' if arguments[2] < 0 else 'copies its'} {kind} to {first}"
    if operation == "mach_port_request_notification":
        return f"asks to be told {_NOTIFICATIONS.get(arguments[1], 'something')} of {first}"
    if operation == "right_makefd":
        return f"makes a descriptor of a right to {first}"
    if operation == "right_makeport":
        return f"takes the right to {made} that it has inherited"
    if operation == "fileport_makeport":
        return f"makes a right of descriptor {arguments[0]}"
    if operation == "fileport_makefd":
        return f"opens a file it was given: descriptor {call.result}"
    if operation.startswith("memory."):
        what = {"memory.create": "makes a right to memory", "memory.protect": "makes memory read-only"}
        return what.get(operation, "makes another right to memory")
    if operation.endswith("_member"):
        return f"moves {first} between port sets" if "move" in operation else f"changes the port sets of {first}"
    return operation


def call_rows(call: Call, labels: Labels) -> list[Row]:
    """The details of a call."""
    rows = [("call", f"{call.operation}({', '.join(map(_argument, call.arguments))})")]
    rows += [("port", f"{labels.full(right)}, held: {held(right.bits)}") for right in call.rights if right is not None]
    if call.failure is None and call.result is not None:
        rows.append(("result", _argument(call.result)))
    if call.made is not None:
        rows.append(("of", labels.full(call.made)))
    return rows


def _argument(value: object) -> str:
    if isinstance(value, int) and value > 0xFF:
        return f"{value:#x}"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list):
        return f"({', '.join(map(_argument, value[:8]))})"
    return str(value)[:300] if not isinstance(value, str) else f"'{value[:300]}'"


def launch_rows(launch: Launch) -> list[Row]:
    """The details of a launch."""
    rows = [("program", launch.title), ("pid", str(launch.pid))]
    return [*rows, ("rights", ", ".join(map(repr, launch.keys)) or "none")]


def exchange_rows(exchange: Exchange) -> list[Row]:
    """How mach_msg was called."""
    parts = [name for bit, name in ((1, "MACH_SEND_MSG"), (2, "MACH_RCV_MSG")) if exchange.option & bit]
    timeout = "for ever" if exchange.timeout < 0 else f"{exchange.timeout / 1e9:g} s"
    rows = [("call", f"mach_msg({' | '.join(parts)}), waiting {timeout} at most")]
    if exchange.failed_size is not None:
        rows.append(("size", f"{exchange.failed_size} bytes"))
    return rows


def parcel_rows(parcel: Parcel, labels: Labels, received: bool) -> list[Row]:
    """The fields of a message, as `machrv decode` has them; the body, as far as it was recorded."""
    there = len(parcel.head) + len(parcel.body)
    image, padding = parcel.head + parcel.body, 0
    seqno = ""
    if received and parcel.trailer and there <= parcel.size <= _LARGEST:
        padding = -parcel.size % 4
        trailer = parcel.trailer
        if len(trailer) >= 12:  # It differs from message to message that are alike otherwise: it is put in below.
            seqno = str(int.from_bytes(trailer[8:12], "little"))
            trailer = trailer[:8] + bytes(4) + trailer[12:]
        image += bytes(parcel.size - there + padding) + trailer
    rows: list[Row] = []
    if parcel.keys:
        ports = [labels.full(one) if isinstance(one, Identity) else "an array" for one in parcel.identities[2:]]
        rows.append(("keys", "; ".join(f"{key_text(key)}: {port}" for key, port in zip(parcel.keys, ports))))
    for label, meaning, place in _fields(image, parcel.size, padding, there):
        if seqno and label.endswith(" msgh_seqno"):
            meaning = meaning.replace("0", seqno, 1)
        rows.append((label, meaning + _identified(place, parcel, labels)))
    if parcel.size > there:
        missing = parcel.size - there
        rows.append(("body", f"{plural(missing, 'byte')} not recorded" + ("" if parcel.body else " (--bodies)")))
    return rows


@lru_cache(4096)
def _fields(image: bytes, size: int, padding: int, there: int) -> list[tuple[str, str, int]]:
    """Label, meaning, and which of the parcel's identities the field names (-1: none). `there` is how much is known."""
    rows = []
    for field in dissect(memoryview(image), size, padding):
        label = f"{field.offset} {field.name}"
        if field.section == "body":
            known = field.data[: max(0, there - field.offset)]
            if known and (field.value is None or len(known) == field.size):
                rows.append((label, _data(known, field.meaning, field.value, field.size), -1))
        elif not field.name.startswith("pad") and field.data:
            rows.append((label, field.meaning, _place(field.name, field.section) if field.value else -1))
    return rows


def _place(name: str, section: str) -> int:
    if name in ("name", "count") and section.startswith("descriptor "):
        digits = section.split(" ")[1].rstrip(":")
        return 2 + int(digits) if digits.isdigit() else -1
    return {"msgh_remote_port": 0, "msgh_local_port": 1}.get(name, -1)


def _data(data: memoryview, meaning: str, value: int | None, size: int) -> str:
    if value is not None:
        return meaning
    shown = bytes(data[:256])
    text = "".join(chr(byte) if 0x20 <= byte <= 0x7E else "·" for byte in shown)
    return f"{shown.hex(' ', 4)}  {text}{'…' if size > len(shown) else ''}"


def _identified(place: int, parcel: Parcel, labels: Labels) -> str:
    """The port behind a name, whatever it is called in this process."""
    identity = parcel.identities[place] if 0 <= place < len(parcel.identities) else Identity()
    if isinstance(identity, list):
        return ": " + ", ".join(labels.full(one) for one in identity)
    return f" = {labels.full(identity)}" if identity.port else ""


def title(process: Process) -> str:
    """What a process is called."""
    return process.title[:40] or f"process {process.pid}"
