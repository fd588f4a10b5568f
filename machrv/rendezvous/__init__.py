"""Rendezvous: a parent registers port rights for a child that it has launched, and the child asks for them.

names       where a child looks for its server; keys: what a right is registered under
protocol    what a request and a reply look like
policy      whether a peer is who it must be
telling     what a process is called in a log
port        what is registered under a key
dispatch    waiting for requests and for exits
registry    which process may claim which ports
server      the parent's end
client      the child's end; claimed: what came of it
launch      a child started and registered in one step
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machrv.rendezvous.client import (
        DirectRendezvousClient as DirectRendezvousClient,
        RendezvousClient as RendezvousClient,
    )
    from machrv.rendezvous.keys import four_char_code as four_char_code
    from machrv.rendezvous.names import (
        SERVICE_NAME_VARIABLE as SERVICE_NAME_VARIABLE,
        base_bundle_id as base_bundle_id,
        server_name as server_name,
        service_names as service_names,
        set_base_bundle_id as set_base_bundle_id,
    )
    from machrv.rendezvous.port import RendezvousPort as RendezvousPort
    from machrv.rendezvous.server import (
        DirectRendezvousServer as DirectRendezvousServer,
        RendezvousServer as RendezvousServer,
        RendezvousServerBase as RendezvousServerBase,
    )

#: Where each name comes from: a child does not pay for the parent's end.
_MODULES = {
    "machrv.rendezvous.client": "DirectRendezvousClient RendezvousClient",
    "machrv.rendezvous.keys": "four_char_code",
    "machrv.rendezvous.names": "SERVICE_NAME_VARIABLE base_bundle_id server_name service_names set_base_bundle_id",
    "machrv.rendezvous.port": "RendezvousPort",
    "machrv.rendezvous.server": "DirectRendezvousServer RendezvousServer RendezvousServerBase",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = sorted(_HOMES)


if not TYPE_CHECKING:  # A checker is to know what there is, and that there is nothing else.

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value: object = getattr(__import__(_HOMES[name], fromlist=(name,)), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOMES))
