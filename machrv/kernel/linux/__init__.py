"""Mach ports on Linux: `LinuxKernel`, a port space made of sockets. See docs/linux.md for how each idea is made.

The rooms, each built on those before it: the first is here, `Begun`, and is all that most children come to see. Then
`entry` (names), `space`, `asking` (at a rendezvous), `answers` (of system calls), `transit` (rights on their way), `port` and
`pset` (queues), `held`, `copyin`, `copyout`, `notify`, `death`, `outgoing`, `sending`, `incoming`, `receiving`, `members`,
`calls`, `kernel`; beside them `wire` (the in-flight form), `identity` (who sent it), `bootstrap` (names for processes),
`events` (waiting).

What belongs here: what a child does that claims a right and gives it up; so, too, where the directory of bootstrap names is,
and whether it is safe: `$MACHRV_BOOTSTRAP_DIR`, else `$XDG_RUNTIME_DIR/machrv`, else `/tmp/machrv-UID`. What must never
happen here: a directory that somebody else owns or can write to, the unusual case, or an import that only that one needs: a
child pays for every module, and every class, before it does anything useful.
"""

# Without `from __future__ import annotations`, which loads a module that a child does without.

import os
import stat
from _thread import RLock, allocate_lock
from _weakref import ref

from machrv.kernel.direct import direct as native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from machrv.kernel.linux.kernel import LinuxKernel as LinuxKernel

__all__ = ["LinuxKernel"]

# As XNU does (osfmk/ipc/ipc_entry.c, xnu-7195): the index freed last is given out first, each time with the next
# generation, so that a stale name is an error and not another right. Index 1 is where XNU puts the task's own port.
FIRST_INDEX = 2

#: the C functions take no longer time, in milliseconds
LONGEST = 2**31 - 1

#: the longest file name for a service name, in bytes
_LONGEST = 200
_checked: "set[str]" = set()
#: the directory and the path of names that were looked up, by what decides where they are, and name
_links: "dict[tuple[bytes, int, str], tuple[str, bytes]]" = {}
_NO_LINK = ("", b"")
_MOST_LINKS = 64

_spaces: "dict[int, ref[Beginning]]" = {}
#: how many there have been
_made = 0


def all_begun() -> "list[Beginning]":
    """The port spaces of this process, oldest first, whatever they have become. From any thread: copying the values of a dict
    is atomic."""
    return [space for reference in list(_spaces.values()) if (space := reference()) is not None]


def next_number() -> int:
    """The number of a new space in this process; the first is number 0."""
    global _made
    _made += 1
    return _made - 1


class Beginning:
    """A port space before anything has happened in it: its lock, and its names."""

    def __init__(self, number: int) -> None:
        self._number = number & 0xFFFF
        self._lock = RLock()
        #: a call is at work. A finaliser or a signal handler may run in the middle of it, in the same thread.
        self._inside = False
        #: what finalisers have given up meanwhile
        self._deferred: "list[tuple[Callable[..., None], tuple[object, ...]]]" = []
        self._settling = allocate_lock()
        #: rights that arrived and that nobody has looked at, by name: the socket of a send right, ~socket (below 0) of a
        #: send-once right. Most are used up or given up as they came; whoever takes one out has it, with the lock or without.
        #: The others get their entries as soon as it matters: see `Space._enter`
        self._fresh: "dict[int, int]" = {}
        #: the index that is given out when no name is free, and the free names that are given out before, the last one first
        self._next_index = FIRST_INDEX
        self._freed: "list[int]" = []
        key = id(self)
        _spaces[key] = ref(self, lambda _: _spaces.pop(key))

    def _next_name(self) -> int:
        """A fresh name: index in the upper 24 bits, generation in the lower 8, as XNU lays names out."""
        if self._freed:
            return self._freed.pop()
        index = self._next_index
        self._next_index = index + 1
        return index << 8 | 3

    def _give_back(self, name: int) -> None:
        """Take a name back. The next time, its index comes with the next of 64 generations."""
        self._freed.append(name & 0xFFFFFF00 | (name + 4 | 3) & 0xFF)

    def _forked(self) -> None:
        """In the child of a fork: rights are not inherited. Nothing may be sent, the parent's rights live on."""
        for fd in self._fresh.values():
            native.close(fd if fd >= 0 else ~fd)
        Beginning.__init__(self, self._number)


