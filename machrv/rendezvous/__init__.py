"""Rendezvous: a parent registers port rights for a child that it has launched, and the child asks for them.

    protocol    what a request and a reply look like
    port        what is registered under a key
    registry    which process may claim which ports
    policy      whether a peer is who it must be
    server      the parent's end
    client      the child's end, the short way
    direct      the same, where no name is looked up
    steps       the child's end, step by step, where that does not do

A child imports the client only; import what you need from the module that has it, or from `machrv`.

What belongs here: names, which both ends need, of servers (the base bundle id, and where a child looks), and of ports (their
keys). What must never happen here: looking them up, or an import that a child does not need.
"""

# Without `from __future__ import annotations`, which loads a module that a child does without.

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.rendezvous.port import Key

#: `launch` tells the child here whom to ask; what a child finds by its parent's pid comes first, see `service_names`.
SERVICE_NAME_VARIABLE = "MACHRV_SERVICE_NAME"

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


def service_names() -> "list[str]":
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


def four_char_code(text: str) -> int:
    """The uint32 that four Latin-1 characters stand for, the first in the highest byte, as C reads 'port'."""
    try:
        encoded = text.encode("latin-1")
    except UnicodeEncodeError:
        encoded = b""
    if len(encoded) != 4:
        from machrv.rendezvous.port import KeyFormatError  # Here, as below: a key that is none is a mistake, and rare.

        raise KeyFormatError(f"{text!r} is no key: give four characters, or an integer of 32 bits")
    return int.from_bytes(encoded, "big")


def uint32_key(key: "Key") -> int:
    """The key as an integer. Raises KeyFormatError for what is neither a uint32 nor four characters."""
    if type(key) is int and 0 <= key <= 0xFFFFFFFF:
        return key
    if isinstance(key, str):
        return four_char_code(key)
    if not isinstance(key, int) or not 0 <= key <= 0xFFFFFFFF:
        from machrv.rendezvous.port import KeyFormatError

        raise KeyFormatError(f"{key!r} is no key: give an integer from 0 to 2**32 - 1, or four characters")
    return int(key)
