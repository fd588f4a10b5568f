"""Owned rights: who owns which user reference before, inside and after every call."""

from __future__ import annotations

import gc
import os
import threading
import warnings

import pytest

from machrv import (
    Disposition,
    MachError,
    Message,
    OutOfLineDescriptor,
    OutOfLinePortsDescriptor,
    PortDescriptor,
    PortSet,
    ReceiveRight,
    ReceiveTimeout,
    RightError,
    SendOnceRight,
    SendRight,
    SendTimeout,
    destroy_message,
    take_reply_right,
    take_rights,
)
from machrv.kernel import Kernel
from machrv.message import (
    KERN_INVALID_NAME,
    MACH_NOTIFY_SEND_ONCE,
    MACH_PORT_RIGHT_DEAD_NAME,
    MACH_PORT_RIGHT_RECEIVE,
    MACH_PORT_RIGHT_SEND,
    MACH_PORT_RIGHT_SEND_ONCE,
    MACH_PORT_TYPE_DEAD_NAME,
    MACH_PORT_TYPE_SEND,
    MACH_PORT_TYPE_SEND_ONCE,
    MACH_SEND_INVALID_DEST,
    MACH_SEND_INVALID_RIGHT,
)

from .conftest import PATIENCE


def send_references(kernel: Kernel, name: int) -> int:
    return kernel.mach_port_get_refs(name, MACH_PORT_RIGHT_SEND)


def test_every_maker_adds_one_reference_and_every_close_takes_it(kernel: Kernel) -> None:
    """make_send and copy share the port's name, make_send_once has its own; each close gives up just its own."""
    with ReceiveRight.allocate() as port:
        assert send_references(kernel, port.name) == 0
        with port.make_send() as first:
            assert first.name == port.name and send_references(kernel, port.name) == 1
            with first.copy() as second:
                assert second.name == port.name and send_references(kernel, port.name) == 2
            assert send_references(kernel, port.name) == 1
        assert send_references(kernel, port.name) == 0
        with port.make_send_once() as once:
            assert once.name != port.name
            assert kernel.mach_port_get_refs(once.name, MACH_PORT_RIGHT_SEND_ONCE) == 1
        assert port.receive(PATIENCE).id == MACH_NOTIFY_SEND_ONCE


def test_close_is_idempotent_and_a_closed_right_is_an_error(kernel: Kernel) -> None:
    """A second close does nothing, least of all to another reference of the same name."""
    with ReceiveRight.allocate() as port, port.make_send():
        right = port.make_send()
        right.close()
        right.close()
        assert right.closed and send_references(kernel, port.name) == 1
        for use in (lambda: right.name, right.release, right.copy, lambda: right.send(Message())):
            with pytest.raises(RightError, match="spent"):
                use()


def test_release_gives_the_bare_name_to_the_caller(kernel: Kernel) -> None:
    """After release the object owns nothing; adopt takes the reference back."""
    with ReceiveRight.allocate() as port:
        right = port.make_send()
        name = right.release()
        right.close()
        assert send_references(kernel, name) == 1
        with SendRight.adopt(name) as adopted:
            assert adopted.name == name and send_references(kernel, name) == 1
        assert send_references(kernel, name) == 0


@pytest.mark.parametrize("kind", [SendRight, SendOnceRight, PortSet])
def test_adopting_another_kind_of_right_is_refused(
    kernel: Kernel, kind: type[SendRight] | type[SendOnceRight] | type[PortSet]
) -> None:
    """The name's type is asked for: a receive right is no send right, and stays the caller's."""
    with ReceiveRight.allocate() as port:
        with pytest.raises(RightError, match="cannot be adopted"):
            kind.adopt(port.name)
        assert kernel.mach_port_get_refs(port.name, MACH_PORT_RIGHT_RECEIVE) == 1


def test_adopting_nothing_is_refused() -> None:
    """A name that was given up stands for nothing."""
    with ReceiveRight.allocate() as port:
        name = port.name
    with pytest.raises(RightError, match="KERN_INVALID_NAME"):
        ReceiveRight.adopt(name)


def test_a_forgotten_right_is_closed_with_a_warning(kernel: Kernel) -> None:
    """Nobody loses a right by dropping the object."""
    with ReceiveRight.allocate() as port:
        right = port.make_send()
        with pytest.warns(ResourceWarning, match="SendRight"):
            del right
            gc.collect()
        assert send_references(kernel, port.name) == 0


