"""A recording that is kept, to be drawn later: the files of the processes, and how these ended."""

# What belongs here: the one file that says what the processes could not. What must never happen here: belief in what is read.

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

from machrv.trace import SUFFIX
from machrv.trace.reading import number, read

if TYPE_CHECKING:
    from machrv.trace.reading import Process

_FILE = "endings.json"
_LARGEST_FILE = 1 << 24


def keep(recorded: str, directory: str, program: list[str], processes: list[Process]) -> None:
    """Copy a recording into `directory`, which only its owner can enter; it is made if it is not there. Raises OSError.

    `program` is what was traced: of it, what the page shows is kept.
    """
    os.makedirs(directory, 0o700, exist_ok=True)
    for name in os.listdir(recorded):
        if name.endswith(SUFFIX) and not os.path.samefile(recorded, directory):
            shutil.copy(os.path.join(recorded, name), os.path.join(directory, name))
    endings = [
        [each.pid, each.began, each.ended, each.status, each.executed, each.survived]
        for each in processes
        if each.began
    ]
    fd = os.open(os.path.join(directory, _FILE), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        json.dump({"program": program, "endings": endings}, file)


def kept(directory: str) -> tuple[list[str], list[Process]]:
    """What was traced, and the processes of a recording that was kept. Raises OSError where there is no directory."""
    processes = read(directory)
    by_name = {(process.pid, process.began): process for process in processes}
    program: list[str] = []
    try:
        with open(os.path.join(directory, _FILE), encoding="utf-8") as file:
            found: Any = json.loads(file.read(_LARGEST_FILE))
        program = [str(word)[:200] for word in found["program"]][:100]
        for pid, began, ended, status, executed, survived in found["endings"]:
            process = by_name.get((number(pid), number(began)))
            if process is not None:
                process.ended = None if ended is None else number(ended)
                process.status = None if status is None else number(status)
                process.executed, process.survived = bool(executed), bool(survived)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass  # How they ended is not known then.
    return program, processes
