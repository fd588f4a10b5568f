"""The bootstrap directory: where it is, whether it is sound, and what is stale in it."""

# What belongs here: everything that `machrv.kernel.linux.bootstrap` would refuse, and what it would not notice. What
# must never happen here: anything removed but by its own sweep, or a link followed.

from __future__ import annotations

import fcntl
import os
import socket
import stat
from errno import ECONNREFUSED, ENOENT
from typing import TYPE_CHECKING

import machrv.constants as constants
from machrv.doctor.findings import NOTE, OK, WARNING, WRONG, Finding
from machrv.kernel.linux.bootstrap import sweep

if TYPE_CHECKING:
    from collections.abc import Iterator

SECTION = "Bootstrap directory"
_ELSEWHERE = "set MACHRV_BOOTSTRAP_DIR to a directory of your own with mode 0700, for parents and children alike"
_SHOWN = 5
#: sizeof(sockaddr_un.sun_path)
_ADDRESS = 108
_LOCK = ".lock"


def look(fix: bool = False) -> Iterator[Finding]:
    """The choice, the directory, what is in it. `fix` removes what is stale, and nothing else."""
    path, variable = chosen_path()
    yield _choice(path, variable)
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        yield _to_be_made(path)
        return
    except OSError as error:
        yield Finding(SECTION, "owner and mode", WRONG, f"{path!a} cannot be looked at: {error.strerror}", _ELSEWHERE)
        return
    problem = _problem(path, found)
    if problem:
        yield Finding(SECTION, "owner and mode", WRONG, problem, _ELSEWHERE)
        return
    yield Finding(SECTION, "owner and mode", OK, "a directory of this user, which nobody else can enter")
    yield from _above(path)
    yield from _room(path)
    yield from _contents(path, fix)


def _choice(path: str, variable: str) -> Finding:
    source = f"by {variable}" if variable else "since neither MACHRV_BOOTSTRAP_DIR nor XDG_RUNTIME_DIR says otherwise"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if not os.path.isabs(path):
        advice = "give it an absolute path: a process that runs elsewhere looks elsewhere"
        return Finding(SECTION, "place", WARNING, f"{path!a}, {source}, depends on the working directory", advice)
    if not variable and runtime:
        found = f"{path!a}, since XDG_RUNTIME_DIR ({runtime!a}) is no directory"
        return Finding(SECTION, "place", NOTE, found, "a child with another environment looks elsewhere")
    return Finding(SECTION, "place", OK, f"{path!a}, {source}")


def _to_be_made(path: str) -> Finding:
    parent = os.path.dirname(path.rstrip("/")) or "."
    if os.path.isdir(parent) and os.access(parent, os.W_OK | os.X_OK):
        return Finding(SECTION, "owner and mode", OK, "is not there yet; the first server makes it")
    return Finding(SECTION, "owner and mode", WRONG, f"is not there, and cannot be made in {parent!a}", _ELSEWHERE)


def _problem(path: str, found: os.stat_result) -> str:
    """What machrv would refuse, in the order in which it looks."""
    if stat.S_ISLNK(found.st_mode):
        return f"{path!a} is a symbolic link (to {os.readlink(path)!a}): it could be turned elsewhere"
    if not stat.S_ISDIR(found.st_mode):
        return f"{path!a} is no directory"
    if found.st_uid != os.geteuid():
        return f"{path!a} belongs to user {found.st_uid}, and this process is user {os.geteuid()}"
    if found.st_mode & 0o077:
        return f"{path!a} has mode {stat.S_IMODE(found.st_mode):04o}: others can enter it (`chmod 700` if nobody has)"
    return ""


def _above(path: str) -> Iterator[Finding]:
    """The directories above: whoever can rename there can put another one in the place."""
    parent = os.path.dirname(os.path.abspath(path))
    while True:
        found = os.stat(parent)
        mine = found.st_uid in (0, os.geteuid())
        open_to_all = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
        if not mine or open_to_all:
            why = f"belongs to user {found.st_uid}" if not mine else f"has mode {stat.S_IMODE(found.st_mode):04o}"
            text = f"{parent!a} above it {why}: others could put another directory in its place"
            yield Finding(SECTION, "the directories above", WARNING, text, _ELSEWHERE)
            return
        if parent == "/":
            yield Finding(SECTION, "the directories above", OK, "nobody else can put another one in its place")
            return
        parent = os.path.dirname(parent)


