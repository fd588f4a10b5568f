"""The replayer itself: whatever is changed in a recording, or wrong in a kernel, it reports."""

from __future__ import annotations

import copy
import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from machrv.kernel import Kernel

from .__main__ import main
from .kernels import KERNELS, close, private_bootstrap_directory
from .replay import replay
from .vectors import Vector, read

SCENARIOS = Path(__file__).parent / "vectors" / "scenarios.jsonl.gz"
ROOT = Path(__file__).parents[2]
CLAIM = "rendezvous/1-mixed"


def vector(identifier: str) -> Vector:
    return next(vector for vector in read(SCENARIOS) if vector["id"] == identifier)


def write(path: Path, *vectors: Vector) -> Path:
    text = "".join(json.dumps(vector) + "\n" for vector in vectors).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


# -- changes planted in a recording --------------------------------------------------------------------------------------

ABSENT = object()
A_SEND_ONCE_RIGHT = {"type": ["SEND_ONCE"], "send_once": 1}
BOTH_RIGHTS = {"type": ["SEND", "RECEIVE"], "send": 1, "receive": 1}
A_DESCRIPTOR = {"type": "port", "name": "NULL", "disposition": None}

#: (what is planted, in which call, where, what stands there then, what the report must tell)
PLANTED: list[tuple[str, str, str, Any, str]] = [
    ("wrong result", "mach_msg_send", "result", "MACH_SEND_INVALID_DEST", "MACH_SEND_INVALID_DEST"),
    ("wrong references", "bootstrap_look_up", "state B b2 send", 2, "SEND 2"),
    ("wrong type", "bootstrap_look_up", "state B b2", A_SEND_ONCE_RIGHT, "SEND_ONCE 1"),
    ("further right", "bootstrap_look_up", "state B b2", BOTH_RIGHTS, "RECEIVE 1"),
    ("references of no right", "bootstrap_look_up", "state B b2 receive", 1, "receive"),
    ("missing name", "mach_port_allocate", "state B b2", ABSENT, "no such name"),
    ("further name", "mach_port_allocate", "state B b9", A_SEND_ONCE_RIGHT, "b9"),
    ("missing state", "mach_port_allocate", "state", ABSENT, "no such name"),
    ("state of the other task", "mach_port_allocate", "state A", {}, "space A"),
    ("missing out", "mach_port_allocate", "out", ABSENT, "out.name"),
    ("name that is another", "mach_port_allocate", "out name", "b2", "out.name"),
    ("name that was not given", "mach_msg_receive", "message remote", "a1", "message.remote"),
    ("missing message", "mach_msg_receive", "message", ABSENT, "message.body"),
    ("wrong sender", "mach_msg_receive", "message trailer from", "A", "message.trailer.from"),
    ("kernel as the sender", "mach_msg_receive", "message trailer from", "kernel", "message.trailer.from"),
    ("wrong seqno", "mach_msg_receive", "message trailer seqno", 1, "message.trailer.seqno"),
    ("wrong body", "mach_msg_receive", "message body", "01", "message.body"),
    ("wrong disposition", "mach_msg_receive", "message remote_disposition", "PORT_SEND", "message.remote_disposition"),
    ("notification", "mach_msg_receive", "message notification", True, "message.notification"),
    ("descriptors of a simple message", "mach_msg_receive", "message descriptors", [], "message.descriptors"),
    ("further descriptor", "mach_msg_receive", "message descriptors", [A_DESCRIPTOR], "message.descriptors"),
    ("number in place of false", "mach_msg_receive", "message complex", 0, "message.complex"),
    ("unknown field of a step", "mach_msg_receive", "remark", "?", "remark"),
    ("unknown argument", "mach_msg_send", "args priority", 1, "priority"),
    ("missing argument", "mach_msg_send", "args remote", ABSENT, "remote"),
    ("unknown field of out", "mach_port_allocate", "out right", "RECEIVE", "right"),
    ("unknown field of a message", "mach_msg_receive", "message voucher", "NULL", "voucher"),
    ("unknown field of a trailer", "mach_msg_receive", "message trailer context", 0, "context"),
    ("unknown field of a descriptor", "mach_msg_send", "args descriptors", [A_DESCRIPTOR | {"guard": 1}], "guard"),
    ("unknown kind of descriptor", "mach_msg_send", "args descriptors", [{"type": "guarded_port"}], "guarded_port"),
    ("unknown field of a name", "mach_port_allocate", "state B b2 make_send", 1, "make_send"),
    ("unknown task", "mach_port_allocate", "task", "C", "'C'"),
    ("state of an unknown task", "mach_port_allocate", "state C", {}, "state: C"),
    ("unknown call", "mach_port_allocate", "call", "mach_port_guard", "mach_port_guard"),
    ("unknown symbol", "mach_port_allocate", "args right", "LEFT", "MACH_PORT_RIGHT_LEFT"),
    ("unbound variable", "mach_msg_send", "args remote", "b7", "b7"),
]


