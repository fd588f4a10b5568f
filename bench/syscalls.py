"""Which system calls one claim takes, on either side: machrv and the limit in C. `python -m bench.syscalls` prints JSON.

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

FEW, MANY = 50, 550

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


def per_claim(command: list[str], ports: int) -> tuple[Calls, Calls]:
    """Calls per claim of the client and of the server; what happens less than once in five claims is left out."""
    with tempfile.TemporaryDirectory() as folder:
        few, many = _run(command, Path(folder), ports, FEW), _run(command, Path(folder), ports, MANY)
    sides = []
    for before, after in zip(few, many):
        each = {name: (count - before[name]) / (MANY - FEW) for name, count in after.items()}
        sides.append({name: round(count, 1) for name, count in sorted(each.items()) if count >= 0.2})
    return sides[0], sides[1]


def measured(ports: tuple[int, ...] = (1, 64)) -> dict[str, dict[str, Calls]]:
    """By number of ports and side ("machrv, client"), the calls of one claim."""
    found: dict[str, dict[str, Calls]] = {}
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "machrv": [sys.executable, str(HERE / "programs" / "rendezvous.py"), "{}", "machrv"],
            "C": [compiled("rendezvous", Path(folder)), "{}"],
        }
        for count in ports:
            sides = found[str(count)] = {}
            for peer, command in commands.items():
                sides[f"{peer}, client"], sides[f"{peer}, server"] = per_claim(command, count)
    return found


if __name__ == "__main__":
    print(json.dumps(measured(), indent=1))
