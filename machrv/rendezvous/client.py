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
    MACH_PORT_RIGHT_RECEIVE,
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
from machrv.log import log
from machrv.rendezvous.keys import uint32_key
from machrv.rendezvous.names import service_names
from machrv.rendezvous.policy import refusal, wants_info_plist
from machrv.rendezvous.protocol import REQUEST_ID, REQUEST_WITH_INFO_PLIST_ID, is_refusal, parse_reply, request
from machrv.rights.closing import Closing
from machrv.rights.kinds import SendRight, reply_port
from machrv.rights.transfer import send_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

    from typing_extensions import Self

    from machrv.channel import Channel
    from machrv.kernel import Kernel
    from machrv.message import AuditToken
    from machrv.rendezvous.keys import Key
    from machrv.requirement import Requirement
    from machrv.rights.incoming import ReceivedMessage
    from machrv.rights.kinds import OwnedRight, ReceiveRight, SendOnceRight

_DEFAULT_TIMEOUT = 30.0


class _Ports(Closing):
    """What came of one rendezvous. The rights belong to this object until they are taken.

    Close it, or use it in a `with`, to give up what nobody took. Safe to use from any thread.
    """

    __slots__ = ("_ports", "_server_audit_token", "__weakref__")

    def __init__(self, ports: dict[int, OwnedRight], server_audit_token: AuditToken | None) -> None:
        """`ports` is this object's from here on."""
        #: taking a right out of the dict is atomic: whoever gets it has it
        self._ports = ports
        self._server_audit_token = server_audit_token

    @property
    def server_audit_token(self) -> AuditToken | None:
        """Who answered, in the kernel's words; None if nobody did: the server refused this process, or went away."""
        return self._server_audit_token

    @property
    def port_count(self) -> int:
        """How many rights came, less those that were taken."""
        return len(self._ports)

    def take_send_right(self, key: Key) -> SendRight | SendOnceRight | None:
        """The send right under `key`, the caller's from now on; a SendOnceRight if that is what was sent.

        None if there is none, it was taken before, or what is there is a receive right, which stays to be taken.
        """
        return self._take(key, False)  # type: ignore[return-value]  # `_take` looks

    def take_receive_right(self, key: Key) -> ReceiveRight | None:
        """The receive right under `key`, the caller's from now on.

        None if there is none, it was taken before, or what is there is a send right, which stays to be taken.
        """
        return self._take(key, True)  # type: ignore[return-value]  # `_take` looks

    def take_channel(self, key: Key) -> Channel | None:
        """The end of a channel under `key`, the caller's from now on; as `take_receive_right`, which is what it came as."""
        from machrv.channel import Channel  # Late: a child that takes none does not pay for it.

        right = self.take_receive_right(key)
        return None if right is None else Channel(right)

    def _take(self, key: Key, receive: bool) -> OwnedRight | None:
        number = uint32_key(key)
        found = self._ports.get(number)
        if found is None or (found.right == MACH_PORT_RIGHT_RECEIVE) is not receive:
            return None
        return self._ports.pop(number, None)

    def close(self) -> None:
        """Give up every right that nobody took. Idempotent."""
        ports = self._ports
        while ports:
            try:
                _, right = ports.popitem()
            except KeyError:
                return  # Another thread has taken the last one.
            right.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} with {len(self._ports)} ports>"


