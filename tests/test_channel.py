"""Channels: what goes in comes out, in order, whole, with its rights; and the other end's end is heard. With real processes."""

from __future__ import annotations

import copy
import json
import os
import pickle
import select
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machrv import (
    Channel,
    ChannelClosedError,
    MemoryObject,
    Message,
    MessageFormatError,
    NoSenders,
    ReceiveRight,
    ReceiveTimeout,
    RendezvousServer,
    RequestDropped,
    RightError,
    SendRight,
    SendTimeout,
    fileport_fd,
    launch,
)

from .conftest import PATIENCE, SLACK, Program, finish


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    """Both ends in this process."""
    left, right = Channel.pair()
    with left, right:
        yield left, right


class Talker:
    """A child that has the other end."""

    def __init__(self, program: Program) -> None:
        self.channel, theirs = Channel.pair()
        self.process: subprocess.Popen[bytes] = launch(program("talker"), {"chan": theirs})
        assert theirs.closed

    def end(self) -> None:
        self.channel.close()
        assert finish(self.process) in (0, -9)


@pytest.fixture
def talker(program: Program, server: RendezvousServer) -> Iterator[Talker]:
    """A child that talks."""
    talker = Talker(program)
    yield talker
    talker.end()


# -- with another process ---------------------------------------------------------------------------------------------


def test_data_comes_back_as_it_was_and_says_who_sent_it(talker: Talker) -> None:
    """Of every length, those that are no multiples of four too."""
    for length in (0, 1, 2, 3, 4, 5, 4095, 65_535, 65_536, 65_537, 1_000_001):
        data = b"echo " + os.urandom(length)
        talker.channel.send(data, timeout=PATIENCE)
        with talker.channel.receive(PATIENCE) as message:
            assert message.data == data and message.rights == []
            assert message.audit_token.pid == talker.process.pid


def test_requests_are_answered_with_rights(talker: Talker) -> None:
    """The answer goes to whoever asked; other messages meanwhile are not mistaken for it."""
    talker.channel.send(b"echo first")
    with ReceiveRight.allocate() as inbox:
        with talker.channel.request(b"answer me", [inbox.make_send()], PATIENCE) as answer:
            assert answer.data == b"answer me" and answer.audit_token.pid == talker.process.pid
            (right,) = answer.rights
            right.send(Message(7))
            assert inbox.receive(PATIENCE).id == 7
        with pytest.raises(NoSenders):
            inbox.receive(PATIENCE)
    assert talker.channel.receive(PATIENCE).data == b"echo first"


def test_many_threads_ask_at_once(talker: Talker) -> None:
    """Each gets its own answer."""
    wrong: list[bytes] = []

    def ask(number: int) -> None:
        for count in range(20):
            question = b"answer %d %d" % (number, count)
            if talker.channel.request(question, timeout=PATIENCE).data != question:
                wrong.append(question)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_files_sockets_and_memory_are_shared(talker: Talker) -> None:
    """They stay their owner's, and what the child reads is what is in them."""
    with tempfile.TemporaryFile() as file:
        file.write(b"in the file")
        file.seek(0)
        assert talker.channel.request(b"read", [file], PATIENCE).data == b"in the file"
        assert not file.closed
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.send(b"in the socket")
        ours.shutdown(socket.SHUT_WR)
        assert talker.channel.request(b"read", [theirs], PATIENCE).data == b"in the socket"
    with MemoryObject.from_bytes(b"in memory") as memory:
        assert talker.channel.request(b"memory", [memory], PATIENCE).data == b"in memory"
        assert not memory.closed


def test_an_end_travels_over_a_channel(talker: Talker, pair: tuple[Channel, Channel]) -> None:
    """One that has been used, and in which a message waits."""
    ours, theirs = pair
    theirs.send(b"used")
    assert ours.receive(PATIENCE).data == b"used"
    talker.channel.send(b"over", [theirs])
    assert theirs.closed
    message = ours.receive(PATIENCE)
    assert message.data == b"over another channel" and message.audit_token.pid == talker.process.pid
    with pytest.raises(ChannelClosedError):
        ours.receive(PATIENCE)


def test_objects(talker: Talker, pair: tuple[Channel, Channel]) -> None:
    """JSON by default, pickle by name, and what the caller brings."""
    answer = talker.channel.request(b"object \xc3\xa9", timeout=PATIENCE).object()
    assert answer == {"pid": talker.process.pid, "said": "object é"}
    ours, theirs = pair
    ours.send_object({"a": [1, None]})
    ours.send_object({1, 2}, "pickle")
    ours.send_object([1], json)
    assert theirs.receive_object(timeout=PATIENCE) == {"a": [1, None]}
    assert theirs.receive_object("pickle", PATIENCE) == {1, 2}
    assert theirs.receive_object(json, PATIENCE) == [1]
    ours.send(pickle.dumps(1))
    with pytest.raises(ValueError):
        theirs.receive_object(timeout=PATIENCE)  # Nothing is unpickled that nobody has asked for.
    with pytest.raises(ValueError, match="no encoding is called"):
        ours.send_object(1, "yaml")


