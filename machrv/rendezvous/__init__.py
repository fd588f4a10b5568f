"""Rendezvous: a parent registers port rights for a child that it has launched, and the child asks for them.

    protocol    what a request and a reply look like
    port        what is registered under a key
    registry    which process may claim which ports
    policy      whether a peer is who it must be
    server      the parent's end
    direct      both ends, where no name is looked up
    steps       the child's end, step by step, where the short way does not do

The child's end is here: one request, one reply, and the rights until somebody takes them. So are names, which both ends need,
of servers (the base bundle id, and where a child looks), and of ports (their keys).

What belongs here: asking in the way in which nearly every child can, and owning what came. What must never happen here:
a wait without a deadline, or a right that is handed out before the server was judged.

A child imports this before anything else happens in it. Imports here are what every start of a process pays for, and a module
of its own for the client would be one more: whatever else may be needed is imported where it is.
"""

# Without `from __future__ import annotations`, which loads a module that a child does without.

import os
from _thread import allocate_lock
from time import monotonic

from machrv import MachrvError, RendezvousError
from machrv.constants import MACH_PORT_RIGHT_RECEIVE, MACHRV_REQUEST_ID
from machrv.kernel import begun
import machrv.ownership as ownership
from machrv.ownership import SendRight

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import ModuleType, TracebackType
    from typing import Any, ClassVar

    from typing_extensions import Self

    from machrv.audit import AuditToken
    from machrv.kernel import Kernel
    from machrv.rendezvous.port import Key
    from machrv.requirement import Requirement
    from machrv.rights import OwnedRight, ReceiveRight, SendOnceRight

#: `launch` tells the child here whom to ask; what a child finds by its parent's pid comes first, see `service_names`.
SERVICE_NAME_VARIABLE = "MACHRV_SERVICE_NAME"

_DEFAULT_BASE_BUNDLE_ID = "org.machrv"
_base_bundle_id = ""


def base_bundle_id() -> str:
    """The first part of every service name of this process, "org.machrv" unless it was set."""
    return _base_bundle_id or _DEFAULT_BASE_BUNDLE_ID


def set_base_bundle_id(bundle_id: str) -> None:
    """Set the first part of the service names that are used from now on; "" goes back to the default.

    A parent and a child that do not agree on it do not find each other. To meet a Chromium process, use its bundle id
    ("com.google.Chrome"). Names that a sandbox allows usually begin with an application group's id.
    """
    global _base_bundle_id
    _base_bundle_id = bundle_id


def server_name(pid: int) -> str:
    """The service name of the server in the process `pid`."""
    return f"{base_bundle_id()}.MachPortRendezvousServer.{pid}"


def service_names() -> "list[str]":
    """Where this process looks for its parent's server, best first.

    A parent is found by its pid, as in Chromium. That fails where the pid that the child sees is not the one that the
    parent sees (a pid namespace), or where the parent of the process is not who launched it (the fork server of
    multiprocessing): then the name that `launch` left in the environment counts. It comes second, since a process also
    passes it on to children that it launches itself. A base bundle id that the program has set rules out names of
    another one.
    """
    parent = os.getppid()
    by_pid = server_name(parent)
    passed = os.environ.get(SERVICE_NAME_VARIABLE, "")
    if not passed or (_base_bundle_id and not passed.startswith(f"{_base_bundle_id}.MachPortRendezvousServer.")):
        return [by_pid]
    if passed.rpartition(".")[2] == str(parent):
        return [passed]
    return [by_pid, passed]


def four_char_code(text: str) -> int:
    """The uint32 that four Latin-1 characters stand for, the first in the highest byte, as C reads 'port'."""
    try:
        encoded = text.encode("latin-1")
    except UnicodeEncodeError:
        encoded = b""
    if len(encoded) != 4:
        from machrv.rendezvous.port import KeyFormatError  # Here, as below: a key that is none is a mistake, and rare.

        raise KeyFormatError(f"{text!r} is no key: give four characters, or an integer of 32 bits")
    return int.from_bytes(encoded, "big")


def uint32_key(key: "Key") -> int:
    """The key as an integer. Raises KeyFormatError for what is neither a uint32 nor four characters."""
    if type(key) is int and 0 <= key <= 0xFFFFFFFF:
        return key
    if isinstance(key, str):
        return four_char_code(key)
    if not isinstance(key, int) or not 0 <= key <= 0xFFFFFFFF:
        from machrv.rendezvous.port import KeyFormatError

        raise KeyFormatError(f"{key!r} is no key: give an integer from 0 to 2**32 - 1, or four characters")
    return int(key)


