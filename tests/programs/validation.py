"""Children that judge their server, or are judged: `validation.py SCENARIO [ARGUMENT...]`. Exit status 0: as it must be.

Each of them leaves no right and no descriptor behind in itself.
"""

from __future__ import annotations

import gc
import os
import sys

from machrv import (
    DirectRendezvousClient,
    Message,
    ProcessRequirement,
    ReceiveRight,
    RendezvousClient,
    RendezvousError,
    SendRight,
    Verdict,
    current,
    four_char_code,
    peer_validation_policy,
    set_verdict_callback,
)
from machrv.rendezvous.protocol import request

GOOD = four_char_code("good")


def requirement(name: str) -> ProcessRequirement | None:
    """What the server must be, by a short name."""
    builder = ProcessRequirement.Builder
    if name == "none":
        return None
    if name == "always":
        return ProcessRequirement.always_matches_for_testing()
    if name == "never":
        return ProcessRequirement.never_matches_for_testing()
    if name == "parent":
        return builder().is_parent_of_this_process().build()
    assert name == "real", name
    return builder().is_parent_of_this_process().signed_with_same_identity().user(os.getuid()).build()


def rendezvous(name: str, expected: str) -> None:
    """Hold the server against a requirement. `expected`: how many ports come, or "none" for no rendezvous at all."""
    asked = requirement(name)
    verdicts: list[Verdict] = []
    set_verdict_callback(verdicts.append)
    if asked is not None:
        RendezvousClient.set_server_process_requirement(asked)
    client = RendezvousClient.get_instance()
    assert RendezvousClient.get_instance() is client
    if expected == "none":
        assert client is None, client
    else:
        assert client is not None
        assert client.port_count == int(expected), client
        right = client.take_send_right("port")
        assert (right is not None) == (int(expected) > 0)
        if right is not None:
            with right:
                right.send(Message(GOOD))
        client.close()
    policy = peer_validation_policy()
    found = [(verdict.peer, verdict.matched, verdict.enforced) for verdict in verdicts]
    judged = asked is not None and policy.value > 0
    assert found == (
        [("server", name in ("always", "parent", "real") and expected != "none", policy.value == 2)] * judged
    )


def told(name: str, expected: str) -> None:
    """As `rendezvous`, once the test says so; then what came of it is said."""
    assert sys.stdin.readline() == "go\n"
    rendezvous(name, expected)
    print("done", flush=True)


def ask_by_name(service_name: str) -> None:
    """Ask a server that is not this process's parent: it has nothing for it."""
    with RendezvousClient.connect(service_name) as client:
        assert client.port_count == 0


def take_by_name(service_name: str) -> None:
    """Take a port from a server that is not this process's parent, and use it."""
    with RendezvousClient.connect(service_name) as client:
        assert client.port_count == 1
        right = client.take_send_right("port")
        assert right is not None
        with right:
            right.send(Message(GOOD))


def ask_and_exit(service_name: str) -> None:
    """Send a request, and be gone before it is answered."""
    reply_port = ReceiveRight.allocate()
    server = SendRight(current().bootstrap_look_up(service_name))
    server.send(request(reply_port.name))
    os._exit(0)


def ask_as_nobody(forged: str) -> None:
    """Take a server's right, give root up, and claim to be somebody else: the kernel does not let this pass."""
    client = RendezvousClient.get_instance()
    assert client is not None
    server = client.take_send_right("serv")
    assert isinstance(server, SendRight)
    os.setgid(65534)
    os.setuid(65534)
    with server:
        os.environ["FORGED_CREDENTIALS"] = forged
        try:
            DirectRendezvousClient.initialize(server).close()
        except RendezvousError as error:
            print(error, flush=True)
        else:
            raise AssertionError("the request was sent")
        finally:
            del os.environ["FORGED_CREDENTIALS"]
    client.close()


def _left() -> tuple[list[tuple[int, int]], int]:
    return current().mach_port_names(), len(
        os.listdir("/proc/self/fd" if os.path.exists("/proc/self/fd") else "/dev/fd")
    )


if __name__ == "__main__":
    current().event_queue().close()  # What a kernel keeps once it has waited.
    before = _left()
    globals()[sys.argv[1]](*sys.argv[2:])
    gc.collect()
    assert _left() == before, (before, _left())