def test_a_dropped_request(talker: Talker) -> None:
    """The wait for it ends at once."""
    with pytest.raises(RequestDropped):
        talker.channel.request(b"drop", timeout=PATIENCE)
    assert talker.channel.request(b"answer", timeout=PATIENCE).data == b"answer"


def test_no_answer_in_time(talker: Talker) -> None:
    """The answer that comes later is nobody's, and not the next one's."""
    with pytest.raises(ReceiveTimeout):
        talker.channel.request(b"sleep", timeout=0.05)
    talker.process.kill()


def test_a_child_that_is_killed_is_heard_of_at_once(talker: Talker) -> None:
    """By who receives, by who asks, by who sends; after what it has sent."""
    talker.channel.send(b"echo last words")
    assert talker.channel.poll(PATIENCE)
    talker.channel.send(b"die")
    talker.process.wait(PATIENCE)
    began = time.monotonic()
    assert [message.data for message in talker.channel] == [b"echo last words"]
    assert time.monotonic() - began < SLACK
    assert talker.channel.poll() and not talker.channel.closed
    with pytest.raises(EOFError):
        talker.channel.receive(PATIENCE)
    with pytest.raises(EOFError):
        talker.channel.send(b"echo", timeout=PATIENCE)
    with pytest.raises(EOFError):
        talker.channel.request(b"answer", timeout=PATIENCE)


def test_a_child_that_dies_while_it_is_asked(talker: Talker) -> None:
    """Not a timeout later."""
    with pytest.raises(EOFError):
        talker.channel.request(b"die", timeout=PATIENCE)


@pytest.mark.parametrize("command", [[sys.executable, "-c", "raise SystemExit(3)"], None])
def test_a_child_that_does_not_take_its_end(
    program: Program, server: RendezvousServer, command: list[str] | None
) -> None:
    """It exits before it asks, or asks and takes nothing."""
    ours, theirs = Channel.pair()
    with ours:
        process = launch(command or program("talker", "claim-nothing"), {"chan": theirs})
        with pytest.raises(ChannelClosedError):
            ours.receive(PATIENCE)
        finish(process)


def test_a_child_that_cannot_be_started(tmp_path: Path, server: RendezvousServer) -> None:
    """Its end is given up."""
    ours, theirs = Channel.pair()
    with ours:
        with pytest.raises(FileNotFoundError):
            launch([tmp_path / "none"], {"chan": theirs})
        assert theirs.closed
        with pytest.raises(ChannelClosedError):
            ours.receive(PATIENCE)


def test_the_other_end_is_closed_before_the_child_looks(program: Program, server: RendezvousServer) -> None:
    """What was sent first comes first: also to a child that has not been started when this end is closed."""
    ours, theirs = Channel.pair()
    told, child_tells = Channel.pair()
    with told:
        ours.send(b"one", [child_tells])
        ours.send(b"two")
        process = launch(program("listener"), {"chan": theirs})
        ours.close()
        assert told.receive_object(timeout=PATIENCE) == ["one", "two"]
        with pytest.raises(ChannelClosedError):
            told.receive(PATIENCE)
        assert finish(process) == 0


# -- within one process -----------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.binary(max_size=100), st.integers(0, 3), st.booleans()), max_size=12))
def test_what_goes_in_comes_out_in_order(messages: list[tuple[bytes, int, bool]]) -> None:
    """Data and rights, in both directions, whoever moved which end in between."""
    ends = Channel.pair()
    with ReceiveRight.allocate() as port:
        try:
            for data, count, moved in messages:
                ends[0].send(data, [port.make_send() for _ in range(count)], timeout=PATIENCE)
                ends[1].send(data[::-1], timeout=PATIENCE)
                if moved:
                    ends = _carried(ends[0]), ends[1]
                with ends[1].receive(PATIENCE) as there, ends[0].receive(PATIENCE) as back:
                    assert (there.data, back.data) == (data, data[::-1])
                    assert [type(right) for right in there.rights] == [SendRight] * count
        finally:
            for end in ends:
                end.close()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _carried(end: Channel) -> Channel:
    """The same end after a way over another channel."""
    left, right = Channel.pair()
    with left, right:
        left.send(rights=[end])
        (arrived,) = right.receive(PATIENCE).rights
        assert isinstance(arrived, Channel) and end.closed
        return arrived


