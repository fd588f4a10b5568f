"""What fuzzing has found: each a test of its own, by hand, so that it stays found."""

from __future__ import annotations

import os
import socket
import struct
import threading
from pathlib import Path

import pytest

from machrv import (
    AuditToken,
    DirectRendezvousClient,
    Disposition,
    MachError,
    Message,
    MessageFormatError,
    PortDescriptor,
    ReceiveRight,
    RendezvousError,
    RendezvousServer,
    SendOnceRight,
    Trailer,
    destroy_message,
    take_reply_right,
)
from machrv.kernel import current
from machrv.kernel.linux import LinuxKernel
from machrv.kernel.linux.bootstrap import directory
from machrv.message import MACH_MSGH_BITS_COMPLEX, MACH_PORT_RIGHT_DEAD_NAME, MACH_SEND_INVALID_DEST, MACH_SEND_MSG
from machrv.rendezvous.protocol import REPLY_ID, reply

from .conftest import PATIENCE, wait_for_no_senders, wait_for_server
from .fuzz import packets_grammar as packets
from .fuzz.choices import Choices


def test_a_reply_that_asks_for_an_answer_is_no_reply() -> None:
    """A server that puts a right to answer into its reply leaves nothing with the client (target: client)."""
    with ReceiveRight.allocate() as service, ReceiveRight.allocate() as more, ReceiveRight.allocate() as port:

        def serve() -> None:
            right = take_reply_right(service.receive(PATIENCE))
            assert isinstance(right, SendOnceRight)
            answer = reply({1: PortDescriptor(port.name, Disposition.MAKE_SEND)})
            with right:
                right.send(
                    Message(
                        answer.id,
                        answer.body,
                        answer.descriptors,
                        bits=MACH_MSGH_BITS_COMPLEX,
                        local_port=more.name,
                        local_disposition=Disposition.MAKE_SEND,
                    )
                )

        server = threading.Thread(target=serve)
        server.start()
        with pytest.raises(RendezvousError, match="answer"):
            DirectRendezvousClient.initialize(service.make_send())
        server.join()
        wait_for_no_senders(more)
        wait_for_no_senders(port)


@pytest.mark.parametrize("id", [-1, -(2**31), 2**31 - 1])
def test_an_id_is_any_32_bits(id: int) -> None:
    """A message with rights may have a negative id; it was an OverflowError, and the right was gone (target: server)."""
    with ReceiveRight.allocate() as port, port.make_send() as right, ReceiveRight.allocate() as other:
        right.send(Message(id, b"body", [other.make_send()]), timeout=0)
        message = port.receive(PATIENCE)
        assert message.id == id and len(message.descriptors) == 1
        destroy_message(message)
        wait_for_no_senders(other)


@pytest.mark.parametrize("kind", range(len(packets.ANY)))
def test_a_descriptor_that_holds_no_receive_right_stops_nobody(
    kind: int, server: RendezvousServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Any descriptor as a receive right: one kind made the server fail, and pause for others (target: server)."""
    folder = Path(directory()[0])
    descriptor = struct.pack("=IIIHBB", 1, 1, 0, 0, packets.RECEIVE, 0)
    header = (packets.COMPLEX | packets.SEND, 24 + len(descriptor), 0, 0, packets.NULL, 1, packets.MAGIC, 0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(str(folder / os.readlink(folder / server.service_name)))
        packet = packets.Packet(packets.HEADER.pack(*header) + descriptor, [packets.ANY[kind](Choices(b""))])
        packet.send(connection)
        wait_for_server(server)
    wait_for_server(server)
    packets.release()
    assert not caplog.records


def test_a_trailer_stands_at_a_multiple_of_four() -> None:
    """One that follows a message of 69 bytes at once is refused, however right it looks (target: codec)."""
    trailer = Trailer(1, (0, 0), AuditToken(0, 0, 0, 0, 0, 7, 0, 1))
    image = Message(REPLY_ID, bytes(45), trailer=trailer).encode()
    assert Message.decode(image).trailer == trailer
    with pytest.raises(MessageFormatError):
        Message.decode(image[:69] + image[72:])


@pytest.mark.parametrize("carried", [[19], [17], [19, 17], [17, 17]], ids=str)
def test_a_right_to_a_dead_port_that_carries_itself_is_a_dead_name(carried: list[int]) -> None:
    """Its socket is closed once, and not kept as a number that may be somebody else's by now (target: server)."""
    other = LinuxKernel()
    other.bootstrap_check_in("org.machrv.found")
    name = current().bootstrap_look_up("org.machrv.found")
    other.close()
    descriptors = [PortDescriptor(name, disposition) for disposition in carried]
    message = Message(1, b"", descriptors, remote_port=name, remote_disposition=Disposition.COPY_SEND)
    with pytest.raises(MachError) as caught:
        current().mach_msg(message.encode(), MACH_SEND_MSG, timeout=0)
    assert caught.value.code == MACH_SEND_INVALID_DEST
    assert current().mach_port_type(name) == 1 << MACH_PORT_RIGHT_DEAD_NAME + 16
    current().mach_port_deallocate(name)
