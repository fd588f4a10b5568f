"""The parent's end: servers that answer requests for ports.

Requests are handled on the kernel's dispatch thread, one after the other. A reply goes to a send-once right and never
waits. Whatever a client sends or fails to do, the others do not notice.
"""

# Receiving a request, asking who may have what, and one reply. What must never happen here: an answer to anything but an
# exact request, a wait for a client, or a right that is neither sent nor given up.

from __future__ import annotations

import atexit
import os
import threading

from machrv.constants import MACH_MSG_MASK, MACH_RCV_BODY_ERROR, MACH_RCV_TIMED_OUT, MACH_RCV_TOO_LARGE
from machrv.errors import MachError, MessageFormatError, RendezvousError, RightError
from machrv.kernel import current
from machrv.log import listens, log
from machrv.message import Message
from machrv.rendezvous.dispatch import Dispatcher
from machrv.rendezvous.keys import keys_text
from machrv.rendezvous.names import server_name
from machrv.rendezvous.policy import add_feature_state_to_environment
from machrv.rendezvous.port import checked_ports, destroy_ports, take_ports
from machrv.rendezvous.protocol import RECEIVE_SIZE, REQUEST_ID, REQUEST_WITH_INFO_PLIST_ID, parse_request, reply
from machrv.rendezvous.registry import Registry
from machrv.rendezvous.telling import ancestors, process_text
from machrv.rendezvous.verdict import refusal
from machrv.requirement.info_plist import own_info_plist
from machrv.rights.closing import Closing
from machrv.rights.kinds import ReceiveRight, SendOnceRight
from machrv.rights.transfer import RECEIVE_OPTIONS, destroy_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from typing import ClassVar

    from typing_extensions import Self

    from machrv.message.audit import AuditToken
    from machrv.rendezvous.dispatch import EventSource
    from machrv.kernel import Kernel
    from machrv.rendezvous.port import Ports, RendezvousPort
    from machrv.rendezvous.registry import CheckedLock
    from machrv.requirement import Requirement
    from machrv.rights.kinds import SendRight


#: how many requests are answered before the other sources have a turn
_AT_ONCE = 16


class RendezvousServerBase(Closing):
    """Answers requests on a port of its own, until `close()`. Subclasses say who gets what: the three hooks.

    Requests may arrive as soon as `__init__` is through, on another thread: a subclass sets what its hooks need before it
    calls `super().__init__()`. The hooks are called one request at a time. One that raises is logged, and its client is
    refused.
    """

    def __init__(self, receive_right: ReceiveRight | None = None, kernel: Kernel | None = None) -> None:
        """Serve on `receive_right`, which is spent and belongs to the server from now on (None: on a new port)."""
        if kernel is None:
            kernel = receive_right.kernel if receive_right is not None else current()
        given = receive_right if receive_right is not None else ReceiveRight.allocate(kernel=kernel)
        self._kernel = kernel
        self._port = ReceiveRight(given.release(), kernel)
        #: the name of the port as long as it is served
        self._serving = self._port.name
        try:
            self._dispatcher = self._event_source(kernel)
            try:
                self._dispatcher.watch_port(self._port.name, self._handle_request)
            except BaseException:
                self._dispatcher.release()
                raise
        except BaseException:
            given.restore(self._port.release())
            if receive_right is None:
                given.close()
            raise

    @property
    def kernel(self) -> Kernel:
        """The kernel that this server receives and sends with."""
        return self._kernel

    def _event_source(self, kernel: Kernel) -> EventSource:
        """What calls back when requests come, and where."""
        return Dispatcher.shared(kernel)

    def ports_for_client(self, audit_token: AuditToken) -> Mapping[int, RendezvousPort] | None:
        """The ports for the process that sent a request with this token: the server owns them from then on.

        None: this client is refused. Its wait ends with a SEND_ONCE notification.
        """
        return None

    def is_valid_additional_message_id(self, message_id: int) -> bool:
        """Whether a request may have this id, besides 'mrzv'."""
        return False

    def additional_data_for_reply(self, message_id: int) -> bytes:
        """What goes along with the ports in the reply to a request with this id."""
        return b""

    def send_right(self) -> SendRight:
        """A new send right to the server's port, for a client that does not look it up."""
        return self._port.make_send()

    def close(self) -> None:
        """Stop serving. On return no hook is running, unless it is the caller. Requests that wait are refused. Idempotent."""
        self._serving = 0
        try:
            name = self._port.release()
        except RightError:
            return
        with ReceiveRight(name, self._kernel):
            self._dispatcher.unwatch_port(name)
        self._dispatcher.release()

    # -- on the dispatch thread ---------------------------------------------------------------------------------------

    def _handle_request(self) -> None:
        """Answer those who ask. If more wait, the dispatcher calls again, after the other sources."""
        name, kernel = self._serving, self._kernel  # The name is valid until this returns: `close` waits for that.
        try:
            for _ in range(_AT_ONCE if name else 0):
                message: Message = kernel.mach_msg(None, RECEIVE_OPTIONS, RECEIVE_SIZE, name, 0, Message.decode)  # type: ignore[assignment]
                try:
                    token = parse_request(message)
                except MessageFormatError:
                    destroy_message(message, kernel)
                    continue
                if message.id == REQUEST_ID or self._is_additional(message.id):
                    self._answer(message, token)
                else:
                    destroy_message(message, kernel)
        except MachError as error:
            # But for the first, it is gone, with all that could not be taken in.
            if (
                error.code not in (MACH_RCV_TIMED_OUT, MACH_RCV_TOO_LARGE)
                and error.code & ~int(MACH_MSG_MASK) != MACH_RCV_BODY_ERROR
            ):
                raise

    def _answer(self, message: Message, token: AuditToken) -> None:
        """Answer a request. Closing its reply right unused is what refuses a client."""
        ports: Mapping[int, RendezvousPort] = {}
        with SendOnceRight(message.remote_port, self._kernel) as right:
            try:
                answer = self.ports_for_client(token)
                if answer is None:
                    return
                ports = answer
                additional_data = self.additional_data_for_reply(message.id)
                descriptors = {key: port.descriptor(self._kernel) for key, port in ports.items()}
                right.send(reply(descriptors, additional_data), timeout=0)
                if descriptors and listens():
                    log().info("process %s asked and got %s", process_text(token.pid), keys_text(descriptors))
            except (MachError, RightError) as error:
                if ports:
                    log().warning(
                        "the reply to process %d could not be sent, and its %d ports were given up: %s",
                        token.pid,
                        len(ports),
                        error,
                    )
                elif listens():  # Nothing is lost: who floods a server is not to fill its log.
                    log().info("the reply to process %s could not be sent: %s", process_text(token.pid), error)
            except Exception:
                log().exception(
                    f"the request of process {token.pid} failed: it is refused, and its ports were given up"
                )
            finally:
                destroy_ports(ports)  # What was moved in the reply is spent: this finds what was not.

    def _is_additional(self, message_id: int) -> bool:
        try:
            return self.is_valid_additional_message_id(message_id)
        except Exception:
            log().exception(f"asking whether a request may have the id {message_id:#x} failed")
            return False


