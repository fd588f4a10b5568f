"""The targets as state machines: hypothesis looks for an order of events that goes wrong, and makes it short.

What belongs here: the events, and what must hold after each. What must never happen here: an attack that the grammars do
not make. The server's machine is in `stateful`: there, children claim while others attack.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from machrv import (
    AuditToken,
    GuardedPortDescriptor,
    Message,
    OutOfLineDescriptor,
    OutOfLinePortsDescriptor,
    PortDescriptor,
    RendezvousClient,
    RendezvousError,
    Trailer,
)

from . import client, codec, packets
from .harness import Harness

_uint8, _uint16, _uint32, _uint64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
_attacks = st.binary(max_size=200)
_which = st.integers(0, 7)
_OURS = 0x6F757273


class Codec(RuleBasedStateMachine):
    """A message that is put together piece by piece, and damaged."""

    def __init__(self) -> None:
        super().__init__()
        self.body = b""
        self.descriptors: list[Any] = []
        self.trailer: Trailer | None = None

    @rule(name=_uint32, disposition=_uint8)
    def port(self, name: int, disposition: int) -> None:
        """A port descriptor more."""
        self.descriptors.append(PortDescriptor(name, disposition))

    @rule(address=_uint64, size=_uint32)
    def memory(self, address: int, size: int) -> None:
        """Memory at an address."""
        self.descriptors.append(OutOfLineDescriptor(address=address, size=size))

    @rule(address=_uint64, count=_uint32, disposition=_uint8)
    def array(self, address: int, count: int, disposition: int) -> None:
        """An array of names at an address."""
        self.descriptors.append(OutOfLinePortsDescriptor(disposition=disposition, address=address, count=count))

    @rule(name=_uint32, disposition=_uint8, context=_uint64, flags=_uint16)
    def guarded(self, name: int, disposition: int, context: int, flags: int) -> None:
        """A guarded port."""
        self.descriptors.append(GuardedPortDescriptor(name, disposition, context=context, flags=flags))

    @precondition(lambda self: self.descriptors)
    @rule(which=_which)
    def without(self, which: int) -> None:
        """A descriptor less."""
        del self.descriptors[which % len(self.descriptors)]

    @rule(body=st.binary(max_size=64))
    def content(self, body: bytes) -> None:
        """Another body."""
        self.body = body

    @rule(seqno=_uint32, words=st.lists(_uint32, min_size=8, max_size=8))
    def attested(self, seqno: int, words: list[int]) -> None:
        """A trailer with a token."""
        self.trailer = Trailer(seqno, (words[1], words[2]), AuditToken(*words))

    @rule(at=_uint16, value=_uint8)
    def damage(self, at: int, value: int) -> None:
        """One byte is another one on its way."""
        image = bytearray(self._image())
        image[at % len(image)] = value
        codec.check(bytes(image))

    @rule(at=_uint16, more=st.binary(max_size=70))
    def cut(self, at: int, more: bytes) -> None:
        """It ends early, and something else follows."""
        image = self._image()
        codec.check(image[: at % (len(image) + 1)] + more)

    @invariant()
    def comes_back(self) -> None:
        """What is written is read, bit for bit."""
        image = self._image()
        assert len(Message.decode(image).descriptors) == len(self.descriptors)
        codec.check(image)

    def _image(self) -> bytes:
        return Message(5, self.body + bytes(-len(self.body) % 4), self.descriptors, trailer=self.trailer).encode()


class _Live(RuleBasedStateMachine):
    """A machine with an attacker, which is the same for all its runs."""

    harness: Harness

    def __init__(self) -> None:
        super().__init__()
        self.began = self.harness.began()

    def order(self, attack: str, service: str, data: bytes = b"") -> int:
        """Have the attacker do something."""
        self.harness.hostile.order(attack, service, data)
        return self.harness.hostile.done()


class Packets(_Live):
    """Several connections to a port, over which anything comes, while its owner receives now and then."""

    target: packets.Target

    def __init__(self) -> None:
        super().__init__()
        self.target.open()
        self.connections: list[int] = []
        self.ours = 0

    @precondition(lambda self: len(self.connections) < 5)
    @rule()
    def connect(self) -> None:
        """One more."""
        self.connections.append(self.order("c", self.target.path))

    @precondition(lambda self: self.connections)
    @rule(which=_which, data=_attacks)
    def write(self, which: int, data: bytes) -> None:
        """A packet, which waits."""
        self.order("w", str(self.connections[which % len(self.connections)]), data)

    @precondition(lambda self: self.connections)
    @rule(which=_which)
    def hang_up(self, which: int) -> None:
        """One less, whatever waits there."""
        self.order("x", str(self.connections.pop(which % len(self.connections))))

    @rule()
    def send_one_of_ours(self) -> None:
        """A message of the owner's own, which has to arrive whatever comes beside it."""
        with self.target.port.make_send() as right:
            right.send(Message(_OURS))
        self.ours += 1

    @rule(count=st.integers(1, 4))
    def receive(self, count: int) -> None:
        """Take what waits, or some of it."""
        for _ in range(count):
            self.ours -= self.target.receive(_OURS) is True

    @invariant()
    def none_too_many(self) -> None:
        """Nobody else's message passes for one of the owner's."""
        assert self.ours >= 0

    def teardown(self) -> None:
        """All of the owner's own have come, and nothing is left."""
        for connection in self.connections:
            self.order("x", str(connection))
        for _ in range(400):
            found = self.target.receive(_OURS)
            if found is None:
                break
            self.ours -= found
        assert self.ours == 0
        self.target.port.close()
        self.harness.ended(self.began)


class Client(_Live):
    """A process that has asked several times, holds what came, and takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[RendezvousClient] = []

    @precondition(lambda self: len(self.clients) < 4)
    @rule(data=_attacks)
    def ask(self, data: bytes) -> None:
        """Ask, and hold what comes."""
        self.harness.hostile.order("s", client.SERVICE, data)
        try:
            self.clients.append(RendezvousClient.connect(client.SERVICE, timeout=10))
        except RendezvousError as error:
            assert not isinstance(error, TimeoutError), error
        self.harness.hostile.done()

    @precondition(lambda self: self.clients)
    @rule(which=_which, key=_which)
    def take(self, which: int, key: int) -> None:
        """Take a right, use it, give it up; a second time there is none."""
        one = self.clients[which % len(self.clients)]
        before = one.port_count
        taken = client.take(one, key)
        assert one.port_count == before - taken and not client.take(one, key)

    @precondition(lambda self: self.clients)
    @rule(which=_which)
    def close_one(self, which: int) -> None:
        """Give up all of one answer."""
        self.clients.pop(which % len(self.clients)).close()

    def teardown(self) -> None:
        """Nothing is left."""
        for one in self.clients:
            one.close()
        self.harness.ended(self.began)


def run(name: str, examples: int) -> None:
    """Let hypothesis choose so many orders of events for a target. Raises what it finds, made short."""
    steps = settings(max_examples=examples, stateful_step_count=20, deadline=None)
    if name == "server":
        from .stateful import Rendezvous

        run_state_machine_as_test(Rendezvous, settings=steps)
    elif name == "codec":
        run_state_machine_as_test(Codec, settings=steps)
    else:
        target = packets.Target() if name == "packets" else client.Target()
        if isinstance(target, packets.Target):
            target.port.close()  # Each run has one of its own.
            target.harness.start()
        kind = type(name, (Packets if name == "packets" else Client,), {"target": target, "harness": target.harness})
        try:
            run_state_machine_as_test(kind, settings=steps)
        finally:
            target.close()