# -- the child's end ---------------------------------------------------------------------------------------------------

_DEFAULT_TIMEOUT = 30.0
#: the 32-bit word of a message where its first descriptor begins, behind their count
_FIRST = 7


class _Ports:
    """What came of one rendezvous. The rights belong to this object until they are taken.

    Close it, or use it in a `with`, to give up what nobody took. Safe to use from any thread.
    """

    __slots__ = ("_ports", "_kernel", "_epoch", "_server_audit_token", "__weakref__")

    def __init__(
        self,
        ports: "Mapping[int, int | OwnedRight]",
        server_audit_token: "AuditToken | bytes | list[int] | None",
        kernel: "Kernel | None" = None,
    ) -> None:
        """`ports` is this object's from here on. With `kernel`, it has names of send rights there, else objects."""
        self._epoch = ownership._epoch
        self._kernel = kernel
        #: by key: the name of a send right, which becomes an object when it is taken, or an object. Taking one out of the
        #: dict is atomic: whoever gets it has it
        self._ports: "dict[int, Any]" = ports  # type: ignore[assignment]
        #: as bytes, or as the first of these words, until somebody wants to know
        self._server_audit_token: "AuditToken | bytes | list[int] | None" = server_audit_token

    @property
    def server_audit_token(self) -> "AuditToken | None":
        """Who answered, in the kernel's words; None if nobody did: the server refused this process, or went away."""
        token = self._server_audit_token
        if isinstance(token, (bytes, list)):
            from machrv.audit import AuditToken

            token = AuditToken.from_bytes(token) if isinstance(token, bytes) else AuditToken(*token[:8])
            self._server_audit_token = token
        return token

    @property
    def port_count(self) -> int:
        """How many rights came, less those that were taken."""
        return len(self._ports)

    def take_send_right(self, key: "Key") -> "SendRight | SendOnceRight | None":
        """The send right under `key`, the caller's from now on; a SendOnceRight if that is what was sent.

        None if there is none, it was taken before, or what is there is a receive right, which stays to be taken.
        """
        if self._kernel is not None and type(key) is int and (name := self._ports.pop(key, None)):
            right = SendRight(name, self._kernel)
            right._epoch = self._epoch  # As in `_owned`, which is one step more.
            return right
        return self._take(key, False)  # type: ignore[return-value]  # `_take` looks

    def take_receive_right(self, key: "Key") -> "ReceiveRight | None":
        """The receive right under `key`, the caller's from now on.

        None if there is none, it was taken before, or what is there is a send right, which stays to be taken.
        """
        return self._take(key, True)  # type: ignore[return-value]  # `_take` looks

    def _take(self, key: "Key", receive: bool) -> "OwnedRight | None":
        number = uint32_key(key)
        found: int | OwnedRight | None = self._ports.get(number)
        if isinstance(found, int):
            return self._owned(found) if not receive and self._ports.pop(number, None) is not None else None
        if found is None or (found.right == MACH_PORT_RIGHT_RECEIVE) is not receive:
            return None
        return found if self._ports.pop(number, None) is not None else None

    def _owned(self, name: int) -> "SendRight":
        right = SendRight(name, self._kernel)
        right._epoch = self._epoch  # In the child of a fork, the right of a client that was made before it is spent.
        return right

    def close(self) -> None:
        """Give up every right that nobody took. Idempotent."""
        ports = self._ports
        while ports:
            try:
                _, right = ports.popitem()
            except KeyError:
                return  # Another thread has taken the last one.
            (self._owned(right) if isinstance(right, int) else right).close()

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", traceback: "TracebackType | None"
    ) -> None:
        if self._ports:
            self.close()

    def __del__(self) -> None:
        """Forgotten: so are its rights, each of which says so."""
        try:
            ports = self._ports
        except AttributeError:
            return  # It was never made.
        while ports:
            _, right = ports.popitem()
            if type(right) is int:
                self._owned(right)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} with {len(self._ports)} ports>"


