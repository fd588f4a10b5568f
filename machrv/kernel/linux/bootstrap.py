"""The directory of bootstrap names, for people: `machrv doctor`, and the texts of errors.

A name is a symbolic link to a listening socket, whose file name is a dot and the id of the port. What belongs here: a look at
what is there. What must never happen here: a change to it but by C's own sweep: machrv/native/linux/bootstrap.c.
"""

from __future__ import annotations

import os

from machrv._mach import ffi, lib

from machrv.kernel.kernel import failed


def directory() -> tuple[str, str]:
    """As C has it: (path, why it cannot be used, "" if it can). It is made if it is missing."""
    path, problem = ffi.new("char[]", 4096), ffi.new("char[]", 8192)
    number = lib.machrv_bootstrap_directory(path, len(path), problem, len(problem))
    if number:
        return "", os.strerror(-number)
    return os.fsdecode(ffi.string(path)), os.fsdecode(ffi.string(problem))


def sweep() -> int:
    """Remove all that processes which were killed have left behind, in this process's directory: how many. Raises MachError."""
    removed = lib.machrv_bootstrap_sweep()
    if removed < 0:
        raise failed("sweeping the bootstrap directory", -removed)
    return removed