class _Later(str):
    """What only all of a kernel can do, by its name: the kernel becomes that first.

    (A `__getattr__` would make every attribute slow. A string is nothing that Python looks for garbage in: the first round
    of that would otherwise come while a child claims.)
    """

    __slots__ = ()

    def __get__(self, kernel: "Begun | None", owner: object) -> object:
        if kernel is None:
            return self
        kernel.complete()
        return getattr(kernel, str(self))


class Begun(Beginning):
    """The kernel of this process as long as nothing was wanted of it but a rendezvous, and to give up what came of it.

    Whatever else is asked of it, it turns into a `LinuxKernel` first, and stays one: the same object, with the same names.
    So a child pays for the other rooms if it goes into them. Methods with a leading underscore expect the space's lock to be
    held.
    """

    def claim(
        self, service_name: str, message_id: int, timeout: float
    ) -> "bytes | tuple[dict[int, int], bytes | list[int]] | None":
        """See `Kernel.claim`. One call of C. Takes the lock itself, and not while it waits."""
        link = link_of(service_name)
        if link is None:
            return None
        came: dict[int, Any] = {}
        try:
            token = native.ask(link, message_id, self._number, timeout, came)
            if token:
                with self._lock:
                    if type(self) is Begun and not (
                        self._inside or self._fresh
                    ):  # There is no other right to these ports.
                        names, came = came, {}  # First: where a signal handler raises, none is closed twice.
                        for key, fd in names.items():
                            names[key] = name = self._next_name()
                            self._fresh[name] = fd
                        return names, token
            if token is None:
                return None  # Nothing was sent.
            self.complete()
            return self._hand_over(came, token, timeout)  # type: ignore[misc]  # It is one by now.
        except BaseException:
            _drop(came)
            raise

    def mach_port_deallocate(self, name: int) -> None:
        """See `Kernel.mach_port_deallocate`. Here is a right that nobody has asked about.

        Nothing is loaded for it: who has no descriptor left can give up what came.
        """
        fd = self._fresh.pop(name, None) if type(self) is Begun else None
        if fd is None:
            self.complete()
            return self.mach_port_deallocate(name)
        self._give_back(name)
        native.close(fd)

    def complete(self) -> None:
        """Become all of a kernel. Without the lock, or with it."""
        # Imported without the lock of ours: whoever is importing it may be waiting for that.
        try:
            from machrv.kernel.linux.kernel import LinuxKernel
        except (ImportError, OSError) as error:
            from machrv.constants import KERN_RESOURCE_SHORTAGE
            from machrv.errors import MachError

            raise MachError(
                KERN_RESOURCE_SHORTAGE,
                f"loading the rest of machrv ({error}; machrv.preload() does so before a process gives up reading files)",
            ) from error
        with self._lock:
            if type(self) is not Begun:
                return  # Another thread was first.
            inside, self._inside = self._inside, True  # to signal handlers; other threads wait for the lock
            self.__class__ = LinuxKernel  # type: ignore[assignment]
            try:
                LinuxKernel._furnish(self)  # type: ignore[arg-type]
            except BaseException:
                self.__class__ = Begun
                raise
            finally:
                self._inside = inside
        if self._deferred and not inside:
            self._settle()  # type: ignore[attr-defined]

    if TYPE_CHECKING:
        _hand_over = LinuxKernel._hand_over
    else:
        # What there is of a kernel, but for what is above, and what that calls itself.
        for _name in (
            "answer", "ask", "audit_token", "bootstrap_check_in", "bootstrap_look_up", "close", "event_queue",
            "fileport_makefd", "fileport_makeport", "mach_msg", "mach_port_allocate", "mach_port_destroy",
            "mach_port_extract_member", "mach_port_extract_right", "mach_port_get_attributes", "mach_port_get_context",
            "mach_port_get_refs", "mach_port_insert_member", "mach_port_insert_right", "mach_port_mod_refs",
            "mach_port_move_member", "mach_port_names", "mach_port_request_notification", "mach_port_set_attributes",
            "mach_port_set_context", "mach_port_type", "mach_reply_port", "memory", "open_process", "port_identity",
            "readiness", "room", "send_bare", "take_request", "vm_deallocate", "vm_read", "_hand_over", "_settle",
        ):  # fmt: skip
            locals()[_name] = _Later(_name)
        del _name


