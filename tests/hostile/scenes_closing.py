"""F1 to F3, F10 to F12: descriptors that wait, cannot be looked at, are too large, or not what they seem."""

from __future__ import annotations

import resource
import threading
from pathlib import Path
from time import perf_counter

from machrv import MachError, Message, MessageFormatError, ReceiveRight, ReceiveTimeout

from .scenes import LATE, attack, beside, drained, fuse, limited, moved_here, wait_for_descriptors
from .stage import Stage

#: how many ways to send a descriptor attackers/closing.py has
WAYS = 13


@attack("F1")
def a_tcp_socket_that_lingers(stage: Stage) -> str:
    """In every way that a descriptor can be sent to a server, for as long as it is looked at."""
    return beside(stage, "closing", "server", "linger", 0)


@attack("F1", fuse)
def a_file_whose_daemon_does_not_answer(stage: Stage) -> str:
    """The same: neither closing it, nor looking at it, nor polling it is waited for."""
    return beside(stage, "closing", "server", "fuse")


def _to_a_port(stage: Stage, kind: str) -> str:
    before = stage.descriptors()
    with ReceiveRight.allocate() as port:
        attacker = stage.attacker("closing", "right", kind, ports={way: port.make_send() for way in range(WAYS)})
        found = drained(port)
    with ReceiveRight.allocate() as port:
        other = stage.attacker("closing", "right", kind, ports={way: port.make_send() for way in range(WAYS)})
        began = perf_counter()
    closing = perf_counter() - began
    assert closing < LATE, f"closing a port with all of it in its queue took {closing:.3f} s"
    stage.end(attacker, other)
    wait_for_descriptors(stage, before)
    return f"{found[0]} messages, {found[1]} errors; a port with all of them closed in {closing * 1e3:.1f} ms"


@attack("F1")
def sockets_that_linger_over_a_right(stage: Stage) -> str:
    """To a program that receives whatever comes, and to one that never does and closes its port."""
    return _to_a_port(stage, "linger")


@attack("F1", fuse)
def files_that_wait_over_a_right(stage: Stage) -> str:
    """The same with files of the attacker's file system."""
    return _to_a_port(stage, "fuse")


@attack("F1")
def what_lingers_in_the_queue_of_who_sends(stage: Stage) -> str:
    """Who gets a receive right writes into the sockets of those who send to it: closing their rights waits for nobody."""
    before = stage.descriptors()
    moved = ReceiveRight.allocate()
    senders = [moved.make_send(), moved.make_send_once()]
    attacker = stage.attacker("closing", "back", "linger", ports={1: moved})
    began = perf_counter()
    for sender in senders:
        sender.close()
    took = perf_counter() - began
    assert took < LATE, f"{took:.3f} s"
    stage.end(attacker)
    wait_for_descriptors(stage, before)
    return f"closed in {took * 1e3:.1f} ms"


@attack("F2")
def descriptors_of_every_kind(stage: Stage) -> str:
    """Two dozen kinds in fifteen ways, up to 200 at a time: /proc/PID/fd of the dead among them."""
    return beside(stage, "packets", "every_kind", 0)


@attack("F2")
def descriptors_of_every_kind_and_few_left(stage: Stage) -> str:
    """The same to a server that may have 512."""
    with limited(512):
        return beside(stage, "packets", "every_kind", 0)


@attack("F2")
def descriptors_of_every_kind_over_a_right(stage: Stage) -> str:
    """The same to a program that receives whatever comes, without memory to spare for the last of them."""
    before = stage.descriptors()
    with ReceiveRight.allocate() as port:
        attacker = stage.attacker("packets", "every_kind_right", ports={n: port.make_send() for n in range(253)})
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (8 << 20), hard))
        try:
            found = drained(port, 0.5)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    stage.end(attacker)
    wait_for_descriptors(stage, before)
    return f"{found[0]} messages, {found[1]} errors"