def test_back_pressure(pair: tuple[Channel, Channel]) -> None:
    """`send` waits where nobody receives; what could not be sent is still the sender's."""
    left, right = pair
    count = 0
    with ReceiveRight.allocate() as inbox, pytest.raises(SendTimeout):
        while True:
            travelling = inbox.make_send()
            try:
                left.send(bytes(4096), [travelling], timeout=0)
                count += 1
            except SendTimeout:
                assert not travelling.closed
                travelling.close()
                raise
    for _ in range(count):
        right.receive(PATIENCE).close()
    with pytest.raises(ReceiveTimeout):
        right.receive(timeout=0)


def test_waiting_by_descriptor(pair: tuple[Channel, Channel]) -> None:
    """`poll` and `fileno`: nothing, a message, the end."""
    left, right = pair
    assert not right.poll() and not right.poll(0.01) and not select.select([right], [], [], 0)[0]
    left.send(b"x")
    assert right.poll() and select.select([right], [], [], PATIENCE)[0]
    right.receive(timeout=0)
    assert not right.poll()
    left.close()
    assert select.select([right], [], [], PATIENCE)[0] and right.poll()
    with pytest.raises(ChannelClosedError):
        right.receive(timeout=0)


def _used_and_moved(count: int) -> tuple[Channel, Channel]:
    """Two ends. The first was used here, and then moved, with `count` messages waiting in it."""
    ours, theirs = Channel.pair()
    for number in range(count):
        theirs.send(b"%d" % number)
    return _carried(ours), theirs


def test_what_waited_in_an_end_that_moved_is_told_of_by_descriptor() -> None:
    """Before and after it was taken in, which sending does; and no longer than it is there. The descriptor stays the same."""
    ours, theirs = _used_and_moved(2)
    with ours, theirs:
        ours.send(b"taken in")
        with selectors.DefaultSelector() as selector:
            selector.register(ours, selectors.EVENT_READ)
            fd = ours.fileno()
            for number in range(2):
                assert ours.poll() and selector.select(0)
                assert ours.receive(timeout=0).data == b"%d" % number
            assert not ours.poll() and not selector.select(0) and ours.fileno() == fd
            theirs.send(b"2")
            assert selector.select(PATIENCE) and ours.receive(timeout=0).data == b"2"
            assert not selector.select(0)
            theirs.close()
            assert selector.select(PATIENCE)
            for _ in range(2):
                with pytest.raises(ChannelClosedError):
                    ours.receive(timeout=0)
                assert ours.poll() and selector.select(0)
            selector.unregister(ours)


def test_an_end_with_messages_that_were_taken_in_is_not_moved(server: RendezvousServer) -> None:
    """It says what to do, and works on."""
    ours, theirs = _used_and_moved(1)
    left, right = Channel.pair()
    with ours, theirs, left, right:
        ours.send(b"")
        with pytest.raises(RightError, match="receive them before it is moved"):
            left.send(b"", [ours])
        assert not ours.closed and ours.receive(PATIENCE).data == b"0"
        left.send(b"", [ours])
        with right.receive(PATIENCE) as message, message.rights[0] as moved:
            theirs.send(b"1")
            assert moved.receive(PATIENCE).data == b"1"


@pytest.mark.parametrize("used", [False, True])
def test_the_other_end_is_closed_while_one_is_on_its_way(used: bool) -> None:
    """What it had sent is received; then it is gone: for who receives, sends, moves the end on."""
    ours, theirs = _used_and_moved(2) if used else Channel.pair()[::-1]
    if not used:  # The right to send to the other end lies before everything else.
        theirs.send(b"0")
        theirs.send(b"1")
        ours = _carried(ours)
    theirs.send(b"2")
    theirs.close()
    with pytest.raises(ChannelClosedError):
        ours.send(b"")
    if not used:
        ours = _carried(ours)
    with ours:
        assert [message.data for message in ours] == [b"0", b"1", b"2"]
        with pytest.raises(ChannelClosedError):
            ours.request(b"", timeout=PATIENCE)


def test_all_threads_hear_of_the_end() -> None:
    """Those that receive and iterate, whoever closes which end."""
    for closed_here in (False, True):
        ours, theirs = Channel.pair()
        with ours, theirs, ThreadPoolExecutor() as pool:
            iterating = [pool.submit(list, ours) for _ in range(3)]
            theirs.send(b"x")
            wait_until(lambda: not ours.poll())
            (ours if closed_here else theirs).close()
            found = [one for thread in iterating for one in thread.result(PATIENCE)]
            assert [message.data for message in found] == [b"x"]


