"""Bootstrap names: a directory that only this user can enter.

A name is a symbolic link to a listening socket whose file name is the id of the port. What belongs here: what is in the
directory. What must never happen here: the abstract namespace, which anybody can squat. Where it is, and whether it is
safe, is in `machrv.kernel.linux`.
"""

from __future__ import annotations

import os
import stat
from errno import EAGAIN, ECONNREFUSED, EEXIST, EINTR, ENOENT, EPROTOTYPE
from time import monotonic, sleep

from machrv._mach import lib

from machrv.errors import MachError
from machrv.kernel.linux.answers import check, close
from machrv.kernel.linux import chosen_path, file_of, forget, problem_with

#: how long a look-up waits for a place in the backlog of a busy server
BACKLOG_PATIENCE = 10.0
#: how many entries of the directory a check-in looks at for what is stale
SWEEP = 64
_LOCK = ".lock"
_SOCKET_PREFIX = "."


class BootstrapName:
    """A name that is taken: its directory, its symbolic link, the socket behind it."""

    __slots__ = ("directory", "file", "socket")

    def __init__(self, directory: str, file: str, socket: str) -> None:
        self.directory: str = directory
        self.file: str = file
        self.socket: str = socket

    def remove(self) -> None:
        """Give the name up, unless it has become somebody else's. Nothing but a link and a socket of ours is removed."""
        if not is_socket_name(self.socket):
            return
        try:
            directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            for file in [self.file] if self.file else os.listdir(directory):
                if linked_socket(directory, file) == self.socket:
                    os.unlink(file, dir_fd=directory)
            if is_socket(directory, self.socket):
                os.unlink(self.socket, dir_fd=directory)
        except OSError:
            pass  # somebody has swept it already
        finally:
            os.close(directory)


def is_socket_name(file: str) -> bool:
    """Whether a file could be the socket of a port: a dot and the port's id. Whatever else lies here is not ours."""
    return len(file) == 33 and file[0] == _SOCKET_PREFIX and all(digit in "0123456789abcdef" for digit in file[1:])


def is_socket(directory: int, file: str) -> bool:
    """Whether it is one."""
    try:
        return is_socket_name(file) and stat.S_ISSOCK(os.lstat(file, dir_fd=directory).st_mode)
    except OSError:
        return False


def linked_socket(directory: int, file: str) -> str:
    """The socket behind a name; "" if the name is no link to one. FileNotFoundError if nobody has the name."""
    try:
        socket = os.readlink(file, dir_fd=directory)
    except FileNotFoundError:
        raise
    except OSError:
        return ""  # no link at all
    return socket if is_socket_name(socket) else ""


def arrived_with(address: bytes) -> BootstrapName | None:
    """The name of a listener that came with a moved receive right: None unless it is in this process's directory, for
    what a peer says of a file is no reason to remove it."""
    directory, _, socket = os.fsdecode(address).rpartition("/")
    try:
        own = BootstrapDirectory.current("mach_msg").path
    except MachError:
        return None
    if directory != own or not is_socket_name(socket):
        return None
    return BootstrapName(directory, "", socket)


