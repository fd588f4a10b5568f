"""What was done last may be done again without the lock: until something else happens, and not a moment longer."""

from __future__ import annotations

import os
import signal
import sys
import threading

import pytest

if sys.platform != "linux":
    pytest.skip("the Linux kernel's messages", allow_module_level=True)

from machrv import Disposition, Message, PortDescriptor, ReceiveRight, SendRight
from machrv._mach import lib
from machrv.kernel.direct import direct
from machrv.errors import MachError, ReentryError
from machrv.kernel.linux import LinuxKernel
from machrv.errors import ReceiveTimeout

from .conftest import PATIENCE

MAKE_SEND, COPY_SEND = Disposition.MAKE_SEND, Disposition.COPY_SEND


def warm(port: ReceiveRight, right: SendRight) -> None:
    """Messages go both ways without the lock from here on."""
    for id in range(3):
        right.send(Message(id))
        assert port.receive(timeout=0).id == id
    kernel = port.kernel
    assert isinstance(kernel, LinuxKernel) and kernel._open


def test_what_comes_is_what_would_have_come_with_the_lock() -> None:
    """Bodies of every size, seqno, sender."""
    with ReceiveRight.allocate() as port, port.make_send() as right:
        warm(port, right)
        for number, size in enumerate((0, 1, 4, 5, 2024, 2028, 2048, 2052, 65512, 65516, 70000)):
            right.send(Message(-number, bytes(range(256)) * 300 if size == 70000 else b"x" * size), timeout=PATIENCE)
            message = port.receive(timeout=0)
            assert message.id == -number and message.trailer is not None and message.trailer.seqno == number + 3
            assert message.body.startswith(b"x" * size) if size < 70000 else len(message.body) == 76800
            assert message.audit_token == port.kernel.audit_token()
            assert message.local_port == port.name and message.remote_port == 0 and message.local_disposition == 17


def test_a_right_that_was_given_up_cannot_be_sent_to() -> None:
    """Its name stands for the port alone."""
    with ReceiveRight.allocate() as port:
        right = port.make_send()
        warm(port, right)
        name = right.name
        right.close()
        image = Message(1).encode_to(name, COPY_SEND)
        assert not port.kernel.send_bare(name, 1, b"")
        with pytest.raises(MachError) as caught:
            port.kernel.mach_msg(image, lib.MACH_SEND_MSG)
        assert caught.value.code == lib.MACH_SEND_INVALID_DEST
        with pytest.raises(ReceiveTimeout):
            port.receive(timeout=0)


def test_the_context_that_counts_is_the_last_one() -> None:
    """It stands in the trailer of the next message."""
    with ReceiveRight.allocate() as port, port.make_send() as right:
        warm(port, right)
        for context in (1, 1 << 63):
            port.kernel.mach_port_set_context(port.name, context)
            for _ in range(3):
                right.send(Message(1))
                option = lib.MACH_RCV_MSG | lib.MACH_RCV_TRAILER_CTX << 24
                received = Message.decode(port.kernel.mach_msg(None, option, None, port.name, 0) or b"")
                assert received.trailer is not None and received.trailer.context == context


def test_another_sender_makes_an_order() -> None:
    """What was sent first comes first, whichever right it was sent to."""
    with ReceiveRight.allocate() as port, port.make_send() as right, ReceiveRight.allocate() as other:
        warm(port, right)
        with other.make_send() as way:
            way.send(Message(0, b"", [PortDescriptor(port.name, MAKE_SEND)]))
        name = other.receive(timeout=0).descriptors[0].name
        with SendRight(name):
            right.send(Message(1))
            port.kernel.mach_msg(Message(2).encode_to(name, COPY_SEND), lib.MACH_SEND_MSG)
            right.send(Message(3))
            assert [port.receive(timeout=0).id for _ in range(3)] == [1, 2, 3]


def test_rights_get_names_and_too_much_is_refused() -> None:
    """Whatever is not plain finds its way."""
    with ReceiveRight.allocate() as port, port.make_send() as right, ReceiveRight.allocate() as other:
        for _ in range(3):
            warm(port, right)
            right.send(Message(7, b"", [PortDescriptor(other.name, MAKE_SEND)]))
            received = port.receive(timeout=0)
            with SendRight(received.descriptors[0].name) as arrived:
                arrived.send(Message(8))
                assert other.receive(timeout=0).id == 8
            warm(port, right)
            right.send(Message(9, bytes(100)))
            with pytest.raises(MachError) as caught:
                port.kernel.mach_msg(None, lib.MACH_RCV_MSG, 40, port.name, 0)
            assert caught.value.code == lib.MACH_RCV_TOO_LARGE
            warm(port, right)
            right.send(Message(10, bytes(100)))
            with pytest.raises(MachError):
                port.kernel.mach_msg(None, lib.MACH_RCV_MSG | lib.MACH_RCV_LARGE, 40, port.name, 0)
            assert port.receive(timeout=0).id == 10


