"""A port for a rendezvous: what travels under one key, and who owns it until then."""

# `RendezvousPort`, and the checks that a set of ports must pass before anything of it is moved. What must never happen
# here: moving some of a set and then failing.

from __future__ import annotations

from machrv.errors import CopyError, MachError, RegistrationError, RightError
from machrv.kernel import current
from machrv.log import log
from machrv.message import Disposition, PortDescriptor
from machrv.rendezvous.keys import key_text, uint32_key
from machrv.rendezvous.protocol import MAX_PORTS, SURE_PORTS
from machrv.rights.files import fileport
from machrv.rights.kinds import ReceiveRight, SendOnceRight, SendRight
from machrv.rights.memory import MemoryObject
from machrv.rights.right import Movable, Right
from machrv.rights.transfer import NEEDED_RIGHT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Union

    from machrv.kernel import Kernel
    from machrv.rights.files import HasFileno

    #: What may be registered under a key: any owned right but a port set, and what travels as one: an end of a channel; memory;
    #: what has a descriptor.
    RendezvousPortLike = Union[
        "RendezvousPort", ReceiveRight, SendRight, SendOnceRight, Movable, MemoryObject, HasFileno
    ]
    #: The same once an end is the right that it travels as.
    CheckedPort = Union["RendezvousPort", Right, MemoryObject, HasFileno]
    #: The keys are `Key`s. (Mapping is invariant in its keys, so `Mapping[Key, ...]` would refuse a `dict[str, ...]`; and
    #: beside a union of mappings mypy does not see that a right and another kind of right are both welcome.)
    Ports = Mapping[Any, RendezvousPortLike]

_MOVES: dict[int, type[Right]] = {
    Disposition.MOVE_RECEIVE: ReceiveRight,
    Disposition.MOVE_SEND: SendRight,
    Disposition.MOVE_SEND_ONCE: SendOnceRight,
}


#: MACH_PORT_RIGHT_*, in words.
_RIGHTS = ("send", "receive", "send-once", "port-set", "dead-name")


class RendezvousPort:
    """A port name and the disposition that it will be sent with.

    MOVE_SEND, MOVE_SEND_ONCE and MOVE_RECEIVE convey a reference that the name holds: the port stands for it, and
    registering it hands that reference over (the object is spent then). COPY_SEND, MAKE_SEND and MAKE_SEND_ONCE make
    the right when the reply is sent: nothing is owned, the name stays its owner's, who keeps it alive until the child
    has asked, and the same port may be registered again and again.

    A port that was made from a bare name says nothing when it is forgotten: the name's owner is whoever made it. One
    from `from_right` owns the right, and gives it up with a ResourceWarning when forgotten.
    """

    __slots__ = ("_held", "_disposition", "_kernel", "_right")

    def __init__(self, name: int, disposition: int, kernel: Kernel | None = None) -> None:
        """Raises RightError for a disposition that no right can be sent with."""
        if disposition not in NEEDED_RIGHT:
            raise RightError(
                f"disposition {disposition!r} sends no right: use a MOVE_*, COPY_SEND or MAKE_* of Disposition"
            )
        self._held = [name]
        self._disposition = Disposition(disposition)
        self._kernel = kernel
        self._right: Right | None = None

    @classmethod
    def from_right(cls, right: ReceiveRight | SendRight | SendOnceRight) -> RendezvousPort:
        """Take an owned right over, to be moved to the child. The right object is spent."""
        if right.move is None:
            raise RightError(
                f"a {type(right).__name__} cannot be moved in a message: move the receive rights that are in it"
            )
        return cls._moved(right._moved_away("moved into a RendezvousPort"), right.move, right.kernel)

    @classmethod
    def _moved(cls, name: int, disposition: Disposition, kernel: Kernel) -> RendezvousPort:
        """A port that owns its reference, and is not lost if it is forgotten."""
        port = cls(name, disposition, kernel)
        port.owned(kernel)
        return port

    @property
    def name(self) -> int:
        """The port name, or 0 (MACH_PORT_NULL) once the port was destroyed, registered or sent away."""
        return self._held[0] if self._held else 0

    @property
    def disposition(self) -> Disposition:
        """The disposition that the name will be sent with."""
        return self._disposition

    @property
    def kernel(self) -> Kernel | None:
        """The kernel whose port space the name belongs to; None: that of whoever sends it."""
        return self._kernel

    def destroy(self) -> None:
        """Give up the reference that the port conveys. Idempotent; nothing happens for COPY_SEND and MAKE_*."""
        right = self.owned(self._kernel if self._kernel is not None else current())
        if right is not None:
            right.close()

    def owned(self, kernel: Kernel) -> Right | None:
        """The reference that a MOVE_* port conveys, as an owned right that stays this port's; None for the others."""
        if self._right is None and self._disposition in _MOVES:
            self._right = _MOVES[self._disposition](0, kernel)
            self._right._held = self._held  # One reference, one list: whoever takes the name out of it has it.
        return self._right

    def descriptor(self, kernel: Kernel) -> PortDescriptor | Right:
        """What to put into a message's descriptors: for a MOVE_* port its right, which is spent once it was sent."""
        return self.owned(kernel) or PortDescriptor(self.name, self._disposition)

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self._disposition in _MOVES:
            raise CopyError(
                "a RendezvousPort that moves a right cannot be copied or pickled: the right has one owner. Register it, or make "
                "another right"
            )
        return super().__reduce_ex__(protocol)

    def __repr__(self) -> str:
        return f"RendezvousPort(name={self.name:#x}, disposition={self._disposition.name})"


