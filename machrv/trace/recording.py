"""The file that one process writes: a JSON array a line, each written by one system call as it happens.

What was written is there to be read whatever becomes of the process: nothing is kept back. The descriptor is a high one,
and is looked at before every write: the program may have closed it, and opened something else under its number. Once the
directory is gone, so is the interest, and the recorder is silent.
"""

# What belongs here: the file, and the lines about the process itself. What must never happen here: an exception that
# the traced program sees, a lock (a signal handler may come in between), a byte written into somebody else's file, or
# an import that a child would feel (`json` takes longer than a whole rendezvous).

from __future__ import annotations

import atexit
import os
import sys
from fcntl import F_DUPFD_CLOEXEC, fcntl
from time import monotonic_ns

from machrv.trace import ANNOUNCEMENTS, MOST_BYTES, SUFFIX, VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.kernel import Kernel

#: Where the descriptor goes: out of the way of what programs expect to be the next free one.
_HIGH = 500
#: How much of a command line is looked at.
_LONGEST_COMMAND = 4096
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class Recorder:
    """Writes what happens in this process. None of its methods raises an `Exception`."""

    def __init__(self, directory: str, kernel: Kernel) -> None:
        self._directory = directory
        self._kernel = kernel
        self._fd = -1
        #: device and inode of the file
        self._file = (-1, -1)
        self._written = 0
        self._lost = 0
        self._off = False
        self._forked = 0
        self._began = monotonic_ns()
        atexit.register(self._at_exit)
        os.register_at_fork(after_in_child=self._after_fork)

    def write(self, record: str) -> None:
        """Append a line, or count it as lost."""
        try:
            if self._off or not self._ready():
                return
            if self._lost:
                record = f'["lost",{self._lost}]\n{record}'
            line = b"%b\n" % record.encode()
            if self._written + len(line) > MOST_BYTES:
                line = b'["full",%d]\n' % monotonic_ns()
                self._off = True
            self._written += len(line)
            if os.write(self._fd, line) == len(line):
                self._lost = 0
                return
            os.write(self._fd, b"\n")  # What is behind a line that was cut short can be read again.
        except Exception:
            pass
        self._lost += 1

    def start(self) -> None:
        """Say that this process uses ports, now rather than with the first call."""
        try:
            self._ready()
        except Exception:
            self._lost += 1

    # -- the file -----------------------------------------------------------------------------------------------------

    def _ready(self) -> bool:
        """Whether the descriptor is that of this process's file. Opens it where there is none yet, or none any more."""
        if self._fd >= 0:
            try:
                found = os.fstat(self._fd)
                if (found.st_dev, found.st_ino) == self._file:
                    if found.st_nlink:
                        return True
                    os.close(self._fd)
                    self._off = True
                    return False
            except OSError:
                pass  # The program has closed it.
            self._fd = -1
        folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            found = os.fstat(folder)
            self._off = found.st_uid != os.geteuid() or os.getuid() != os.geteuid() or found.st_mode & 0o077 != 0
            if self._off or not found.st_nlink:
                return False
            first = self._file == (-1, -1)
            self._open(folder)
            if first:
                self._written += os.write(self._fd, self._start_line())
                self._announce(folder, os.getpid())
        finally:
            os.close(folder)
        return True

    def _open(self, folder: int) -> None:
        fd = os.open(f"{os.getpid()}-{monotonic_ns()}{SUFFIX}", _FLAGS, 0o600, dir_fd=folder)
        try:
            high = fcntl(fd, F_DUPFD_CLOEXEC, _HIGH)
            os.close(fd)
            fd = high
        except OSError:
            pass  # There are not so many descriptors.
        found = os.fstat(fd)
        self._fd, self._file = fd, (found.st_dev, found.st_ino)

    def _start_line(self) -> bytes:
        try:
            token = repr(list(self._kernel.audit_token()))
        except Exception:
            token = "null"
        try:
            with open("/proc/self/cmdline", "rb") as file:
                words = os.fsdecode(file.read(_LONGEST_COMMAND)).removesuffix("\0").split("\0")
        except OSError:
            words = sys.orig_argv
        about = (
            f"{os.getpid()},{os.getppid()},{self._forked},{quoted(self._kernel.name)},{token},{quoted(title(words))}"
        )
        return f'["start",{self._began},{VERSION},{about}]\n'.encode()

    def announce(self, pid: int) -> None:
        """Tell whoever watches of a process that may never say anything of itself. It is this process's child."""
        try:
            folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return
        try:
            self._announce(folder, pid)
        finally:
            os.close(folder)

    @staticmethod
    def _announce(folder: int, pid: int) -> None:
        """Tell whoever watches that there is one process more."""
        try:
            # Opened for reading too: so the write finds a reader, and cannot end a program that does not ignore SIGPIPE.
            pipe = os.open(ANNOUNCEMENTS, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder)
        except OSError:
            return
        try:
            os.write(pipe, b"%d\n" % pid)
        except OSError:
            pass
        finally:
            os.close(pipe)

    # -- the process --------------------------------------------------------------------------------------------------

    def _at_exit(self) -> None:
        if self._fd >= 0:
            self.write(f'["end",{monotonic_ns()}]')

    def _after_fork(self) -> None:
        """In the child of a fork: what it does goes into a file of its own, once it does anything."""
        try:
            found = os.fstat(self._fd)
            if (found.st_dev, found.st_ino) == self._file:
                os.close(self._fd)
        except OSError:
            pass
        self._fd, self._file, self._written, self._lost = -1, (-1, -1), 0, 0
        self._forked, self._began = 1, monotonic_ns()


def title(words: list[str]) -> str:
    """What a command line runs: the program, without its interpreter, and the word that follows if it is a plain one.

    No more than that: what programs are given as arguments, and the text behind `-c`, may be secret.
    """
    name, rest = words[0].rpartition("/")[2] if words else "", words[1:]
    if name.startswith("python"):
        while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c"):
            rest = rest[1:]
        if rest[:1] == ["-c"] or not rest:
            return f"{name} -c" if rest else name
        rest = rest[1:] if rest[0] == "-m" else rest
        name, rest = rest[0].rpartition("/")[2].rpartition("machrv.cli.")[2] if rest else name, rest[1:]
    return f"{name} {rest[0]}"[:40] if rest and rest[0].isidentifier() and len(rest[0]) < 16 else name[:40]


def quoted(text: str) -> str:
    """A string in JSON, of ASCII characters alone."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    units = text.encode("utf-16-be", "surrogatepass")
    return '"' + "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2)) + '"'
