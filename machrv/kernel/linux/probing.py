"""What this Linux has of what machrv uses: each tried out in the way in which machrv uses it, for `machrv doctor`."""

# What must never happen here: an answer read off a version number, since distributions port features back and sandboxes take
# them away; or a descriptor that is left open.

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import ExitStack

from machrv._mach import ffi, lib

_SEAL_EXEC = 0x20  # F_SEAL_EXEC, include/uapi/linux/fcntl.h, Linux 6.3
_DEEP = 6  # One more than what kernels before 6.10 let through.


def features() -> dict[str, bool]:
    """Which features machrv has here, by name: what `lib.machrv_without` switches off counts as missing."""
    pidfd = lib.machrv_pidfd_open(os.getpid())
    pid, attached, stamped = _attested()
    found = {"pidfd_open": pidfd >= 0, "SCM_CREDENTIALS": pid == os.getpid(), "SO_TIMESTAMPNS": stamped}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as one:
        found["SO_NETNS_COOKIE"] = lib.machrv_netns(one.fileno()) != 0
    found["MFD_NOEXEC_SEAL"] = _noexec()
    found["SO_PASSPIDFD"] = lib.machrv_has_passpidfd() > 0 and attached > 0
    try:
        found["pidfs"] = pidfd >= 0 and lib.machrv_process(os.getpid(), pidfd) == os.fstat(pidfd).st_ino
    finally:
        if pidfd >= 0:
            os.close(pidfd)
    found["deep passing"] = _passes(_DEEP)
    found["PIDFD_GET_INFO"] = attached > 1
    return found


def _attested() -> tuple[int, int, bool]:
    """What the kernel says of a message: the sender's pid; 0, or 1 with a pidfd, 2 with ids too; whether it is stamped."""
    ends = ffi.new("int[2]")
    address = b"\0machrv-doctor/" + os.urandom(8).hex().encode()
    if lib.machrv_pair(ends, address, len(address), 1, 1) < 0:
        return 0, 0, False
    try:
        into = ffi.new("machrv_received *")
        if lib.machrv_send_raw(ends[1], b"?", 1, ffi.NULL, 0) < 0 or lib.machrv_receive_raw(ends[0], into) < 0:
            return 0, 0, False
        return into.pid, into.pidfd, into.stamp != 0
    finally:
        os.close(ends[0])
        os.close(ends[1])


def _noexec() -> bool:
    """Whether memory objects are sealed against being run."""
    fd = lib.machrv_memory_object(4096)
    if fd < 0:
        return False
    try:
        return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEAL_EXEC)
    finally:
        os.close(fd)


def _passes(depth: int) -> bool:
    """Whether a socket can wait in a socket that waits in a socket, so many deep."""
    with ExitStack() as stack:
        inner = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        for _ in range(depth):
            own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.enter_context(own)
            stack.enter_context(other)
            try:
                socket.send_fds(own, [b"?"], [inner.fileno()])
            except OSError:
                return False
            inner = other
    return True


def memory_error() -> int:
    """The errno with which the kernel refuses memory for a message; 0 if it does not."""
    memory = ffi.new("char[16]")
    fd: int = lib.machrv_memory(int(ffi.cast("uintptr_t", memory)), 16)
    if fd < 0:
        return -fd
    os.close(fd)
    return 0
