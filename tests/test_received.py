"""Messages that own their rights, requests, and peers that are gone: what `receive`, `request` and iteration give."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from machrv import (
    AuditToken,
    Disposition,
    MachError,
    Message,
    NoSenders,
    PortSet,
    ReceivedMessage,
    ReceiveRight,
    ReceiveTimeout,
    RendezvousServer,
    RequestDropped,
    RightError,
    SendOnceRight,
    SendRight,
    aio,
    current,
    launch,
)
from machrv.message import MACH_NOTIFY_NO_SENDERS, MACH_NOTIFY_SEND_ONCE, MACH_PORT_RECEIVE_STATUS

from .conftest import PATIENCE, SLACK, finish

QUICK = 0.1


# -- what a message brings --------------------------------------------------------------------------------------------


def test_a_message_owns_its_rights_in_the_order_of_the_descriptors() -> None:
    """Until they are taken; the rest is given up at the end of the `with`."""
    with ReceiveRight.allocate() as port, port.make_send() as right, ReceiveRight.allocate() as inbox:
        moved = ReceiveRight.allocate()
        reply = {"local_port": port.name, "local_disposition": Disposition.MAKE_SEND_ONCE}
        right.send(Message(1, b"", [inbox.make_send(), moved, inbox.make_send_once()], **reply))
        with port.receive(PATIENCE) as message:
            assert [type(right) for right in message.rights] == [SendRight, ReceiveRight, SendOnceRight]
            assert isinstance(message.reply_right, SendOnceRight)
            assert isinstance(message.audit_token, AuditToken) and not message.audit_token.is_kernel
            kept = message.rights.pop(0)
        assert message.rights == [] and message.reply_right is None
        message.close()
        assert inbox.receive(PATIENCE).id == MACH_NOTIFY_SEND_ONCE
        assert port.receive(PATIENCE).id == MACH_NOTIFY_SEND_ONCE
        assert kept is not None and not kept.closed
        kept.close()
        with pytest.raises(NoSenders):
            inbox.receive(PATIENCE)


def test_a_forgotten_message_gives_its_rights_up_with_a_warning() -> None:
    """Those that somebody holds live on."""
    with ReceiveRight.allocate() as port, port.make_send() as right, ReceiveRight.allocate() as inbox:
        right.send(Message(1, b"", [inbox.make_send(), inbox.make_send()]))
        with pytest.warns(ResourceWarning, match="was forgotten"):
            held = port.receive(PATIENCE).rights[1]
        assert isinstance(held, SendRight)
        with held:
            held.send(Message(4))
        assert inbox.receive(PATIENCE).id == 4
        with pytest.raises(NoSenders):
            inbox.receive(PATIENCE)


def test_a_right_cannot_be_copied() -> None:
    """By `copy`; the error says what to do."""
    with ReceiveRight.allocate() as port, pytest.raises(TypeError, match="cannot be copied"):
        copy.copy(port)


# -- requests ---------------------------------------------------------------------------------------------------------


def test_a_request_is_answered() -> None:
    """With rights in both directions; `for` ends when nobody can ask any more."""
    with ReceiveRight.allocate() as port, ReceiveRight.allocate() as inbox:

        def serve() -> None:
            for question in port:
                with question:
                    question.reply(Message(question.id + 1, b"", [right for right in question.rights if right]))
                    with pytest.raises(RightError):
                        question.reply(Message())

        server = threading.Thread(target=serve)
        server.start()
        with port.make_send() as right:
            for number in range(3):
                with right.request(Message(number, b"", [inbox.make_send()]), PATIENCE) as answer:
                    assert answer.id == number + 1 and len(answer.rights) == 1 and answer.reply_right is None
        server.join(PATIENCE)
        assert not server.is_alive()


def test_a_request_that_is_dropped_or_late() -> None:
    """One deadline for both halves; a send-once right that is given up ends the wait."""
    with ReceiveRight.allocate() as port, port.make_send() as right:
        dropper = threading.Thread(target=lambda: port.receive(PATIENCE).close())
        dropper.start()
        with pytest.raises(RequestDropped) as caught:
            right.request(Message(1), PATIENCE)
        assert isinstance(caught.value, EOFError)
        dropper.join()
        began = time.monotonic()
        with pytest.raises(ReceiveTimeout):
            right.request(Message(1), QUICK)
        assert time.monotonic() - began < QUICK + SLACK
        with port.receive(PATIENCE) as message, pytest.raises(RightError):
            right.request(Message(1, local_port=port.name, local_disposition=Disposition.MAKE_SEND_ONCE))
        del message


def test_nobody_can_forge_the_word_that_a_request_was_dropped() -> None:
    """A message of that id is an answer like any other."""
    with ReceiveRight.allocate() as port, port.make_send() as right:
        forger = threading.Thread(target=lambda: port.receive(PATIENCE).reply(Message(MACH_NOTIFY_SEND_ONCE)))
        forger.start()
        assert right.request(Message(1), PATIENCE).id == MACH_NOTIFY_SEND_ONCE
        forger.join()


def answering(port: ReceiveRight, questions: int) -> threading.Thread:
    """A thread that answers so many questions, each with one that has its number."""

    def serve() -> None:
        for _ in range(questions):
            with port.receive(PATIENCE) as question:
                question.reply(Message(question.id))

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_a_port_for_answers_is_kept_for_the_next_request() -> None:
    """It serves as long as each answer comes, belongs to the right that asks, and is closed with it: given away, too."""
    kernel = current()
    with ReceiveRight.allocate() as port, ReceiveRight.allocate() as other:
        for end in (SendRight.close, SendRight.release):
            right = port.make_send()
            before = len(kernel.mach_port_names())
            server = answering(port, 3)
            for number in range(3):
                assert right.request(Message(number), PATIENCE).id == number
                assert len(kernel.mach_port_names()) == before + 1
            server.join()
            dropper = threading.Thread(target=lambda: port.receive(PATIENCE).close())
            dropper.start()
            with pytest.raises(RequestDropped):  # That, too, leaves a port behind to which nobody has a right.
                right.request(Message(7), PATIENCE)
            dropper.join()
            assert len(kernel.mach_port_names()) == before + 1
            name = right.name
            end(right)
            if end is SendRight.release:
                assert len(kernel.mach_port_names()) == before
                kernel.mach_port_deallocate(name)
        right = port.make_send()
        server = answering(port, 1)
        right.request(Message(1), PATIENCE)
        server.join()
        with other.make_send() as carrier:
            carrier.send(Message(2, b"", [right]))
        with other.receive(PATIENCE) as brought:
            assert [type(one) for one in brought.rights] == [SendRight]


def test_a_late_answer_is_not_taken_for_the_next_ones() -> None:
    """After a timeout whoever was asked may still answer: the next request waits elsewhere."""
    with ReceiveRight.allocate() as port, port.make_send() as right:
        server = answering(port, 1)
        assert right.request(Message(1), PATIENCE).id == 1
        server.join()
        taken: list[ReceivedMessage] = []
        taker = threading.Thread(target=lambda: taken.append(port.receive(PATIENCE)))
        taker.start()
        with pytest.raises(ReceiveTimeout):
            right.request(Message(2), QUICK)
        taker.join()
        with taken.pop() as late:
            replier = threading.Thread(target=lambda: port.receive(PATIENCE).reply(Message(3)))
            replier.start()
            with contextlib.suppress(MachError):  # Whether it hears that nobody waits is a matter of how fast it is.
                late.reply(Message(2))
            assert right.request(Message(3), PATIENCE).id == 3
            replier.join()


def test_requests_of_many_threads_have_their_own_answers() -> None:
    """Ports for answers go from thread to thread, and never to two at once."""
    with ReceiveRight.allocate() as port, port.make_send() as right:
        server, wrong = answering(port, 400), []

        def ask(first: int) -> None:
            for number in range(first, first + 100):
                if right.request(Message(number), PATIENCE).id != number:
                    wrong.append(number)

        threads = [threading.Thread(target=ask, args=(1000 * count,)) for count in range(4)]
        for thread in threads:
            thread.start()
        for thread in [*threads, server]:
            thread.join()
        assert wrong == []


# -- who is gone ------------------------------------------------------------------------------------------------------


def test_the_last_sender_goes_after_its_messages() -> None:
    """What was sent comes first; a sender that is made later is listened to."""
    with ReceiveRight.allocate() as port:
        for _ in range(2):
            with port.make_send() as right:
                right.send(Message(1))
                right.send(Message(2))
            assert [message.id for message in port] == [1, 2]
            for _ in range(2):
                with pytest.raises(NoSenders) as caught:
                    port.receive(PATIENCE)
            assert isinstance(caught.value, EOFError)


def test_threads_that_begin_to_listen_at_once_leave_nothing_behind() -> None:
    """Each asks for the word that nobody is left; only one of them is to, or a right of the kernel's is nobody's."""
    kernel, interval = current(), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(400):
            before = len(kernel.mach_port_names())
            with ReceiveRight.allocate() as port, port.make_send() as right:
                ready = threading.Barrier(4)

                def listen() -> None:
                    ready.wait(PATIENCE)
                    with pytest.raises(NoSenders):
                        port.receive(PATIENCE)

                threads = [threading.Thread(target=listen) for _ in range(4)]
                for thread in threads:
                    thread.start()
                while not kernel.mach_port_get_attributes(port.name, MACH_PORT_RECEIVE_STATUS).nsrequest:
                    pass
                right.close()
                for thread in threads:
                    thread.join()
            assert len(kernel.mach_port_names()) == before
    finally:
        sys.setswitchinterval(interval)


def test_who_waits_for_senders_still_to_come() -> None:
    """A port that never had one just waits; one that had waits if asked to."""
    with ReceiveRight.allocate() as port:
        with pytest.raises(ReceiveTimeout):
            port.receive(timeout=0.01)
        port.make_send().close()
        with pytest.raises(ReceiveTimeout):
            port.receive(timeout=0.01, wait_for_senders=True)
        with pytest.raises(NoSenders):
            port.receive(PATIENCE)
        with port.make_send() as right:
            right.send(Message(1))
            assert port.receive(PATIENCE, wait_for_senders=True).id == 1
            with pytest.raises(ReceiveTimeout):
                port.receive(timeout=0.01)


def test_all_threads_hear_that_the_last_sender_is_gone() -> None:
    """The kernel tells once, and each of them is told; and those that iterate, that the right was closed."""
    for closed in (False, True):
        with ReceiveRight.allocate() as port, port.make_send() as right, ThreadPoolExecutor() as pool:

            def serve() -> int:
                served = 0
                for message in port:
                    message.reply(Message())
                    served += 1
                return served

            serving = [pool.submit(serve) for _ in range(4)]
            right.request(Message(1), PATIENCE).close()
            (port if closed else right).close()
            assert sum(thread.result(PATIENCE) for thread in serving) == 1


def test_a_sender_that_comes_after_the_last_one_is_heard_first() -> None:
    """What it has sent before it goes comes before the word that nobody is left, though that had been told before."""
    with ReceiveRight.allocate() as port:
        port.make_send().close()
        with pytest.raises(NoSenders):
            port.receive(timeout=0)
        with port.make_send() as right:
            right.send(Message(1))
        assert port.receive(timeout=0).id == 1
        with pytest.raises(NoSenders):
            port.receive(timeout=0)


def test_nobody_can_forge_the_word_that_nobody_is_left() -> None:
    """A message of that id is a message like any other."""
    with ReceiveRight.allocate() as port, port.make_send() as right:
        right.send(Message(MACH_NOTIFY_NO_SENDERS, bytes(12)))
        assert port.receive(PATIENCE).id == MACH_NOTIFY_NO_SENDERS


def test_a_receive_right_that_came_without_senders() -> None:
    """They were made elsewhere, and are gone; also if its previous holder had waited for them."""
    for waited in (False, True):
        with ReceiveRight.allocate() as port, port.make_send() as right:
            moved = ReceiveRight.allocate()
            sender = moved.make_send()
            if waited:
                with pytest.raises(ReceiveTimeout):
                    moved.receive(timeout=0)
            right.send(Message(1, b"", [moved]))
            sender.send(Message(5))
            sender.close()
            with port.receive(PATIENCE) as message:
                (arrived,) = message.rights
                assert isinstance(arrived, ReceiveRight)
                assert [last.id for last in arrived] == [5]


def test_a_member_of_a_set_is_heard_by_itself() -> None:
    """What the set was told of it does not make it deaf."""
    with PortSet.allocate() as ports, ReceiveRight.allocate() as port:
        with port.make_send():
            with pytest.raises(ReceiveTimeout):
                port.receive(timeout=0)
            ports.insert(port)
        told = ports.receive(PATIENCE)
        assert told.id == MACH_NOTIFY_NO_SENDERS and told.audit_token.is_kernel and told.local_port == port.name
        with pytest.raises(NoSenders):
            port.receive(PATIENCE)


CHILD = """
import sys, time
from machrv import Message, RendezvousClient
with RendezvousClient.connect() as rights:
    port = rights.take_send_right("port")
