"""Reads vector files and knows their grammar.

What belongs here: which fields a vector may have, and nothing of what stands in them. A field that is not listed here is
an error wherever it appears, so that no part of a recording can be passed over in silence.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Step = dict[str, Any]
Vector = dict[str, Any]

TASKS = frozenset("AB")
RIGHTS = ("SEND", "RECEIVE", "SEND_ONCE", "PORT_SET", "DEAD_NAME")

#: What each call is given: the arguments that it must have, and those that it may have.
ARGUMENTS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    call: (frozenset(required.split()), frozenset(optional.split()))
    for call, required, optional in (
        ("bootstrap_check_in", "service", ""),
        ("bootstrap_look_up", "service", ""),
        ("mach_port_allocate", "right", ""),
        ("mach_port_deallocate", "name", ""),
        ("mach_port_destroy", "name", ""),
        ("mach_port_type", "name", ""),
        ("mach_port_get_refs", "name right", ""),
        ("mach_port_mod_refs", "name right delta", ""),
        ("mach_port_insert_right", "name poly disposition", ""),
        ("mach_port_move_member", "member after", ""),
        ("mach_port_insert_member", "name pset", ""),
        ("mach_port_extract_member", "name pset", ""),
        ("mach_port_request_notification", "name notification sync notify disposition", ""),
        (
            "mach_msg_send",
            "remote id",
            "remote_disposition local local_disposition descriptors body msgh_bits descriptor_count msgh_size send_size",
        ),
        ("mach_msg_receive", "name", "size options trailer"),
    )
}

SENT_DESCRIPTOR = {
    "port": frozenset(("type", "name", "disposition")),
    "ool": frozenset(("type", "data")),
    "ool_ports": frozenset(("type", "names", "disposition")),
    "raw": frozenset(("type", "bytes")),
}

RECEIVED_DESCRIPTOR = {kind: fields for kind, fields in SENT_DESCRIPTOR.items() if kind != "raw"}

STEP = frozenset(("task", "call", "args", "result", "out", "message", "state"))
OUT = frozenset(("name", "refs", "type", "previous"))
MESSAGE = frozenset(
    "size id complex remote remote_disposition local local_disposition descriptors body trailer"
    " notification notified_count notified_name".split()
)
TRAILER = frozenset(("type", "size", "seqno", "from"))
STATE_ENTRY = frozenset(("type", *(right.lower() for right in RIGHTS)))


class VectorError(ValueError):
    """A vector, or a file of them, that this replayer cannot read to the last field."""


def read(path: Path) -> Iterator[Vector]:
    """The vectors of one `.jsonl` or `.jsonl.gz` file. Raises `VectorError` if it is not one."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield _vector(path, number, line)
    except (OSError, EOFError) as error:
        raise VectorError(f"{path}: {error}") from error


def _vector(path: Path, number: int, line: bytes) -> Vector:
    try:
        vector = json.loads(line)
    except ValueError as error:
        raise VectorError(f"{path}:{number}: not JSON: {error}") from error
    if not isinstance(vector, dict) or not isinstance(vector.get("id"), str) or not vector.get("steps"):
        raise VectorError(f"{path}:{number}: a vector is an object with an id and steps")
    if set(vector) != {"id", "steps"} or not isinstance(vector["steps"], list):
        raise VectorError(f"{path}:{number}: a vector has an id and a list of steps, not {sorted(vector)}")
    return vector


def check_step(step: Any) -> None:
    """Raise `VectorError` if a step has anything that the replayer would not look at, or lacks what it needs."""
    _fields("step", step, STEP, frozenset(("task", "call", "args", "result")))
    if step["task"] not in TASKS:
        raise VectorError(f"there is no task {step['task']!r}")
    if step["call"] not in ARGUMENTS:
        raise VectorError(f"there is no call {step['call']!r}")
    required, optional = ARGUMENTS[step["call"]]
    arguments = step["args"]
    _fields("args", arguments, required | optional, required)
    _descriptors(arguments, SENT_DESCRIPTOR)
    _fields("out", step.get("out", {}), OUT)
    if "message" in step:
        message = step["message"]
        _fields("message", message, MESSAGE)
        _descriptors(message, RECEIVED_DESCRIPTOR)
        _fields("trailer", message.get("trailer", {}), TRAILER)
    state = step.get("state", {})
    _fields("state", state, TASKS)
    for names in state.values():
        for variable, entry in names.items():
            _fields(f"state of {variable}", entry, STATE_ENTRY, frozenset(("type",)))


def _fields(what: str, got: Any, known: frozenset[str], required: frozenset[str] = frozenset()) -> None:
    if not isinstance(got, dict):
        raise VectorError(f"{what} is {got!r}, not an object")
    if not got.keys() <= known:
        raise VectorError(f"unknown fields in {what}: {', '.join(sorted(got.keys() - known))}")
    if not got.keys() >= required:
        raise VectorError(f"missing from {what}: {', '.join(sorted(required - got.keys()))}")


def _descriptors(holder: dict[str, Any], kinds: dict[str, frozenset[str]]) -> None:
    for descriptor in holder.get("descriptors", ()):
        kind = descriptor.get("type") if isinstance(descriptor, dict) else descriptor
        if kind not in kinds:
            raise VectorError(f"there is no descriptor of type {kind!r}")
        _fields(f"{kind} descriptor", descriptor, kinds[kind], kinds[kind])