def _room(path: str) -> Iterator[Finding]:
    """Whether a socket can be made there, and its path said in an address."""
    length = len(os.fsencode(path)) + len("/.") + 32
    most = _ADDRESS - 1
    if length <= most:
        yield Finding(SECTION, "path", OK, f"{length} of the {most} bytes of a socket's address")
    elif os.path.exists("/proc/self/fd"):
        found = f"{length} bytes where an address has {most}: names go through /proc/self/fd, one more open() each"
        yield Finding(SECTION, "path", NOTE, found, "a shorter path is faster, and works without /proc")
    else:
        found = f"{length} bytes where an address has {most}, and there is no /proc to go through"
        yield Finding(SECTION, "path", WRONG, found, _ELSEWHERE)
    system = os.statvfs(path)
    if system.f_flag & os.ST_RDONLY or not os.access(path, os.W_OK | os.X_OK):
        yield Finding(SECTION, "file system", WRONG, "cannot be written to", _ELSEWHERE)
    elif (system.f_files and not system.f_favail) or not system.f_bavail:
        yield Finding(
            SECTION, "file system", WRONG, "is full: no name can be checked in", "make room, or " + _ELSEWHERE
        )


def _contents(path: str, fix: bool) -> Iterator[Finding]:
    found = survey(path)
    stale = _stale(found)
    if fix and stale:
        sweep()
        left = survey(path)
        removed = [file for file in stale if file not in {file for file, _, _ in left}]
        yield Finding(SECTION, "removed", OK, f"{len(removed)} stale: {_some(removed)}")
        found = left
        stale = _stale(left)
    links = {file for file, socket, gone in found if socket and file != socket and not gone}
    foreign = [file for file, socket, _ in found if not socket]
    yield Finding(SECTION, "names in use", OK, f"{len(links)}{': ' if links else ''}{_some(sorted(links))}")
    if stale:
        text = f"{len(stale)} left by processes that were killed: {_some(stale)}"
        advice = "`machrv doctor --fix` removes them; each new server removes some by itself"
        yield Finding(SECTION, "stale", WARNING, text, advice)
    else:
        yield Finding(SECTION, "stale", OK, "nothing")
    if foreign:
        advice = "nothing of machrv's; it leaves them alone, and cannot use their names"
        yield Finding(SECTION, "other files", NOTE, f"{len(foreign)}: {_some(foreign)}", advice)
    if _is_locked(path):
        advice = "a server starts at this moment, or a process hangs: look again; `fuser` tells which"
        yield Finding(SECTION, "lock", WARNING, "another process holds it", advice)


def _stale(found: list[tuple[str, str, bool]]) -> list[str]:
    """The names that nobody listens behind, and the sockets that no name leads to."""
    linked = {socket for file, socket, _ in found if file != socket}
    return [file for file, socket, gone in found if gone and not (file == socket and file in linked)]


def _some(files: list[str]) -> str:
    shown = ", ".join(ascii(file)[1:-1] for file in files[:_SHOWN])
    return f"{shown} and {len(files) - _SHOWN} more" if len(files) > _SHOWN else shown


def _is_locked(path: str) -> bool:
    try:
        lock = os.open(os.path.join(path, ".lock"), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(lock)


# -- what is there ----------------------------------------------------------------------------------------------------


def chosen_path() -> tuple[str, str]:
    """Where the directory is by this process's environment, and the variable that says so, "" if none does."""
    path, runtime = os.environ.get("MACHRV_BOOTSTRAP_DIR", ""), os.environ.get("XDG_RUNTIME_DIR", "")
    if path:
        return path, "MACHRV_BOOTSTRAP_DIR"
    if runtime.startswith("/") and os.path.isdir(runtime):
        return os.path.join(runtime, "machrv"), "XDG_RUNTIME_DIR"
    return f"/tmp/machrv-{os.getuid()}", ""


def survey(path: str) -> list[tuple[str, str, bool]]:
    """What lies in the directory: (file, socket that it stands for, whether nobody listens there any more). The socket is
    "" for what is not ours. Changes nothing; raises OSError."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        found = []
        for file in sorted(os.listdir(directory)):
            try:
                behind = _socket(directory, file)
            except FileNotFoundError:
                continue  # It has just gone.
            if file != _LOCK:
                found.append((file, behind, bool(behind) and _is_stale(directory, path, behind)))
        return found
    finally:
        os.close(directory)


def _socket(directory: int, file: str) -> str:
    """The file name of the socket that a file is, or leads to; "" if it is none."""
    mode = os.lstat(file, dir_fd=directory).st_mode
    name = os.readlink(file, dir_fd=directory) if stat.S_ISLNK(mode) else file if stat.S_ISSOCK(mode) else ""
    ours = len(name) == 33 and name[0] == "." and all(digit in "0123456789abcdef" for digit in name[1:])
    return name if ours else ""


def _is_stale(directory: int, path: str, file: str) -> bool:
    """A datagram socket cannot connect to a seqpacket listener: the error tells whether one is there."""
    whole = f"{path}/{file}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(whole if len(os.fsencode(whole)) < 108 else f"/proc/self/fd/{directory}/{file}")
        except OSError as error:
            return error.errno in (ECONNREFUSED, ENOENT)
    return False
