"""What a process is called in a text, and why one that asks may have nothing registered for it."""

# Words for people. What must never happen here: a decision. A command line is its process's own words.

from __future__ import annotations

import os

from machrv.rendezvous.names import SERVICE_NAME_VARIABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST = 60


def process_text(pid: int) -> str:
    """123 (python child.py); without a command line where the system does not show it (yet: a process that was just started)."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(4096).split(b"\0")
    except OSError:
        return str(pid)
    text = " ".join(word.decode(errors="replace") for word in words).strip()
    text = "".join(character if character.isprintable() else "?" for character in text)
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}..."
    return f"{pid} ({text})" if text else str(pid)


def ancestors(pid: int) -> Iterator[int]:
    """The parent of a process, its parent, and so on; nothing where the system does not show it."""
    for _ in range(16):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return
        if pid <= 0:
            return
        yield pid


def was_launched() -> bool:
    """Whether this process has what `launch` puts into a child's environment, and its children inherit."""
    return SERVICE_NAME_VARIABLE in os.environ


def has_wrapper(server: int) -> bool:
    """Whether this process has most likely been started by something that `launch` has started in process `server`."""
    parent = os.getppid()
    launched_by = os.environ.get(SERVICE_NAME_VARIABLE, "").rpartition(".")[2]
    return launched_by == str(server) and parent not in (0, 1, server)


def why_nothing(server: int) -> str:
    """Why the server in the process `server` most likely has nothing for this one."""
    text = f"nothing is registered for this process, {process_text(os.getpid())}, with the server in process {server}"
    if not was_launched():
        return f"{text}. It was not launched by machrv.launch(), and nobody has registered anything for its pid"
    if has_wrapper(server):
        return (
            f"{text}. It was most likely started by a wrapper: its parent is {process_text(os.getppid())}, and that is the "
            "process that was launched and has the rights. Launch the program itself (sys.executable; no shell, no `uv "
            "run`, no starter script), or let the wrapper `exec` it"
        )
    return f"{text}. It was launched without any, or has asked before: they are handed out once"
