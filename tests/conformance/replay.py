"""Replays one vector over two port spaces and says where the kernel first differs from the recording.

What belongs here: one function per call, and the comparison after every step of the result, what came out, the received
message and both port spaces. What must never happen here: a step that is passed over, or a difference that is forgiven.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

from machrv._mach import lib
from machrv.errors import MachError
from machrv.kernel import Kernel

from .kernels import close
from .task import REQUEST_BITS, TYPE_BITS, Task, render_entry
from .vectors import RIGHTS, Step, Vector, VectorError, check_step
from .wire import COMPLEX, NDR_RECORD, PORTS_MASK, Incoming, Outgoing, constant, disposition

RECEIVED_DISPOSITIONS: dict[int, str | None] = {
    0: None,
    lib.MACH_MSG_TYPE_PORT_RECEIVE: "PORT_RECEIVE",
    lib.MACH_MSG_TYPE_PORT_SEND: "PORT_SEND",
    lib.MACH_MSG_TYPE_PORT_SEND_ONCE: "PORT_SEND_ONCE",
}
DEFAULT_RECEIVE_SIZE = 4096

#: The recording filled a receive buffer with 0xa5 before each call: what a size that the kernel did not tell reads.
UNTOLD_SIZE = 0xA5A5A5A5

Out = dict[str, Any]
_serial = count(1)


class Mismatch(NamedTuple):
    """One thing that was expected and what was there instead."""

    what: str
    expected: str
    got: str


class Difference(NamedTuple):
    """Where a vector first differs: the step's index in `vector["steps"]` and all that is different after it."""

    vector: Vector
    at: int
    mismatches: list[Mismatch]


def replay(vector: Vector, factory: Callable[[], Kernel]) -> tuple[int, Difference | None]:
    """Run one vector over two fresh port spaces: how many steps ran, and the first that differs, if any.

    Both spaces are emptied and closed whatever happens.
    """
    run = _Run(factory)
    steps = vector["steps"]
    try:
        for index, step in enumerate(steps):
            mismatches = run.step(step)
            if mismatches:
                return index + 1, Difference(vector, index, mismatches)
        mismatches = run.empty()
        return len(steps), Difference(vector, len(steps) - 1, mismatches) if mismatches else None
    finally:
        run.close()


