"""macOS: what can be told of Mach there."""

# What belongs here: version, sandbox, and the calls that older systems lack. What must never happen here: a promise
# that was not tried.

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

from machrv.doctor.findings import NOTE, OK, WARNING, Finding
from machrv.kernel import current
from machrv.message import MACH_PORT_RIGHT_RECEIVE

if TYPE_CHECKING:
    from collections.abc import Iterator

SECTION = "macOS"
_OLDEST = 11


def look() -> Iterator[Finding]:
    """The system, its sandbox, ports, descriptors and processes."""
    version = platform.mac_ver()[0]
    if version and int(version.split(".")[0]) < _OLDEST:
        yield Finding(SECTION, "system", WARNING, f"macOS {version}", "machrv is made for macOS 11 and newer")
    else:
        yield Finding(SECTION, "system", OK, f"macOS {version or '(not told)'} on {platform.machine()}")
    container = os.environ.get("APP_SANDBOX_CONTAINER_ID", "")
    if container:
        found = f"this process is in the App Sandbox ({container[:80]!a}): names need an application group's prefix"
        yield Finding(SECTION, "sandbox", NOTE, found, 'set_base_bundle_id("TEAMID.group"): docs/macos.md')
    yield from _ports()
    yield Finding(
        SECTION,
        "experience",
        NOTE,
        "this version of machrv has not been run on a Mac before it was released: docs/macos.md",
    )


def _ports() -> Iterator[Finding]:
    kernel = current()
    reply = kernel.mach_reply_port()
    kernel.mach_port_mod_refs(reply, MACH_PORT_RIGHT_RECEIVE, -1)
    yield Finding(SECTION, "ports", OK, "reply ports can be made")
    token = kernel.audit_token()
    if token.pid == os.getpid():
        yield Finding(
            SECTION, "audit token", OK, f"the kernel tells this process's: pid {token.pid}, {token.pidversion}"
        )
    else:
        found = "the kernel does not tell this process's own"
        yield Finding(SECTION, "audit token", WARNING, found, "a sandbox may be why")
    process = kernel.open_process(os.getpid())
    known = bool(getattr(process, "pidversion", 0))
    process.close()
    if known:
        yield Finding(SECTION, "processes", OK, "their pidversions are told")
    else:
        found = "their pidversions are not told: a registration is for the pid until the first request"
        yield Finding(SECTION, "processes", NOTE, found, "", "a kqueue guards the pid until then")
