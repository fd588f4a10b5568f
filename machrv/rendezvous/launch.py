"""Start a child and register its ports in one step."""

# What must never happen here: a right that is still moving when the call fails, or a child that runs though its ports were
# refused.

from __future__ import annotations

import os
import subprocess

from machrv.errors import ProcessGoneError
from machrv.rendezvous.names import SERVICE_NAME_VARIABLE
from machrv.rendezvous.policy import add_feature_state_to_environment
from machrv.rendezvous.port import checked_ports, destroy_ports, take_ports
from machrv.rendezvous.server import RendezvousServer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Union

    from machrv.rendezvous.port import Ports
    from machrv.requirement import Requirement

    PathLike = Union[str, bytes, os.PathLike[str], os.PathLike[bytes]]


def launch(
    args: PathLike | Sequence[PathLike],
    ports: Ports | None = None,
    requirement: Requirement | None = None,
    *,
    server: RendezvousServer | None = None,
    **popen: Any,
) -> subprocess.Popen[Any]:
    """Start a child with subprocess.Popen(args, **popen) and register `ports` for it, so that it cannot ask too early.

    `ports` maps a uint32 key, or its four characters, to a `RendezvousPort` or an owned right. The call takes everything
    that is to be moved: the child gets it, or it is given up when the child exits without asking, or when the call
    fails. `requirement` is what the child must be to get it. `server`: None is RendezvousServer.get_instance(). The
    child's environment gets MACHRV_SERVICE_NAME, so that it finds the server where its parent's pid does not lead there,
    and the validation policy. A requirement refuses nobody unless that is ENFORCE.

    The child that asks must be the process that was started: with `shell=True` that is the shell.

    Raises what Popen raises (FileNotFoundError), KeyFormatError, RegistrationError, RightError and RendezvousError.
    """
    ports = {} if ports is None else ports
    try:
        if server is None:
            server = RendezvousServer.get_instance()
        owned = take_ports(checked_ports(ports, server.kernel), server.kernel)
    except BaseException:
        destroy_ports(ports)
        raise
    try:
        environment = dict(os.environ if popen.get("env") is None else popen["env"])
        environment[SERVICE_NAME_VARIABLE] = server.service_name
        add_feature_state_to_environment(environment)
        popen["env"] = environment
        with server.lock:
            process = subprocess.Popen(args, **popen)
            try:
                if requirement is not None:
                    server.set_process_requirement_for_pid(process.pid, requirement)
                server.register_ports_for_pid(process.pid, owned)
            except ProcessGoneError:
                pass  # It has exited, and something in this process has waited for it: nobody is left to ask.
            except BaseException:
                with process:  # Closes its pipes and waits for it.
                    process.kill()
                raise
        return process
    finally:
        destroy_ports(owned)  # What was registered is the server's by now: this finds nothing.
