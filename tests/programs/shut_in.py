"""Shuts itself in, and becomes another program: `shut_in.py namespace|landlock DIRECTORY COMMAND...`. 77: not allowed here."""

from __future__ import annotations

import ctypes
import os
import sys

_NEWNS, _NEWUSER, _RECURSIVE, _PRIVATE = 0x00020000, 0x10000000, 0x4000, 1 << 18


#: <linux/landlock.h>, include/uapi/asm-generic/unistd.h
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_MAKE_SOCK, _MAKE_SYM = 1 << 9, 1 << 12
_NO_NEW_PRIVS = 38


def main() -> None:
    """See the two below."""
    way, directory, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    {"namespace": namespace, "landlock": landlock}[way](libc, directory)
    os.execv(command[0], command)


def landlock(libc: ctypes.CDLL, directory: str) -> None:
    """No socket and no symbolic link can be made anywhere: no name can be checked in. Looking up goes on."""
    handled = ctypes.c_uint64(_MAKE_SOCK | _MAKE_SYM)
    fd = libc.syscall(_CREATE_RULESET, ctypes.byref(handled), ctypes.sizeof(handled), 0)
    if fd < 0 or libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(_RESTRICT_SELF, fd, 0):
        sys.exit(77)
    os.close(fd)


def namespace(libc: ctypes.CDLL, directory: str) -> None:
    """A mount namespace of its own in which `directory` is empty."""
    if libc.unshare(_NEWNS) and libc.unshare(_NEWUSER | _NEWNS):
        sys.exit(77)
    if libc.mount(b"none", b"/", None, _RECURSIVE | _PRIVATE, None):
        sys.exit(77)
    if libc.mount(b"none", os.fsencode(directory), b"tmpfs", 0, None):
        sys.exit(77)


if __name__ == "__main__":
    main()