def _drop(came: "dict[int, Any]") -> None:
    """Close what came and found no owner: see `ask` in machrv/native/python/claim.c."""
    while came:
        key, fd = came.popitem()
        if key >= 0:
            native.close(fd)
            continue
        result, answer, _, told, _ = fd
        words = memoryview(told).cast("I").tolist()
        nfds = native.NFDS
        for fd in (
            words[1 :: native.ARRIVED] if result > 0 else words[nfds + 1 : nfds + 1 + words[nfds]] if words else ()
        ):
            native.close(fd)
        if answer >= 0:
            native.close(answer)


def chosen_path() -> "tuple[str, str]":
    """Where the directory is by this process's environment, and the variable that says so, "" if none does."""
    path = os.environ.get("MACHRV_BOOTSTRAP_DIR", "")
    if path:
        return path, "MACHRV_BOOTSTRAP_DIR"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and os.path.isdir(runtime):
        return os.path.join(runtime, "machrv"), "XDG_RUNTIME_DIR"
    return f"/tmp/machrv-{os.getuid()}", ""


def problem_with(path: str) -> str:
    """Make the directory if it is missing; why it cannot be used, "" if it can.

    One that was ours and nobody else's stays so: whoever could change that could do anything in this user's name.
    """
    if path in _checked:
        return ""
    try:
        found = os.lstat(path)
    except OSError:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass  # Another process was first.
        except OSError as error:
            return f"cannot make {path}: {error.strerror}"
        found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        return (
            f"{path} must be a directory of user {os.geteuid()} with mode 0700; "
            "set MACHRV_BOOTSTRAP_DIR to one that is"
        )
    _checked.add(path)
    return ""


def forget(path: str) -> None:
    """Look at it again the next time: nothing was found there."""
    _checked.discard(path)


def file_of(name: str) -> str:
    """The file name for a service name: itself where that can be one, else a digest."""
    safe = bool(name) and "/" not in name and "\0" not in name and name[0] not in ".%"
    if safe and (len(name) * 4 <= _LONGEST or len(os.fsencode(name)) <= _LONGEST):
        return name
    from hashlib import sha256

    return "%" + sha256(name.encode("utf-8", "surrogateescape")).hexdigest()


def link_of(name: str) -> "bytes | None":
    """The path of the symbolic link that a name is; None if the directory cannot be used."""
    chosen = native.environment(b"MACHRV_BOOTSTRAP_DIR")
    key = (chosen, 0, name) if chosen else (native.environment(b"XDG_RUNTIME_DIR"), 1 + os.getuid(), name)
    path, link = _links.get(key, _NO_LINK)
    if path not in _checked:
        path, _ = chosen_path()
        if problem_with(path):
            return None
        link = os.fsencode(f"{path}/{file_of(name)}")
        if len(_links) >= _MOST_LINKS:
            _links.clear()
        _links[key] = path, link
    return link


_held: "list[Beginning]" = []


def _before_fork() -> None:
    """No other thread is in the middle of a call when the child's copy of it is made."""
    _held[:] = all_begun()
    for space in _held:
        space._lock.acquire()


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop()._lock.release()


def _after_fork_in_child() -> None:
    for space in _held:
        space._forked()
    _held.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


if not TYPE_CHECKING:  # A checker knows what there is.

    def __getattr__(name: str) -> object:
        if name == "LinuxKernel":  # Imported when somebody wants it.
            from machrv.kernel.linux.kernel import LinuxKernel

            return LinuxKernel
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
