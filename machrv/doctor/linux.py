"""The Linux kernel: what machrv uses of it, what is missing, what is done instead and what that costs."""

# What belongs here: each feature that has a fallback or is required, tried out the way in which machrv uses it. What
# must never happen here: an answer read off a version number, since distributions port features back and sandboxes take
# them away; or a descriptor that is left open.

from __future__ import annotations

import os
import platform
import socket
from errno import ENOSYS, EPERM
from typing import TYPE_CHECKING, NamedTuple

import machrv.constants as constants
from machrv.doctor.findings import NOTE, OK, WARNING, WRONG, Finding
from machrv.doctor.sockets import unix_sockets
from machrv.errors import UnsupportedError
from machrv.doctor.probing import features as features, memory_error
from machrv.kernel import current

if TYPE_CHECKING:
    from collections.abc import Iterator

SECTION = "Linux"
_LARGEST_PACKET = 65536 + 64  # the message, and what machrv puts before it
#: Before 6.17 some kernels have no pidfd for a sender that somebody has waited for, and say so in its place: 6.12 does.
GONE = "pidfds of the gone"


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


def _finding(feature: Feature, works: bool) -> Finding:
    if works:
        return Finding(SECTION, feature.name, OK, feature.gives)
    found = f"missing: {feature.without}"
    if feature.required:
        advice = f"Linux {feature.since} has it; a sandbox or a container runtime may take it away"
        return Finding(SECTION, feature.name, WRONG, found, advice)
    return Finding(SECTION, feature.name, WARNING, found, f"Linux {feature.since} has it", feature.without)


def _packets() -> Finding:
    """Whether the largest packet fits into a socket, and memory into memfds."""
    what = "large messages"
    size = _LARGEST_PACKET
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
    number = memory_error()
    if number:
        found = f"no memfd ({os.strerror(number)}): messages over 64 KiB and out-of-line memory cannot be sent"
        return Finding(SECTION, what, WARNING, found, _refused(number, "memfd_create", "3.17"))
    return Finding(SECTION, what, OK, "64 KiB in one packet, more in a sealed memfd")


def _descriptors() -> Finding:
    """Whether one message may bring as many descriptors as machrv sends."""
    most = current().most_rights() or constants.MACHRV_MAX_FDS
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with own, other:
        try:
            socket.send_fds(own, [b"?"], [own.fileno()] * most)
        except OSError as error:
            found = f"{most} in one message are refused: {error.strerror}"
            advice = "raise `ulimit -n`: as many descriptors may be on their way as a process may have open"
            return Finding(SECTION, "rights in one message", WARNING, found, advice)
    if most < constants.MACHRV_MAX_FDS:
        found = f"{most} in place of {constants.MACHRV_MAX_FDS}: the C library sends no more, as musl did before 1.2.6"
        return Finding(SECTION, "rights in one message", WARNING, found, "nothing, or a newer C library")
    return Finding(SECTION, "rights in one message", OK, f"{most}")


def _diag() -> Finding:
    try:
        unix_sockets()
    except UnsupportedError as error:
        return Finding(SECTION, "sock_diag", NOTE, "missing: `machrv ports` cannot look into processes", str(error))
    return Finding(SECTION, "sock_diag", OK, "`machrv ports` can look into processes")


def _refused(number: int, call: str, since: str) -> str:
    if number == ENOSYS:
        return f"Linux {since} has {call}; a sandbox may hide it"
    return f"a sandbox refuses {call}" if number == EPERM else f"see `man {call}`"
