"""One system call of one thread, watched or broken by strace.

What belongs here: attaching, and reading what was written down. What must never happen here: knowledge of what the thread
is doing. strace counts the calls of each name from when it was attached; so does `calls`.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_LINE = re.compile(r"^([a-z0-9_]+)\(")
_RESUMED = re.compile(r"^<\.\.\. ")


class Call(NamedTuple):
    """A system call: the `nth` of its name since strace was attached, and the line that tells of it."""

    name: str
    nth: int
    line: str


def why_not() -> str:
    """Why strace cannot be used here; empty if it can."""
    if shutil.which("strace") is None:
        return "strace is not installed: faults cannot be injected (apt install strace)"
    probe = subprocess.run(["strace", "-qq", "-e", "trace=none", "true"], capture_output=True, text=True)
    return "" if probe.returncode == 0 else f"strace may not trace here: {probe.stderr.strip()}"


@contextmanager
def attached(thread: int, log: Path, inject: str = "") -> Iterator[None]:
    """Trace the thread; with `inject`, a fault as strace writes it: "sendmsg:error=EMFILE:when=1"."""
    command = ["strace", "-p", str(thread), "-o", str(log), "-s", "80"]
    if inject:
        command += ["-e", f"inject={inject}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    if "attached" not in line:
        raise RuntimeError(f"strace could not be attached: {line}")
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()


def calls(log: Path) -> list[Call]:
    """The calls in the order in which they were made, from the one that was waiting when strace came."""
    counts: Counter[str] = Counter()
    found = []
    for line in log.read_text(errors="replace").splitlines():
        if match := _LINE.match(line):
            counts[match[1]] += 1
            found.append(Call(match[1], counts[match[1]], line))
    return found


def was_hit(log: Path) -> bool:
    """Whether the fault has come to pass."""
    text = log.read_text(errors="replace")
    return "(INJECTED)" in text or "+++ killed by SIGKILL" in text
