"""The names that servers are found under: the base bundle id, and where a child looks."""

from __future__ import annotations

import os

#: `launch` tells the child here whom to ask; what a child finds by its parent's pid comes first, see `service_names`.
SERVICE_NAME_VARIABLE = "MACHRV_SERVICE_NAME"
#: And here, if no name is to be looked up, which descriptor it has inherited: see `inherited`.
SERVER_FD_VARIABLE = "MACHRV_SERVER_FD"

_DEFAULT_BASE_BUNDLE_ID = "org.machrv"
_base_bundle_id = ""


def base_bundle_id() -> str:
    """The first part of every service name of this process, "org.machrv" unless it was set."""
    return _base_bundle_id or _DEFAULT_BASE_BUNDLE_ID


def set_base_bundle_id(bundle_id: str) -> None:
    """Set the first part of the service names that are used from now on; "" goes back to the default.

    A parent and a child that do not agree on it do not find each other. To meet a Chromium process, use its bundle id
    ("com.google.Chrome"). Names that a sandbox allows usually begin with an application group's id.
    """
    global _base_bundle_id
    _base_bundle_id = bundle_id


def server_name(pid: int) -> str:
    """The service name of the server in the process `pid`."""
    return f"{base_bundle_id()}.MachPortRendezvousServer.{pid}"


def service_names() -> list[str]:
    """Where this process looks for its parent's server, best first.

    A parent is found by its pid, as in Chromium. That fails where the pid that the child sees is not the one that the
    parent sees (a pid namespace), or where the parent of the process is not who launched it (the fork server of
    multiprocessing): then the name that `launch` left in the environment counts. It comes second, since a process also
    passes it on to children that it launches itself. A base bundle id that the program has set rules out names of
    another one.
    """
    parent = os.getppid()
    by_pid = server_name(parent)
    passed = os.environ.get(SERVICE_NAME_VARIABLE, "")
    if not passed or (_base_bundle_id and not passed.startswith(f"{_base_bundle_id}.MachPortRendezvousServer.")):
        return [by_pid]
    if passed.rpartition(".")[2] == str(parent):
        return [passed]
    return [by_pid, passed]
