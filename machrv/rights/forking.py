"""Rights, memory and ends of channels as arguments of a `multiprocessing.Process` that is started by fork.

Nothing is pickled then: the process has the objects, spent, as after any fork. So the rights are handed over as for a process
that is spawned (`handover`): kept for it just before the fork, and asked for in it before it runs its function. The objects
hold them again there, and no longer here.
"""

# What must never happen here: an exception, which would get lost in a fork's hook; or a right taken that is not an argument.

from __future__ import annotations

import sys
from collections import deque
from dataclasses import is_dataclass
from functools import partial
from multiprocessing import process as processes, util
from typing import TYPE_CHECKING

from machrv.log import log
from machrv.rights.handover import offer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import Any

    #: What holds a right again, and how the right is asked for.
    Handed = tuple[Any, Callable[..., Any], tuple[Any, ...]]


def before_fork(frame: FrameType) -> None:
    """`frame` is about to fork: if it starts a process of multiprocessing's, keep for it the rights that it is given."""
    popen = sys.modules["multiprocessing.popen_fork"].Popen
    if frame.f_code is not popen._launch.__code__:
        return
    handed: list[Handed] = []
    process = frame.f_locals["process_obj"]
    for thing in _arguments(process):
        try:
            right = thing.moving_right() if hasattr(thing, "moving_right") else thing
            right = right.right() if hasattr(right, "from_right") else right  # A MemoryObject: it stays here as well.
            handed.append((thing, *offer(right, frame.f_locals["self"])))
        except Exception as error:
            log().error("%r cannot be handed to the process that is started: %s", thing, error)
    if handed:
        util.register_after_fork(process, partial(_take, handed))


def _arguments(process: Any) -> Iterator[Any]:
    """What may be handed over among a process's arguments and attributes: in lists, tuples, dicts, sets and dataclasses too."""
    waiting: deque[Any] = deque(vars(process).values())
    seen: set[int] = set()
    while waiting:
        thing = waiting.popleft()
        if id(thing) in seen:
            continue
        if isinstance(thing, (list, tuple, set, frozenset, dict)):
            seen.add(id(thing))
            waiting.extend(thing.values() if isinstance(thing, dict) else thing)
        elif hasattr(type(thing), "_held_again"):
            seen.add(id(thing))
            if not thing.closed and getattr(thing, "move", True) is not None:
                yield thing
        elif is_dataclass(thing) and not isinstance(thing, type) and hasattr(thing, "__dict__"):
            seen.add(id(thing))
            waiting.extend(vars(thing).values())


def _take(handed: list[Handed], process: Any) -> None:
    """In the new process, before it runs its function; in other children of a fork, nothing."""
    if processes.current_process() is not process:
        return
    for thing, redeem, arguments in handed:
        try:
            thing._held_again(redeem(*arguments))
        except Exception as error:
            log().error("%r: %s", thing, error)
