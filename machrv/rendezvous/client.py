"""The child's end: one request, one reply, and the rights until somebody takes them.

What belongs here: looking the server up, asking, and owning what came. What must never happen here: a wait without a
deadline, or a right that is handed out before the server was judged.

A child imports this before anything else happens in it: imports here are what every start of a process pays for.
"""

from __future__ import annotations

import atexit
import os
from _thread import allocate_lock
from time import monotonic

from machrv.errors import (
    MachError,
    MachrvError,
    MessageFormatError,
    PeerRejectedError,
    RendezvousError,
    RendezvousTimeout,
    ServerNotFoundError,
)
from machrv.kernel import current
from machrv.message import (
    BOOTSTRAP_NOT_PRIVILEGED,
    BOOTSTRAP_UNKNOWN_SERVICE,
    KERN_OPERATION_TIMED_OUT,
    MACH_RCV_TIMED_OUT,
    MACH_SEND_INVALID_DEST,
    MACH_SEND_TIMED_OUT,
    Disposition,
)
from machrv.ownership import Closing
from machrv.received import destroy_message, take_right
from machrv.rendezvous.names import service_names
from machrv.rendezvous.policy import refusal, wants_info_plist
from machrv.rendezvous.port import uint32_key
from machrv.rendezvous.protocol import (
    REQUEST_ID,
    REQUEST_WITH_INFO_PLIST_ID,
    is_refusal,
    parse_reply,
    read_reply,
    request,
)
from machrv.rights import ReceiveRight, SendOnceRight, SendRight
from machrv.transfer import RECEIVE_OPTIONS, received_message, send_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import ClassVar

    from typing_extensions import Self

    from machrv.audit import AuditToken
    from machrv.kernel import Kernel
    from machrv.message import Message
    from machrv.received import OwnedRight
    from machrv.rendezvous.port import Key
    from machrv.requirement import Requirement

_DEFAULT_TIMEOUT = 30.0


class RendezvousPermissionError(RendezvousError, PermissionError):
    """The system does not let this process look the server up; the message says what may be the reason."""


