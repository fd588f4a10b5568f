"""Linux: the process that an audit token names, held still while it is looked at.

A pid is a number that the next process may get. So: open a pidfd by the number; it must be the token's process
(pidversion). Open its directory in /proc and see by the pidfd that the process still runs: then the directory is its
own, and a descriptor of a process directory never comes to mean another process. Read through that descriptor only. In
the end, see again that the process runs, and that it runs the same program.
"""

# What belongs here: reading /proc about one process and nobody else. What must never happen here: an answer about a
# process that is not the token's.

from __future__ import annotations

import os
from errno import EOPNOTSUPP
from fcntl import F_DUPFD_CLOEXEC, fcntl, ioctl
from struct import Struct

from machrv.rights.closing import Closing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.message.audit import AuditToken

#: include/uapi/linux/pidfd.h, Linux 6.13: struct pidfd_info begins with the mask and the cgroup's id.
_GET_INFO = 0xC040FF0B
_INFO_CGROUPID = 1 << 2
_INFO = Struct("=QQ48x")


class PinnedProcess(Closing):
    """A process to look at. Use it in a `with`.

    All methods raise OSError where the system does not let this process look, ProcessLookupError among them once the
    process is gone.
    """

    __slots__ = ("number", "_process", "_directory", "_image", "_status")

    def __init__(self, token: AuditToken) -> None:
        """Raises ProcessLookupError if the process that the token names is gone."""
        self._directory = self._image = -1
        self._status: dict[str, list[str]] | None = None
        from machrv.kernel.linux.waiting import LinuxProcess  # Not above: this module is imported on any platform.

        self._process = LinuxProcess(token.pid)
        try:
            if not self._process.matches(token):
                raise ProcessLookupError(f"process {token.pid} is not the one that sent the message: that one is gone")
            #: its pid in the pid namespace that /proc shows, which need not be this process's
            self.number: int = _number_in_proc(self._process.fileno())
            self._directory = os.open(f"/proc/{self.number}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self._check_running()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of it. Idempotent."""
        for fd in (self._image, self._directory):
            if fd >= 0:
                os.close(fd)
        self._image = self._directory = -1
        self._process.close()

    def image(self) -> int:
        """A descriptor (O_PATH, stays this object's) of the file that the process runs: its program, not its script."""
        if self._image < 0:
            self._image = os.open("exe", os.O_PATH | os.O_CLOEXEC, dir_fd=self._directory)
        return self._image

    def status(self, field: str) -> list[str]:
        """The words of a field of /proc/PID/status."""
        if self._status is None:
            lines = (line.partition(":") for line in self._read("status").splitlines())
            self._status = {name: words.split() for name, _, words in lines}
        return self._status[field]

    def security_label(self) -> str:
        """The label that the security module in force has for the process."""
        return self._read("attr/current").partition("\0")[0].rstrip("\n")

    def exe(self) -> str:
        """The path of the file that it runs, for a person to read: in a mount namespace of its own it is any path it likes."""
        return os.readlink("exe", dir_fd=self._directory)

    def cgroup_id(self) -> int:
        """The id of its cgroup, in cgroup2. Raises OSError (EOPNOTSUPP) before Linux 6.13."""
        return cgroup_id(self._process.fileno())

    def cgroup(self) -> str:
        """The path of its cgroup in cgroup2, as this process sees it."""
        for line in self._read("cgroup").splitlines():
            number, _, path = line.partition("::")
            if number == "0":
                return path
        raise OSError(EOPNOTSUPP, "this system has no cgroup2")

    def pidfd(self) -> int:
        """A new pidfd, close-on-exec and the caller's to close."""
        return fcntl(self._process.fileno(), F_DUPFD_CLOEXEC, 3)

    def is_running(self) -> bool:
        """Whether it still runs."""
        return self._process.is_running()

    def confirm(self) -> None:
        """See that all that was read is true of one process that still runs, and of one program."""
        if self._image >= 0:
            now = os.stat("exe", dir_fd=self._directory)
            if not os.path.samestat(now, os.fstat(self._image)):
                raise ProcessLookupError(f"process {self._process.pid} started another program while it was looked at")
        self._check_running()

    def _check_running(self) -> None:
        if not self._process.is_running():
            raise ProcessLookupError(f"process {self._process.pid} has exited")

    def _read(self, name: str) -> str:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
        with open(fd, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()


def cgroup_id(pidfd: int) -> int:
    """The id of the cgroup of a process that runs. Raises OSError (EOPNOTSUPP) where the kernel does not tell."""
    info = bytearray(_INFO.size)
    info[:8] = _INFO_CGROUPID.to_bytes(8, "little")
    try:
        ioctl(pidfd, _GET_INFO, info)
    except OSError as error:
        if isinstance(error, ProcessLookupError):
            raise
        raise OSError(
            EOPNOTSUPP, "the kernel does not tell a process's cgroup by its pidfd (Linux 6.13 does)"
        ) from error
    mask, number = _INFO.unpack(info)
    if not mask & _INFO_CGROUPID:
        raise OSError(EOPNOTSUPP, "the kernel does not tell the process's cgroup")
    return int(number)


def own_number() -> int:
    """This process's pid in the pid namespace that /proc shows."""
    return int(os.readlink("/proc/self"))


def parent_number() -> int:
    """The pid of this process's parent there, 0 if it is in another pid namespace."""
    with open("/proc/self/stat", encoding="utf-8", errors="surrogateescape") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def _number_in_proc(pidfd: int) -> int:
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        for line in file:
            name, _, number = line.partition(":")
            if name == "Pid" and int(number) > 0:
                return int(number)
    raise ProcessLookupError("the process has exited, or /proc does not show it")