def plant(steps: list[dict[str, Any]], call: str, path: str, value: Any) -> int:
    """Put `value` where `path` leads in the first `call`: the index of that step."""
    index = next(index for index, step in enumerate(steps) if step["call"] == call)
    *parents, field = path.split()
    holder = steps[index]
    for parent in parents:
        holder = holder[parent]
    if value is ABSENT:
        del holder[field]
    else:
        holder[field] = value
    return index


@pytest.mark.parametrize(
    ("call", "path", "value", "told"), [row[1:] for row in PLANTED], ids=[row[0] for row in PLANTED]
)
def test_planted_change_is_reported(
    call: str, path: str, value: Any, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One change in one of two vectors: exit status 1, one differs, and the report shows where and what."""
    claim = vector(CLAIM)
    changed = copy.deepcopy(claim)
    index = plant(changed["steps"], call, path, value)
    changed["id"] = "planted"

    assert main([str(write(tmp_path / "two.jsonl", claim, changed))]) == 1

    output = capsys.readouterr().out
    ran = len(claim["steps"]) + index + 1
    assert output.startswith(f"2 vectors, {ran} steps, 1 differ\n")
    assert f"planted, step {index + 1} of {len(claim['steps'])}\n" in output
    assert told in output[output.index("  > ") :]


def leaves(holder: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all values that have no parts."""
    if isinstance(holder, (dict, list)) and holder:
        for key in holder if isinstance(holder, dict) else range(len(holder)):
            yield from leaves(holder[key], (*path, key))
    else:
        yield path


def test_every_recorded_value_is_compared() -> None:
    """Whatever single value of an expectation is changed, the difference is found in that very step."""
    seen: set[tuple[Any, ...]] = set()
    with private_bootstrap_directory():
        for original in read(SCENARIOS):
            for index, recorded in enumerate(original["steps"]):
                for path in leaves({key: recorded[key] for key in recorded.keys() - {"task", "call", "args"}}):
                    kind = (recorded["call"], *(key if path[0] != "state" else "" for key in path))
                    if kind in seen:
                        continue
                    seen.add(kind)
                    changed = copy.deepcopy(original)
                    holder = changed["steps"][index]
                    for key in path[:-1]:
                        holder = holder[key]
                    holder[path[-1]] = "?" if holder[path[-1]] != "?" else "!"
                    ran, difference = replay(changed, KERNELS["linux"])
                    assert difference is not None, f"{original['id']}, step {index + 1}: {path} is not compared"
                    assert ran == index + 1, f"{original['id']}, step {index + 1}: {path} is compared elsewhere"
    assert len(seen) > 60


# -- faults planted in a kernel ------------------------------------------------------------------------------------------


class Faulty:
    """A kernel with some of its calls replaced."""

    def __init__(self, kernel: Kernel, **calls: Callable[..., Any]) -> None:
        self.__dict__.update(kernel=kernel, **calls)

    def __getattr__(self, call: str) -> Any:
        return getattr(self.kernel, call)


Calls = dict[str, Callable[..., Any]]


def name_that_is_taken(kernel: Kernel) -> Calls:
    return {"mach_port_allocate": lambda right: kernel.mach_port_names()[0][0]}


def name_told_twice(kernel: Kernel) -> Calls:
    return {"mach_port_names": lambda: kernel.mach_port_names() * 2}


def reference_too_many(kernel: Kernel) -> Calls:
    return {"mach_port_get_refs": lambda name, right: kernel.mach_port_get_refs(name, right) + 1}


def exception_of_another_kind(kernel: Kernel) -> Calls:
    def mach_msg(*arguments: Any, **keywords: Any) -> None:
        raise OSError("the floor is wet")

    return {"mach_msg": mach_msg}


def nothing_received(kernel: Kernel) -> Calls:
    def mach_msg(*arguments: Any, **keywords: Any) -> None:
        kernel.mach_msg(*arguments, **keywords)

    return {"mach_msg": mach_msg}


def no_message_received(kernel: Kernel) -> Calls:
    def mach_msg(*arguments: Any, **keywords: Any) -> bytes | None:
        received = kernel.mach_msg(*arguments, **keywords)
        return None if received is None else received[:20]

    return {"mach_msg": mach_msg}


def byte_too_many_received(kernel: Kernel) -> Calls:
    def mach_msg(*arguments: Any, **keywords: Any) -> bytes | None:
        received = kernel.mach_msg(*arguments, **keywords)
        return None if received is None else received + b"x"

    return {"mach_msg": mach_msg}


def name_that_cannot_be_destroyed(kernel: Kernel) -> Calls:
    return {"mach_port_destroy": lambda name: None}


FAULTS = [
    (name_that_is_taken, "out.name"),
    (name_told_twice, "twice"),
    (reference_too_many, "references of"),
    (exception_of_another_kind, "OSError: the floor is wet"),
    (nothing_received, "received nothing"),
    (no_message_received, "are not a message"),
    (byte_too_many_received, "77 bytes received"),
    (name_that_cannot_be_destroyed, "in the end"),
]


@pytest.mark.parametrize(("plant", "told"), FAULTS, ids=[plant.__name__ for plant, _ in FAULTS])
def test_faulty_kernel_is_reported(plant: Callable[[Kernel], Calls], told: str) -> None:
    """A kernel that does what no change in a recording can show is reported all the same, and closed."""
    closed: list[Kernel] = []

    def factory() -> Any:
        kernel = KERNELS["linux"]()

        def close_kernel() -> None:
            closed.append(kernel)
            close(kernel)

        return Faulty(kernel, close=close_kernel, **plant(kernel))

    with private_bootstrap_directory():
        _, difference = replay(vector(CLAIM), factory)
    assert difference is not None
    assert told in str(difference.mismatches)
    assert len(closed) == 2


# -- the command -------------------------------------------------------------------------------------------------------


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.conformance", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )


def test_command_runs_all_files_in_processes(tmp_path: Path) -> None:
    """Plain and compressed files together, in one process or in two: the same count, and exit status 0."""
    plain = write(tmp_path / "one.jsonl", vector(CLAIM))
    for jobs in "1", "2":
        done = command(plain, SCENARIOS, "--jobs", jobs)
        vectors = [vector(CLAIM), *read(SCENARIOS)]
        steps = sum(len(vector["steps"]) for vector in vectors)
        assert (done.stdout, done.stderr) == (f"{len(vectors)} vectors, {steps} steps, 0 differ\n", "")
        assert done.returncode == 0


def test_command_prints_the_first_differences(tmp_path: Path) -> None:
    """--first says how many are printed; how many there are is always told."""
    changed = vector(CLAIM)
    plant(changed["steps"], "mach_msg_receive", "message trailer from", "A")
    path = write(tmp_path / "three.jsonl.gz", changed, changed, changed)
    for first in 0, 1, 2, 3:
        done = command(path, "--first", str(first), "--kernel", "linux", "--jobs", "2")
        assert done.returncode == 1
        assert done.stdout.startswith("3 vectors, 15 steps, 3 differ\n")
        assert done.stdout.count("step 5 of 10") == first
        assert ("more differ" in done.stdout) == (first < 3)


def test_command_runs_the_vectors_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """--id takes a pattern as a shell would."""
    wanted = [vector for vector in read(SCENARIOS) if vector["id"].startswith("rendezvous/")]
    assert main([str(SCENARIOS), "--id", "rendezvous/*"]) == 0
    steps = sum(len(vector["steps"]) for vector in wanted)
    assert capsys.readouterr().out == f"{len(wanted)} vectors, {steps} steps, 0 differ\n"


NOT_VECTORS = {
    "empty.jsonl": b"",
    "text.jsonl": b"not a vector\n",
    "list.jsonl": b"[]\n",
    "field.jsonl": b'{"id": "x", "steps": [{}], "remark": ""}\n',
    "none.jsonl": b'{"id": "x", "steps": []}\n',
    "plain.jsonl.gz": b'{"id": "x", "steps": [{}]}\n',
    "cut.jsonl.gz": gzip.compress(b'{"id": "x", "steps": [{}]}\n')[:-4],
    "latin.jsonl": b"\xff\xfe\n",
}


@pytest.mark.parametrize("name", NOT_VECTORS)
def test_file_that_holds_no_vectors_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2 and one line that says what is wrong: a broken file never counts as passed."""
    path = tmp_path / name
    path.write_bytes(NOT_VECTORS[name])
    assert main([str(path)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such-file.jsonl"],
        [str(ROOT)],
        [str(SCENARIOS), "--kernel", "hurd"],
        [str(SCENARIOS), "--jobs", "0"],
        [str(SCENARIOS), "--first", "-1"],
        [str(SCENARIOS), "--id", "no-such-vector"],
    ],
)
def test_command_that_cannot_be_understood(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2, the reason on stderr, nothing on stdout."""
    try:
        status: object = main(arguments)
    except SystemExit as error:
        status = error.code
    assert status == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err