port.send(Message(1))
port.send(Message(2))
{}
"""


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("raise SystemExit", []),
        ("from machrv import RendezvousClient as R; R.connect().close()", []),
        (CHILD.format("import os; os.kill(os.getpid(), 9)"), [1, 2]),
        (CHILD.format("port.close()"), [1, 2]),
    ],
    ids=["exits before it asks", "takes nothing", "is killed", "closes"],
)
def test_a_child_is_gone(server: RendezvousServer, program: str, expected: list[int]) -> None:
    """Known as soon as it has ended, and not at the end of some time, by `for` and by `async for`; also by who is in the middle of waiting."""
    for how in ("for", "async for"):
        with ReceiveRight.allocate() as port:
            child = launch([sys.executable, "-W", "ignore", "-c", program], {"port": port.make_send()})
            if how == "for":
                child.wait(PATIENCE)
                began = time.monotonic()
                found = [message.id for message in port]
                assert time.monotonic() - began < SLACK
            else:

                async def main() -> list[int]:
                    return [message.id async for message in port]

                found = asyncio.run(asyncio.wait_for(main(), PATIENCE))
            assert found == expected
            finish(child)


def test_requests_on_a_loop() -> None:
    """Answered, dropped, cancelled."""

    async def main() -> None:
        with ReceiveRight.allocate() as port, port.make_send() as right:

            async def serve() -> None:
                async for question in port:
                    with question:
                        if question.id:
                            question.reply(Message(question.id + 1))

            serving = asyncio.create_task(serve())
            answers = await asyncio.gather(*(aio.request(right, Message(n), PATIENCE) for n in range(1, 20)))
            assert [answer.id for answer in answers] == list(range(2, 21))
            with pytest.raises(RequestDropped):
                await aio.request(right, Message(0), PATIENCE)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            asking = asyncio.create_task(aio.request(right, Message(3), PATIENCE))
            await asyncio.sleep(0.01)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            port.receive(PATIENCE).close()

    asyncio.run(main())
