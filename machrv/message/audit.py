"""Audit tokens: who sent a message, in the kernel's words.

The order of the words is that of xnu-11417, bsd/kern/kern_prot.c (set_security_token_task_internal).
"""

# What belongs here: the eight words of an audit_token_t, taken apart and put together. What must never happen here: a
# token that is compared by its pid alone; a pid is given to another process as soon as its owner is gone.

from __future__ import annotations

from _struct import Struct, error  # type: ignore[attr-defined]

from machrv.errors import MessageFormatError
from machrv.message.layout import field, layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

    from typing_extensions import Buffer, Self

_WORDS = Struct("=" + layout("audit_token_t"))
_NAMES = ("auid", "euid", "egid", "ruid", "rgid", "pid", "asid", "pidversion")


class AuditToken(tuple[int, ...]):
    """The audit token of one process: a value of eight 32-bit words, comparable and hashable.

    Two tokens are equal if all words are: the same process, with the same identity. `pidversion` tells one process from
    the next that is given its pid; 0 says that this is not known, so that two tokens may be equal and of different
    processes, and nothing should be given to either. A token that the kernel attested to comes in a message's trailer;
    one that anybody built, or that came in a message's body, proves nothing.
    """

    __slots__ = ()

    SIZE: ClassVar[int] = _WORDS.size
    KERNEL: ClassVar[AuditToken]

    def __new__(
        cls,
        auid: int = 0,
        euid: int = 0,
        egid: int = 0,
        ruid: int = 0,
        rgid: int = 0,
        pid: int = 0,
        asid: int = 0,
        pidversion: int = 0,
    ) -> Self:
        """Raises MessageFormatError if a word is not an integer from 0 to 2**32 - 1."""
        token = tuple.__new__(cls, (auid, euid, egid, ruid, rgid, pid, asid, pidversion))
        try:
            _WORDS.pack(*token)
        except error:
            for name, word in zip(_NAMES, token):
                if not isinstance(word, int) or not 0 <= word < 1 << 32:
                    raise MessageFormatError(f"{name} of an audit token is {word!r}: expected a uint32") from None
        return token

    auid: int = field(0, "The audit user id: whoever logged in; 0xFFFFFFFF where nobody did.")
    euid: int = field(1, "The effective user id.")
    egid: int = field(2, "The effective group id.")
    ruid: int = field(3, "The real user id.")
    rgid: int = field(4, "The real group id.")
    pid: int = field(5, "The process id.")
    asid: int = field(6, "The audit session id.")
    pidversion: int = field(7, "Which of all processes that ever had this pid; 0: not known.")

    @property
    def is_kernel(self) -> bool:
        """Whether this is the all-zero token that the kernel's own messages bear, notifications among them."""
        return not any(self)

    @classmethod
    def from_bytes(cls, buffer: Buffer) -> Self:
        """The token whose audit_token_t is in `buffer`, 32 bytes in host byte order, no more and no less."""
        image = bytes(memoryview(buffer))
        if len(image) != _WORDS.size:
            raise MessageFormatError(f"an audit token is {_WORDS.size} bytes: found {len(image)}", len(image))
        return tuple.__new__(cls, _WORDS.unpack(image))

    def __bytes__(self) -> bytes:
        return _WORDS.pack(*self)

    def __getnewargs__(self) -> tuple[int, ...]:  # In place of tuple's: __new__ takes the words
        return tuple(self)

    def __repr__(self) -> str:
        if self.is_kernel:
            return "AuditToken.KERNEL"
        return f"AuditToken({', '.join(f'{name}={word}' for name, word in zip(_NAMES, self))})"


AuditToken.KERNEL = AuditToken()