def test_what_is_no_list_of_rights(pair: tuple[Channel, Channel]) -> None:
    """One thing alone is refused, though ports, ends and files can be iterated over; so is one that is there twice."""
    left, right = pair
    mine, yours = Channel.pair()
    with mine, yours, ReceiveRight.allocate() as port, port.make_send() as sender, tempfile.TemporaryFile() as file:
        for alone in (port, sender, mine, file):
            for call in (left.send, left.request):
                with pytest.raises(RightError, match="write rights="):
                    call(b"", alone)  # type: ignore[operator]
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(left.request, b"?", timeout=PATIENCE)
            with right.receive(PATIENCE) as question:
                for wrong in (sender, [sender, sender], [b"bytes"]):
                    with pytest.raises(RightError):
                        question.reply(b"", wrong)  # type: ignore[arg-type]
                question.reply(b"yes")
            assert asking.result(PATIENCE).data == b"yes"
        for twice in (sender, mine):
            with pytest.raises(RightError, match="twice"):
                left.send(b"", [twice, twice])
        assert not sender.closed and not mine.closed
        mine.send(b"works")
        assert yours.receive(PATIENCE).data == b"works"
    for spent in (sender, mine):
        with pytest.raises(RightError, match="spent: it was closed"):
            left.send(b"", [spent])
    with pytest.raises(ValueError):
        left.send(b"", [file])
    for over in (left, right):
        with pytest.raises(RightError, match="over that channel"):
            left.send(b"", [over])
    assert not right.poll()


def test_a_failed_send_takes_nothing(pair: tuple[Channel, Channel]) -> None:
    """What cannot be sent is named; what stood beside it is still its owner's."""
    left, right = pair
    with ReceiveRight.allocate() as inbox, inbox.make_send() as held:
        moved, other = Channel.pair()
        with moved, other:
            for wrong in (b"bytes", left, None):
                with pytest.raises(RightError):
                    left.send(b"", [held, moved, wrong])
            assert not held.closed and not moved.closed
            right.close()
            with pytest.raises(ChannelClosedError):
                left.send(b"", [held, moved])
            assert not held.closed and not moved.closed
            moved.send(b"still works")
            assert other.receive(PATIENCE).data == b"still works"


def test_an_end_is_held_once(pair: tuple[Channel, Channel]) -> None:
    """It cannot be copied; a closed one says so; a forgotten one is closed with a warning."""
    left, right = pair
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied"):
            attempt(left)
    left.close()
    left.close()
    assert left.closed and list(left) == []
    with pytest.raises(RightError):
        left.send(b"")
    with pytest.raises(RightError):
        left.receive()
    ends = list(Channel.pair())
    ends.pop().close()
    with pytest.warns(ResourceWarning, match="was forgotten"):
        del ends


def test_what_nobody_took_is_given_up(pair: tuple[Channel, Channel]) -> None:
    """At the end of the `with`; what was taken is kept."""
    left, right = pair
    with ReceiveRight.allocate() as one, ReceiveRight.allocate() as two:
        left.send(b"", [one.make_send(), two.make_send()])
        with right.receive(PATIENCE) as message:
            kept = message.rights.pop(0)
        with pytest.raises(NoSenders):
            two.receive(PATIENCE)
        with kept:
            kept.send(Message(3))
            assert one.receive(PATIENCE).id == 3


def test_what_is_no_message_of_a_channel() -> None:
    """It is an error for whoever receives, and its rights are given up; and a port is no channel."""
    with ReceiveRight.allocate() as there, ReceiveRight.allocate() as inbox, there.make_send() as right:
        inbox_right = inbox.make_send()
        with Channel(ReceiveRight.allocate()) as none, pytest.raises(MessageFormatError, match="no end of a channel"):
            none.send(b"")
        with ReceiveRight.allocate() as back, back.make_send() as way_back:
            right.send(Message(0x6D726368, descriptors=[way_back]))
            right.send(Message(5, b"nonsense", [inbox_right]))
            count = 1
            for body in (bytes(12), b"\xff" * 16, bytes(8) + b"\xff" * 8):
                right.send(Message(0x6D726364, body), timeout=0)
                count += 1
            with Channel(there) as channel:
                for _ in range(count):
                    with pytest.raises(MessageFormatError):
                        channel.receive(timeout=0)
            with pytest.raises(NoSenders):
                inbox.receive(PATIENCE)


def test_a_file_that_arrives(pair: tuple[Channel, Channel]) -> None:
    """It is opened with `fileport_fd`."""
    left, right = pair
    with tempfile.TemporaryFile() as file:
        left.send(b"", [file])
        with right.receive(PATIENCE) as message:
            fd = fileport_fd(message.rights[0])
        assert os.fstat(fd).st_ino == os.fstat(file.fileno()).st_ino
        os.close(fd)