class BootstrapDirectory:
    """The directory, checked."""

    __slots__ = ("path", "operation")

    def __init__(self, path: str, operation: str) -> None:
        self.path: str = path
        self.operation: str = operation

    @classmethod
    def current(cls, operation: str) -> BootstrapDirectory:
        """The directory of this process's environment, made if it is missing; BOOTSTRAP_NOT_PRIVILEGED if unsafe."""
        path, _ = chosen_path()
        problem = problem_with(path)
        if problem:
            raise MachError(lib.BOOTSTRAP_NOT_PRIVILEGED, f"{operation} ({problem})")
        return cls(path, operation)

    def _short(self, directory: int, file: str) -> str:
        """A path that fits into a socket address."""
        path = f"{self.path}/{file}"
        return path if len(os.fsencode(path)) < lib.MACHRV_ADDRESS_MAX else f"/proc/self/fd/{directory}/{file}"

    def check_in(self, name: str, id: bytes) -> tuple[int, bytes, BootstrapName]:
        """Listen under a name: the listening socket, its address, and what to remove when the port dies.
        BOOTSTRAP_NAME_IN_USE if somebody lives there."""
        if not name:
            raise MachError(lib.BOOTSTRAP_UNKNOWN_SERVICE, f"{self.operation} (the name is empty)")
        file, socket = file_of(name), _SOCKET_PREFIX + id.decode()
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        lock = -1
        try:
            path = self._short(directory, socket)
            lock = self._locked(directory)
            if not self._is_free(directory, file):
                raise FileExistsError(EEXIST, "the name is in use", file)
            self._sweep(directory)
            fd = check(lib.machrv_listen(os.fsencode(path), 1))
            try:
                os.symlink(socket, file, dir_fd=directory)
            except OSError:
                os.unlink(socket, dir_fd=directory)
                close(fd)
                raise
            return fd, os.fsencode(path), BootstrapName(self.path, file, socket)
        except FileExistsError:
            raise MachError(lib.BOOTSTRAP_NAME_IN_USE, f"{self.operation} of {name!r}") from None
        finally:
            if lock >= 0:
                os.close(lock)
            os.close(directory)

    def _locked(self, directory: int) -> int:
        """Held while a name is claimed, so that of two who find a stale one only one replaces it."""
        import fcntl

        lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=directory)
        deadline = monotonic() + BACKLOG_PATIENCE
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                if monotonic() >= deadline:
                    os.close(lock)
                    raise MachError(
                        lib.BOOTSTRAP_NO_MEMORY,
                        f"{self.operation} (another process holds {self.path}/{_LOCK} and does not go on)",
                    ) from None
                sleep(0.005)

    def _is_free(self, directory: int, file: str) -> bool:
        """Whether nobody listens behind a name; a stale one is removed. What is no name of ours is left alone."""
        try:
            socket = linked_socket(directory, file)
        except FileNotFoundError:
            return True
        if not socket or not self._is_stale(directory, socket):
            return False
        BootstrapName(self.path, file, socket).remove()
        return True

    def _is_stale(self, directory: int, socket: str) -> bool:
        return lib.machrv_probe(os.fsencode(self._short(directory, socket))) in (-ECONNREFUSED, -ENOENT)

    def survey(self) -> list[tuple[str, str, bool]]:
        """What lies in the directory: (file, socket that it stands for, whether nobody listens there any more). The
        socket is "" for what is not ours. Changes nothing; raises OSError."""
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            found = []
            for file in sorted(os.listdir(directory)):
                try:
                    socket = file if is_socket(directory, file) else linked_socket(directory, file)
                except FileNotFoundError:
                    continue  # It has just gone.
                if file != _LOCK:
                    found.append((file, socket, bool(socket) and self._is_stale(directory, socket)))
            return found
        finally:
            os.close(directory)

    def sweep(self) -> None:
        """Remove all that processes which were killed have left behind. Raises MachError and OSError."""
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        lock = -1
        try:
            lock = self._locked(directory)
            self._sweep(directory, 1 << 30)
        finally:
            if lock >= 0:
                os.close(lock)
            os.close(directory)

    def _sweep(self, directory: int, most: int = SWEEP) -> None:
        """Remove some of what processes that were killed have left behind."""
        with os.scandir(directory) as found:
            for number, item in enumerate(found):
                if number >= most:
                    break
                if item.is_symlink():
                    self._is_free(directory, item.name)
                elif is_socket(directory, item.name) and self._is_stale(directory, item.name):
                    BootstrapName(self.path, item.name, item.name).remove()

    def look_up(self, name: str, timeout: float = BACKLOG_PATIENCE) -> tuple[int, bytes]:
        """Connect to a name: (the socket, the id of the port). BOOTSTRAP_UNKNOWN_SERVICE if nobody is there.

        KERN_OPERATION_TIMED_OUT if there is no place in the server's backlog before `timeout` seconds are over.
        """
        directory = -1
        try:
            link = f"{self.path}/{file_of(name)}"
            socket = os.readlink(link) if name and os.path.islink(link) else ""
            if not is_socket_name(socket):
                raise FileNotFoundError
            path = os.fsencode(f"{self.path}/{socket}")
            if len(path) >= lib.MACHRV_ADDRESS_MAX:
                directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                path = os.fsencode(self._short(directory, socket))
            fd = lib.machrv_connect(path, 0)
            if fd == -EAGAIN and timeout > 0:
                fd = self._connect_patiently(path, timeout)
            if fd == -EAGAIN:
                raise MachError(lib.KERN_OPERATION_TIMED_OUT, f"{self.operation} of {name!r}")
            if fd in (-ECONNREFUSED, -ENOENT, -EPROTOTYPE):
                raise FileNotFoundError
            return check(fd), os.fsencode(socket[len(_SOCKET_PREFIX) :])
        except (FileNotFoundError, NotADirectoryError):
            forget(self.path)
            raise MachError(lib.BOOTSTRAP_UNKNOWN_SERVICE, f"{self.operation} of {name!r}") from None
        finally:
            if directory >= 0:
                os.close(directory)

    @staticmethod
    def _connect_patiently(path: bytes, patience: float) -> int:
        """The server's backlog is full: wait for a place in it, but not for ever."""
        deadline = monotonic() + min(patience, BACKLOG_PATIENCE)
        while True:
            fd = int(lib.machrv_connect(path, max(1, int((deadline - monotonic()) * 1000))))
            if fd not in (-EAGAIN, -EINTR) or monotonic() >= deadline:
                return fd
