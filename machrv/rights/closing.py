"""What is closed at the end of a `with`."""

from __future__ import annotations

import sys

from machrv.errors import CopyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from typing_extensions import Self


class Closing:
    """What is closed at the end of a `with`."""

    __slots__ = ()

    def close(self) -> None:
        """Give up what is held. Idempotent."""
        raise NotImplementedError

    def __reduce_ex__(self, protocol: object) -> Any:
        """Rights and memory can be arguments of a `multiprocessing.Process`; anywhere else, none can be pickled or copied."""
        context = sys.modules.get("multiprocessing.context")
        popen = context.get_spawning_popen() if context is not None else None
        if popen is not None and getattr(self, "move", None) is not None:
            from machrv.rights.handover import offer  # Late: few start a process so.

            return offer(self, popen)
        raise CopyError(
            f"a {type(self).__name__} cannot be copied or pickled: what it stands for has one owner. Hand it to another "
            "process with machrv.launch(), in a message, or as an argument of a multiprocessing.Process; a SendRight has "
            "copy()"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
