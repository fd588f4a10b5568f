"""What surrounds the process: its limits, and whoever restricts it."""

# What belongs here: numbers that run out, and the sandboxes, namespaces and modules that may be why something is
# missing. What must never happen here: a setting that is changed.

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

from machrv.doctor.findings import NOTE, OK, WARNING, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS, SANDBOXES = "Limits", "Sandboxes"
#: One message brings up to 253 descriptors; a program has some of its own.
_FEW = 320
_MACHRVS_BACKLOG = 4096  # machrv_listen
_SMALL_BACKLOG = 128
_SMALL_BUFFER = 106496  # Half of what is usual: the largest packet fits once.
_FEW_WATCHES = 16384
_SECCOMP = {"1": "strict mode", "2": "a filter"}
_FIRST_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO, include/linux/proc_ns.h
_ALL_IDS = "0 0 4294967295"


def limits() -> Iterator[Finding]:
    """What runs out first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
    found = f"{'unlimited' if soft == resource.RLIM_INFINITY else soft} (`ulimit -n` can go up to {most})"
    explained = "each right costs one here and one where it is received; a message brings up to 253"
    if soft != resource.RLIM_INFINITY and soft < _FEW:
        yield Finding(
            LIMITS, "descriptors of a process", WARNING, f"{found}: {explained}", "`ulimit -n 1024`, at least"
        )
    else:
        yield Finding(LIMITS, "descriptors of a process", OK, f"{found}: {explained}")
    yield from _open_files()
    backlog = _number("/proc/sys/net/core/somaxconn")
    if backlog is not None:
        children = min(backlog, _MACHRVS_BACKLOG)
        found = f"{children} children can ask at the same moment before one has to wait (net.core.somaxconn)"
        small = backlog < _SMALL_BACKLOG
        yield Finding(
            LIMITS,
            "backlog",
            NOTE if small else OK,
            found,
            f"`sysctl net.core.somaxconn={_MACHRVS_BACKLOG}`" if small else "",
        )
    buffer = _number("/proc/sys/net/core/wmem_default")
    if buffer is not None:
        found = f"{buffer} bytes of messages wait in each right before its sender does (net.core.wmem_default)"
        small = buffer < _SMALL_BUFFER
        advice = "`sysctl net.core.wmem_default=212992`" if small else ""
        yield Finding(LIMITS, "socket buffer", WARNING if small else OK, found, advice)
    watches = _number("/proc/sys/fs/epoll/max_user_watches")
    if watches is not None:
        few = watches < _FEW_WATCHES
        found = f"{watches} for all processes of a user; each right of a receiver costs one (fs.epoll.max_user_watches)"
        yield Finding(LIMITS, "epoll watches", WARNING if few else OK, found, "raise it with sysctl" if few else "")
    queue = _number("/proc/sys/net/unix/max_dgram_qlen")
    if queue is not None:
        found = f"{queue}: no limit to machrv, whose sockets are connected pairs (net.unix.max_dgram_qlen)"
        yield Finding(LIMITS, "datagram queue", OK, found)


def _open_files() -> Iterator[Finding]:
    try:
        with open("/proc/sys/fs/file-nr", encoding="ascii") as file:
            used, _, most = map(int, file.read().split())
    except (OSError, ValueError):
        return
    found = f"{used} of {most} are open (fs.file-max)"
    full = used * 10 > most * 9
    yield Finding(LIMITS, "files of the system", WARNING if full else OK, found, "raise fs.file-max" if full else "")


def sandboxes() -> Iterator[Finding]:
    """Who may be why something is missing."""
    status = _status()
    mode = status.get("Seccomp", "0")
    if mode in _SECCOMP:
        found = f"{_SECCOMP[mode]} is in force; what it refuses looks as if the kernel lacked it"
        yield Finding(SANDBOXES, "seccomp", NOTE, found)
    else:
        yield Finding(SANDBOXES, "seccomp", OK, "no filter")
    container = _container()
    if container:
        found = f"{container}: a child in another container has another bootstrap directory, unless it is mounted there"
        yield Finding(SANDBOXES, "container", NOTE, found)
    if " ".join(_read("/proc/self/uid_map").split()) not in ("", _ALL_IDS):
        found = "users from outside this namespace appear as 65534, in messages too"
        yield Finding(SANDBOXES, "user namespace", NOTE, found)
    numbers = status.get("NSpid", "").split()
    if len(numbers) > 1 or _link("/proc/self/ns/pid") not in ("", _FIRST_PID_NAMESPACE):
        outside = f" and {numbers[0]} outside" if len(numbers) > 1 else ""
        found = f"this process is {(numbers or ['?'])[-1]} here{outside}; `launch` tells its children the server's name"
        yield Finding(SANDBOXES, "pid namespace", NOTE, found)
    modules = _read("/sys/kernel/security/lsm").strip()
    confined = _read("/proc/self/attr/current").strip("\0\n ")
    if confined and not confined.startswith(("unconfined", "kernel")):
        found = f"this process is confined as {confined!a} ({modules or 'a security module'})"
        yield Finding(SANDBOXES, "security module", NOTE, found, "what it denies shows in the audit log")
    elif modules:
        yield Finding(SANDBOXES, "security modules", OK, f"{modules}; this process is not confined by name")
    if _read("/proc/sys/kernel/yama/ptrace_scope").strip() == "0":
        found = "processes of one user may debug each other, and take each other's rights (docs/security.md)"
        yield Finding(SANDBOXES, "ptrace", NOTE, found, "`sysctl kernel.yama.ptrace_scope=1`, where that matters")


def _container() -> str:
    if os.path.exists("/run/.containerenv"):
        return "Podman"
    if os.path.exists("/.dockerenv"):
        return "Docker"
    if "gvisor" in _read("/proc/version").lower() or _read("/proc/version").startswith(
        "Linux version 4.4.0 #1 SMP Sun"
    ):
        return "gVisor"
    return os.environ.get("container", "")[:40]


def _status() -> dict[str, str]:
    pairs = (line.partition(":") for line in _read("/proc/self/status").splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _number(path: str) -> int | None:
    try:
        return int(_read(path))
    except ValueError:
        return None


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _read(path: str) -> str:
    """What is in a file of the kernel's; "" where it is not there or not to be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 16)
    except OSError:
        return ""