def _check_count(count: int, most: int | None) -> None:
    """The kernel is only asked where it may matter."""
    if most is None or most >= MAX_PORTS:
        most, why = MAX_PORTS, ""
    else:
        why = ": this system's C library, musl before 1.2.6, sends no more in one message"
    if count > most:
        raise RegistrationError(f"{count} ports are more than one reply carries: register at most {most}{why}")


def checked_ports(ports: Ports, kernel: Kernel) -> dict[int, CheckedPort]:
    """The same ports under integer keys, ascending, after every check that can be made before moving them.

    Raises KeyFormatError, RegistrationError (the number of ports, what is no port) and RightError (a right that is spent, or that
    the name does not have). Moves nothing.
    """
    if not hasattr(ports, "items"):
        raise RegistrationError(f"{ports!r} says nothing about keys: register a dict, such as {{'port': right}}")
    checked: dict[int, CheckedPort] = {}
    for key, port in ports.items():
        number = uint32_key(key)
        if number in checked:
            raise RegistrationError(f"the key {key!r} is given twice, once in another spelling")
        checked[number] = port.moving_right() if isinstance(port, Movable) else port
    if len(checked) > SURE_PORTS:
        _check_count(len(checked), kernel.most_rights())
    moved: dict[tuple[int, int], int] = {}
    for number, found in checked.items():
        if not isinstance(found, (RendezvousPort, Right)):
            _check_lent(number, found, kernel)
            continue
        name, needs, moves = _described(number, found, kernel)
        if moves:
            moved[name, needs] = moved.get((name, needs), 0) + 1
        _check_right(name, needs, moved.get((name, needs), 1), kernel)
    return dict(sorted(checked.items()))


def _check_lent(key: int, value: Any, kernel: Kernel) -> None:
    """Raises RegistrationError or RightError unless a right can be made of this; it stays its owner's."""
    if isinstance(value, MemoryObject):
        if value.closed:
            raise RightError(f"key {key_text(key)}: {value!r} was closed, or made before fork")
        return _check_kernel(key, value, kernel)
    if not hasattr(value, "fileno"):
        advice = (
            ". fileport() makes a right of a descriptor's number"
            if isinstance(value, int)
            else ". MemoryObject.from_bytes() makes memory of bytes" if isinstance(value, (bytes, bytearray)) else ""
        )
        raise RegistrationError(
            f"key {key_text(key)}: {value!r} cannot be registered: give a right, a RendezvousPort, a Channel, a MemoryObject, or an "
            f"open file or socket (what has a fileno()){advice}"
        )
    try:
        descriptor = value.fileno()
    except (OSError, ValueError, TypeError) as error:  # A StringIO's is an OSError, a closed file's a ValueError.
        raise RegistrationError(f"key {key_text(key)}: {value!r} has no descriptor: {error}") from error
    if not isinstance(descriptor, int) or descriptor < 0:
        raise RegistrationError(f"key {key_text(key)}: {value!r} has no descriptor: it is closed")


