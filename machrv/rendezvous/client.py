"""The child's end of a rendezvous: one request, one reply, and the rights until somebody takes them."""

# What must never happen here: a wait without a deadline, or a right that is handed out before the server was judged. A
# child imports this before anything else happens in it: what is imported here, every start of a process pays for.

from __future__ import annotations

import atexit
import os
from _thread import allocate_lock
from time import monotonic

from machrv.constants import (
    BOOTSTRAP_NOT_PRIVILEGED,
    BOOTSTRAP_UNKNOWN_SERVICE,
    KERN_OPERATION_TIMED_OUT,
    MACH_RCV_TIMED_OUT,
    MACH_SEND_INVALID_DEST,
    MACH_SEND_TIMED_OUT,
    Disposition,
)
from machrv.errors import (
    MachError,
    MachrvError,
    MessageFormatError,
    PeerRejectedError,
    RendezvousError,
    RendezvousPermissionError,
    RendezvousTimeout,
    ServerNotFoundError,
)
from machrv.kernel import current
from machrv.log import listens, log
from machrv.rendezvous.claimed import Claimed
from machrv.rendezvous.names import SERVER_FD_VARIABLE, SERVICE_NAME_VARIABLE, service_names
from machrv.rendezvous.protocol import REQUEST_ID, REQUEST_WITH_INFO_PLIST_ID, is_refusal, parse_reply, request
from machrv.rights.kinds import SendRight, reply_port
from machrv.rights.transfer import send_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

    from typing_extensions import Self

    from machrv.kernel import Kernel
    from machrv.message import AuditToken
    from machrv.requirement import Requirement
    from machrv.rights.incoming import ReceivedMessage
    from machrv.rights.kinds import OwnedRight

_DEFAULT_TIMEOUT = 30.0


class RendezvousClient(Claimed):
    """The client of the parent's server. `get_instance()` is the rendezvous of this process; `connect` makes others."""

    __slots__ = ()

    _asked: ClassVar[bool] = False
    _instance: ClassVar[RendezvousClient | None] = None

    @classmethod
    def get_instance(cls) -> RendezvousClient | None:
        """The rendezvous of this process with its parent: on the first call it is performed, once and for all.

        None if it failed, then and ever after; the logger "machrv" says why. No ports registered is no failure. What is
        not taken until the process ends is given up then.
        """
        with _instance_lock:
            if not RendezvousClient._asked:
                RendezvousClient._asked = True
                atexit.register(_close_instance)
                try:
                    RendezvousClient._instance = cls.connect()
                except (MachrvError, OSError) as error:
                    log().error("no rendezvous with the parent: %s", error)
            return RendezvousClient._instance

    @classmethod
    def connect(
        cls, service_name: str | None = None, timeout: float = _DEFAULT_TIMEOUT, kernel: Kernel | None = None
    ) -> Self:
        """Ask the server that is checked in under `service_name`; None is this process's parent. As often as wanted.

        A child that was launched with `nameless=True` asks, for None, the server that it inherited a right to.

        `timeout` in seconds covers everything. Raises ServerNotFoundError (nobody has the name; its owner has gone),
        RendezvousPermissionError, RendezvousTimeout, PeerRejectedError (it does not meet the requirement that was set,
        or did not answer and so could not show that it does, and the policy is ENFORCE) and RendezvousError (it answered
        with something else than a reply). Otherwise a server that refuses this process, or that has nothing for it,
        makes no failure but a client without ports.
        """
        deadline, requirement = monotonic() + timeout, _server_requirement
        if kernel is None:
            try:
                kernel = current()
            except (ImportError, OSError) as error:
                raise RendezvousError(
                    f"what a kernel is made of cannot be loaded any more ({error}): close descriptors, or call "
                    "machrv.current() before this process gives up reading files"
                ) from error
        server, what = found(service_name, kernel, timeout)
        with server:
            client = cls(*taken(ask(server, what, requirement, timeout, deadline), what, requirement))
        if not client.port_count:
            client._tell_why()
        return client

    def _tell_why(self) -> None:
        """That nothing came: a warning where that is most likely a mistake."""
        from machrv.rendezvous.telling import has_wrapper  # Late: it is for those who got nothing.

        token = self._server_audit_token
        if token is not None and has_wrapper(token.pid):
            log().warning("no rights came: %s", self._why_nothing())
        elif listens():
            log().info("no rights came: %s", self._why_nothing())

    def _why_nothing(self) -> str:
        from machrv.rendezvous.telling import why_nothing

        token = self._server_audit_token
        return super()._why_nothing() if token is None else why_nothing(token.pid)

    @staticmethod
    def set_server_process_requirement(requirement: Requirement | None) -> None:
        """What a server must be, from now on, for this process to take ports from it. None: anything will do.

        Call it before the first `get_instance()`: that rendezvous is performed once. What it leads to is decided by
        `machrv.peer_validation_policy()`.
        """
        global _server_requirement
        _server_requirement = requirement
        if RendezvousClient._asked and requirement is not None:
            log().warning(
                "%r was set after get_instance(): that rendezvous is over, and its server was not held against it",
                requirement,
            )


