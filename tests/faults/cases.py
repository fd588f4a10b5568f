"""Which system calls are broken, and how each can break.

What belongs here: what Linux can answer to each call. What must never happen here: a call left out because the answer to
it is inconvenient; the two that are left out are named, with the reason.
"""

from __future__ import annotations

from typing import NamedTuple

TABLE = ("EMFILE", "ENFILE", "ENOMEM")
NETWORK = ("ENOBUFS", "ENOMEM")

#: what can go wrong with each call that a claim makes, besides being killed before it
ERRORS: dict[str, tuple[str, ...]] = {
    "accept4": (*TABLE, "ENOBUFS", "EINTR", "EAGAIN", "ECONNABORTED"),
    "bind": (*NETWORK, "EADDRINUSE"),
    "connect": ("ECONNREFUSED", "EAGAIN", "EINTR", "EACCES", "ENOMEM"),
    "dup": ("EMFILE",),
    "epoll_create1": TABLE,
    "epoll_ctl": ("ENOMEM", "ENOSPC"),
    "epoll_wait": ("EINTR",),
    "eventfd2": TABLE,
    "fcntl": ("EMFILE",),
    "fstatfs": ("ENOSYS", "EINTR"),
    "getrandom": ("EINTR",),
    "ioctl": ("ENOMEM", "ENOTTY"),
    "lseek": ("ESPIPE",),
    "memfd_create": TABLE,
    "mmap": ("ENOMEM",),
    "newfstatat": ("ENOMEM", "EACCES"),
    "openat": (*TABLE, "EINTR"),
    "pidfd_open": (*TABLE, "ESRCH"),
    "poll": ("EINTR", "ENOMEM"),
    "ppoll": ("EINTR", "ENOMEM"),
    "read": ("EINTR", "EIO"),
    "readlink": ("ENOMEM", "EACCES"),
    "recvmsg": ("EAGAIN", "EINTR", *NETWORK),
    "sendmsg": ("EAGAIN", "EINTR", "EMFILE", "ETOOMANYREFS", "EPIPE", "ECONNRESET", *NETWORK),
    "setsockopt": NETWORK,
    "socket": (*TABLE, "ENOBUFS"),
    "shutdown": ("ENOBUFS",),
    "socketpair": (*TABLE, "ENOBUFS"),
}

#: these never fail, or only in a way that no process could go on from
CANNOT_FAIL = {
    "brk",
    "clock_gettime",
    "exit_group",
    "fstat",
    "futex",
    "getegid",
    "geteuid",
    "getpeername",  # Of a Unix socket, that is: Linux allocates nothing to answer it (net/unix/af_unix.c, 6.18).
    "getsockname",
    "getsockopt",
    "getgid",
    "getpid",
    "getppid",
    "gettid",
    "getuid",
    "madvise",
    "munmap",
    "restart_syscall",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_yield",
    "write",  # to an eventfd, whose counter has room for 2**64 - 2 kicks
    # strace keeps a call that it makes fail from being made: a descriptor that close() says it could not close would
    # stay open, which Linux never does.
    "close",
}


#: what does not pass by itself: descriptors and memory that are gone stay gone, and so does the other end
LASTING = {
    "EMFILE",
    "ENFILE",
    "ENOMEM",
    "ENOBUFS",
    "ENOSPC",
    "ETOOMANYREFS",
    "EACCES",
    "ECONNREFUSED",
    "EPIPE",
    "ECONNRESET",
}


class Case(NamedTuple):
    """One fault: `where` is a key of WHERE in __main__; `fault` an errno, or "SIGKILL" before the call; `lasting`: every
    call of that name fails from then on, until the claim is over."""

    where: str
    call: str
    nth: int
    fault: str
    lasting: bool = False

    @property
    def inject(self) -> str:
        """The fault as strace writes it."""
        what = "signal=SIGKILL" if self.fault == "SIGKILL" else f"error={self.fault}"
        return f"{self.call}:{what}:when={self.nth}{'+' if self.lasting else ''}"

    @property
    def label(self) -> str:
        """The fault as the table has it."""
        return f"{self.fault}, lasting" if self.lasting else self.fault

    def __str__(self) -> str:
        return f"{self.where}: {self.call} #{self.nth} {self.label}"


def faults_of(call: str, line: str = "") -> tuple[str, ...]:
    """What can happen at a call, worst last. A call that nobody has thought of yet fails for want of memory."""
    if call in CANNOT_FAIL or "AT_EMPTY_PATH" in line or "EPOLL_CTL_DEL" in line:  # fstat by its other name
        return ("SIGKILL",)
    return (*ERRORS.get(call, ("ENOMEM",)), "SIGKILL")