@attack("F3")
def messages_far_larger_than_requests(stage: Stage) -> str:
    """80 MB in a memfd, a million descriptors in 12 MB, 60 MB: forty of each, and sixty in a receive right's queue, over and over."""
    memory = _resident()
    said = beside(stage, "packets", "too_much", 0)
    assert _resident() - memory < 64 << 10, f"{_resident() - memory} KiB more"
    return said


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


@attack("F3")
def messages_far_larger_than_a_buffer(stage: Stage) -> str:
    """The same to a program that takes 64 KiB: each is destroyed unread, or refused, in its turn; a receive keeps its time."""
    before = stage.descriptors()
    taken, slowest, kernel = 0, 0.0, stage.server.kernel
    with ReceiveRight.allocate() as port:
        attacker = stage.attacker("packets", "too_much_right", ports={n: port.make_send() for n in range(200)})
        until = perf_counter() + 2
        while perf_counter() < until:
            began = perf_counter()
            try:
                came = kernel.mach_msg(None, 2 | 3 << 24, 65536, port.name, 1.0)
                Message.decode(came or b"")
                kernel.mach_msg_destroy(came or b"")
            except (MachError, MessageFormatError):
                pass
            taken += 1
            slowest = max(slowest, perf_counter() - began)
        stage.end(attacker)
    assert slowest < 1 + LATE and taken > 10, f"{taken} messages, the slowest {slowest:.3f} s"
    wait_for_descriptors(stage, before)
    return f"{taken} messages, the slowest {slowest * 1e3:.1f} ms"


@attack("F10")
def ends_that_hide_what_waits(stage: Stage) -> str:
    """A receive right arrives whose ends were told to peek far behind what waits, and are told so for ever by who kept a copy."""
    before = stage.descriptors()
    with moved_here(stage, "peek") as (attacker, right):
        ids = [right.receive(10).id for _ in range(2)]
        attacker.tell()
        assert attacker.hear() == "sent"
        began, cpu = perf_counter(), _cpu()
        more = 0
        try:
            while more < 10:
                right.receive(1).close()
                more += 1
        except (ReceiveTimeout, EOFError):
            pass
        took, cpu = perf_counter() - began, _cpu() - cpu
    assert ids == [1, 1] and took < 3 + LATE, (ids, took)
    assert cpu < 0.5, f"waiting for {took:.1f} s took {cpu:.1f} s of processor time: it spins"
    wait_for_descriptors(stage, before)
    return f"both messages; then {more} more and {cpu * 1e3:.0f} ms of processor time in {took:.1f} s"


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_THREAD)
    return used.ru_utime + used.ru_stime


@attack("F11")
def bundles_that_come_drop_by_drop(stage: Stage) -> str:
    """A receive right says that it has 60,000 ends, and one comes whenever one was read. Claims go on beside it."""
    stage.quick(5)
    before = stage.descriptors()
    with ReceiveRight.allocate() as port:
        attacker = stage.attacker("packets", "drops", ports={n: port.make_send() for n in range(200)})
        found: list[tuple[int, int]] = []
        stop = threading.Event()

        def drink() -> None:
            while not stop.is_set():
                found.append(drained(port, 0.2, 50))

        drinker = threading.Thread(target=drink)
        drinker.start()
        try:
            times = stage.claims(1.5)
        finally:
            stop.set()
            drinker.join()
        stage.end(attacker)
    assert max(times.late) < LATE, times.text()
    wait_for_descriptors(stage, before)
    return times.text()


@attack("F12")
def addresses_of_108_characters(stage: Stage) -> str:
    """Bound to, and connected to; as send rights, send-once rights, and as ends of a receive right."""
    before = stage.descriptors()
    with ReceiveRight.allocate() as port:
        attacker = stage.attacker("packets", "long", ports={n: port.make_send() for n in range(4)})
        found = drained(port, 0.5)
        stage.end(attacker)
    wait_for_descriptors(stage, before)
    return f"{found[0]} messages, {found[1]} errors"
