"""Who sent a message, and which process is which: audit tokens from what the kernel attests.

What belongs here: turning SCM_CREDENTIALS and SCM_PIDFD into audit tokens, and pinning processes. What must never
happen here: identity from anything that a peer wrote. The one exception is named: `asid` is the number of the sender's
port space within its process, the process's own word about itself, 0 for its first.

Words: auid is unset on Linux (0xFFFFFFFF); euid and egid are the process's when the message was received where the
kernel tells (PIDFD_GET_INFO, 6.13), else its real ones; pidversion is the inode of its pidfd, which is never given out
again (pidfs, 6.9), else its start time in clock ticks since boot, else 0: the sender has exited, and the kernel does
not tell any more which process that was. A token with 0 is of no process in particular.
"""

from __future__ import annotations

import os
from select import POLLIN, poll
from struct import Struct

from machrv._mach import lib

from machrv.audit import AuditToken
from machrv.kernel.interface import Process
from machrv.kernel.linux.answers import check, close

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Self

TOKEN = Struct("=8I")
_UNSET = 0xFFFFFFFF


class Identity:
    """This process, as messages tell it."""

    __slots__ = ("pid", "process", "space", "token", "native", "_of")

    def __init__(self, space: int, native: Any) -> None:
        self.pid: int = os.getpid()
        self.space: int = space
        pidfd = lib.machrv_pidfd_open(self.pid)
        try:
            self.process: int = lib.machrv_process(self.pid, pidfd)
        finally:
            if pidfd >= 0:
                close(pidfd)
        #: the same for machrv_receive_plain (machrv_identity *): filled in by the first message that tells
        self.native: Any = native
        #: the token of a message from this process, and the ids that it was made from
        self.token: bytes = b""
        self._of: tuple[int, ...] | None = None

    def own(self, space: int, uid: int, gid: int) -> bytes:
        """The token of a message from this process's space number `space`; uid and gid as the kernel attests them."""
        effective = (os.geteuid(), os.getegid())
        of = (space, uid, gid, *effective)
        if self._of != of:
            self.token = TOKEN.pack(_UNSET, *effective, uid, gid, self.pid, space, self.process & 0xFFFFFFFF)
            self._of = of
            self.native.token[0:8] = TOKEN.unpack(self.token)
            self.native.pid, self.native.uid, self.native.gid = self.pid, uid, gid
        return self.token

    def self_token(self) -> AuditToken:
        """The token that this space's messages bear."""
        return AuditToken(*TOKEN.unpack(self.own(self.space, os.getuid(), os.getgid())))


class LinuxProcess(Process):
    """A process pinned by a pidfd."""

    def __init__(self, pid: int) -> None:
        self._fd: int = -1
        fd = lib.machrv_pidfd_open(pid)
        if fd < 0:
            import errno

            if fd in (-errno.ESRCH, -errno.EINVAL, -errno.ENOENT):
                raise ProcessLookupError(errno.ESRCH, f"there is no process {pid}")
            check(fd)
        self.pid = pid
        self._fd = fd
        self.pidversion: int = lib.machrv_process(pid, fd) & 0xFFFFFFFF

    def fileno(self) -> int:
        """The pidfd: readable once the process has exited."""
        return self._fd

    def matches(self, token: AuditToken) -> bool:
        """Same number, and the same process behind it; never where the kernel could not tell which (pidversion 0).

        Zeros on both sides are no match: before Linux 6.9 a process that has exited has 0 here as well, and before 6.17 a
        sender that was waited for has it in its tokens (kernel/fork.c, pidfd_prepare), whoever it was.
        """
        return token.pid == self.pid and token.pidversion == self.pidversion != 0

    def is_running(self) -> bool:
        """False once the process has exited, reaped or not."""
        if self._fd < 0:
            return False
        watch = poll()
        watch.register(self._fd, POLLIN)
        return not watch.poll(0)

    def close(self) -> None:
        """Close the pidfd."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
