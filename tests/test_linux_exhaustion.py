"""No descriptor is free: every call fails with a typed error or works, nothing spins, and afterwards all goes on.

The peers of these tests have a low RLIMIT_NOFILE and take every descriptor that is left.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from machrv import RendezvousClient
from machrv._mach import lib
from machrv.errors import MachError
from machrv.kernel.linux import LinuxKernel
from machrv.message import Disposition, OutOfLineDescriptor, PortDescriptor

from .conftest import PATIENCE, SLACK, idles
from .linux_tasks import bootstrap, nursery, peer, task  # noqa: F401 (fixtures)
from .linux_tasks import (
    DEAD_NAME,
    DEAD_NAME_NOTIFICATION,
    NO_SENDERS,
    PORT_DESTROYED,
    RECEIVE,
    SEND,
    SEND_ONCE_NOTIFICATION,
    Peer,
    allocate,
    code_of,
    empty,
    end,
    give,
    introduce,
    names,
    nothing_waits,
    receive,
    request,
    send,
    started,
)

MAKE_SEND, MAKE_SEND_ONCE, COPY_SEND = Disposition.MAKE_SEND, Disposition.MAKE_SEND_ONCE, Disposition.COPY_SEND
MOVE_SEND_ONCE, MOVE_RECEIVE = Disposition.MOVE_SEND_ONCE, Disposition.MOVE_RECEIVE
SHORTAGE = lib.KERN_RESOURCE_SHORTAGE
BODY_ERROR = lib.MACH_RCV_BODY_ERROR | lib.MACH_MSG_IPC_KERNEL
LIMIT = 600


@pytest.fixture
def poor(task: LinuxKernel) -> Iterator[Peer]:
    """A task that may not have many descriptors."""
    with started() as poor:
        poor.limit(LIMIT)
        yield poor


def attempts(poor: Peer, port: int, count: int = 3) -> list[object]:
    """What so many receives say: the id of a message, or the code of an error."""
    results: list[object] = []
    for _ in range(count):
        try:
            results.append(receive(poor, port, 0).id)
        except MachError as error:
            results.append(error.code)
    return results


def test_a_plain_message_without_a_descriptor_to_spare(task: LinuxKernel, poor: Peer) -> None:
    """Attestation takes a descriptor for a moment. The sender's right survives; from the second message on nothing is
    lost, and the port goes on as soon as a descriptor is free."""
    port, to = introduce(poor, task)
    poor.exhaust()
    send(task, to, 1)
    assert attempts(poor, port, 1)[0] in (1, SHORTAGE, BODY_ERROR)
    assert task.mach_port_type(to) == SEND
    for number in range(2, 10):
        send(task, to, number)
        assert attempts(poor, port) == [SHORTAGE] * 3
    poor.free(1)
    found = [result for result in attempts(poor, port, 9) if result != 1]
    assert found[:8] == list(range(2, 10))
    poor.free()
    task.mach_port_deallocate(to)
    end(poor, port)


def test_a_message_of_ones_own_needs_no_descriptor(poor: Peer) -> None:
    """A space talks to itself over a socket that attests by pid."""
    port = allocate(poor)
    poor.mach_port_insert_right(port, port, MAKE_SEND)
    send(poor, port, 1)
    assert receive(poor, port).id == 1
    poor.exhaust()
    for number in range(5):
        send(poor, port, number)
        assert receive(poor, port).id == number
    poor.free()
    poor.mach_port_destroy(port)


def test_a_message_with_more_rights_than_there_is_room_for(task: LinuxKernel, poor: Peer) -> None:
    """It cannot be received: an error, every right in it is given up, and the next message comes."""
    port, to = introduce(poor, task)
    inbox = allocate(task)
    poor.exhaust(but=4)
    send(task, to, 1, descriptors=[PortDescriptor(inbox, MAKE_SEND_ONCE)] * 20)
    send(task, to, 2)
    outcome = attempts(poor, port, 4)
    assert outcome[0] in (BODY_ERROR, SHORTAGE) and outcome[1:] in ([2, *outcome[2:]], [SHORTAGE] * 3)
    poor.free()
    if outcome[0] == SHORTAGE:
        for name in names(receive(poor, port)):
            poor.mach_port_deallocate(name)
        assert receive(poor, port).id == 2
    assert [receive(task, inbox).id for _ in range(20)] == [SEND_ONCE_NOTIFICATION] * 20
    task.mach_port_deallocate(to)
    end(task, inbox)
    end(poor, port)


def test_a_message_of_ones_own_with_more_rights_than_there_is_room_for(poor: Peer) -> None:
    """It takes no descriptor: it comes, and so does the next one."""
    port, inbox = allocate(poor), allocate(poor)
    poor.mach_port_insert_right(port, port, MAKE_SEND)
    poor.exhaust(but=4)
    send(poor, port, 1, descriptors=[PortDescriptor(inbox, MAKE_SEND_ONCE)] * 20)
    send(poor, port, 2)
    got = names(receive(poor, port, 0))
    assert len(set(got)) == 20 and receive(poor, port, 0).id == 2
    poor.free()
    for name in got:
        poor.mach_port_deallocate(name)
    assert [receive(poor, inbox).id for _ in range(20)] == [SEND_ONCE_NOTIFICATION] * 20
    poor.mach_port_destroy(port)
    end(poor, inbox)


def test_a_message_that_lost_rights_is_not_taken_for_whole_without_pidfds_either(task: LinuxKernel) -> None:
    """No pidfd comes behind the rights, whose absence would tell: an error, every right is given up, the next message comes."""
    with started("passpidfd") as poor:
        poor.limit(LIMIT)
        port, to = introduce(poor, task)
        inbox = allocate(task)
        poor.exhaust(but=4)
        send(task, to, 1, descriptors=[PortDescriptor(inbox, MAKE_SEND_ONCE)] * 20)
        send(task, to, 2)
        assert attempts(poor, port, 2) == [BODY_ERROR, 2]
        poor.free()
        assert [receive(task, inbox).id for _ in range(20)] == [SEND_ONCE_NOTIFICATION] * 20
        task.mach_port_deallocate(to)
        end(task, inbox)
        end(poor, port)


def test_a_reply_that_there_is_no_room_for_ends_the_wait(task: LinuxKernel, poor: Peer) -> None:
    """Over a send-once right: an error or SEND_ONCE, but once, and not both the message and its loss."""
    port = allocate(poor)
    once = give(poor, task, port, MAKE_SEND_ONCE)
    inbox = allocate(task)
    poor.exhaust(but=2)
    reply = [PortDescriptor(inbox, MAKE_SEND_ONCE)] * 10
    send(task, once, 1, descriptors=reply, how=MOVE_SEND_ONCE)
    outcome = attempts(poor, port)
    poor.free()
    told = [one for one in outcome if one not in (lib.MACH_RCV_TIMED_OUT, SHORTAGE)]
    if not told:
        for name in names(receive(poor, port)):
            poor.mach_port_deallocate(name)
    else:
        assert told in ([BODY_ERROR], [SEND_ONCE_NOTIFICATION])
    assert nothing_waits(poor, port)
    assert [receive(task, inbox).id for _ in range(10)] == [SEND_ONCE_NOTIFICATION] * 10
    end(task, inbox)
    end(poor, port)


def test_sending_what_needs_descriptors(task: LinuxKernel, poor: Peer) -> None:
    """Rights to be made, memory, bundles, large bodies: MACH_SEND_NO_BUFFER, and everything is as before."""
    port, to = introduce(task, poor)
    mine, memory = allocate(poor), b"memory"
    before = set(poor.mach_port_names())
    poor.exhaust()
    rights = [
        [PortDescriptor(mine, MAKE_SEND)],
        [PortDescriptor(mine, MAKE_SEND_ONCE)],
        [PortDescriptor(mine, MOVE_RECEIVE)],
        [OutOfLineDescriptor(memory)],
    ]
    for content in rights:
        assert code_of(send, poor, to, 1, descriptors=content) == lib.MACH_SEND_NO_BUFFER
    assert code_of(send, poor, to, 1, bytes(100_000)) == lib.MACH_SEND_NO_BUFFER
    assert code_of(send, poor, to, 1, reply=mine, reply_how=MAKE_SEND_ONCE) == lib.MACH_SEND_NO_BUFFER
    send(poor, to, 2)
    send(poor, to, 3, descriptors=[PortDescriptor(to, COPY_SEND)])
    assert set(poor.mach_port_names()) == before
    assert poor.mach_port_get_attributes(mine, lib.MACH_PORT_RECEIVE_STATUS).mscount == 0
    poor.free()
    assert [receive(task, port).id for _ in range(2)] == [2, 3]
    for content in rights:
        send(poor, to, 4, descriptors=content)
        message = receive(task, port)
        for name in names(message):
            task.mach_port_destroy(name)
    task.mach_port_deallocate(port)
    poor.mach_port_deallocate(to)
    end(task, port)


def test_waiting_for_room_in_a_full_queue(task: LinuxKernel, poor: Peer) -> None:
    """A send that would have to wait fails with an error of Mach's."""
    port, to = introduce(task, poor)
    full = poor.flood(to, 10**6)
    poor.exhaust()
    assert code_of(send, poor, to, timeout=0.1) in (lib.MACH_SEND_NO_BUFFER, lib.MACH_SEND_TIMED_OUT)
    poor.free()
    assert code_of(send, poor, to, timeout=0.1) == lib.MACH_SEND_TIMED_OUT
    for _ in range(full):
        receive(task, port)
    poor.mach_port_deallocate(to)
    end(task, port)


