"""The sockets that rights are made of on Linux, for those who want to treat one as no port space would.

What belongs here: finding them, by what `machrv ports` asks. What must never happen here: a look into a port space.
"""

from __future__ import annotations

import os
import stat
from typing import Any

from machrv.kernel.linux import LinuxKernel
from machrv.kernel.linux.account import account


def entry_of(kernel: LinuxKernel, name: int) -> dict[str, Any]:
    """What the account says of a name."""
    (found,) = [entry for entry in account(kernel._task) if entry["name"] == name]
    return found


def sockets_of(kernel: LinuxKernel, name: int) -> list[int]:
    """The descriptors, borrowed, of the ends of a port; of a send right, the socket that its messages go into."""
    if not any(entry["name"] == name for entry in account(kernel._task)):
        return []
    entry = entry_of(kernel, name)
    inodes = entry["sockets"] or entry["ends"]
    found = []
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            status = os.fstat(fd)
        except OSError:
            continue  # The one that listed the folder.
        if status.st_ino in inodes and stat.S_ISSOCK(status.st_mode):
            found.append(fd)
    return found


def socket_of(kernel: LinuxKernel, name: int) -> int:
    """The only one of them."""
    (fd,) = sockets_of(kernel, name)
    return fd