class RendezvousClient(_Ports):
    """The client of the parent's server. `get_instance()` is the rendezvous of this process; `connect` makes others."""

    __slots__ = ()

    _asked: "ClassVar[bool]" = False
    _instance: "ClassVar[RendezvousClient | None]" = None

    @classmethod
    def get_instance(cls) -> "RendezvousClient | None":
        """The rendezvous of this process with its parent: on the first call it is performed, once and for all.

        None if it failed, then and ever after; the logger "machrv" says why. No ports registered is no failure. What is
        not taken until the process ends is given up then.
        """
        with _instance_lock:
            if not RendezvousClient._asked:
                RendezvousClient._asked = True
                import atexit

                atexit.register(_close_instance)
                try:
                    RendezvousClient._instance = cls.connect()
                except Exception as error:
                    if not isinstance(
                        error, (MachrvError, OSError)
                    ):  # No descriptor is left to load what would say more.
                        raise
                    import logging

                    logging.getLogger("machrv").error("no rendezvous with the parent: %s", error)
            return RendezvousClient._instance

    @classmethod
    def connect(
        cls, service_name: "str | None" = None, timeout: float = _DEFAULT_TIMEOUT, kernel: "Kernel | None" = None
    ) -> "Self":
        """Ask the server that is checked in under `service_name`; None is this process's parent. As often as wanted.

        `timeout` in seconds covers everything. Raises ServerNotFoundError (nobody has the name; its owner has gone),
        RendezvousPermissionError, RendezvousTimeout, PeerRejectedError (it does not meet the requirement that was set,
        or did not answer and so could not show that it does, and the policy is ENFORCE) and RendezvousError (it answered
        with something else than a reply). Otherwise a server that refuses this process, or that has nothing for it,
        makes no failure but a client without ports.
        """
        try:
            kernel = kernel if kernel is not None else begun()
        except (ImportError, OSError) as error:
            raise not_loaded(error) from error
        names = [service_name] if service_name is not None else service_names()
        requirement = _server_requirement
        request_id = MACHRV_REQUEST_ID if requirement is None else _steps().request_id(requirement)
        try:
            answer = (
                kernel.claim(names[0], request_id, timeout)
                if requirement is None
                else kernel.ask(names[0], request_id, timeout)
            )
        except Exception as error:  # Not MachError alone: that is loaded when there is one.
            steps = _steps()
            if not isinstance(error, steps.MachError):
                raise
            raise steps.explained(error, f"server {names[0]!r}") from error
        if isinstance(answer, tuple):
            ports, token = answer
            return cls(ports, token, kernel)
        if answer is not None:
            try:
                steps = _steps()
            except RendezvousError:
                give_up(_ports_of(answer), kernel)
                raise
            return cls(*steps.judged(answer, f"server {names[0]!r}", requirement, kernel))
        steps = _steps()
        deadline = monotonic() + timeout
        name, server = steps.look_up(names, kernel, timeout)
        what = f"server {name!r}"
        with server:
            return cls(*steps.judged(steps.ask(server, what, requirement, deadline), what, requirement, kernel))

    @staticmethod
    def set_server_process_requirement(requirement: "Requirement | None") -> None:
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


def _steps() -> "ModuleType":
    """What is needed where a rendezvous is not as usual. Raises RendezvousError if it cannot be loaded any more."""
    try:
        from machrv.rendezvous import steps
    except (ImportError, OSError) as error:
        raise not_loaded(error) from error
    return steps


def not_loaded(error: "Exception") -> "RendezvousError":
    """What to raise where a module could not be imported."""
    return RendezvousError(
        f"what this rendezvous needs cannot be loaded any more ({error}): close descriptors, or call machrv.preload() "
        "before this process gives up reading files"
    )


def give_up(ports: "Iterable[tuple[int, int]]", kernel: "Kernel") -> None:
    """Give up what came under these names, each with its disposition. Nothing is loaded for it."""
    from machrv.constants import MACH_MSG_TYPE_PORT_RECEIVE

    for name, disposition in ports:
        if disposition == MACH_MSG_TYPE_PORT_RECEIVE:
            kernel.mach_port_mod_refs(name, MACH_PORT_RIGHT_RECEIVE, -1)
        else:
            kernel.mach_port_deallocate(name)


def _ports_of(answer: bytes) -> "Iterable[tuple[int, int]]":
    """The ports of a message, as far as nothing else is among them."""
    from machrv.constants import MACH_MSGH_BITS_COMPLEX

    words = memoryview(answer[: len(answer) & ~3]).cast("I").tolist()
    count = words[_FIRST - 1] if words[0] & MACH_MSGH_BITS_COMPLEX else 0
    for at in range(_FIRST, _FIRST + 3 * count, 3):
        disposition = words[at + 2] >> 16
        if disposition > 0xFF:  # The rest of it is the type: 0 for a port.
            return
        yield words[at], disposition


_server_requirement: "Requirement | None" = None
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
