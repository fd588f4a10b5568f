"""From an audit token to what the kernel knows about that very process."""

# What must never happen here: an answer about another process that has the same pid by now.

from __future__ import annotations

import sys

from machrv.errors import SenderGoneError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from machrv.rights.pinned import PinnedProcess
    from machrv.message import AuditToken

    T = TypeVar("T")


class Sender:
    """The process that an audit token names, as the kernel knows it now: `message.sender`, or `Sender(audit_token)`.

    Each property looks anew, at that very process and at no other that has its number by now. Raises SenderGoneError, which
    is a LookupError, once it is gone, and where nobody knows which process it was (a pidversion of 0); PermissionError for
    what this process may not see of another user's; UnsupportedError on macOS.

    What a program is called and where it lies is for a log: to decide about rights, use a ProcessRequirement.
    """

    __slots__ = ("audit_token",)

    #: Who is looked at, in the kernel's words.
    audit_token: AuditToken

    def __init__(self, audit_token: AuditToken) -> None:
        """A token that is not from a received message's trailer proves nothing."""
        self.audit_token = audit_token

    @property
    def pid(self) -> int:
        """Its process id. This one is known for ever."""
        return self.audit_token.pid

    @property
    def exe(self) -> str:
        """The path of the file that it runs; of a script, its interpreter's. " (deleted)" follows if it is gone."""
        return self._found(lambda process: process.exe())

    @property
    def cgroup(self) -> str:
        """Its control group in cgroup2: "/system.slice/web.service"."""
        return self._found(lambda process: process.cgroup())

    @property
    def cgroup_id(self) -> int:
        """The id of its control group, which no other ever has (Linux 6.13; OSError before)."""
        return self._found(lambda process: process.cgroup_id())

    @property
    def label(self) -> str:
        """Its label by the security module in force: an SELinux context, an AppArmor profile. OSError where there is none."""
        return self._found(lambda process: process.security_label())

    @property
    def pidfd(self) -> int:
        """A new pidfd of it, close-on-exec, the caller's to close: for `signal.pidfd_send_signal`, `select`, `waitid`."""
        return self._found(lambda process: process.pidfd())

    def _found(self, look: Callable[[PinnedProcess], T]) -> T:
        if not sys.platform.startswith("linux"):
            raise UnsupportedError("what is known of a process by its audit token is asked of Linux alone, so far")
        from machrv.rights.pinned import PinnedProcess  # Of one platform; and few ask.

        token = self.audit_token
        if token.is_kernel:
            raise SenderGoneError("the kernel sent this message itself: there is no process to look at")
        try:
            process = PinnedProcess(token)
        except ProcessLookupError as error:
            raise SenderGoneError(f"process {token.pid} is gone: {error}") from error
        with process:
            try:
                return look(process)
            except OSError as error:
                if process.is_running() and not isinstance(error, ProcessLookupError):
                    raise
                raise SenderGoneError(f"process {token.pid} is gone") from error

    def __repr__(self) -> str:
        return f"<Sender {self.audit_token!r}>"
