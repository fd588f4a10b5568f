"""The recorded vectors once more, over two tasks in two processes: what `tests/conformance` replays within one.

Rights then travel as they do in earnest: nothing is known of the other space, everything is told by sockets. What differs
from XNU is what docs/linux.md says, and nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from machrv.kernel.linux import LinuxKernel

from .conformance.replay import Difference, Mismatch, _Run
from .conformance.report import describe
from .conformance.task import REQUEST_BITS, RIGHT_NUMBERS, Space, Task
from .conformance.vectors import Step, Vector, read
from .conformance.wire import Outgoing
from .linux_tasks import bootstrap, nursery, task  # noqa: F401 (fixtures)
from .linux_tasks import Peer, started

SPACE = """
result = [
    (name, bits, tuple([kernel.mach_port_get_refs(name, right) for right in rights]))
    for name, bits in kernel.mach_port_names()
]
"""
SEND = """
import sys
sys.path[:0] = [root] if root not in sys.path else []
from tests.conformance.wire import Outgoing
message = Outgoing(args, numbers.__getitem__)
kernel.mach_msg(message.data, lib.MACH_SEND_MSG, timeout=0)
"""
RENEW = """
from machrv.kernel.linux import LinuxKernel
kernel.close()
served.kernel = LinuxKernel()
"""


class FarTask(Task):
    """A task in another process: its port space is read there, in one go."""

    def space(self) -> Space:
        return {name: (bits & ~REQUEST_BITS, refs) for name, bits, refs in self.kernel.run(SPACE, rights=RIGHT_NUMBERS)}


class _FarRun(_Run):
    """Task A here, task B in another process."""

    def __init__(self, peer: Peer, root: str) -> None:
        self._root = root
        peer.run(RENEW)
        kernels: list[Any] = [LinuxKernel(), peer]
        self._peer = peer
        super().__init__(lambda: kernels.pop(0))
        self._tasks["B"] = FarTask("B", peer)  # type: ignore[arg-type]

    def _mach_msg_send(self, task: Task, args: dict[str, Any], step: Step) -> dict[str, Any]:
        if task.label == "A":
            return super()._mach_msg_send(task, args, step)
        numbers: dict[str, int] = {}
        Outgoing(args, lambda variable: numbers.setdefault(variable, task.number(variable)))
        self._peer.run(SEND, args=args, numbers=numbers, root=self._root)
        return {}


def replay(vector: Vector, peer: Peer, root: str) -> Difference | None:
    """Where a vector first differs."""
    run = _FarRun(peer, root)
    try:
        for index, step in enumerate(vector["steps"]):
            mismatches = run.step(step)
            if mismatches:
                return Difference(vector, index, mismatches)
        mismatches = run.empty()
        return Difference(vector, len(vector["steps"]) - 1, mismatches) if mismatches else None
    finally:
        run.close()


def is_a_circle(step: Step, mismatches: list[Mismatch]) -> bool:
    """A receive right was moved into a circle that no single process sees: XNU refuses it, here it is collected later."""
    moved = any(one.get("disposition") == "MOVE_RECEIVE" for one in step["args"].get("descriptors", []))
    return moved and all("DEAD_NAME" in one.expected and "SEND" in one.got for one in mismatches)


def is_a_looked_up_right(step: Step, mismatches: list[Mismatch]) -> bool:
    """A checked-in port came to who had looked it up: the receive right has a name of its own."""
    arrived = any(one.get("disposition") == "PORT_RECEIVE" for one in step.get("message", {}).get("descriptors", []))
    return arrived and any("RECEIVE 1" in one.got and one.expected == "no such name" for one in mismatches)


FILES = sorted((Path(__file__).parent / "conformance" / "vectors").glob("*.jsonl.gz"))


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.partition(".")[0])
def test_two_processes_answer_as_xnu(task: LinuxKernel, path: Path) -> None:
    """But for circles of ports and looked-up rights, few of each, every answer in every step is XNU's."""
    root = str(Path(__file__).parent.parent)
    unknown: list[Difference] = []
    circles = looked_up = 0
    vectors = list(read(path))
    with started() as peer:
        for vector in vectors:
            difference = replay(vector, peer, root)
            if difference is None:
                continue
            step = vector["steps"][difference.at]
            if is_a_circle(step, difference.mismatches):
                circles += 1
            elif is_a_looked_up_right(step, difference.mismatches):
                looked_up += 1
            else:
                unknown.append(difference)
        peer.run("kernel.event_queue().close()")  # which keeps what the peer began with
    if unknown:
        shown = "\n\n".join(describe(path.name, difference) for difference in unknown[:3])
        pytest.fail(f"{len(unknown)} of {len(vectors)} vectors differ:\n\n{shown}", pytrace=False)
    assert circles <= len(vectors) // 50 and looked_up <= len(vectors) // 20
