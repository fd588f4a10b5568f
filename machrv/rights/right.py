"""What every owned right has in common: an object that holds one user reference of a port name, and gives it up once.

A right is *held* until it is closed, released, or moved away in a message that was sent. While it is being moved it is
nobody's to use; if the move fails it is held again. Rights do not survive fork, as on Mach: in the child their objects are
spent.

A right that is forgotten is closed, with a ResourceWarning. While tracemalloc is tracing, each right remembers the line
outside machrv that it was made for: the warning says it, however few frames tracemalloc keeps.
"""

# What must never happen here: a reference given up twice (on macOS that can kill the process, and a name may stand for
# another port by then), or lost on a path that fails. Taking the name out of the one-element list `_held` is atomic, with
# and without the GIL, so two threads can never both give up the same reference.

from __future__ import annotations

import os
import sys

# Not from warnings: this one is there before, costs nothing, and works until Python has ended.
from _warnings import warn

from machrv.constants import MACH_PORT_RIGHT_DEAD_NAME, MACH_PORT_RIGHT_RECEIVE
from machrv.errors import MachError, RightError
from machrv.kernel import current
from machrv.rights.closing import Closing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar

    from typing_extensions import Self

    from machrv.constants import Disposition
    from machrv.kernel import Kernel

_NO_NAME = -1
#: How each kind is made, for whoever tries to without a name.
_MAKERS = {
    "ReceiveRight": "ReceiveRight.allocate()",
    "SendRight": "ReceiveRight.make_send()",
    "SendOnceRight": "ReceiveRight.make_send_once()",
    "PortSet": "PortSet.allocate()",
}

#: Replaced in the child of a fork: a right of another epoch names nothing here.
_epoch = object()


def _new_epoch() -> None:
    global _epoch
    _epoch = object()


def _before_fork() -> None:
    if "multiprocessing.popen_fork" in sys.modules:
        from machrv.rights.forking import before_fork  # Late: few programs start processes so.

        before_fork(sys._getframe(1))


os.register_at_fork(before=_before_fork, after_in_child=_new_epoch)

# Whether memory is traced is asked of tracemalloc, for each right, if anybody has imported it. Python, told to trace from
# the beginning, does not import it.
if "tracemalloc" in sys._xoptions or os.environ.get("PYTHONTRACEMALLOC"):
    import tracemalloc  # noqa: F401


