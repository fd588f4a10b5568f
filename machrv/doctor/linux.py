"""The Linux kernel: what machrv uses of it, what is missing, what is done instead and what that costs.

What belongs here: each feature that has a fallback or is required, tried out the way in which machrv uses it. What must
never happen here: an answer read off a version number, since distributions port features back and sandboxes take them
away; or a descriptor that is left open.
"""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from contextlib import ExitStack
from errno import ENOSYS, EPERM
from typing import TYPE_CHECKING, NamedTuple

from machrv.doctor.findings import NOTE, OK, WARNING, WRONG, Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECTION = "Linux"
_SEAL_EXEC = 0x20  # F_SEAL_EXEC, include/uapi/linux/fcntl.h, Linux 6.3
#: Before 6.17 some kernels have no pidfd for a sender that somebody has waited for, and say so in its place: 6.12 does.
GONE = "pidfds of the gone"
_DEEP = 6  # One more than what kernels before 6.10 let through.


class Feature(NamedTuple):
    """A kernel feature: since when, what it gives, and what happens without it. `required`: nothing works without."""

    name: str
    since: str
    gives: str
    without: str
    required: bool = False


FEATURES = {
    feature.name: feature
    for feature in (
        Feature(
            "pidfd_open", "5.3", "a process is pinned, not its number", "processes cannot be pinned", required=True
        ),
        Feature(
            "SCM_CREDENTIALS", "2.2", "the kernel says who sent each message", "senders are unknown", required=True
        ),
        Feature(
            "SO_TIMESTAMPNS",
            "2.6.22",
            "messages over several rights come out in the order in which they were sent",
            "their order goes by the senders' clocks",
        ),
        Feature(
            "SO_NETNS_COOKIE",
            "5.14",
            "a right that comes home is known again",
            "a right comes home only in the process that made it",
        ),
        Feature(
            "MFD_NOEXEC_SEAL",
            "6.3",
            "memory objects cannot be run as programs",
            "a memory object could be made executable by whoever gets it",
        ),
        Feature(
            "SO_PASSPIDFD",
            "6.5",
            "each message brings its sender's pidfd",
            "a message whose sender has exited before it is received may count as sent by whoever has its number by then",
        ),
        Feature(
            "pidfs",
            "6.9",
            "a process is told from every other that had or will have its number",
            "a process is told from the next one with its number by its start time, to 10 ms",
        ),
        Feature(
            "deep passing",
            "6.10",
            "rights in rights in rights, to any depth",
            "receive rights can wait in each other's queues four deep, then sending fails",
        ),
        Feature(
            "PIDFD_GET_INFO",
            "6.13",
            "a sender's effective user and group",
            "they are reported as its real ones",
        ),
        Feature(
            GONE,
            "6.17",
            "a message tells which process sent it, though that is gone",
            "a message whose sender has exited and was waited for before it is received tells its pid and user, and not "
            "which process with that pid it was: it is delivered, and counts as no process's in particular",
        ),
    )
}


def look() -> Iterator[Finding]:
    """Version, features, what else machrv uses."""
    yield Finding(SECTION, "kernel", OK, f"{platform.release()} on {platform.machine()}")
    if not os.path.exists("/proc/self/stat"):
        advice = "mount it: long bootstrap paths, requirements and kernels before 6.9 need it"
        yield Finding(SECTION, "/proc", WARNING, "is not there", advice)
    for name, works in features().items():
        yield _finding(FEATURES[name], works)
    yield _packets()
    yield _descriptors()
    yield _diag()


def features() -> dict[str, bool]:
    """Which of FEATURES machrv has here: what `lib.machrv_without` switches off counts as missing."""
    from machrv._mach import lib

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
    found[GONE] = _attested(_send_and_be_gone)[1] > 0
    return found