def test_a_closed_right_is_forgotten_in_silence() -> None:
    """Only what is lost is worth a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        right = ReceiveRight.allocate()
        right.close()
        del right
        gc.collect()


def test_the_death_of_the_port_leaves_dead_names_that_close_all_the_same(kernel: Kernel) -> None:
    """Send and send-once rights become dead names; closing them leaves nothing."""
    port = ReceiveRight.allocate()
    send, once = port.make_send(), port.make_send_once()
    port.close()
    assert kernel.mach_port_type(send.name) == MACH_PORT_TYPE_DEAD_NAME
    assert kernel.mach_port_get_refs(once.name, MACH_PORT_RIGHT_DEAD_NAME) == 1
    with pytest.raises(MachError):
        send.copy()
    with pytest.raises(MachError) as caught:
        once.send(Message())
    assert caught.value.code == MACH_SEND_INVALID_DEST
    assert not once.closed
    send.close()
    once.close()


def test_a_message_goes_through_and_says_who_sent_it(kernel: Kernel) -> None:
    """Id and body arrive, with the kernel's word on the sender."""
    with ReceiveRight.allocate() as port, port.make_send() as right:
        right.send(Message(7, b"word"))
        message = port.receive(timeout=PATIENCE)
        assert (message.id, message.body, message.local_port) == (7, b"word", port.name)
        assert message.audit_token == kernel.audit_token()
        assert message.audit_token is not None and message.audit_token.pid == os.getpid()
        assert send_references(kernel, port.name) == 1


def test_receiving_in_vain_times_out() -> None:
    """The error is Mach's, and a TimeoutError."""
    with ReceiveRight.allocate() as port:
        with pytest.raises(TimeoutError) as caught:
            port.receive(timeout=0)
        assert isinstance(caught.value, ReceiveTimeout)
        assert caught.value.symbol == "MACH_RCV_TIMED_OUT"
        with pytest.raises(ReceiveTimeout):
            port.receive(timeout=0.01)


def test_a_full_queue_times_out_and_nothing_is_moved() -> None:
    """The right that was to be moved is held as before, and can be sent once there is room."""
    with ReceiveRight.allocate(queue_limit=1) as port, port.make_send() as right, ReceiveRight.allocate() as moved:
        sent = 0
        with pytest.raises(SendTimeout) as caught:
            while sent < 10_000:
                right.send(Message(sent), timeout=0)
                sent += 1
        assert isinstance(caught.value, TimeoutError) and sent >= 1
        with pytest.raises(SendTimeout):
            right.send(Message(descriptors=[moved]), timeout=0)
        assert not moved.closed
        for expected in range(sent):
            assert port.receive(timeout=PATIENCE).id == expected
        right.send(Message(descriptors=[moved]), timeout=0)
        assert moved.closed
        destroy_message(port.receive(timeout=PATIENCE))


def test_owned_rights_in_a_message_are_moved_once_it_is_sent(kernel: Kernel) -> None:
    """Every kind of right travels as an object, is spent by sending, and is owned by whoever takes it."""
    with ReceiveRight.allocate() as port, port.make_send() as right, ReceiveRight.allocate() as other:
        moved = ReceiveRight.allocate()
        send, once = other.make_send(), other.make_send_once()
        right.send(Message(1, descriptors=[moved, send, once]))
        assert moved.closed and send.closed and once.closed
        message = port.receive(PATIENCE)
        taken = take_rights(message)
        assert [type(item) for item in taken] == [ReceiveRight, SendRight, SendOnceRight]
        receive, send_again, once_again = taken
        assert isinstance(receive, ReceiveRight)
        assert isinstance(send_again, SendRight) and isinstance(once_again, SendOnceRight)
        with receive, send_again, once_again:
            send_again.send(Message(2))
            once_again.send(Message(3))
            assert once_again.closed
            assert [other.receive(PATIENCE).id, other.receive(PATIENCE).id] == [2, 3]
            with receive.make_send() as loop:
                loop.send(Message(4))
            assert receive.receive(PATIENCE).id == 4


def test_a_failed_send_leaves_every_right_held(kernel: Kernel) -> None:
    """Whether the destination is dead or another right is spent: what was to be moved is still owned."""
    with ReceiveRight.allocate() as other, other.make_send() as send, other.make_send_once() as once:
        dead = ReceiveRight.allocate()
        with dead.make_send() as right:
            spent = other.make_send()
            spent.close()
            with pytest.raises(RightError):
                right.send(Message(descriptors=[send, once, spent]))
            dead.close()
            with pytest.raises(MachError) as caught:
                right.send(Message(descriptors=[send, once]))
            assert caught.value.code == MACH_SEND_INVALID_DEST
        assert not send.closed and not once.closed
        assert send_references(kernel, other.name) == 1
        once.send(Message(9))
        assert other.receive(PATIENCE).id == 9