class Right(Closing):
    """One user reference of a port name, owned. See the subclasses; `adopt` and their makers are the ways to get one.

    A context manager that closes on exit. Forgotten without `close()`, it is closed and a ResourceWarning is given, which
    says where it was made if tracemalloc was tracing then (`python -X tracemalloc`, `tracemalloc.start()`).
    """

    __slots__ = ("_held", "_kernel", "_epoch", "_attachments", "_made", "_fate", "__weakref__")

    #: MACH_PORT_RIGHT_* that this class holds, and the disposition that moves it away.
    right: ClassVar[int]
    move: ClassVar[Disposition | None] = None
    #: What became of the right, once it is spent, if that is not that it was closed.
    _fate: str

    def __init__(self, name: int = _NO_NAME, kernel: Kernel | None = None) -> None:
        """Take over one reference of `name` without looking at it. `adopt` looks."""
        if name < 0:
            kind = type(self).__name__
            raise TypeError(
                f"{kind}(name) takes over a port name that you have. A new {kind} is made by {_MAKERS[kind]}"
            )
        self._kernel = kernel if kernel is not None else current()
        self._epoch = _epoch
        self._held = [name] if name else []
        #: What is closed when the right is closed, released or moved away, each under the key of whoever wanted it.
        self._attachments: dict[object, Any] | None = None
        if "tracemalloc" in sys.modules:
            self._made = _place()

    @classmethod
    def _owning(cls, kernel: Kernel, take: Callable[[], int]) -> Self:
        """The owner of the reference that `take`, a function in Python, gives. It is there before the call, behind which a
        signal handler may raise: CPython since 3.11 lets none in where such a function returns, but behind a call with a star.
        """
        right = cls(0, kernel)
        held = right._held
        name = take()
        held[:] = (name,)
        return right

    @classmethod
    def adopt(cls, name: int, kernel: Kernel | None = None) -> Self:
        """Take over one user reference that the caller owns.

        Raises RightError, and takes nothing, if the name stands for no such right.
        """
        kernel = kernel if kernel is not None else current()
        try:
            found = kernel.mach_port_type(name)
        except MachError as error:
            raise RightError(f"{name:#x} cannot be adopted as a {cls.__name__}: {error}") from error
        bit = type_bit(cls.right)
        if not found & bit:
            raise RightError(
                f"{name:#x} cannot be adopted as a {cls.__name__}: it stands for no such right (its MACH_PORT_TYPE_* bits "
                f"are {found:#x}, and {bit:#x} is not among them)"
            )
        return cls(name, kernel)

    @property
    def name(self) -> int:
        """The port name, borrowed: it stays this object's. Raises RightError once the right is spent."""
        if self._epoch is _epoch:
            for name in self._held:
                return name
        if self._epoch is not _epoch:
            raise RightError(
                f"this {type(self).__name__} was made before fork: rights stay with the process that made them. Give it to a "
                "multiprocessing.Process as an argument, or register it for the child"
            )
        raise RightError(f"this {type(self).__name__} is spent: it was {getattr(self, '_fate', 'closed')}")

    @property
    def closed(self) -> bool:
        """Whether the right is spent."""
        return not self._held or self._epoch is not _epoch

    @property
    def kernel(self) -> Kernel:
        """The kernel whose port space the name belongs to."""
        return self._kernel

    def release(self) -> int:
        """Give the bare name up to the caller, who then owns the reference. The object is spent."""
        try:
            if self._epoch is _epoch:
                name = self._held.pop()
                self._fate = "released: whoever released it has the bare name"
                if self._attachments:
                    self._detach()
                return name
        except IndexError:
            pass
        return self.name

    def _moved_away(self, fate: str) -> int:
        """As `release`, for a move: `fate` is what its text says of it from then on."""
        name = self.release()
        self._fate = fate
        return name

    def restore(self, name: int) -> None:
        """Hold again what `release` gave up, after a move that failed."""
        self._fate = "closed"  # So it will be, unless it is moved again.
        self._held.append(name)

    def _held_again(self, right: Right) -> None:
        """In the child of a fork, to which the right was handed over: hold it, as if it had just come."""
        for kind in type(self).__mro__:
            for slot in getattr(kind, "__slots__", ()):
                if slot not in ("_made", "__weakref__") and hasattr(self, slot):
                    delattr(self, slot)
                if hasattr(right, slot) and slot not in ("_made", "__weakref__"):
                    setattr(self, slot, getattr(right, slot))
        right._held = []  # One reference, one holder.

    def close(self) -> None:
        """Give the right up. Idempotent."""
        if self._epoch is _epoch:
            held = self._held
            if not held:
                return
            name = held[0]  # Without a call, behind which a signal handler could raise.
            del held[0]
            try:
                if self._attachments:
                    self._detach()
            finally:
                self._given_up(name)

    def _given_up(self, name: int) -> None:
        # A send or send-once right whose port has died is a dead name by now: this covers all three.
        self._kernel.mach_port_deallocate(name)

    def _detach(self) -> None:
        try:
            while self._attachments:
                self._attachments.popitem()[1].close()
        except KeyError:
            pass  # Another thread has closed the last one.

    def __del__(self) -> None:
        try:
            if not self._held or self._epoch is not _epoch:
                return
        except AttributeError:
            return  # It was never made.
        made = getattr(self, "_made", "")
        text = f"{self!r}{made and f', made at {made},'} was forgotten: close it, or use `with`"
        self.close()  # First: where warnings are errors, the next line raises.
        warn(text, ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'spent' if self.closed else hex(self._held[0])}>"


class Movable(Closing):
    """What a right stands for on its way: it may be registered, and sent, in the right's place."""

    __slots__ = ()

    def moving_right(self) -> Right:
        """The right to move, which this holds until it has gone. Idempotent."""
        raise NotImplementedError


def type_bit(right: int) -> int:
    """MACH_PORT_TYPE(right), the macro of <mach/port.h>."""
    return 1 << (right + 16)


def holds(kernel: Kernel, name: int, right: int) -> bool:
    """Whether the name stands for a right of the kind MACH_PORT_RIGHT_*, or for what is left of one whose port died."""
    try:
        found = kernel.mach_port_type(name)
    except MachError:
        return False
    dead = 0 if right == MACH_PORT_RIGHT_RECEIVE else type_bit(MACH_PORT_RIGHT_DEAD_NAME)
    return bool(found & (type_bit(right) | dead))


def _place() -> str:
    """The line outside machrv that is being carried out, as "file:line"; "" unless tracemalloc is tracing."""
    if not sys.modules["tracemalloc"].is_tracing():
        return ""
    frame = sys._getframe(2)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("machrv."):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
