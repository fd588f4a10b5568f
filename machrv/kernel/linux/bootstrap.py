"""The directory of bootstrap names, for people: `machrv doctor`, and the texts of errors.

A name is a symbolic link to a listening socket, whose file name is a dot and the id of the port. What belongs here: a look at
what is there. What must never happen here: a change to it but by C's own sweep: machrv/native/linux/bootstrap.c.
"""

from __future__ import annotations

import os
import socket
import stat
from errno import ECONNREFUSED, ENOENT

from machrv._mach import ffi, lib

from machrv.kernel.kernel import failed

_LOCK = ".lock"


def chosen_path() -> tuple[str, str]:
    """Where the directory is by this process's environment, and the variable that says so, "" if none does."""
    path, runtime = os.environ.get("MACHRV_BOOTSTRAP_DIR", ""), os.environ.get("XDG_RUNTIME_DIR", "")
    if path:
        return path, "MACHRV_BOOTSTRAP_DIR"
    if runtime.startswith("/") and os.path.isdir(runtime):
        return os.path.join(runtime, "machrv"), "XDG_RUNTIME_DIR"
    return f"/tmp/machrv-{os.getuid()}", ""


def directory() -> tuple[str, str]:
    """As C has it: (path, why it cannot be used, "" if it can). It is made if it is missing."""
    path, problem = ffi.new("char[]", 4096), ffi.new("char[]", 8192)
    number = lib.machrv_bootstrap_directory(path, len(path), problem, len(problem))
    if number:
        return "", os.strerror(-number)
    return os.fsdecode(ffi.string(path)), os.fsdecode(ffi.string(problem))


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


def sweep() -> int:
    """Remove all that processes which were killed have left behind, in this process's directory: how many. Raises MachError."""
    removed = lib.machrv_bootstrap_sweep()
    if removed < 0:
        raise failed("sweeping the bootstrap directory", -removed)
    return removed
