"""What is closed at the end of a `with`.

What belongs here: that. What must never happen here: being imported by a child on its way to its rights. A class costs it as
much as fifty system calls, so `Right` and `RendezvousClient` say these few lines themselves.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


class Closing:
    """What is closed at the end of a `with`."""

    __slots__ = ()

    def close(self) -> None:
        """Give up what is held. Idempotent."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