def _surprise(error: Exception) -> str:
    """An exception that the seam does not promise, with the place that it came from."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({os.path.basename(frame.filename)}:{frame.lineno} in {frame.name})"


class _Run:
    """Two tasks in the middle of a vector."""

    def __init__(self, factory: Callable[[], Kernel]) -> None:
        self._kernels: list[Kernel] = []
        self._tasks: dict[str, Task] = {}
        self._named: set[int] = set()
        try:
            for label in "AB":
                self._kernels.append(factory())
                self._tasks[label] = Task(label, self._kernels[-1])
        except BaseException:
            self.close()
            raise
        self._senders = {bytes(32): "kernel"} | {task.token: task.label for task in self._tasks.values()}
        self._services = f"conformance.{os.getpid()}.{next(_serial)}."

    def close(self) -> None:
        for kernel in self._kernels:
            close(kernel)

    def empty(self) -> list[Mismatch]:
        for task in self._tasks.values():
            try:
                task.empty()
            except Exception as error:
                return [Mismatch(f"space {task.label} in the end", "empty", _surprise(error))]
        return []

    def step(self, step: Step) -> list[Mismatch]:
        """Make the call and compare everything: what differs."""
        try:
            check_step(step)
            task = self._tasks[step["task"]]
            call = getattr(self, "_" + step["call"])
            result, out, message = "KERN_SUCCESS", {}, None
            try:
                out = call(task, step["args"], step)
                message = out.pop("message", None)
            except MachError as error:
                result = error.symbol
                if result == "MACH_RCV_TOO_LARGE" and "message" in step:
                    message = {"size": UNTOLD_SIZE if error.size is None else error.size}
            mismatches = []
            if result != step["result"]:
                mismatches.append(Mismatch("result", step["result"], result))
            mismatches += _fields("out", step.get("out", {}), out)
            mismatches += _fields("message", step.get("message", {}), message or {})
            for label, other in self._tasks.items():
                mismatches += self._space(other, step.get("state", {}).get(label))
            return mismatches
        except VectorError as error:
            return [Mismatch("vector", "what this replayer knows", str(error))]
        except Exception as error:
            return [Mismatch("call", step["result"], _surprise(error))]

    def _space(self, task: Task, state: dict[str, Any] | None) -> list[Mismatch]:
        """A step that does not tell a task's state has not changed it."""
        unbound = []
        if state is not None:
            unbound = [variable for variable in state if variable not in task.numbers]
            task.expect({variable: entry for variable, entry in state.items() if variable in task.numbers})
        space = task.space()
        if space == task.expected and not unbound:
            self._named.update(space)
            return []
        where = f"space {task.label}"
        mismatches = [Mismatch(f"{where}: {variable}", str(state), "nothing has bound it") for variable in unbound]
        for number in sorted(space.keys() | task.expected.keys()):
            expected, got = task.expected.get(number), space.get(number)
            if expected != got:
                name = task.living.get(number, "a further name")
                what = f"{where}: {name} ({number:#x})"
                mismatches.append(Mismatch(what, render_entry(expected), render_entry(got)))
        return mismatches

    # -- names and rights --------------------------------------------------------------------------------------------

    def _bootstrap_check_in(self, task: Task, args: Out, step: Step) -> Out:
        return self._name_out(task, step, task.kernel.bootstrap_check_in(self._services + args["service"]))

    def _bootstrap_look_up(self, task: Task, args: Out, step: Step) -> Out:
        return self._name_out(task, step, task.kernel.bootstrap_look_up(self._services + args["service"]))

    def _mach_port_allocate(self, task: Task, args: Out, step: Step) -> Out:
        return self._name_out(task, step, task.kernel.mach_port_allocate(_right(args)))

    def _name_out(self, task: Task, step: Step, number: int) -> Out:
        return {"name": task.name(step.get("out", {}).get("name"), number)}

    def _mach_port_deallocate(self, task: Task, args: Out, step: Step) -> Out:
        task.kernel.mach_port_deallocate(task.number(args["name"]))
        return {}

    def _mach_port_destroy(self, task: Task, args: Out, step: Step) -> Out:
        task.kernel.mach_port_destroy(task.number(args["name"]))
        return {}

    def _mach_port_type(self, task: Task, args: Out, step: Step) -> Out:
        bits = task.kernel.mach_port_type(task.number(args["name"])) & ~REQUEST_BITS
        types = [right for right in RIGHTS if bits & TYPE_BITS[right]]
        unknown = bits & ~sum(TYPE_BITS.values())
        return {"type": types + [hex(unknown)] if unknown else types}

    def _mach_port_get_refs(self, task: Task, args: Out, step: Step) -> Out:
        return {"refs": task.kernel.mach_port_get_refs(task.number(args["name"]), _right(args))}

    def _mach_port_mod_refs(self, task: Task, args: Out, step: Step) -> Out:
        task.kernel.mach_port_mod_refs(task.number(args["name"]), _right(args), args["delta"])
        return {}

    def _mach_port_insert_right(self, task: Task, args: Out, step: Step) -> Out:
        name, poly = task.number(args["name"]), task.number(args["poly"])
        task.kernel.mach_port_insert_right(name, poly, disposition(args["disposition"]))
        return {}

    def _mach_port_move_member(self, task: Task, args: Out, step: Step) -> Out:
        task.kernel.mach_port_move_member(task.number(args["member"]), task.number(args["after"]))
        return {}

    def _mach_port_insert_member(self, task: Task, args: Out, step: Step) -> Out:
        task.kernel.mach_port_insert_member(task.number(args["name"]), task.number(args["pset"]))
        return {}

    def _mach_port_extract_member(self, task: Task, args: Out, step: Step) -> Out:
        task.kernel.mach_port_extract_member(task.number(args["name"]), task.number(args["pset"]))
        return {}

    def _mach_port_request_notification(self, task: Task, args: Out, step: Step) -> Out:
        previous = task.kernel.mach_port_request_notification(
            task.number(args["name"]),
            constant("MACH_NOTIFY_", args["notification"]),
            args["sync"],
            task.number(args["notify"]),
            disposition(args["disposition"]),
        )
        return {"previous": task.name(step.get("out", {}).get("previous"), previous)}

    # -- messages ----------------------------------------------------------------------------------------------------

    def _mach_msg_send(self, task: Task, args: Out, step: Step) -> Out:
        message = Outgoing(args, task.number)
        task.kernel.mach_msg(message.data, lib.MACH_SEND_MSG, timeout=0)
        return {}

    def _mach_msg_receive(self, task: Task, args: Out, step: Step) -> Out:
        option: int = lib.MACH_RCV_MSG | constant("MACH_RCV_TRAILER_", args.get("trailer", "AUDIT")) << 24
        for name in args.get("options", ()):
            option |= constant("MACH_", name)
        size = args.get("size", DEFAULT_RECEIVE_SIZE)
        data = task.kernel.mach_msg(None, option, size, task.number(args["name"]), timeout=0)
        if data is None:
            raise ValueError("mach_msg received nothing and did not say why")
        if len(data) > size:
            raise ValueError(f"{len(data)} bytes were received into a buffer of {size}")
        return {"message": self._message(task, Incoming(data, task.kernel), step.get("message", {}))}

    def _message(self, task: Task, message: Incoming, expected: dict[str, Any]) -> dict[str, Any]:
        """What was received, in a vector's words; its new names are bound to the variables that `expected` has there."""
        got: dict[str, Any] = {
            "size": message.size,
            "id": message.id,
            "complex": bool(message.bits & COMPLEX),
            "remote": task.name(expected.get("remote"), message.remote),
            "remote_disposition": _disposition(message.bits & 0xFF),
            "local": task.name(expected.get("local"), message.local),
            "local_disposition": _disposition(message.bits >> 8 & 0xFF),
            "trailer": dict(message.trailer),
        }
        rest = message.bits & ~COMPLEX & ~PORTS_MASK
        if rest or message.voucher:
            got["voucher and other bits"] = f"bits {rest:#x}, voucher {message.voucher:#x}"
        if got["complex"]:
            wanted = expected.get("descriptors", [])
            wanted = wanted + [{}] * (len(message.descriptors) - len(wanted))
            got["descriptors"] = [_descriptor(task, *pair) for pair in zip(message.descriptors, wanted)]
        sender = None
        if message.token is not None:
            sender = got["trailer"]["from"] = self._senders.get(message.token, message.token.hex())
        if sender == "kernel":
            got["notification"] = True
            got |= self._notified(task, message, expected)
        else:
            got["body"] = message.body.hex()
        return got

    def _notified(self, task: Task, message: Incoming, expected: dict[str, Any]) -> dict[str, Any]:
        """What a notification tells, which stands behind an NDR record."""
        if not message.body:
            return {}
        number = int.from_bytes(message.body[len(NDR_RECORD) :], "little")
        if message.body[: len(NDR_RECORD)] != NDR_RECORD or len(message.body) != len(NDR_RECORD) + 4:
            return {"body": message.body.hex()}
        if message.id == lib.MACH_NOTIFY_NO_SENDERS:
            return {"notified_count": number}
        # A notification that went to the other task names what the one that asked for it has, or had.
        if expected.get("notified_name") == "gone" and number in self._named and number not in task.living:
            return {"notified_name": "gone"}
        return {"notified_name": task.render(number)}


