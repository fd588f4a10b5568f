"""What came of one rendezvous: rights under keys, until somebody takes them."""

# Who owns what came. What must never happen here: a right that is lost because what it was to be turned into failed, or one
# that two callers get. A child imports this at its start: what only some take is imported when it is taken.

from __future__ import annotations

from machrv.constants import MACH_PORT_RIGHT_RECEIVE
from machrv.errors import KeyNotFoundError, RightError
from machrv.rendezvous.keys import key_text, keys_text, readable_key, uint32_key
from machrv.rights.closing import Closing
from machrv.rights.kinds import ReceiveRight, SendRight

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import TextIOWrapper
    from socket import socket
    from typing import IO, Any, BinaryIO, Type, TypeVar, overload

    from _typeshed import OpenBinaryMode, OpenTextMode

    from machrv.channel import Channel
    from machrv.message import AuditToken
    from machrv.rendezvous.keys import Key
    from machrv.rights.kinds import OwnedRight, SendOnceRight
    from machrv.rights.memory import MemoryObject

    T = TypeVar("T")
    R = TypeVar("R", "SendRight", "ReceiveRight", "SendOnceRight")


class Claimed(Closing):
    """What came of one rendezvous. The rights belong to this object until they are taken.

    `rights["port"]` looks at a right, which stays this object's; `take_...` hands it to you. `"port" in rights` and
    `for key in rights` tell what is there. Close it, or use it in a `with`, to give up what nobody took. Safe to use from
    any thread.
    """

    __slots__ = ("_ports", "_came", "_server_audit_token", "__weakref__")

    def __init__(self, ports: dict[int, OwnedRight], server_audit_token: AuditToken | None) -> None:
        """`ports` is this object's from here on."""
        #: taking a right out of the dict is atomic: whoever gets it has it
        self._ports = ports
        self._came = len(ports)
        self._server_audit_token = server_audit_token

    @property
    def server_audit_token(self) -> AuditToken | None:
        """Who answered, in the kernel's words; None if nobody did: the server refused this process, or went away."""
        return self._server_audit_token

    @property
    def port_count(self) -> int:
        """How many rights came, less those that were taken."""
        return len(self._ports)

    def __contains__(self, key: Key) -> bool:
        return uint32_key(key) in self._ports

    def __iter__(self) -> Iterator[Key]:
        """The keys of what is there, ascending: as characters, without blanks at the end, or as numbers."""
        return iter([readable_key(number) for number in sorted(self._ports.copy())])

    def __getitem__(self, key: Key) -> OwnedRight:
        """The right under `key`, which stays this object's and is closed with it. Raises KeyNotFoundError (a KeyError)."""
        right = self._ports.get(uint32_key(key))
        if right is None:
            raise self._missing(uint32_key(key))
        return right

    def take(self, key: Key, kind: Type[R]) -> R:
        """The right under `key`, which is to be a `kind`: SendRight, ReceiveRight or SendOnceRight; the caller's from now on.

        Raises KeyNotFoundError (a KeyError), and RightError if it is of another kind; then it stays to be taken.

            with rights.take("port", SendRight) as port:
                port.send(Message(body=b"good"))
        """
        number = uint32_key(key)
        right = self._ports.pop(number, None)
        if isinstance(right, kind):
            return right
        if right is None:
            raise self._missing(number)
        self._ports[number] = right
        raise RightError(f"what is under {key_text(number)} is a {type(right).__name__}, and not a {kind.__name__}")

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

    def _take(self, key: Key, receive: bool) -> OwnedRight | None:
        number = uint32_key(key)
        found = self._ports.get(number)
        if found is None or (found.right == MACH_PORT_RIGHT_RECEIVE) is not receive:
            return None
        return self._ports.pop(number, None)

    if TYPE_CHECKING:

        @overload
        def take_file(
            self,
            key: Key,
            mode: OpenTextMode = "r",
            buffering: int = -1,
            encoding: str | None = None,
            errors: str | None = None,
            newline: str | None = None,
        ) -> TextIOWrapper: ...

        @overload
        def take_file(self, key: Key, mode: OpenBinaryMode, buffering: int = -1) -> BinaryIO: ...

    def take_file(
        self,
        key: Key,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """The file under `key`, as `open` gives it, the caller's to close. The other arguments are those of `open`.

        What the parent opened decides what can be done with it; nothing is cut off by "w". Raises KeyNotFoundError (a
        KeyError), RightError if what is there is no file, and what `open` raises; then it stays to be taken.

            with rights.take_file("log", "a") as log:
                print("here I am", file=log)
        """
        return self._opened(key, lambda fd: open(fd, mode, buffering, encoding, errors, newline))

    def take_socket(self, key: Key) -> socket:
        """The socket under `key`, the caller's to close. Raises as `take_file`."""
        from socket import socket  # Late: a child that takes none does not pay for it.

        return self._opened(key, lambda fd: socket(fileno=fd))

    def take_fd(self, key: Key) -> int:
        """A descriptor of the file or socket under `key`, close-on-exec, the caller's to close. Raises as `take_file`."""
        return self._opened(key, int)

    def _opened(self, key: Key, make: Callable[[int], T]) -> T:
        """What `make` makes of the descriptor that is under `key`."""
        from machrv.rights.files import opened  # Late: as above.

        return self._turned(key, lambda right: opened(right, make, f"under {key!r}"))

    def take_memory(self, key: Key, size: int | None = None) -> MemoryObject:
        """The memory under `key`, the caller's to close. `size`: how many bytes the parent says it has.

        Raises KeyNotFoundError (a KeyError), RightError and MemoryObjectError if what is there is no memory that is safe
        to map, as `MemoryObject.from_right`; then it stays to be taken.
        """
        from machrv.rights.memory import MemoryObject  # Late: as above.

        return self._turned(key, lambda right: MemoryObject.from_right(right, size))

    def take_channel(self, key: Key) -> Channel:
        """The end of a channel under `key`, the caller's to close. It came as a receive right.

        Raises KeyNotFoundError (a KeyError), and RightError if what is there is no receive right; then it stays to be taken.
        """
        from machrv.channel import Channel  # Late: as above.

        return Channel(self.take(key, ReceiveRight))

    def _turned(self, key: Key, turn: Callable[[SendRight], T]) -> T:
        """What `turn` makes of the send right under `key`. If it raises, the right is there as before."""
        number = uint32_key(key)
        right = self._ports.pop(number, None)
        if right is None:
            raise self._missing(number)
        try:
            if not isinstance(right, SendRight):
                raise RightError(f"what is under {key_text(number)} is a {type(right).__name__}, no file and no memory")
            return turn(right)
        except BaseException:
            self._ports[number] = right
            raise

    def _missing(self, number: int) -> KeyNotFoundError:
        there = keys_text(self._ports.copy())
        if there:
            return KeyNotFoundError(f"nothing is under {key_text(number)}: what is there is under {there}")
        if self._came:
            return KeyNotFoundError(f"nothing is under {key_text(number)}: everything that came was taken")
        return KeyNotFoundError(f"nothing is under {key_text(number)}, for nothing came: {self._why_nothing()}")

    def _why_nothing(self) -> str:
        if self._server_audit_token is None:
            return "the server refused this process, or ended before it answered"
        return "the server has nothing, or somebody else has asked before"

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
        return f"<{type(self).__name__} with {keys_text(self._ports.copy()) or 'no ports'}>"