def test_names_that_are_none_are_refused_as_ever() -> None:
    """Also those that no C integer holds."""
    with ReceiveRight.allocate() as port, port.make_send() as right:
        warm(port, right)
        for name in (0, 7, -1, 1 << 32, 1 << 70):
            with pytest.raises(MachError) as caught:
                port.kernel.mach_msg(None, lib.MACH_RCV_MSG, None, name, 0)
            assert caught.value.code == lib.MACH_RCV_INVALID_NAME
            assert not port.kernel.send_bare(name, 1, b"")
        assert not port.kernel.send_bare(right.name, 1 << 31, b"")
        assert not port.kernel.send_bare(right.name, 1, [b"a", b"b", b"c", b"d"])  # type: ignore[arg-type]


def test_what_is_called_without_cffi_looks_at_what_it_is_given() -> None:
    """As CFFI does: nothing is taken for what it is not."""
    for function in (direct.send_again, direct.send_bare_again, direct.receive_again):
        for arguments in ((), (0,), (1,) * 9, ("1", 2), ("1", 2, 3, b"")):
            with pytest.raises(TypeError):
                function(*arguments)
    with ReceiveRight.allocate() as port, port.make_send() as right:
        warm(port, right)
        kernel = port.kernel
        assert isinstance(kernel, LinuxKernel)
        for body in (bytearray(4), memoryview(b"body"), "body", None):
            assert not kernel.send_bare(right.name, 1, body)  # type: ignore[arg-type]
        assert not kernel.send_bare(right.name, "1", b"")  # type: ignore[arg-type]
        with pytest.raises(ReceiveTimeout):
            port.receive(timeout=0)


def test_a_child_of_fork_is_another_sender() -> None:
    """What it sends to itself comes from it, however its parent sent before."""
    with ReceiveRight.allocate() as port, port.make_send() as right:
        warm(port, right)
        pid = os.fork()
        if pid == 0:
            try:
                with ReceiveRight.allocate() as own, own.make_send() as way:
                    warm(own, way)
                    way.send(Message(1))
                    token = own.receive(timeout=0).audit_token
                    os._exit(0 if token is not None and token.pid == os.getpid() else 1)
            finally:
                os._exit(2)
        assert os.waitpid(pid, 0)[1] == 0
        warm(port, right)


def test_a_signal_handler_sends_and_receives_between_calls() -> None:
    """Or is told to do it later; nothing is lost, and nothing comes twice."""
    with ReceiveRight.allocate(1024) as port, port.make_send() as right:
        warm(port, right)
        sent: list[int] = []  # Appending is one step, which no handler comes into.
        received: list[int] = []

        def on_alarm(number: int, frame: object) -> None:
            try:
                right.send(Message(5), timeout=0)
                sent.append(5)
                port.receive(timeout=0)
                received.append(5)
            except (ReentryError, ReceiveTimeout):
                pass

        before = signal.signal(signal.SIGALRM, on_alarm)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
            for _ in range(20000):
                right.send(Message(5))
                sent.append(5)
                try:
                    port.receive(timeout=0)
                    received.append(5)
                except ReceiveTimeout:
                    pass  # The handler has received it.
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        while True:
            try:
                port.receive(timeout=0)
                received.append(5)
            except ReceiveTimeout:
                break
        assert len(sent) == len(received)


def test_threads_that_send_while_others_change_the_names() -> None:
    """A message reaches the port that its name stands for, or none: ports come and go under the same names."""
    kernel = LinuxKernel()
    done, wrong = threading.Event(), []
    current = [kernel.mach_port_allocate(lib.MACH_PORT_RIGHT_RECEIVE)]
    kernel.mach_port_insert_right(current[0], current[0], MAKE_SEND)

    def send() -> None:
        while not done.is_set():
            name = current[0]
            try:
                kernel.mach_msg(Message(name).encode_to(name, COPY_SEND), lib.MACH_SEND_MSG, None, 0, 0)
            except MachError as error:
                if error.code not in (lib.MACH_SEND_INVALID_DEST, lib.MACH_SEND_TIMED_OUT):
                    wrong.append(error)

    def receive() -> None:
        while not done.is_set():
            name = current[0]
            try:
                received = kernel.mach_msg(None, lib.MACH_RCV_MSG, None, name, 0)
                if Message.decode(received or b"").id != name:
                    wrong.append((name, received))
            except MachError as error:
                if error.code not in (lib.MACH_RCV_INVALID_NAME, lib.MACH_RCV_TIMED_OUT, lib.MACH_RCV_PORT_CHANGED):
                    wrong.append(error)

    threads = [threading.Thread(target=work) for work in (send, send, receive, receive)]
    for thread in threads:
        thread.start()
    for _ in range(1500):
        old = current[0]
        new = kernel.mach_port_allocate(lib.MACH_PORT_RIGHT_RECEIVE)
        kernel.mach_port_insert_right(new, new, MAKE_SEND)
        current[0] = new
        kernel.mach_port_destroy(old)
    done.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert not wrong and not any(thread.is_alive() for thread in threads)
    kernel.close()