class DirectRendezvousClient(RendezvousClient):
    """The client of a server whose send right came by other means.

    As in Chromium, the first one is the rendezvous of this process, which `RendezvousClient.get_instance()` gives, until it is
    closed; not where that was asked for before.
    """

    __slots__ = ()

    @classmethod
    def initialize(cls, send_right: SendRight, timeout: float = _DEFAULT_TIMEOUT) -> Self:
        """Ask the server that `send_right` leads to. The right is spent.

        Raises as `RendezvousClient.connect`; if the request could not be sent, the caller still owns the right.
        """
        deadline, requirement = monotonic() + timeout, server_requirement()
        client = cls(*taken(ask(send_right, "server", requirement, timeout, deadline), "server", requirement))
        return client._known()

    def _why_nothing(self) -> str:
        return Claimed._why_nothing(self)

    def _known(self) -> Self:
        """Be what `get_instance` gives, unless there is one."""
        with _instance_lock:
            if not RendezvousClient._asked:
                RendezvousClient._asked, RendezvousClient._instance = True, self
                atexit.register(_close_instance)
        return self

    def close(self) -> None:
        """Give up every right that nobody took; `get_instance` knows this client no longer. Idempotent."""
        with _instance_lock:
            if RendezvousClient._instance is self:
                RendezvousClient._asked, RendezvousClient._instance = False, None
        super().close()


# -- step by step, for `machrv.aio` as well ----------------------------------------------------------------------------


def server_requirement() -> Requirement | None:
    """What `RendezvousClient.set_server_process_requirement` has set."""
    return _server_requirement


def found(
    service_name: str | None, kernel: Kernel, timeout: float, given: float | None = None
) -> tuple[SendRight, str]:
    """A send right to the server under `service_name`, None: to the parent's; and what a text calls it. Raises as `look_up`."""
    if service_name is None and SERVER_FD_VARIABLE in os.environ:
        from machrv.rendezvous.inherited import inherited_right  # Late: few children have inherited one.

        try:
            inherited = inherited_right(kernel)
        except MachError as error:
            raise RendezvousError(
                f"what this process has inherited in {SERVER_FD_VARIABLE} is no right: {error}"
            ) from error
        if inherited is not None:
            return inherited, "server that this process has inherited a right to"
    name, server = look_up([service_name] if service_name is not None else service_names(), kernel, timeout, given)
    return server, f"server {name!r}"


def look_up(names: list[str], kernel: Kernel, timeout: float, given: float | None = None) -> tuple[str, SendRight]:
    """A send right to the first of these services that there is; within so many seconds, should it be too busy.

    `given`: the seconds to speak of, for whoever tries again and again.
    """
    deadline = monotonic() + timeout
    failures: list[tuple[str, MachError]] = []
    for name in names:
        try:
            return name, SendRight._owning(
                kernel, lambda: kernel.bootstrap_look_up(name, max(0.0, deadline - monotonic()))
            )
        except MachError as error:
            failures.append((name, error))
    name, failure = failures[0]
    if failure.code == BOOTSTRAP_UNKNOWN_SERVICE:
        cause = ""
        if len(names) > 1:
            cause = f" ({names[1]!r}, from the environment, is not there either)"
        elif SERVICE_NAME_VARIABLE not in os.environ and names == service_names():
            cause = (
                ". This process was not launched by machrv.launch(), which would have left the name of its server in "
                f"{SERVICE_NAME_VARIABLE}"
            )
        if os.getppid() == 1 and name.endswith(".1"):
            cause += ". The parent of this process is process 1: whoever launched it has most likely exited"
        raise ServerNotFoundError(f"{failure}. It was {name!r} that was looked up{cause}") from failure
    if failure.code == BOOTSTRAP_NOT_PRIVILEGED:
        raise RendezvousPermissionError(f"{failure}. It was {name!r} that was looked up") from failure
    if failure.code == KERN_OPERATION_TIMED_OUT:
        raise RendezvousTimeout(
            f"the server {name!r} had no room for another that asks within {timeout if given is None else given:.3g} s: it hangs, or is very busy"
        )
    raise RendezvousError(f"looking {name!r} up failed: {failure}") from failure