def test_a_descriptor_at_fault_does_not_take_owned_rights_with_it(kernel: Kernel) -> None:
    """Mach destroys what stands before a bad descriptor; owned rights beside it are held all the same."""
    with ReceiveRight.allocate() as port, port.make_send() as right, ReceiveRight.allocate() as other:
        with other.make_send() as kept, other.make_send() as send, other.make_send_once() as once:
            moved = ReceiveRight.allocate()
            bad = [
                PortDescriptor(kept.name, Disposition.MOVE_SEND_ONCE),
                PortDescriptor(0x12345, Disposition.MAKE_SEND),
            ]
            with port.make_send_once() as answer:
                for descriptor in bad:
                    for through in (right, answer):
                        with pytest.raises((RightError, MachError)):
                            through.send(Message(descriptors=[send, once, moved, descriptor]))
                        assert not (answer.closed or send.closed or once.closed or moved.closed)
                        assert send_references(kernel, other.name) == 2
            assert port.receive(PATIENCE).id == MACH_NOTIFY_SEND_ONCE
            with moved.make_send() as loop:
                loop.send(Message(3))
            assert moved.receive(PATIENCE).id == 3
            moved.close()
        assert other.receive(PATIENCE).id == MACH_NOTIFY_SEND_ONCE


def test_a_right_that_a_failed_send_destroyed_is_spent(kernel: Kernel) -> None:
    """Where Mach has taken a right before it failed, the object knows, and gives nothing up a second time."""
    with ReceiveRight.allocate() as port, port.make_send() as right, ReceiveRight.allocate() as other:
        with other.make_send() as kept, other.make_send() as send, other.make_send_once() as once:
            # The array is looked at by the kernel only, after `once` has been taken.
            array = OutOfLinePortsDescriptor([kept.name, 0x12345], Disposition.COPY_SEND)
            with pytest.raises(MachError) as caught:
                right.send(Message(descriptors=[send, once, array]))
            assert caught.value.code == MACH_SEND_INVALID_RIGHT
            assert not send.closed and send_references(kernel, other.name) == 2
            left = [name for name, kind in kernel.mach_port_names() if kind & MACH_PORT_TYPE_SEND_ONCE]
            assert left == ([] if once.closed else [once.name])
        assert other.receive(PATIENCE).id == MACH_NOTIFY_SEND_ONCE


def test_the_same_right_twice_in_a_message_is_an_error(kernel: Kernel) -> None:
    """One reference cannot be moved twice."""
    with ReceiveRight.allocate() as port, port.make_send() as right, ReceiveRight.allocate() as other:
        with other.make_send() as send:
            with pytest.raises(RightError):
                right.send(Message(descriptors=[send, send]))
            assert send_references(kernel, other.name) == 1


def test_a_port_set_cannot_be_sent() -> None:
    """Mach has no disposition for it."""
    with ReceiveRight.allocate() as port, port.make_send() as right, PortSet.allocate() as ports:
        with pytest.raises(RightError, match="cannot be moved"):
            right.send(Message(descriptors=[ports]))


def test_names_and_dispositions_travel_too(kernel: Kernel) -> None:
    """A PortDescriptor borrows a name: COPY_SEND leaves the sender's reference, MAKE_SEND needs none."""
    with ReceiveRight.allocate() as port, port.make_send() as right, ReceiveRight.allocate() as other:
        with other.make_send() as send:
            copied = PortDescriptor(send.name, Disposition.COPY_SEND)
            right.send(Message(descriptors=[copied, PortDescriptor(other.name, Disposition.MAKE_SEND)]))
            assert send_references(kernel, other.name) == 1
            message = port.receive(PATIENCE)
            assert [item.disposition for item in message.descriptors] == [Disposition.PORT_SEND] * 2
            assert {item.name for item in message.descriptors} == {other.name}
            assert send_references(kernel, other.name) == 3
            destroy_message(message)
            assert send_references(kernel, other.name) == 1


def test_a_reply_right_is_answered_once() -> None:
    """The send-once right in the header is taken as an object; using it spends it."""
    with ReceiveRight.allocate() as port, port.make_send() as right, ReceiveRight.allocate() as answers:
        question = Message(1, local_port=answers.name, local_disposition=Disposition.MAKE_SEND_ONCE)
        right.send(question)
        reply = take_reply_right(port.receive(PATIENCE))
        assert isinstance(reply, SendOnceRight)
        with reply:
            reply.send(Message(2))
            assert reply.closed
        assert answers.receive(PATIENCE).id == 2


def test_destroying_a_message_gives_up_everything_in_it() -> None:
    """Reply right, descriptors, arrays: the unwanted message leaves nothing, and the asker learns of it."""
    with ReceiveRight.allocate() as port, port.make_send() as right, ReceiveRight.allocate() as answers:
        with ReceiveRight.allocate() as other:
            moved = other.make_send()
            array = OutOfLinePortsDescriptor([other.name, other.name], Disposition.MAKE_SEND)
            right.send(
                Message(
                    descriptors=[moved, array, OutOfLineDescriptor(b"x" * 10_000)],
                    local_port=answers.name,
                    local_disposition=Disposition.MAKE_SEND_ONCE,
                )
            )
            destroy_message(port.receive(PATIENCE))
        notification = answers.receive(PATIENCE)
        assert notification.id == MACH_NOTIFY_SEND_ONCE
        assert notification.audit_token is not None and notification.audit_token.is_kernel


