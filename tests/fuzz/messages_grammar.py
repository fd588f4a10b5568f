"""Mach messages as a grammar: any id, any descriptors, rights of every kind, over the library's own kernel.

What belongs here: what Chromium's fuzzer of its rendezvous server does too, and then some. What must never happen here: a
message that is only sent where the library thinks it right: names and dispositions are anything.
"""

from __future__ import annotations

from typing import Any

from machrv.errors import MachrvError
from machrv.kernel import current
from machrv.message import (
    MACH_PORT_RIGHT_DEAD_NAME,
    MACH_PORT_RIGHT_PORT_SET,
    GuardedPortDescriptor,
    Message,
    OutOfLineDescriptor,
    OutOfLinePortsDescriptor,
    PortDescriptor,
)
from machrv.rights.closing import Closing
from machrv.rights import ReceiveRight, SendRight
from machrv.rights.transfer import send_message

from tests.sockets import sockets_of

from . import packets_grammar as packets
from .choices import Choices

_DISPOSITIONS = (16, 17, 18, 19, 20, 21)


class Sender(Closing):
    """A looked-up right, and names of every kind to put into messages."""

    def __init__(self, service: str) -> None:
        self.kernel = current()
        self.right = SendRight(self.kernel.bootstrap_look_up(service), self.kernel)

    def close(self) -> None:
        """Destroy every name of this process. The right may have been moved away, but each name has what it says."""
        self.right.release()
        for name, _ in self.kernel.mach_port_names():
            try:
                self.kernel.mach_port_destroy(name)
            except MachrvError:
                pass

    def send(self, choices: Choices) -> None:
        """One message; what is refused here is not sent."""
        if choices.rarely():
            self._send_packet(choices)
            return
        message = Message(
            choices.of(packets.IDS) if choices.below(4) == 0 else packets.REQUEST,
            bytes(4 * choices.below(5)) if choices.below(2) else b"",
            [self._descriptor(choices) for _ in range(choices.below(4))],
            local_port=self._name(choices) if choices.rarely() else ReceiveRight.allocate().release(),
            local_disposition=choices.of(_DISPOSITIONS) if choices.rarely() else 21,
            bits=packets.COMPLEX if choices.rarely() else 0,
        )
        try:
            send_message(self.kernel, message, self.right.name, 20 if choices.rarely() else 19, 1.0)
        except (MachrvError, ValueError):
            pass

    def _send_packet(self, choices: Choices) -> None:
        import os
        import socket

        if self.right.name not in dict(self.kernel.mach_port_names()):
            return  # It has been moved away.
        for fd in sockets_of(self.kernel, self.right.name):
            with socket.socket(fileno=os.dup(fd)) as copy:
                packets.packet(choices).send(copy)

    def _descriptor(self, choices: Choices) -> Any:
        kind = choices.below(8)
        disposition = choices.of(_DISPOSITIONS)
        if kind < 4:
            return PortDescriptor(self._name(choices), disposition)
        if kind == 4:
            return OutOfLineDescriptor(bytes(choices.of((0, 1, 5000))))
        if kind == 5:
            return OutOfLinePortsDescriptor([self._name(choices) for _ in range(choices.below(4))], disposition)
        if kind == 6:
            return GuardedPortDescriptor(self._name(choices), 16, flags=choices.below(4))
        return OutOfLineDescriptor(address=choices.number(), size=choices.number())

    def _name(self, choices: Choices) -> int:
        """A name with rights of one kind or several."""
        kind = choices.below(8)
        if kind == 0:
            return self.right.name
        if kind == 1:
            return choices.of((0, 0xFFFFFFFF, 0x12345))
        if kind == 2:
            return self.kernel.mach_port_allocate(choices.of((MACH_PORT_RIGHT_DEAD_NAME, MACH_PORT_RIGHT_PORT_SET)))
        port = ReceiveRight.allocate()
        if kind == 3:
            return port.make_send_once().release() if choices.below(2) else _orphan(port)
        name = port.release()
        if kind > 4:
            self.kernel.mach_port_insert_right(name, name, 20)
        if kind == 7:  # Something waits in it.
            send_message(self.kernel, Message(choices.below(100), bytes(8)), name, 19, 0)
        return name


def _orphan(port: ReceiveRight) -> int:
    """A send right whose port has died."""
    right = port.make_send()
    port.close()
    return right.release()