def request_id(requirement: Requirement | None) -> int:
    """The id of a request to a server that will be held against `requirement`."""
    if requirement is None:
        return REQUEST_ID
    from machrv.rendezvous.policy import wants_info_plist  # Late: most clients have no requirement.

    return REQUEST_WITH_INFO_PLIST_ID if wants_info_plist(requirement) else REQUEST_ID


def check_reachable(server: SendRight, what: str) -> None:
    """Raises RendezvousError for a server whose answer could not be believed: asked, it would spend what is registered."""
    if server.kernel.is_beyond(server.name):
        raise RendezvousError(
            f"the {what} is outside the pid namespace of this process, in which the kernel cannot say who answers: nothing was "
            "asked, and what is registered stays so. Start this process without a pid namespace of its own (CLONE_NEWPID, "
            "unshare --pid), or have the server inside it, too"
        )


def ask(
    server: SendRight, what: str, requirement: Requirement | None, timeout: float, deadline: float
) -> ReceivedMessage:
    """Send a request to `server`, whose right is spent then, and receive what it answers."""
    kernel = server.kernel
    check_reachable(server, what)
    with reply_port(kernel) as answers:
        try:
            # Copied, and closed behind it, which is the same to the server as a move: whenever a signal handler raises, it is
            # known whose the right is.
            message = request(answers.name, request_id(requirement))
            send_message(kernel, message, server.name, Disposition.COPY_SEND, max(0.0, deadline - monotonic()))
            server.close()
        except MachError as error:
            raise explained(error, what, timeout) from error
        try:
            return answers.receive(max(0.0, deadline - monotonic()))
        except MachError as error:
            raise explained(error, what, timeout) from error


def taken(
    message: ReceivedMessage, what: str, requirement: Requirement | None
) -> tuple[dict[int, OwnedRight], AuditToken | None]:
    """The rights of a reply, owned, once the server was judged."""
    if is_refusal(message):
        if _refusal(requirement, None) is not None:
            raise PeerRejectedError(f"the {what} did not answer, so it could not show that it meets {requirement!r}")
        return {}, None
    try:
        descriptors, additional_data = parse_reply(message)
    except MessageFormatError as error:
        message.close()
        raise RendezvousError(f"what the {what} sent is no reply: {error}") from error
    sender = message.audit_token
    why = _refusal(requirement, sender, additional_data) if requirement is not None else None
    if why is not None:
        message.close()
        raise PeerRejectedError(f"the {what} is process {sender.pid}, which does not meet {requirement!r}: {why}")
    rights = {key: right for key, right in zip(descriptors, message.rights) if right is not None}
    message.rights = []
    return rights, sender


def _refusal(requirement: Requirement | None, sender: AuditToken | None, info_plist: bytes = b"") -> str | None:
    """Why nothing is taken from this server; None if its ports may be."""
    if requirement is None:
        return None
    from machrv.rendezvous.verdict import refusal  # Late: most clients have no requirement, and it is dear.

    return refusal("server", requirement, sender, info_plist)


def explained(error: MachError, what: str, timeout: float) -> RendezvousError:
    """What it means that a kernel answered so to a request, or to the wait for its reply."""
    if error.code in (MACH_SEND_TIMED_OUT, MACH_RCV_TIMED_OUT):
        return RendezvousTimeout(
            f"the {what} did not answer within {timeout:.3g} s: it hangs, or is very busy ({error.symbol})"
        )
    if error.code == MACH_SEND_INVALID_DEST:
        return ServerNotFoundError(f"the {what} went away before it could be asked: its process has most likely exited")
    return RendezvousError(f"asking the {what} failed: {error}")


_server_requirement: Requirement | None = None
_instance_lock = allocate_lock()


def _close_instance() -> None:
    if RendezvousClient._instance is not None:
        RendezvousClient._instance.close()


def _forget_instance() -> None:
    """In the child of a fork: the rights are the parent's, and this process has not asked yet."""
    global _instance_lock
    _instance_lock = allocate_lock()
    RendezvousClient._asked = False
    RendezvousClient._instance = None


os.register_at_fork(after_in_child=_forget_instance)
