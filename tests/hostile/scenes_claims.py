"""F6 to F9: connections, floods, siblings, and a fork in the middle of it."""

from __future__ import annotations

import os
import threading
import warnings

from machrv import ReceiveRight

from .scenes import attack, beside, drained, flooded, limited, wait_for_descriptors
from .stage import Stage


@attack("F6")
def connections_that_say_nothing(stage: Stage) -> str:
    """1,100 of them, held by one process, to a server that may have 1,024 descriptors."""
    with limited(1024):
        return beside(stage, "connections", "hold", 1100)


@attack("F6")
def connections_of_many_that_say_nothing(stage: Stage) -> str:
    """300, each made by a process of its own, to a server that may have 256 descriptors."""
    with limited(256):
        return beside(stage, "connections", "hold", 300, "each")


@attack("F7")
def a_held_connection_full_of_requests(stage: Stage) -> str:
    return flooded(stage, 1, "flood_held", "requests")


@attack("F7")
def a_held_connection_full_of_garbage(stage: Stage) -> str:
    return flooded(stage, 1, "flood_held", "garbage")


@attack("F7")
def twenty_held_connections(stage: Stage) -> str:
    return flooded(stage, 1, "flood_held", "headers", 20)


@attack("F7")
def twenty_held_connections_full_of_rights(stage: Stage) -> str:
    return flooded(stage, 1, "flood_held", "rights", 20)


@attack("F7")
def sixty_four_requests_on_each_new_connection(stage: Stage) -> str:
    return flooded(stage, 1, "flood_fresh", "requests", 64)


@attack("F7")
def one_request_on_each_new_connection(stage: Stage) -> str:
    return flooded(stage, 1, "flood_fresh", "requests", 1)


@attack("F7")
def messages_of_200_files_on_new_connections(stage: Stage) -> str:
    return flooded(stage, 1, "flood_fresh", "files", 3)


@attack("F7")
def large_messages_of_two_processes(stage: Stage) -> str:
    return flooded(stage, 2, "flood_fresh", "large", 1, 2)


@attack("F8")
def siblings_that_were_given_the_same(stage: Stage) -> str:
    """Two children with a right each to one port, given before either claims; one of them fills, shuts down, garbles its own."""
    before = stage.descriptors()
    for how in ("fill", "garble", "once", "SHUT_RD", "SHUT_WR", "SHUT_RDWR"):
        with ReceiveRight.allocate() as port:
            good, bad = port.make_send(), port.make_send()
            sibling = stage.program("-c", SIBLING, stage.server.service_name, ports={1: good})
            attacker = stage.attacker("connections", "sibling", how, ports={1: bad})
            sibling.tell()
            assert sibling.hear() == "sent"
            seen = []
            while 4711 not in seen:
                with port.receive(10) as message:
                    seen.append(message.id)
            stage.end(sibling, attacker)
    wait_for_descriptors(stage, before)
    return "the other's message came, whatever was done"


SIBLING = """
import sys
from machrv import Message, RendezvousClient, SendRight
sys.stdin.readline()
with RendezvousClient.connect(sys.argv[1]) as client, client.take(1, SendRight) as right:
    right.send(Message(4711), timeout=5)
print("sent", flush=True)
sys.stdin.read()
"""


@attack("F9")
def fork_while_rights_arrive(stage: Stage) -> str:
    """A thread receives a hundred rights at a time; the children of forks meanwhile have none of them."""
    before, others = stage.descriptors(), _sockets_in_a_child()
    found = []
    with ReceiveRight.allocate() as port:
        attacker = stage.attacker("connections", "rights", 100, ports={1: port.make_send()})
        stop = threading.Event()

        def drink() -> None:
            while not stop.is_set():
                drained(port, 0.2, 50)

        drinker = threading.Thread(target=drink)
        drinker.start()
        try:
            for _ in range(20):
                found.append(_sockets_in_a_child())
        finally:
            stop.set()
            drinker.join()
        stage.end(attacker)
    assert set(found) <= {others}, f"sockets in children of forks: {found}, and {others} before"
    wait_for_descriptors(stage, before)
    return "no socket in any of 20 children"


def _sockets_in_a_child() -> int:
    """How many sockets the child of a fork has once machrv has given up what the parent's were."""
    told, tell = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            from machrv._mach import lib

            lib.machrv_settle(5000)
            count = 0
            for name in os.listdir("/proc/self/fd"):
                try:
                    count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
                except OSError:
                    pass
            os.write(tell, str(count).encode())
        finally:
            os._exit(0)
    os.close(tell)
    said = os.read(told, 10)
    os.close(told)
    os.waitpid(pid, 0)
    return int(said)