def _right(args: Out) -> int:
    return constant("MACH_PORT_RIGHT_", args["right"])


def _disposition(number: int) -> str | int | None:
    return RECEIVED_DISPOSITIONS.get(number, number)


def _descriptor(task: Task, received: tuple[Any, ...], expected: dict[str, Any]) -> dict[str, Any]:
    kind, content = received[:2]
    if kind == "port":
        return {
            "type": kind,
            "name": task.name(expected.get("name"), content),
            "disposition": _disposition(received[2]),
        }
    if kind == "ool":
        return {"type": kind, "data": content.hex()}
    wanted = expected.get("names", [])
    wanted = wanted + [None] * (len(content) - len(wanted))
    names = [task.name(*pair) for pair in zip(wanted, content)]
    return {"type": kind, "names": names, "disposition": _disposition(received[2])}


def _fields(what: str, expected: dict[str, Any], got: dict[str, Any]) -> list[Mismatch]:
    """Field by field, whatever either side has; the trailer's fields one by one."""
    mismatches: list[Mismatch] = []
    for field in [*expected, *(field for field in got if field not in expected)]:
        old, new = expected.get(field, "absent"), got.get(field, "absent")
        if field == "type" and what == "out" and isinstance(old, list) and isinstance(new, list):
            old, new = sorted(old), sorted(new)
        if isinstance(old, dict) and isinstance(new, dict):
            mismatches += _fields(f"{what}.{field}", old, new)
        elif old != new or type(old) is not type(new):
            mismatches.append(Mismatch(f"{what}.{field}", str(old), str(new)))
    return mismatches