class RendezvousClient(_Ports):
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

        `timeout` in seconds covers everything. Raises ServerNotFoundError (nobody has the name; its owner has gone),
        RendezvousPermissionError, RendezvousTimeout, PeerRejectedError (it does not meet the requirement that was set,
        or did not answer and so could not show that it does, and the policy is ENFORCE) and RendezvousError (it answered
        with something else than a reply). Otherwise a server that refuses this process, or that has nothing for it,
        makes no failure but a client without ports.
        """
        deadline, requirement = monotonic() + timeout, server_requirement()
        if kernel is None:
            try:
                kernel = current()
            except (ImportError, OSError) as error:
                raise RendezvousError(
                    f"what a kernel is made of cannot be loaded any more ({error}): close descriptors, or call "
                    "machrv.current() before this process gives up reading files"
                ) from error
        name, server = look_up([service_name] if service_name is not None else service_names(), kernel, timeout)
        what = f"server {name!r}"
        with server:
            return cls(*taken(ask(server, what, requirement, deadline), what, requirement))

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


class DirectRendezvousClient(_Ports):
    """The client of a server whose send right came by other means."""

    __slots__ = ()

    @classmethod
    def initialize(cls, send_right: SendRight, timeout: float = _DEFAULT_TIMEOUT) -> Self:
        """Ask the server that `send_right` leads to. The right is spent.

        Raises as `RendezvousClient.connect`; if the request could not be sent, the caller still owns the right.
        """
        deadline, requirement = monotonic() + timeout, server_requirement()
        return cls(*taken(ask(send_right, "server", requirement, deadline), "server", requirement))


# -- step by step, for `machrv.aio` as well ----------------------------------------------------------------------------


def server_requirement() -> Requirement | None:
    """What `RendezvousClient.set_server_process_requirement` has set."""
    return _server_requirement


def look_up(names: list[str], kernel: Kernel, timeout: float) -> tuple[str, SendRight]:
    """A send right to the first of these services that there is; within so many seconds, should it be too busy."""
    deadline = monotonic() + timeout
    failures: list[tuple[str, MachError]] = []
    for name in names:
        try:
            return name, SendRight(kernel.bootstrap_look_up(name, max(0.0, deadline - monotonic())), kernel)
        except MachError as error:
            failures.append((name, error))
    name, failure = failures[0]
    if failure.code == BOOTSTRAP_UNKNOWN_SERVICE:
        cause = ""
        if len(names) > 1:
            cause = f" ({names[1]!r}, from the environment, is not there either)"
        if os.getppid() == 1 and name.endswith(".1"):
            cause += ". The parent of this process is process 1: whoever launched it has most likely exited"
        raise ServerNotFoundError(f"{failure}. It was {name!r} that was looked up{cause}") from failure
    if failure.code == BOOTSTRAP_NOT_PRIVILEGED:
        raise RendezvousPermissionError(f"{failure}. It was {name!r} that was looked up") from failure
    if failure.code == KERN_OPERATION_TIMED_OUT:
        raise RendezvousTimeout(f"the server {name!r} has no room for another that asks: it hangs, or is very busy")
    raise RendezvousError(f"looking {name!r} up failed: {failure}") from failure


def request_id(requirement: Requirement | None) -> int:
    """The id of a request to a server that will be held against `requirement`."""
    return REQUEST_WITH_INFO_PLIST_ID if wants_info_plist(requirement) else REQUEST_ID


def ask(server: SendRight, what: str, requirement: Requirement | None, deadline: float) -> ReceivedMessage:
    """Send a request to `server`, whose right is moved, and receive what it answers."""
    kernel = server.kernel
    with reply_port(kernel) as answers:
        name = server.release()
        try:
            message = request(answers.name, request_id(requirement))
            send_message(kernel, message, name, Disposition.MOVE_SEND, max(0.0, deadline - monotonic()))
        except BaseException as error:
            server.restore(name)
            if isinstance(error, MachError):
                raise explained(error, what) from error
            raise
        try:
            return answers.receive(max(0.0, deadline - monotonic()))
        except MachError as error:
            raise explained(error, what) from error


def taken(
    message: ReceivedMessage, what: str, requirement: Requirement | None
) -> tuple[dict[int, OwnedRight], AuditToken | None]:
    """The rights of a reply, owned, once the server was judged."""
    if is_refusal(message):
        if refusal("server", requirement, None) is not None:
            raise PeerRejectedError(f"the {what} did not answer, so it could not show that it meets {requirement!r}")
        return {}, None
    try:
        descriptors, additional_data = parse_reply(message)
    except MessageFormatError as error:
        message.close()
        raise RendezvousError(f"what the {what} sent is no reply: {error}") from error
    sender = message.audit_token
    why = refusal("server", requirement, sender, additional_data)
    if why is not None:
        message.close()
        raise PeerRejectedError(f"the {what} is process {sender.pid}, which does not meet {requirement!r}: {why}")
    rights = {key: right for key, right in zip(descriptors, message.rights) if right is not None}
    message.rights = []
    return rights, sender


def explained(error: MachError, what: str) -> RendezvousError:
    """What it means that a kernel answered so to a request, or to the wait for its reply."""
    if error.code in (MACH_SEND_TIMED_OUT, MACH_RCV_TIMED_OUT):
        return RendezvousTimeout(f"the {what} did not answer in time: it hangs, or is very busy ({error.symbol})")
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
