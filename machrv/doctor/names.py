"""Checking a name in and looking one up, tried apart: a sandbox may allow the one and deny the other."""

# What belongs here: both calls, and what to allow where one is denied. What must never happen here: a name that is left, or
# one that anybody else could want.

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from machrv.constants import BOOTSTRAP_NOT_PRIVILEGED, BOOTSTRAP_UNKNOWN_SERVICE
from machrv.doctor.findings import OK, WRONG, Finding
from machrv.errors import MachError
from machrv.kernel import current
from machrv.rendezvous.names import base_bundle_id, server_name
from machrv.rights import ReceiveRight, SendRight

if TYPE_CHECKING:
    from collections.abc import Iterator

SECTION = "Names"
REGISTER, LOOK_UP = "registering a name", "looking a name up"


def look() -> Iterator[Finding]:
    """A name of this process's own is checked in and looked up; and one that nobody has."""
    kernel, name = current(), f"{server_name(os.getpid())}.doctor"
    try:
        port = ReceiveRight(kernel.bootstrap_check_in(name), kernel)
    except MachError as error:
        yield _denied(REGISTER, error, name)
        yield _look_up(f"{name}.nobody", True)
        return
    with port:
        yield Finding(SECTION, REGISTER, OK, f"{name!r} can be checked in")
        yield _look_up(name, False)


def _look_up(name: str, absent: bool) -> Finding:
    kernel = current()
    try:
        SendRight(kernel.bootstrap_look_up(name, 5.0), kernel).close()
    except MachError as error:
        if absent and error.code == BOOTSTRAP_UNKNOWN_SERVICE:
            return Finding(SECTION, LOOK_UP, OK, "is allowed: of a name that nobody has, that is what is answered")
        return _denied(LOOK_UP, error, name)
    return Finding(SECTION, LOOK_UP, OK, "what was checked in is found")


def _denied(what: str, error: MachError, name: str) -> Finding:
    advice = _advice(what) if error.code == BOOTSTRAP_NOT_PRIVILEGED else "the lines about the bootstrap may say why"
    return Finding(SECTION, what, WRONG, str(error), advice)


def _advice(what: str) -> str:
    """What to allow, in the words of whoever denies it."""
    if sys.platform == "darwin" or current().name == "darwin":
        right = "mach-register" if what == REGISTER else "mach-lookup"
        return (
            f'in a Seatbelt profile, (allow {right} (global-name-prefix "{base_bundle_id()}.MachPortRendezvousServer.")); in the '
            "App Sandbox, a name under an application group: set_base_bundle_id('TEAMID.group'). Or no name at all: "
            "DirectRendezvousServer (docs/macos.md, Sandboxes)"
        )
    if what == REGISTER:
        allow = (
            "where Landlock denies it, allow MAKE_SOCK, MAKE_SYM, REMOVE_FILE, READ_FILE, WRITE_FILE and MAKE_REG beneath the bootstrap "
            "directory; where AppArmor or SELinux does, its sockets and links"
        )
    else:
        allow = (
            "where Landlock denies it, allow READ_FILE, WRITE_FILE and RESOLVE_UNIX (Linux 7.1) beneath the bootstrap directory; where "
            "seccomp does, connect(2); where AppArmor or SELinux does, to write to its sockets"
        )
    return f"{allow}. Or launch children with launch(..., nameless=True), which needs no name"