class _Ports(Closing):
    """What came of one rendezvous. The rights belong to this object until they are taken.

    Close it, or use it in a `with`, to give up what nobody took. Safe to use from any thread.
    """

    __slots__ = ("_ports", "_lock", "_server_audit_token", "__weakref__")

    def __init__(self, ports: dict[int, OwnedRight], server_audit_token: AuditToken | None) -> None:
        self._ports = ports
        self._lock = allocate_lock()
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
        return self._take(key, (SendRight, SendOnceRight))  # type: ignore[return-value]  # `_take` looks

    def take_receive_right(self, key: Key) -> ReceiveRight | None:
        """The receive right under `key`, the caller's from now on.

        None if there is none, it was taken before, or what is there is a send right, which stays to be taken.
        """
        return self._take(key, (ReceiveRight,))  # type: ignore[return-value]  # `_take` looks

    def _take(self, key: Key, kinds: tuple[type, ...]) -> OwnedRight | None:
        number = uint32_key(key)
        with self._lock:
            return self._ports.pop(number) if isinstance(self._ports.get(number), kinds) else None

    def close(self) -> None:
        """Give up every right that nobody took. Idempotent."""
        with self._lock:
            ports, self._ports = self._ports, {}
        for right in ports.values():
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
                except MachrvError as error:
                    import logging

                    logging.getLogger("machrv").error("no rendezvous with the parent: %s", error)
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
        kernel = kernel if kernel is not None else current()
        names = [service_name] if service_name is not None else service_names()
        requirement = _server_requirement
        request_id = REQUEST_ID if requirement is None else _request_id(requirement)
        try:
            answer = kernel.ask(names[0], request_id, timeout)
        except MachError as error:
            raise _explained(error, f"server {names[0]!r}") from error
        if answer is not None:
            return cls(*_answered(answer, f"server {names[0]!r}", requirement, kernel))
        deadline = monotonic() + timeout
        name, server = _look_up(names, kernel, timeout)
        with server:
            return cls(*_ask(server, f"server {name!r}", deadline))

    @staticmethod
    def set_server_process_requirement(requirement: Requirement | None) -> None:
        """What a server must be, from now on, for this process to take ports from it. None: anything will do.

        Call it before the first `get_instance()`: that rendezvous is performed once. What it leads to is decided by
        `machrv.peer_validation_policy()`.
        """
        global _server_requirement
        _server_requirement = requirement
        if RendezvousClient._asked and requirement is not None:
            import logging

            logging.getLogger("machrv").warning(
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
        return cls(*_ask(send_right, "server", monotonic() + timeout))


def _look_up(names: list[str], kernel: Kernel, timeout: float) -> tuple[str, SendRight]:
    """A send right to the first of these services that there is; `timeout` for each, should it be too busy."""
    failures: list[tuple[str, MachError]] = []
    for name in names:
        try:
            return name, SendRight(kernel.bootstrap_look_up(name, timeout), kernel)
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


def _ask(server: SendRight, what: str, deadline: float) -> tuple[dict[int, OwnedRight], AuditToken | None]:
    """Send a request to `server`, whose right is moved, and take what the reply brings: the ports, and who sent them."""
    kernel = server.kernel
    requirement = _server_requirement
    with ReceiveRight(kernel.mach_reply_port(), kernel) as reply_port:
        name = server.release()
        try:
            message = request(reply_port.name, _request_id(requirement))
            send_message(kernel, message, name, Disposition.MOVE_SEND, max(0.0, deadline - monotonic()))
        except BaseException as error:
            server.restore(name)
            if isinstance(error, MachError):
                raise _explained(error, what) from error
            raise
        try:
            timeout = max(0.0, deadline - monotonic())
            answer = kernel.mach_msg(None, RECEIVE_OPTIONS, None, reply_port.name, timeout) or b""
        except MachError as error:
            raise _explained(error, what) from error
    return _answered(answer, what, requirement, kernel)


def _owned(ports: Mapping[int, tuple[int, int]], kernel: Kernel) -> dict[int, OwnedRight]:
    """The rights under these (name, disposition), but for those whose ports have died on the way."""
    rights: dict[int, OwnedRight] = {}
    for key, (name, disposition) in ports.items():
        right = take_right(name, disposition, kernel)
        if right is not None:
            rights[key] = right
    return rights


def _request_id(requirement: Requirement | None) -> int:
    return REQUEST_WITH_INFO_PLIST_ID if wants_info_plist(requirement) else REQUEST_ID


def _answered(
    answer: bytes, what: str, requirement: Requirement | None, kernel: Kernel
) -> tuple[dict[int, OwnedRight], AuditToken | None]:
    """`_taken` of a message as `Kernel.mach_msg` received it."""
    if requirement is None and (usual := read_reply(answer)) is not None:
        ports, token = usual
        return _owned(ports, kernel), token
    return _taken(received_message(kernel, answer), what, requirement, kernel)


def _taken(
    message: Message, what: str, requirement: Requirement | None, kernel: Kernel
) -> tuple[dict[int, OwnedRight], AuditToken | None]:
    """The rights of a reply, owned, once the server was judged."""
    if is_refusal(message):
        if refusal("server", requirement, None) is not None:
            raise PeerRejectedError(f"the {what} did not answer, so it could not show that it meets {requirement!r}")
        return {}, None
    try:
        descriptors, additional_data = parse_reply(message)
    except MessageFormatError as error:
        destroy_message(message, kernel)
        raise RendezvousError(f"what the {what} sent is no reply: {error}") from error
    sender = message.audit_token
    why = refusal("server", requirement, sender, additional_data)
    if why is not None:
        destroy_message(message, kernel)
        raise PeerRejectedError(
            f"the {what} is process {sender and sender.pid}, which does not meet {requirement!r}: {why}"
        )
    return _owned({key: (found.name, found.disposition) for key, found in descriptors.items()}, kernel), sender


def _explained(error: MachError, what: str) -> RendezvousError:
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
