"""Which process may claim which ports: registrations keyed by the process itself, behind a lock that is checked.

A registration pins the process (on Linux by a pidfd), so a recycled pid gets nothing. It ends exactly once: popping it
from the table, under the lock, decides who ends it.
"""

# Who owns a registration's rights, from registering until they are claimed or given up. What must never happen here: a
# right given up twice or not at all, one process's rights in another's hands, or a requirement evaluated while the lock is
# held.

from __future__ import annotations

import threading
from _thread import get_ident

from machrv.errors import LockNotHeldError, ProcessGoneError, RegistrationError, RendezvousError
from machrv.log import listens, log
from machrv.rendezvous.dispatch import Dispatcher
from machrv.rendezvous.keys import keys_text
from machrv.rendezvous.port import checked_ports, destroy_ports, take_ports
from machrv.rendezvous.telling import process_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from machrv.message.audit import AuditToken
    from machrv.rendezvous.dispatch import EventSource
    from machrv.kernel import Kernel, Process
    from machrv.rendezvous.port import Ports, RendezvousPort
    from machrv.requirement import Requirement


class CheckedLock:
    """A lock that knows whether this thread holds it. Not reentrant: taking it twice is an error, not a deadlock."""

    __slots__ = ("_lock", "_owner")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As threading.Lock; RuntimeError if this thread has it already."""
        if self.held():
            raise RuntimeError("this thread holds the rendezvous lock already: do not take it twice")
        if not self._lock.acquire(blocking, timeout):
            return False
        self._owner = get_ident()
        return True

    def release(self) -> None:
        """As threading.Lock; LockNotHeldError if this thread does not have it."""
        self.check()
        self._owner = 0
        self._lock.release()

    def held(self) -> bool:
        """Whether the calling thread holds the lock."""
        return self._owner == get_ident()

    def check(self) -> None:
        """Raises LockNotHeldError unless the calling thread holds the lock."""
        if not self.held():
            raise LockNotHeldError(
                "the rendezvous lock is not held by this thread: launch the child and register its ports inside "
                "`with server.lock:`, so that the child cannot ask before its ports are there"
            )

    def __enter__(self) -> CheckedLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class Registration:
    """What one process may claim. `ports` is None until ports were registered."""

    __slots__ = ("process", "ports", "requirement", "_registry")

    def __init__(self, process: Process, registry: Registry) -> None:
        self.process: Process = process
        self._registry = registry
        self.ports: dict[int, RendezvousPort] | None = None
        self.requirement: Requirement | None = None

    def exited(self) -> None:
        """On the dispatch thread: the process is gone. (A bound method takes a quarter of the memory of a closure.)"""
        self._registry._exited(self)


class Registry:
    """The table of registrations. It owns their rights and their pinned processes."""

    def __init__(
        self, kernel: Kernel, lock: CheckedLock | None = None, event_source: EventSource | None = None
    ) -> None:
        """`lock` and `event_source`, which is released in the end, are those of an event loop, or a thread's (None)."""
        self.lock: CheckedLock = lock if lock is not None else CheckedLock()
        self._kernel = kernel
        self._dispatcher = event_source if event_source is not None else Dispatcher.shared(kernel)
        self._registrations: dict[int, Registration] = {}
        #: whose processes are still pinned
        self._claimed: list[Registration] = []
        self._closed = False

    def __len__(self) -> int:
        return len(self._registrations)

    def register_ports(self, pid: int, ports: Ports) -> None:
        """Take ownership of `ports` for the process `pid`. The lock must be held.

        Raises LockNotHeldError, ProcessGoneError, KeyFormatError, RegistrationError (this pid has ports that it has not
        claimed; too many; what is no port) or RightError. Whatever is raised, nothing was moved.
        """
        self.lock.check()
        checked = checked_ports(ports, self._kernel)
        registration = self._registration(pid)
        try:
            if registration.ports:  # As in Chromium, one without ports does not stand in the way.
                raise RegistrationError(
                    f"process {pid} has {keys_text(registration.ports)} registered, and has not claimed yet: register "
                    "everything for a process in one call"
                )
            registration.ports = take_ports(checked, self._kernel)
            if checked and listens():
                log().info("registered %s for process %s", keys_text(checked), process_text(pid))
        except BaseException:
            self._drop_if_empty(registration)
            raise

    def set_requirement(self, pid: int, requirement: Requirement) -> None:
        """What the process `pid` must be to get its ports. The lock must be held. Raises as `register_ports`."""
        self.lock.check()
        registration = self._registration(pid)
        if registration.requirement is not None:
            raise RegistrationError(
                f"process {pid} has a requirement already, and has not claimed its ports yet: set it once"
            )
        registration.requirement = requirement

    def claim(self, audit_token: AuditToken) -> Registration | None:
        """Take the registration of the process that sent a message with this token. Its rights are the caller's then.

        None if there is no registration for this very process. Takes the lock. The process stays pinned until `let_go`, or
        the next claim: who waits for an answer does not wait for that.
        """
        self.let_go()
        if not audit_token.pidversion:
            # Its sender has exited (Linux 6.12 no longer says which process that was): it has no use for ports, and who
            # has its pid now did not ask.
            return None
        with self.lock:
            registration = self._registrations.get(audit_token.pid)
            if registration is None or not registration.process.matches(audit_token):
                return None
            if not registration.process.is_running():
                # The process has had its pid until now if it still runs, so nobody else can have sent this, even where
                # the kernel tells processes apart by their start times, to the hundredth of a second (before pidfs).
                return None
            del self._registrations[audit_token.pid]
        self._claimed.append(registration)
        return registration

    def let_go(self) -> None:
        """No longer watch the processes that have claimed."""
        while self._claimed:
            self._unpin(self._claimed.pop())

    def waiting(self, pid: int) -> int:
        """How many ports are registered for the process `pid` and not claimed, as far as anybody can tell without the lock."""
        registration = self._registrations.get(pid)
        return len(registration.ports or ()) if registration is not None else 0

    def clear(self) -> None:
        """End every registration. The lock may be held by the caller, and by nobody else for long."""
        if self.lock.held():
            registrations = self._emptied()
        else:
            with self.lock:
                registrations = self._emptied()
        self.let_go()
        self._end(registrations)

    def _emptied(self) -> list[Registration]:
        registrations = list(self._registrations.values())
        self._registrations.clear()
        return registrations

    def close(self) -> None:
        """End every registration, and refuse further ones. Idempotent. The lock must not be held."""
        if self._dispatcher.closed:
            return  # In the child of a fork: all of this is the parent's, and so may be the lock's holder.
        with self.lock:
            if self._closed:
                return
            self._closed = True
        self.clear()
        self._dispatcher.release()

    def _registration(self, pid: int) -> Registration:
        """The registration of `pid`, made if there is none."""
        if self._closed:
            raise RendezvousError("this server is closed: take a new one with RendezvousServer.get_instance()")
        found = self._registrations.get(pid)
        if found is not None and found.process.is_running():
            return found
        try:
            registration = Registration(self._kernel.open_process(pid), self)
        except ProcessLookupError as error:
            raise ProcessGoneError(f"there is no process {pid}: it has exited and was waited for") from error
        if registration.process.is_beyond():
            registration.process.close()
            raise RegistrationError(
                f"process {pid} is in a pid namespace of its own, where the kernel does not say who answers it: no reply would be "
                "believed there. Start it without one (CLONE_NEWPID, unshare --pid), or have the server inside, too"
            )
        # The lock is held: an exit that is reported at once waits for it, and finds the registration in the table.
        try:
            self._dispatcher.watch_process(registration.process, registration.exited)
        except BaseException:
            registration.process.close()
            raise
        self._registrations[pid] = registration
        if found is not None:
            # Its process has exited and the pid was given to another one before the dispatch thread came to it.
            self._end([found])
        return registration

    def _drop_if_empty(self, registration: Registration) -> None:
        if registration.ports is None and registration.requirement is None:
            self._registrations.pop(registration.process.pid, None)
            self._unpin(registration)

    def _exited(self, registration: Registration) -> None:
        """On the dispatch thread: the process is gone, and nobody else can claim what it left."""
        pid = registration.process.pid
        with self.lock:
            if self._registrations.get(pid) is not registration:
                return
            del self._registrations[pid]
        self._end([registration])

    def _end(self, registrations: list[Registration]) -> None:
        for registration in registrations:
            self._unpin(registration)
            destroy_ports(registration.ports or {})

    def _unpin(self, registration: Registration) -> None:
        self._dispatcher.unwatch_process(registration.process)
        registration.process.close()