def _check_kernel(key: int, port: Any, kernel: Kernel) -> None:
    if port.kernel is not None and port.kernel is not kernel:
        raise RegistrationError(
            f"key {key_text(key)}: {port!r} belongs to another port space than the server: make both with one kernel"
        )


def _described(key: int, port: RendezvousPort | Right, kernel: Kernel) -> tuple[int, int, bool]:
    """The name of a port, the MACH_PORT_RIGHT_* that it needs, and whether that right is moved."""
    if isinstance(port, RendezvousPort):
        name, needs, moves = port.name, NEEDED_RIGHT[port.disposition], port.disposition in _MOVES
        if not name:
            raise RightError(f"{port!r} is spent: it was destroyed, registered or sent before")
    elif isinstance(port, Right) and port.move is not None:
        name, needs, moves = port.name, port.right, True
    else:
        raise RegistrationError(
            f"key {key_text(key)}: a {type(port).__name__} cannot be moved: register the receive rights that are in it"
        )
    _check_kernel(key, port, kernel)
    return name, needs, moves


def _check_right(name: int, right: int, count: int, kernel: Kernel) -> None:
    """Raises RightError unless the name holds `count` references of MACH_PORT_RIGHT_*."""
    try:
        references = kernel.mach_port_get_refs(name, right)
    except MachError as error:
        raise RightError(f"{name:#x} cannot be registered: {error}") from error
    if references < count:
        raise RightError(
            f"{name:#x} cannot be registered: it stands for {references} {_RIGHTS[right]} rights, and {count} would be moved or "
            "copied. Its port may have died, or the right may have been moved away"
        )


def take_ports(checked: Mapping[int, CheckedPort], kernel: Kernel) -> dict[int, RendezvousPort]:
    """Take ownership of everything that is to be moved: all of it, or, if this raises, nothing.

    The objects that were passed in are spent then, but for ports that own nothing (COPY_SEND, MAKE_*), and for files,
    sockets and memory, which stay their owner's: a right to each is made here.
    """
    taken: dict[int, RendezvousPort] = {}
    moved: list[tuple[Right, int]] = []
    made: list[Right] = []
    try:
        for key, port in checked.items():
            if isinstance(port, RendezvousPort):
                right = port.owned(kernel)
            elif isinstance(port, Right):
                right = port
            else:
                right = port.right() if isinstance(port, MemoryObject) else fileport(port, kernel)
                made.append(right)
            if isinstance(port, RendezvousPort) and right is None:
                taken[key] = port
            elif right is not None and right.move is not None:
                moved.append((right, right._moved_away("moved away: it was registered for another process")))
                taken[key] = RendezvousPort(moved[-1][1], right.move, kernel)
    except BaseException:
        for right, name in moved:
            right.restore(name)
        for right in made:
            right.close()
        raise
    for port in taken.values():
        port.owned(kernel)
    return taken


def destroy_ports(ports: Ports) -> None:
    """Give up every right here that would have been moved, and leave alone what is nobody's but its owner's: files,
    memory, whatever else. A failure is logged, and the others are given up all the same."""
    for key, port in ports.items() if hasattr(ports, "items") else ():
        try:
            if isinstance(port, Movable):
                port.close()
            elif isinstance(port, Right):
                if port.move is not None:
                    port.close()
            elif isinstance(port, RendezvousPort) and port._disposition in _MOVES:
                port.destroy()
        except Exception:
            log().exception("giving up %r (key %r) failed", port, key)
