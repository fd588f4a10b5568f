"""Run a command as the process with a given pid: `recycle.py PID COMMAND...`. Needs to be root.

Exits with the command's status; with 3 where the kernel does not permit it, saying why, and with 4 if the pid is taken.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
from struct import Struct

_CLONE3 = 435  # on every architecture but alpha
# struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size
_CLONE_ARGS = Struct("=10Q")


def main(pid: int, command: list[str]) -> int:
    # This process has one thread, so what comes back from clone3 can go on as after fork.
    libc = ctypes.PyDLL(None, use_errno=True)
    wanted = ctypes.c_int32(pid)
    arguments = _CLONE_ARGS.pack(0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(wanted), 1)
    child = libc.syscall(ctypes.c_long(_CLONE3), arguments, ctypes.c_size_t(len(arguments)))
    if child == 0:
        os.execv(command[0], command)
    if child < 0:
        error = ctypes.get_errno()
        print(f"clone3 with set_tid: {os.strerror(error)}", file=sys.stderr)
        return 4 if error == errno.EEXIST else 3
    assert child == pid
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
