"""Which processes record themselves, and how they end: what they cannot say themselves.

Linux tells the holder of a pidfd how its process ended, once it has been waited for (PIDFD_GET_INFO with PIDFD_INFO_EXIT,
Linux 6.15, fs/pidfs.c). Before that, and elsewhere, it is known that a process has ended, and no more.
"""

# What belongs here: the directory, the announcements in it, and pidfds. What must never happen here: a process that is
# disturbed: no signal, no wait() that somebody else would have to see.

from __future__ import annotations

import fcntl
import os
import select
import shutil
import tempfile
from dataclasses import dataclass
from struct import Struct
from time import monotonic, monotonic_ns
from typing import TYPE_CHECKING

from machrv.trace import ANNOUNCEMENTS

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from machrv.trace.reading import Process

_GET_INFO = 0xC040FF0B
_INFO_EXIT = 1 << 3
#: The beginning of struct pidfd_info: the mask, up to exit_code, which is what wait() gives.
_INFO = Struct("=Q52xi")


@dataclass
class Ending:
    """What is known of the end of a process. `at` is CLOCK_MONOTONIC in nanoseconds, None while it runs."""

    pid: int
    fd: int
    since: int
    at: int | None = None


class Watcher:
    """A private directory, and the processes that announce themselves in it. A context manager: it is removed then."""

    def __init__(self) -> None:
        self.directory: str = tempfile.mkdtemp(prefix="machrv-trace-")
        self.keep = False
        self._endings: dict[int, Ending] = {}
        self._waited: dict[int, tuple[int, int]] = {}
        pipe = os.path.join(self.directory, ANNOUNCEMENTS)
        os.mkfifo(pipe, 0o600)
        self._pipe = os.open(pipe, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for fd in [self._pipe, *self._endings]:
            os.close(fd)
        self._endings.clear()
        if not self.keep:
            shutil.rmtree(self.directory, ignore_errors=True)

    def wait(self, timeout: float) -> None:
        """Take in what happens, for as long as something does, or until `timeout` seconds have passed."""
        for fd, events in self._poll.poll(max(0, int(timeout * 1000))):
            if fd == self._pipe:
                self._announced()
            elif fd in self._endings:
                ending = self._endings[fd]
                ending.at = ending.at or monotonic_ns()
                if events & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
                    self._poll.unregister(fd)  # It has been waited for as well.
                else:
                    self._poll.modify(fd, 0)

    def watch(self, pid: int) -> None:
        """Watch a process from now on."""
        try:
            fd = os.pidfd_open(pid)
        except (OSError, AttributeError):
            return  # It has gone already, or this system has no pidfds.
        self._endings[fd] = Ending(pid, fd, monotonic_ns())
        self._poll.register(fd, select.POLLIN)

    def _announced(self) -> None:
        try:
            words = os.read(self._pipe, 65536).split()
        except BlockingIOError:
            return
        for word in words:
            if word.isdigit() and len(word) < 10 and not self.sees(int(word)):
                self.watch(int(word))

    def sees(self, pid: int) -> bool:
        """Whether `wait` returns when the process that has this pid now ends."""
        return any(ending.pid == pid and ending.at is None for ending in self._endings.values())

    def ended(self, pid: int, status: int) -> None:
        """Somebody has waited for the process: the exit status, or minus the signal."""
        self._waited[pid] = (monotonic_ns(), status)

    def settle(self, seconds: float = 0.2) -> None:
        """PROGRAM has ended: its children are ending too, mostly. Give them this long to be seen."""
        deadline = monotonic() + seconds
        while any(ending.at is None for ending in self._endings.values()) and monotonic() < deadline:
            self.wait(deadline - monotonic())

    def tell(self, processes: list[Process]) -> None:
        """Write into `processes` how they ended, or that they have not."""
        programs: dict[tuple[int, int], list[Process]] = {}
        for process in processes:
            version = 0 if process.token is None else process.token.pidversion
            programs.setdefault((process.pid, version), []).append(process)
        for same in programs.values():
            for process, later in zip(same, same[1:]):
                process.ended, process.executed = later.began, True
            self._tell(same[0].began, same[-1])

    def _tell(self, began: int, process: Process) -> None:
        """How a process ended that began then; `process` is the last program that it ran."""
        pid = process.pid
        mine = [ending for ending in self._endings.values() if ending.pid == pid and ending.since >= began]
        if pid in self._waited:  # It was watched before it began to record.
            mine = [ending for ending in self._endings.values() if ending.pid == pid]
        if not mine:
            return
        ending = min(mine, key=lambda ending: ending.since)
        if ending.at is None:
            process.survived = not process.said_goodbye
        else:
            told = self._status(ending.fd)
            process.ended, process.status = ending.at, process.status if told is None else told
        if pid in self._waited:
            process.ended, process.status = self._waited[pid]

    @staticmethod
    def _status(fd: int) -> int | None:
        info = bytearray(64)
        info[:8] = _INFO_EXIT.to_bytes(8, "little")
        try:
            fcntl.ioctl(fd, _GET_INFO, info)
        except OSError:
            return None
        mask, status = _INFO.unpack_from(info)
        return os.waitstatus_to_exitcode(status) if mask & _INFO_EXIT else None
