"""The child's end: one request, one reply, and the rights until somebody takes them.

What belongs here: asking in the way in which nearly every child can, and owning what came. What must never happen here:
a wait without a deadline, or a right that is handed out before the server was judged.

A child imports this before anything else happens in it: imports here are what every start of a process pays for. So
whatever else may be needed, `machrv.rendezvous.steps` above all, is imported where it is.
"""

# Without `from __future__ import annotations`, which loads a module that a child does without.

import os
from _thread import allocate_lock
from time import monotonic

from machrv.constants import (
    MACH_MSG_TYPE_PORT_RECEIVE,
    MACH_MSG_TYPE_PORT_SEND_ONCE,
    MACH_MSGH_BITS_COMPLEX,
    MACH_PORT_RIGHT_RECEIVE,
    MACHRV_REPLY_ID,
    MACHRV_REQUEST_ID,
)
from machrv import MachrvError, RendezvousError
from machrv.kernel import begun
import machrv.ownership as ownership
from machrv.ownership import SendRight, take_right
from machrv.rendezvous import service_names, uint32_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType, TracebackType
    from typing import Any, ClassVar

    from typing_extensions import Self

    from machrv.audit import AuditToken
    from machrv.kernel import Kernel
    from machrv.rendezvous.port import Key
    from machrv.requirement import Requirement
    from machrv.rights import OwnedRight, ReceiveRight, SendOnceRight

_DEFAULT_TIMEOUT = 30.0

#: The 32-bit words before the descriptors, of each port (its descriptor and its key), and behind: a length of 64 bits,
#: and the trailer: type, size, seqno and two words of a security token; the words of the audit token.
_HEAD, _EACH, _TAIL = 7, 4, 15
#: How many ports there can be (`machrv.rendezvous.port.MAX_PORTS`), and the size of the trailer in bytes.
_MOST, _TRAILER_SIZE = 253, 52
_TOKEN_SIZE = 32
#: no additional data, and the trailer that was asked for
_BEHIND = [0, 0, 0, _TRAILER_SIZE]
_BITS = MACH_MSGH_BITS_COMPLEX | MACH_MSG_TYPE_PORT_SEND_ONCE << 8
#: What of the last word of a descriptor is its disposition; the rest is the type, 0 for a port, and padding.
_DISPOSITION = 0x00FF0000


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

    @classmethod
    def _of(cls, answer: bytes, what: str, requirement: "Requirement | None", kernel: "Kernel") -> "Self":
        """What an answer brings: a message as `Kernel.mach_msg` received it. Raises as `RendezvousClient.connect`."""
        if requirement is None and (usual := read_reply(answer)) is not None:
            return cls(owned(usual[0], kernel), usual[1])
        return cls(*_steps().judged(answer, what, requirement, kernel))

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
            raise _not_loaded(error) from error
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
            return cls._of(answer, f"server {names[0]!r}", requirement, kernel)
        steps = _steps()
        deadline = monotonic() + timeout
        name, server = steps.look_up(names, kernel, timeout)
        what = f"server {name!r}"
        with server:
            return cls._of(steps.ask(server, what, requirement, deadline), what, requirement, kernel)

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
        raise _not_loaded(error) from error
    return steps


def _not_loaded(error: "Exception") -> "RendezvousError":
    return RendezvousError(
        f"what this rendezvous needs cannot be loaded any more ({error}): close descriptors, or call machrv.preload() "
        "before this process gives up reading files"
    )


def read_reply(data: bytes) -> "tuple[Mapping[int, tuple[int, int]], bytes] | None":
    """What `parse_reply(Message.decode(data))` finds, where the reply is as nearly all are: a (name, disposition) by key, and
    the audit token of who sent it, as bytes. None for whatever looks otherwise in the least; it may be a reply all the same.
    """
    count = (len(data) // 4 - _HEAD - _TAIL) // _EACH
    if not 0 < count <= _MOST or len(data) != 4 * (_HEAD + _EACH * count + _TAIL):
        return None
    words = memoryview(data).cast("I").tolist()
    bits, size, remote, _, voucher, id, descriptors = words[:_HEAD]
    if (
        bits != _BITS
        or size != len(data) - _TRAILER_SIZE
        or remote
        or voucher
        or id != MACHRV_REPLY_ID
        or descriptors != count
    ):
        return None
    keys_at, end = _HEAD + 3 * count, _HEAD + 4 * count
    if words[end : end + 4] != _BEHIND or not words[-3]:
        return None  # additional data, another trailer, or the kernel's own message
    names, types, keys = words[_HEAD:keys_at:3], words[_HEAD + 2 : keys_at : 3], words[keys_at:end]
    if any(words[_HEAD + 1 : keys_at : 3]) or (count > 1 and keys != sorted(set(keys))):
        return None
    dispositions = [word >> 16 for word in types if not word & ~_DISPOSITION]
    if len(dispositions) != count:
        return None
    return dict(zip(keys, zip(names, dispositions))), data[-_TOKEN_SIZE:]


def owned(ports: "Mapping[int, tuple[int, int]]", kernel: "Kernel") -> "dict[int, OwnedRight]":
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
        for name, disposition in left.values():
            if disposition == MACH_MSG_TYPE_PORT_RECEIVE:
                kernel.mach_port_mod_refs(name, MACH_PORT_RIGHT_RECEIVE, -1)
            else:
                kernel.mach_port_deallocate(name)
        raise _not_loaded(error) from error
    return rights


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
