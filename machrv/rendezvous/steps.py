"""A rendezvous step by step, for the cases that the short way does not cover; and what its failures are called.

What belongs here: looking the server up, asking it, judging what it answers. What must never happen here: a wait without
a deadline, or a right that is handed out before the server was judged. Most children never import this.
"""

from __future__ import annotations

import os
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
    MessageFormatError,
    PeerRejectedError,
    RendezvousError,
    RendezvousTimeout,
    ServerNotFoundError,
)
from machrv.received import destroy_message
from machrv.rendezvous import give_up, not_loaded
from machrv.rendezvous.policy import refusal, wants_info_plist
from machrv.rendezvous.protocol import (
    REQUEST_ID,
    REQUEST_WITH_INFO_PLIST_ID,
    is_refusal,
    parse_reply,
    read_reply,
    request,
)
from machrv.rights import ReceiveRight, SendRight, take_right
from machrv.transfer import RECEIVE_OPTIONS, received_message, send_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from machrv.audit import AuditToken
    from machrv.kernel import Kernel
    from machrv.message import Message
    from machrv.requirement import Requirement
    from machrv.rights import OwnedRight


class RendezvousPermissionError(RendezvousError, PermissionError):
    """The system does not let this process look the server up; the message says what may be the reason."""


def look_up(names: list[str], kernel: Kernel, timeout: float) -> tuple[str, SendRight]:
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


def request_id(requirement: Requirement | None) -> int:
    """The id of a request to a server that will be held against `requirement`."""
    return REQUEST_WITH_INFO_PLIST_ID if wants_info_plist(requirement) else REQUEST_ID


def ask(server: SendRight, what: str, requirement: Requirement | None, deadline: float) -> bytes:
    """Send a request to `server`, whose right is moved, and receive what it answers, as `Kernel.mach_msg` does."""
    kernel = server.kernel
    with ReceiveRight(kernel.mach_reply_port(), kernel) as reply_port:
        name = server.release()
        try:
            message = request(reply_port.name, request_id(requirement))
            send_message(kernel, message, name, Disposition.MOVE_SEND, max(0.0, deadline - monotonic()))
        except BaseException as error:
            server.restore(name)
            if isinstance(error, MachError):
                raise explained(error, what) from error
            raise
        try:
            timeout = max(0.0, deadline - monotonic())
            return kernel.mach_msg(None, RECEIVE_OPTIONS, None, reply_port.name, timeout) or b""
        except MachError as error:
            raise explained(error, what) from error


def judged(
    answer: bytes, what: str, requirement: Requirement | None, kernel: Kernel
) -> tuple[dict[int, OwnedRight], AuditToken | bytes | None]:
    """`taken` of a message as `Kernel.mach_msg` received it. The token is in bytes, where nobody has looked at it."""
    if requirement is None and (usual := read_reply(answer)) is not None:
        return owned(usual[0], kernel), usual[1]
    return taken(received_message(kernel, answer), what, requirement, kernel)


def taken(
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
    return owned({key: (found.name, found.disposition) for key, found in descriptors.items()}, kernel), sender


def owned(ports: Mapping[int, tuple[int, int]], kernel: Kernel) -> dict[int, OwnedRight]:
    """The rights under these (name, disposition), but for those whose ports have died on the way."""
    rights: dict[int, OwnedRight] = {}
    left = dict(ports)
    try:
        while left:
            key, (name, disposition) = next(iter(left.items()))
            right = take_right(name, disposition, kernel)
            del left[key]
            if right is not None:
                rights[key] = right
    except (ImportError, OSError) as error:  # What another kind of right is cannot be loaded any more.
        for right in rights.values():
            right.close()
        give_up(left.values(), kernel)
        raise not_loaded(error) from error
    return rights


def explained(error: MachError, what: str) -> RendezvousError:
    """What it means that a kernel answered so to a request, or to the wait for its reply."""
    if error.code in (MACH_SEND_TIMED_OUT, MACH_RCV_TIMED_OUT):
        return RendezvousTimeout(f"the {what} did not answer in time: it hangs, or is very busy ({error.symbol})")
    if error.code == MACH_SEND_INVALID_DEST:
        return ServerNotFoundError(f"the {what} went away before it could be asked: its process has most likely exited")
    return RendezvousError(f"asking the {what} failed: {error}")