CALLS = {
    "bootstrap_check_in": ("bootstrap_check_in", "another"),
    "bootstrap_look_up": ("bootstrap_look_up", "door"),
    "fileport_makeport": ("fileport_makeport", 0),
    "fileport_makefd": ("fileport_makefd", "file"),
    "extract MAKE_SEND_ONCE": ("mach_port_extract_right", "port", MAKE_SEND_ONCE),
    "request NO_SENDERS": ("mach_port_request_notification", "port", NO_SENDERS, 0, "port", MAKE_SEND_ONCE),
    "request DEAD_NAME": ("mach_port_request_notification", "right", DEAD_NAME_NOTIFICATION, 0, "port", MAKE_SEND_ONCE),
    "request PORT_DESTROYED": ("mach_port_request_notification", "port", PORT_DESTROYED, 0, "port", MAKE_SEND_ONCE),
    "NO_SENDERS to a held right": ("mach_port_request_notification", "port", NO_SENDERS, 0, "once", MOVE_SEND_ONCE),
    "open_process": ("run", "kernel.open_process(os.getpid()).close()"),
    "event_queue": ("run", "kernel.event_queue().close()"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_call_that_needs_a_descriptor(task: LinuxKernel, poor: Peer, call: tuple[object, ...]) -> None:
    """Works, or fails with a MachError that leaves everything as it was; afterwards it works."""
    door = task.bootstrap_check_in("door")
    port, right = allocate(poor), poor.bootstrap_look_up("door")
    file = poor.fileport_makeport(0)
    once, _ = poor.mach_port_extract_right(port, MAKE_SEND_ONCE)
    known = {"port": port, "right": right, "file": file, "once": once}
    method, *arguments = [known.get(one, one) if isinstance(one, str) else one for one in call]
    before = set(poor.mach_port_names())
    poor.exhaust()
    try:
        poor.call(str(method), *arguments)
        worked = True
    except MachError as error:
        worked = False
        assert error.code in (SHORTAGE, lib.KERN_INVALID_ARGUMENT), error
        assert error.code == SHORTAGE
        assert set(poor.mach_port_names()) == before
    poor.free()
    if not worked:
        poor.call(str(method), *arguments)
    empty(poor)
    end(task, door)
    poor.run("kernel.close(); kernel.event_queue().close()")
    if method == "fileport_makefd":
        poor.before["descriptors"] += 1  # it is the caller's


def test_receiving_without_a_descriptor_to_wait_with(poor: Peer) -> None:
    """A fresh port, two rights, a set: a blocking receive fails with an error or its deadline, and does not spin."""
    fresh, crowded = allocate(poor), allocate(poor)
    pset = poor.mach_port_allocate(lib.MACH_PORT_RIGHT_PORT_SET)
    once = [poor.mach_port_extract_right(crowded, MAKE_SEND_ONCE)[0] for _ in range(3)]
    member = allocate(poor)
    poor.mach_port_insert_member(member, pset)
    poor.exhaust()
    for name in (fresh, crowded, pset):
        used = poor.seconds_of_cpu()
        assert code_of(receive, poor, name, 0.2) in (SHORTAGE, lib.MACH_RCV_TIMED_OUT)
        assert poor.seconds_of_cpu() - used < 0.1
    poor.free()
    for right in once:
        send(poor, right, 5, how=MOVE_SEND_ONCE)
        assert receive(poor, crowded).id == 5
    for name in (fresh, crowded, member, pset):
        poor.mach_port_destroy(name)


def test_looked_up_rights_that_cannot_be_accepted(task: LinuxKernel, poor: Peer) -> None:
    """A server without descriptors does not spin on those who wait at its name, and serves them when it can again."""
    door = poor.bootstrap_check_in("door")
    first = task.bootstrap_look_up("door")
    send(task, first, 1)
    assert receive(poor, door).id == 1
    poor.exhaust()
    with started() as peer:
        ways = [peer.bootstrap_look_up("door")]
        for number in (2, 3):
            send(peer, ways[0], number)
        codes, began = [], time.monotonic()
        assert idles(lambda seconds: codes.append(code_of(receive, poor, door, seconds)), poor.seconds_of_cpu)
        assert {SHORTAGE, lib.MACH_RCV_TIMED_OUT}.issuperset(codes) and time.monotonic() - began < 3 + SLACK
        poor.run(FREE_WHILE_IT_WAITS)
        assert receive(poor, door).id == 2
        poor.run("served.threads.pop().join()")
        poor.free()
        assert receive(poor, door).id == 3
        peer.mach_port_deallocate(ways[0])
    end(poor, door)
    task.mach_port_deallocate(first)


def test_the_first_free_descriptor_lets_somebody_in_and_no_message_is_lost_for_it(
    task: LinuxKernel, poor: Peer, peer: Peer
) -> None:
    """What they have sent waits until there is another descriptor to attest it with."""
    door = poor.bootstrap_check_in("door")
    first = task.bootstrap_look_up("door")
    send(task, first, 1)
    assert receive(poor, door).id == 1
    poor.exhaust()
    way = peer.bootstrap_look_up("door")
    send(peer, way, 2)
    assert attempts(poor, door, 1)[0] in (SHORTAGE, lib.MACH_RCV_TIMED_OUT)
    poor.free(1)
    assert attempts(poor, door) == [SHORTAGE] * 3
    poor.free()
    assert receive(poor, door).id == 2
    end(poor, door)
    peer.mach_port_deallocate(way)
    task.mach_port_deallocate(first)


# The limit is raised: descriptors that are closed one by one are taken one by one, as there are threads that want them.
FREE_WHILE_IT_WAITS = """
import threading, time
def free():
    time.sleep(0.2)
    served.limit(2000)
served.threads.append(threading.Thread(target=free))
served.threads[-1].start()
"""


def test_destroying_needs_no_descriptor(task: LinuxKernel, poor: Peer) -> None:
    """Everything can be given up, whatever it asks for: a port that somebody wants to have is destroyed where it cannot
    travel; blocked receivers are woken."""
    rescued, inbox, plain = allocate(poor), allocate(poor), allocate(poor)
    request(poor, rescued, PORT_DESTROYED, inbox)
    theirs = give(poor, task, plain, MAKE_SEND)
    way = give(task, poor, allocate(task), MAKE_SEND)
    poor.mach_port_insert_right(rescued, rescued, MAKE_SEND)
    poor.run(
        """
import threading
def wait():
    try:
        kernel.mach_msg(None, lib.MACH_RCV_MSG, None, port, 30)
    except Exception as error:
        served.codes.append(error.code)
served.codes = []
served.threads.append(threading.Thread(target=wait))
served.threads[-1].start()
import time
time.sleep(0.2)
""",
        port=plain,
    )
    poor.exhaust()
    poor.mach_port_destroy(plain)
    assert poor.run("served.threads.pop().join(10); result = served.codes") == [lib.MACH_RCV_PORT_CHANGED]
    poor.mach_port_destroy(way)
    try:
        end(poor, rescued)
        outcome = None
    except MachError as error:
        outcome = error.code
    assert outcome in (None, SHORTAGE)
    poor.free()
    empty(poor)
    assert task.mach_port_type(theirs) == DEAD_NAME
    task.mach_port_deallocate(theirs)
    for name, kind in task.mach_port_names():
        assert kind == RECEIVE
        end(task, name)


def test_in_flight_descriptors_of_an_unprivileged_sender(task: LinuxKernel) -> None:
    """Linux counts what a user has under way against RLIMIT_NOFILE: MACH_SEND_NO_BUFFER, nothing lost, then it goes on."""
    if os.getuid() != 0:
        pytest.skip("needs to become an ordinary user")
    with started() as peer:
        door = task.bootstrap_check_in("door")
        to = peer.bootstrap_look_up("door")
        peer.limit(300)
        peer.run("os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)")
        mine = allocate(peer)
        rights = [PortDescriptor(mine, MAKE_SEND_ONCE)] * 50
        sent = 0
        codes = []
        for _ in range(12):
            try:
                send(peer, to, sent, descriptors=rights)
                sent += 1
            except MachError as error:
                codes.append(error.code)
        assert sent >= 4 and set(codes) == {lib.MACH_SEND_NO_BUFFER}
        for number in range(sent):
            message = receive(task, door)
            assert message.id == number
            for name in names(message):
                task.mach_port_deallocate(name)
        for _ in range(50 * sent):
            assert receive(peer, mine).id == SEND_ONCE_NOTIFICATION
        assert nothing_waits(peer, mine)
        send(peer, to, 99, descriptors=rights)
        message = receive(task, door)
        assert message.id == 99
        for name in names(message):
            task.mach_port_deallocate(name)
        peer.mach_port_destroy(mine)
        peer.mach_port_deallocate(to)
        end(task, door)


STARVING = """
import os, resource, sys
from machrv import *
inbox = ReceiveRight.allocate()
with RendezvousServer.get_instance() as server:
    with inbox.make_send():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        hoard = []
        try:
            while True:
                hoard.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        print(server.service_name, flush=True)
        sys.stdin.readline()
        for fd in hoard:
            os.close(fd)
        sys.stdin.readline()
inbox.close()
"""


def test_a_program_of_nothing_else_says_in_its_log_that_it_starves() -> None:
    """What it takes to say so has been imported by then. Whoever asked is answered when there are descriptors again."""
    command = [sys.executable, "-c", STARVING]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True) as program:
        assert program.stdin is not None and program.stdout is not None and program.stderr is not None
        service = program.stdout.readline().strip()
        asked = threading.Thread(target=lambda: RendezvousClient.connect(service, timeout=PATIENCE).close())
        asked.start()
        assert select.select([program.stderr], [], [], PATIENCE)[0], "nothing was said"
        assert "no descriptor is free" in program.stderr.readline()
        program.stdin.write("\n")
        program.stdin.flush()
        asked.join(PATIENCE)
        assert not asked.is_alive()
        program.communicate("\n", timeout=PATIENCE)
        assert program.returncode == 0