@pytest.mark.parametrize("size", [0, 1, 4096, 1 << 20])
def test_out_of_line_memory_arrives_as_bytes(size: int) -> None:
    """The receiver gets the contents; the memory behind them is given back."""
    data = os.urandom(size)
    with ReceiveRight.allocate() as port, port.make_send() as right:
        right.send(Message(1, b"tail", [OutOfLineDescriptor(data)]))
        message = port.receive(PATIENCE)
        assert message.descriptors[0].data == data and message.body == b"tail"
        assert message.descriptors[0].size == size and message.descriptors[0].address == 0


def test_an_array_of_rights_arrives_as_names(kernel: Kernel) -> None:
    """take_rights makes objects of them, in order."""
    with ReceiveRight.allocate() as port, port.make_send() as right:
        ports = [ReceiveRight.allocate() for _ in range(3)]
        right.send(Message(descriptors=[OutOfLinePortsDescriptor([p.name for p in ports], Disposition.MAKE_SEND)]))
        taken = take_rights(port.receive(PATIENCE))
        for index, sender in enumerate(taken):
            assert isinstance(sender, SendRight) and sender.name == ports[index].name
            with sender:
                sender.send(Message(index))
        for index, receiver in enumerate(ports):
            with receiver:
                assert receiver.receive(PATIENCE).id == index


def test_a_port_set_receives_for_its_members() -> None:
    """A message says by its local port which member it came to; a member that was taken out is not heard."""
    with ReceiveRight.allocate() as first, ReceiveRight.allocate() as second, PortSet.allocate() as both:
        both.insert(first)
        both.insert(second)
        for index, member in enumerate((first, second)):
            with member.make_send() as right:
                right.send(Message(index))
        received = sorted((message.id, message.local_port) for message in (both.receive(PATIENCE) for _ in range(2)))
        assert received == [(0, first.name), (1, second.name)]
        both.extract(second)
        with second.make_send() as right:
            right.send(Message(3))
        with pytest.raises(ReceiveTimeout):
            both.receive(timeout=0)
        assert second.receive(PATIENCE).id == 3


def test_closing_a_set_leaves_its_members() -> None:
    """The members stay their owners'."""
    with ReceiveRight.allocate() as member:
        with PortSet.allocate() as ports:
            ports.insert(member)
        with member.make_send() as right:
            right.send(Message(1))
        assert member.receive(PATIENCE).id == 1


def test_two_threads_close_a_right_once(kernel: Kernel) -> None:
    """Whoever comes second finds nothing to close, and takes no other reference of the name."""
    with ReceiveRight.allocate() as port, port.make_send():
        for _ in range(200):
            right = port.make_send()
            start = threading.Barrier(2)

            def close() -> None:
                start.wait()
                right.close()

            threads = [threading.Thread(target=close) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert send_references(kernel, port.name) == 1


def test_rights_do_not_survive_fork() -> None:
    """In the child of a fork the objects are spent, and closing or dropping them does nothing."""
    with ReceiveRight.allocate() as port, port.make_send() as right:
        pid = os.fork()
        if pid == 0:
            try:
                assert port.closed and right.closed
                port.close()
                right.close()
                with pytest.raises(RightError, match="before fork"):
                    right.send(Message())
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        right.send(Message(5))
        assert port.receive(PATIENCE).id == 5


def test_closing_what_was_deallocated_behind_its_back_is_an_error_once(kernel: Kernel) -> None:
    """The object is spent all the same: it does not try again."""
    with ReceiveRight.allocate() as port:
        once = port.make_send_once()
        kernel.mach_port_deallocate(once.name)
        with pytest.raises(MachError) as caught:
            once.close()
        assert caught.value.code == KERN_INVALID_NAME
        once.close()
        assert port.receive(PATIENCE).id == MACH_NOTIFY_SEND_ONCE


def test_a_send_right_that_was_moved_away_is_gone_from_the_space(kernel: Kernel) -> None:
    """The user reference left with the message."""
    with ReceiveRight.allocate() as port, port.make_send() as right, ReceiveRight.allocate() as other:
        right.send(Message(descriptors=[other.make_send()]))
        assert send_references(kernel, other.name) == 0
        destroy_message(port.receive(PATIENCE))
        assert kernel.mach_port_type(port.name) & MACH_PORT_TYPE_SEND
