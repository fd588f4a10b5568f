"""What fuzzing has found: each a test of its own, by hand, so that it stays found."""

from __future__ import annotations

import threading

import pytest

from machrv import (
    DirectRendezvousClient,
    Disposition,
    Message,
    PortDescriptor,
    ReceiveRight,
    RendezvousError,
    SendOnceRight,
    take_reply_right,
)
from machrv.message import MACH_MSGH_BITS_COMPLEX
from machrv.rendezvous.protocol import reply

from .conftest import PATIENCE, wait_for_no_senders


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