class RendezvousServer(RendezvousServerBase):
    """The server of a process for the children that it launches, found under its name in the bootstrap namespace.

    `get_instance()` gives the process's own. Register a child's ports with the lock held since before the child was
    started, or use `machrv.launch`.
    """

    _instance: ClassVar[RendezvousServer | None] = None
    _nameless: ClassVar[RendezvousServer | None] = None

    def __init__(self, kernel: Kernel | None = None, *, nameless: bool = False) -> None:
        """Check the service name in. Raises RendezvousError if that is not possible. Prefer `get_instance()`.

        `nameless`: do without a name. Only children that `launch` starts with `nameless=True` find it then.
        """
        kernel = kernel if kernel is not None else current()
        self._service_name = "" if nameless else server_name(os.getpid())
        try:
            port = (
                ReceiveRight.allocate(kernel=kernel)
                if nameless
                else ReceiveRight(kernel.bootstrap_check_in(self._service_name), kernel)
            )
            kernel.take_turns(
                port.name
            )  # Each asks for what is its own: whoever floods us is not in front of the others.
        except MachError as error:
            raise RendezvousError(f"no server can be set up under the name {self._service_name!r}: {error}") from error
        with port:  # Closed here unless the server takes it over.
            self._registry = self._new_registry(kernel)
            try:
                super().__init__(port, kernel)
            except BaseException:
                self._registry.close()
                raise

    def _new_registry(self, kernel: Kernel) -> Registry:
        return Registry(kernel)

    @classmethod
    def get_instance(cls, *, nameless: bool = False) -> RendezvousServer:
        """The server of this process, made on first use; after `close()`, and in the child of a fork, a new one.

        `nameless`: one that has no name will do, where a name cannot be had. If there is one with a name, it is that.
        """
        with _instance_lock:
            if cls._instance is None and not nameless:
                cls._instance = cls()
            if cls._instance is not None:
                return cls._instance
            if cls._nameless is None:
                cls._nameless = cls(nameless=True)
            return cls._nameless

    @property
    def service_name(self) -> str:
        """The name in the bootstrap namespace: "<base bundle id>.MachPortRendezvousServer.<pid>"; "" without a name."""
        return self._service_name

    @property
    def lock(self) -> CheckedLock:
        """Hold it from before a child is started until its ports are registered, so that it cannot ask in between."""
        return self._registry.lock

    def register_ports_for_pid(self, pid: int, ports: Ports) -> None:
        """Let the process `pid` claim `ports`, once. The lock must be held.

        `ports` is what `launch` takes. Everything that is to be moved belongs to the server from now on: it is given up if
        the process exits without asking, is refused, or cannot be answered. Once ports were registered, not again for the
        same process until it has asked or exited. Raises LockNotHeldError,
        ProcessGoneError, KeyFormatError, RegistrationError or RightError; then the caller still owns everything.
        """
        self._registry.register_ports(pid, ports)

    def set_process_requirement_for_pid(self, pid: int, requirement: Requirement) -> None:
        """What the process `pid` must be to get its ports; it is evaluated when it asks. The lock must be held.

        Once, until the process has asked or exited. Raises as `register_ports_for_pid`. What it leads to is decided by
        `machrv.peer_validation_policy()` at that time: unless it is ENFORCE, nobody is refused.
        """
        self._registry.set_requirement(pid, requirement)

    @property
    def registration_count(self) -> int:
        """How many processes have a registration that they have not claimed."""
        return len(self._registry)

    def clear_client_data_for_testing(self) -> None:
        """End every registration, and give up what it holds; with the lock held, as in Chromium, or without."""
        self._registry.clear()

    def ports_for_client(self, audit_token: AuditToken) -> Mapping[int, RendezvousPort] | None:
        """Claim what is registered for the process; nothing registered: no ports, which is no refusal."""
        registration = self._registry.claim(audit_token)
        if registration is None:
            if listens():
                self._tell_that_nothing_is_registered(audit_token.pid)
            return {}
        ports = registration.ports or {}
        if refusal("client", registration.requirement, audit_token) is None:
            return ports
        destroy_ports(ports)
        return None

    def _tell_that_nothing_is_registered(self, pid: int) -> None:
        text = f"process {process_text(pid)} asked and nothing is registered for it"
        for number, ancestor in enumerate(ancestors(pid)):
            count = self._registry.waiting(ancestor)
            if count:
                whose = "its parent" if number == 0 else "its grandparent" if number == 1 else "an ancestor of it,"
                text += f"; {whose} {process_text(ancestor)} has {count} right{'s' * (count > 1)} registered"
                break
        log().info("%s", text)

    def _answer(self, message: Message, token: AuditToken) -> None:
        super()._answer(message, token)
        self._registry.let_go()

    def is_valid_additional_message_id(self, message_id: int) -> bool:
        """A request may ask for Info.plist data too ('mrzV')."""
        return message_id == REQUEST_WITH_INFO_PLIST_ID

    def additional_data_for_reply(self, message_id: int) -> bytes:
        """This process's Info.plist data for a request that asks for it; b"" where a process has none, as on Linux."""
        if message_id != REQUEST_WITH_INFO_PLIST_ID:
            return b""
        return own_info_plist()

    @staticmethod
    def add_feature_state_to_environment(environment: MutableMapping[str, str]) -> None:
        """Put the validation policy into the environment of a child, as `machrv.launch` does."""
        add_feature_state_to_environment(environment)

    def close(self) -> None:
        """Stop serving, give the name up and end every registration. Idempotent. The lock must not be held."""
        with _instance_lock:
            if RendezvousServer._instance is self:
                RendezvousServer._instance = None
            if RendezvousServer._nameless is self:
                RendezvousServer._nameless = None
        super().close()
        self._registry.close()


