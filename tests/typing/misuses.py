"""What must be refused: each line that ends in `# wrong`, by both checkers, and no other."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

import machrv
from machrv import (
    AuditToken,
    Disposition,
    MemoryObject,
    Message,
    PortDescriptor,
    PortSet,
    ProcessRequirement,
    ReceiveRight,
    RendezvousClient,
    RendezvousPort,
    RendezvousServer,
    RendezvousServerBase,
    Requirement,
    SendOnceRight,
    SendRight,
    Trailer,
    aio,
    fileport,
    launch,
)


def rights(port: ReceiveRight, right: SendRight, once: SendOnceRight, ports: PortSet) -> None:
    """An operation is there only on the right that it is legal for."""
    right.receive()  # wrong
    once.copy()  # wrong
    once.make_send()  # wrong
    port.send(Message())  # wrong
    port.copy()  # wrong
    ports.make_send()  # wrong
    ports.insert(right)  # wrong
    right.send(b"bytes")  # wrong
    right.send()  # wrong
    port.receive("soon")  # wrong
    ReceiveRight.allocate("many")  # wrong
    ReceiveRight.allocate(queue=5)  # wrong
    fileport("notes.txt")  # wrong
    right.name = 7  # wrong
    right.nonsense()  # wrong


def messages(message: Message) -> None:
    """Fields have types."""
    Message("id")  # wrong
    Message(1, "text")  # wrong
    Message(1, b"", 7)  # wrong
    Message(1, b"", (), 0)  # wrong
    Message(1, reply=2)  # wrong
    PortDescriptor(0x103)  # wrong
    PortDescriptor("port", Disposition.MOVE_SEND)  # wrong
    Disposition.MOVE_EVERYTHING  # wrong
    Trailer("seqno")  # wrong
    AuditToken(process=1)  # wrong
    message.trailer.audit_token  # wrong
    message.audit_token.pid  # wrong
    len(message.encode().decode(7))  # wrong


def rendezvous(right: SendRight, ports: PortSet, server: RendezvousServer) -> None:
    """Who registers what, and what comes back."""
    launch(["child"], {"port": 7})  # wrong
    launch(["child"], {"port": b"ports"})  # wrong
    launch(["child"], ["port", right])  # wrong
    launch(7)  # wrong
    launch(["child"], None, "requirement")  # wrong
    launch(["child"], None, None, server)  # wrong
    subprocess.Popen(["child"]).pid.close()  # wrong
    RendezvousClient.connect(7)  # wrong
    RendezvousClient.connect(timeout="5")  # wrong
    RendezvousClient.get_instance().port_count  # wrong
    RendezvousClient.connect().take_send_right("port").send(Message())  # wrong
    RendezvousClient.connect().take_send_right("port").__enter__()  # wrong
    RendezvousClient.connect().take_receive_right(b"port")  # wrong
    RendezvousPort.from_right(ports)  # wrong
    RendezvousPort("port", Disposition.MOVE_SEND)  # wrong
    server.register_ports_for_pid("pid", {})  # wrong
    server.add_feature_state_to_environment([])  # wrong


def requirements() -> None:
    """A builder is not what it builds."""
    launch(["child"], None, ProcessRequirement.Builder())  # wrong
    ProcessRequirement.Builder().user("root")  # wrong
    ProcessRequirement.Builder().identifier(7).build()  # wrong
    ProcessRequirement.Builder().nonsense()  # wrong
    Requirement()  # wrong
    machrv.VALIDATE_PEER_REQUIREMENTS.override()  # wrong
    machrv.set_verdict_callback(lambda: None)  # wrong
    machrv.nonsense  # wrong


async def loops(port: ReceiveRight, right: SendRight) -> None:
    """What is awaited and what is not."""
    await port.receive()  # wrong
    await aio.receive(right)  # wrong
    await aio.send(port, Message())  # wrong
    list(right)  # wrong
    aio.nonsense  # wrong
    MemoryObject.create("4096")  # wrong
    MemoryObject.from_right(port)  # wrong


class Own(RendezvousServerBase):
    """A hook that does not answer as it must."""

    def ports_for_client(self, audit_token: int) -> Mapping[int, RendezvousPort] | None:  # wrong
        return None

    def additional_data_for_reply(self, message_id: int) -> str:  # wrong
        return ""