def _finding(feature: Feature, works: bool) -> Finding:
    if works:
        return Finding(SECTION, feature.name, OK, feature.gives)
    found = f"missing: {feature.without}"
    if feature.required:
        advice = f"Linux {feature.since} has it; a sandbox or a container runtime may take it away"
        return Finding(SECTION, feature.name, WRONG, found, advice)
    return Finding(SECTION, feature.name, WARNING, found, f"Linux {feature.since} has it", feature.without)


def _send(right: int) -> None:
    os.write(right, b"?")


def _send_and_be_gone(right: int) -> None:
    """Have a message sent by a process that has exited and been waited for. Raises OSError."""
    program = "import os; os.write(1, b'?')"
    subprocess.run([sys.executable, "-I", "-S", "-c", program], stdout=right, stderr=subprocess.DEVNULL)


def _attested(send: Callable[[int], None] = _send) -> tuple[int, int, bool]:
    """What the kernel says of a message: the sender's pid; 0, or 1 with a pidfd, 2 with ids too; whether it is stamped.

    With zeros for what could not be tried.
    """
    from machrv._mach import ffi, lib

    ends = ffi.new("int[2]")
    address = b"\0machrv-doctor/" + os.urandom(8).hex().encode()
    if lib.machrv_pair(ends, address, len(address), 1, 1) < 0:
        return 0, 0, False
    try:
        into = ffi.new("machrv_received *")
        send(ends[1])
        if lib.machrv_receive_raw(ends[0], into) < 0:
            return 0, 0, False
        return into.pid, into.pidfd, into.stamp != 0
    except OSError:
        return 0, 0, False
    finally:
        os.close(ends[0])
        os.close(ends[1])


def _noexec() -> bool:
    """Whether memory objects are sealed against being run."""
    import fcntl

    from machrv._mach import lib

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


def _packets() -> Finding:
    """Whether the largest packet fits into a socket, and memory into memfds."""
    from machrv._mach import ffi, lib

    what = "large messages"
    size = lib.MACHRV_MAX_INLINE + lib.MACHRV_WIRE_HEADER
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with own, other:
        try:
            own.send(bytes(size), socket.MSG_DONTWAIT)
        except OSError as error:
            found = (
                f"a packet of {size} bytes does not fit into a socket ({error.strerror}): sending such messages fails"
            )
            return Finding(
                SECTION, what, WARNING, found, "`sysctl net.core.wmem_default=212992`, which is the usual value"
            )
    memory = ffi.new("char[16]")
    fd = lib.machrv_memory(int(ffi.cast("uintptr_t", memory)), 16)
    if fd < 0:
        found = f"no memfd ({os.strerror(-fd)}): messages over 64 KiB and out-of-line memory cannot be sent"
        return Finding(SECTION, what, WARNING, found, _refused(-fd, "memfd_create", "3.17"))
    os.close(fd)
    return Finding(SECTION, what, OK, "64 KiB in one packet, more in a sealed memfd")


def _descriptors() -> Finding:
    """Whether one message may bring as many descriptors as machrv sends."""
    from machrv._mach import lib

    most: int = lib.MACHRV_MAX_FDS
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with own, other:
        try:
            socket.send_fds(own, [b"?"], [own.fileno()] * most)
        except OSError as error:
            found = f"{most} in one message are refused: {error.strerror}"
            advice = "raise `ulimit -n`: as many descriptors may be on their way as a process may have open"
            return Finding(SECTION, "rights in one message", WARNING, found, advice)
    return Finding(SECTION, "rights in one message", OK, f"{most}")


def _diag() -> Finding:
    from machrv.cli.sockets import unix_sockets
    from machrv.errors import UnsupportedError

    try:
        unix_sockets()
    except UnsupportedError as error:
        return Finding(SECTION, "sock_diag", NOTE, "missing: `machrv ports` cannot look into processes", str(error))
    return Finding(SECTION, "sock_diag", OK, "`machrv ports` can look into processes")


def _refused(number: int, call: str, since: str) -> str:
    if number == ENOSYS:
        return f"Linux {since} has {call}; a sandbox may hide it"
    return f"a sandbox refuses {call}" if number == EPERM else f"see `man {call}`"
