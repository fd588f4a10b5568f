"""Which system calls one claim takes, on either side, and one message there and back: machrv beside the limit in C, or beside
`multiprocessing`. `python -m bench.syscalls` prints JSON.

What belongs here: counting with `strace -c`, by the difference of a long run and a short one, so that what is done once
does not count. What must never happen here: a time; under strace there is none that means anything.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench.measure import HERE, compiled, server, worker

FEW, MANY = 20, 120

#: by system call, how many of them one claim takes
Calls = dict[str, float]


def _counted(path: Path) -> Counter[str]:
    """What `strace -c -U calls,name -o` has written."""
    calls: Counter[str] = Counter()
    for line in path.read_text().splitlines():
        number, _, name = line.strip().partition(" ")
        if number.isdigit() and name.strip() != "total":
            calls[name.strip()] += int(number)
    return calls


def _run(command: list[str], folder: Path, ports: int, claims: int) -> tuple[Counter[str], Counter[str]]:
    """So many claims: what the client called, what the server called."""
    address = str(folder / f"org.machrv.bench.calls.{os.getpid()}")
    both = [*command, address, str(ports)]
    files = folder / "client", folder / "server"
    traced = [["strace", "-f", "-c", "-U", "calls,name", "-o", str(file)] for file in files]
    with server([*traced[1], *(part.format("serve") for part in both)]):
        with worker([*traced[0], *(part.format("claim") for part in both)]) as claim:
            claim(claims)
    return _counted(files[0]), _counted(files[1])


def per_message(command: list[str]) -> Calls:
    """Calls of both processes for one message there and back."""
    counted = []
    with tempfile.TemporaryDirectory() as folder:
        for count in (FEW, MANY):
            file = Path(folder) / str(count)
            with worker(["strace", "-f", "-c", "-U", "calls,name", "-o", str(file), *command]) as exchange:
                exchange(count)
            counted.append(_counted(file))
    return _each(*counted)


def _each(few: Counter[str], many: Counter[str]) -> Calls:
    """Of one; what happens less than once in five times is left out."""
    each = {name: (count - few[name]) / (MANY - FEW) for name, count in many.items()}
    return {name: round(count, 1) for name, count in sorted(each.items()) if count >= 0.2}


def per_claim(command: list[str], ports: int) -> tuple[Calls, Calls]:
    """Calls per claim of the client and of the server."""
    with tempfile.TemporaryDirectory() as folder:
        few, many = _run(command, Path(folder), ports, FEW), _run(command, Path(folder), ports, MANY)
    return _each(few[0], many[0]), _each(few[1], many[1])


def measured(ports: tuple[int, ...] = (1, 64)) -> dict[str, dict[str, Calls]]:
    """By what is done and by side ("machrv, client"), the calls for one of it."""
    found: dict[str, dict[str, Calls]] = {}
    programs = HERE / "programs"
    message = [sys.executable, str(programs / "message.py")]
    with tempfile.TemporaryDirectory() as folder:
        for what, mode, rights in (("a message there and back", "between", 0), ("one with 1 fresh right", "fresh", 1)):
            found[what] = {way: per_message([*message, way, mode, "0", str(rights)]) for way in ("machrv", "Pipe")}
        found["a message there and back"]["C, attested"] = per_message(
            [compiled("message", Path(folder)), "between", "attested", "24", "0"]
        )
        commands = {
            "machrv": [sys.executable, str(programs / "rendezvous.py"), "{}", "machrv"],
            "C": [compiled("rendezvous", Path(folder)), "{}"],
        }
        for count in ports:
            sides = found[f"a claim of {count} port{'s' * (count > 1)}"] = {}
            for peer, command in commands.items():
                sides[f"{peer}, client"], sides[f"{peer}, server"] = per_claim(command, count)
    return found


if __name__ == "__main__":
    print(json.dumps(measured(), indent=1))