class DirectRendezvousServer(RendezvousServerBase):
    """A server for one client, which gets the send right by other means: no bootstrap name, no pid.

    Whoever asks first gets the ports; later requests get none. Who has the send right may ask: it is the capability.
    """

    def __init__(self, ports: Ports, kernel: Kernel | None = None) -> None:
        """Take everything in `ports` that is to be moved. Raises as registering does; then nothing was moved."""
        kernel = kernel if kernel is not None else current()
        self._ports: dict[int, RendezvousPort] = {}
        self._ports_lock = threading.Lock()
        checked = checked_ports(ports, kernel)
        super().__init__(None, kernel)
        try:
            # Nobody can ask yet: `send_right` has not been called.
            self._ports = take_ports(checked, kernel)
        except BaseException:
            self.close()
            raise

    def ports_for_client(self, audit_token: AuditToken) -> Mapping[int, RendezvousPort] | None:
        """All ports, for the first that asks."""
        with self._ports_lock:
            ports, self._ports = self._ports, {}
        return ports

    def close(self) -> None:
        """Stop serving, and give up the ports if nobody has asked. Idempotent."""
        super().close()
        with self._ports_lock:
            ports, self._ports = self._ports, {}
        destroy_ports(ports)


_instance_lock = threading.Lock()


def _close_instance() -> None:
    """At exit: give the name up, and what no child has claimed."""
    for server in (RendezvousServer._instance, RendezvousServer._nameless):
        if server is not None:
            server.close()


def _forget_instance() -> None:
    """In the child of a fork: the server, its thread and its rights are the parent's."""
    global _instance_lock
    _instance_lock = threading.Lock()
    RendezvousServer._instance = RendezvousServer._nameless = None


atexit.register(_close_instance)
os.register_at_fork(after_in_child=_forget_instance)
