"""What this Linux has of what machrv uses: each tried out in the way in which machrv uses it, for `machrv doctor`."""

# What must never happen here: an answer read off a version number, since distributions port features back and sandboxes take
# them away; or a descriptor that is left open.

from __future__ import annotations

import os
import socket
import sys
from contextlib import ExitStack

import machrv.constants as constants
from machrv.errors import MachError
from machrv.kernel import current
from machrv.kernel.linux.account import features as told

_TIMESTAMPNS = 35  # SO_TIMESTAMPNS and SCM_TIMESTAMPNS, asm-generic/socket.h
_DEEP = 6  # One more than what kernels before 6.10 let through.


def features() -> dict[str, bool]:
    """Which features machrv has here, by name: what was switched off for a test counts as missing."""
    try:
        current().open_process(os.getpid()).close()
        pinned = True
    except (MachError, ProcessLookupError):
        pinned = False
    pid, stamped = _attested()
    has = told()
    return {
        "pidfd_open": pinned,
        "SCM_CREDENTIALS": pid == os.getpid(),
        "SO_TIMESTAMPNS": stamped,
        "SO_NETNS_COOKIE": bool(has & constants.MACHRV_WITHOUT_NETNS_COOKIE),
        "MFD_NOEXEC_SEAL": bool(has & constants.MACHRV_WITHOUT_NOEXEC_SEAL),
        "SO_PASSPIDFD": bool(has & constants.MACHRV_WITHOUT_PASSPIDFD),
        "pidfs": bool(has & constants.MACHRV_WITHOUT_PIDFS),
        "deep passing": _passes(_DEEP),
        "PIDFD_GET_INFO": bool(has & constants.MACHRV_WITHOUT_PIDFD_INFO),
        "pidfds of the gone": bool(has & constants.MACHRV_WITHOUT_PIDFD_OF_GONE),
    }


def _attested() -> tuple[int, bool]:
    """What the kernel says of a message: the sender's pid, 0 if nothing; whether it is stamped."""
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with own, other:
        try:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            own.setsockopt(socket.SOL_SOCKET, _TIMESTAMPNS, 1)
            other.send(b"?")
            told = {kind: data for _, kind, data in own.recvmsg(1, 256, socket.MSG_DONTWAIT)[1]}
        except OSError:
            return 0, False
    return int.from_bytes(told.get(socket.SCM_CREDENTIALS, b"")[:4], sys.byteorder), _TIMESTAMPNS in told


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
    try:
        os.close(os.memfd_create("machrv-doctor", os.MFD_CLOEXEC))
    except OSError as error:
        return error.errno or 1
    return 0
