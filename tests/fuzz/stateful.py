"""A rendezvous server and its children as a state machine: hypothesis looks for an order of events that loses a right.

What belongs here: the model (who may claim what, who holds what), and the events. What must never happen here: an event
that a program could not cause. The children are real processes; each right that is given away has a port that tells when
the last of it is gone.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from machrv import (
    ENFORCE_PEER_REQUIREMENTS,
    VALIDATE_PEER_REQUIREMENTS,
    MachError,
    MachrvError,
    Message,
    NoSenders,
    ProcessRequirement,
    ReceiveRight,
    RendezvousClient,
    RendezvousServer,
    SendRight,
)
from machrv.errors import RendezvousError
from machrv.kernel import current
from machrv.errors import RegistrationError

from ..faults.actors import Actor
from .hostile import Hostile

CHILDREN = 3
_PATIENCE = 20.0
_keys = st.sets(st.integers(0, 5), max_size=4)
_children = st.integers(0, CHILDREN - 1)


def child(commands: socket.socket) -> None:
    """Claim when told to, hold what came, give it up when told to."""
    held: list[RendezvousClient] = []
    while command := commands.recv(4096):
        told = json.loads(command)
        answer: object = None
        if told["do"] == "claim":
            try:
                held.append(RendezvousClient.connect(told["service"], timeout=_PATIENCE))
                answer = held[-1].port_count
            except MachrvError as error:
                answer = type(error).__name__
        elif told["do"] == "flood":
            with SendRight(current().bootstrap_look_up(told["service"])) as right:
                for number in range(50):
                    try:
                        right.send(Message(number, bytes(number * 4)), timeout=1)
                    except MachError:
                        break  # Whoever has looked a server up is heard once.
        elif told["do"] == "drop":
            while held:
                held.pop().close()
        commands.send(json.dumps({"answer": answer}).encode())


class Rendezvous(RuleBasedStateMachine):
    """What happens to a parent with a few children, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="machrv-stateful-")
        self._before = os.environ.get("MACHRV_BOOTSTRAP_DIR")
        os.environ["MACHRV_BOOTSTRAP_DIR"] = self._folder.name
        self.children: list[Actor | None] = [Actor(child) for _ in range(CHILDREN)]
        self.hostile = Hostile()
        self.server = RendezvousServer.get_instance()
        self.kernel = self.server.kernel
        #: what each child may claim, and whether it is to be refused
        self.registered: dict[int, list[ReceiveRight]] = {}
        self.refused: set[int] = set()
        #: what each child has
        self.held: dict[int, list[ReceiveRight]] = {}

    @initialize(enforce=st.booleans())
    def policy(self, enforce: bool) -> None:
        """With or without enforcement."""
        self.enforce = enforce
        self._features = [VALIDATE_PEER_REQUIREMENTS.override(enforce), ENFORCE_PEER_REQUIREMENTS.override(enforce)]
        for feature in self._features:
            feature.__enter__()

    def teardown(self) -> None:
        """Whatever happened: when all children are gone and the server is closed, so is every right."""
        for number in range(CHILDREN):
            self.kill(number)
        self.hostile.close()
        self.server.close()
        assert not self.registered and not self.held
        for feature in reversed(getattr(self, "_features", [])):
            feature.__exit__(None, None, None)
        os.environ.pop("MACHRV_BOOTSTRAP_DIR")
        if self._before is not None:
            os.environ["MACHRV_BOOTSTRAP_DIR"] = self._before
        self._folder.cleanup()

    # -- events -------------------------------------------------------------------------------------------------------

    @rule(number=_children, keys=_keys)
    def register(self, number: int, keys: set[int]) -> None:
        """Register rights for a child that lives; again for the same one is an error that takes nothing."""
        actor = self.children[number]
        if actor is None:
            return
        ports = [ReceiveRight.allocate() for _ in keys]
        given = {key: port.make_send() for key, port in zip(keys, ports)}
        try:
            with self.server.lock:
                self.server.register_ports_for_pid(actor.pid, given)
        except RegistrationError:
            assert self._has_ports(number) and not any(right.closed for right in given.values())
            for right in given.values():
                right.close()
            self._all_gone(ports)
            return
        assert not self._has_ports(number) and all(right.closed for right in given.values())
        self.registered[number] = ports

    @rule(number=_children, passes=st.booleans())
    def require(self, number: int, passes: bool) -> None:
        """A requirement that the child meets, or never meets."""
        actor = self.children[number]
        if actor is None:
            return
        always, never = ProcessRequirement.always_matches_for_testing, ProcessRequirement.never_matches_for_testing
        try:
            with self.server.lock:
                self.server.set_process_requirement_for_pid(actor.pid, always() if passes else never())
        except RendezvousError:
            assert number in self.required
            return
        self.required.add(number)
        if not passes:
            self.refused.add(number)

    @rule(number=_children)
    def claim(self, number: int) -> None:
        """A child asks: it gets all that is registered, once, or nothing."""
        actor = self.children[number]
        if actor is None:
            return
        report = actor.ask(do="claim", service=self.server.service_name)
        ports = self.registered.pop(number, [])
        refused = self.enforce and number in self.refused
        self._forget(number)
        assert report is not None and report["answer"] == (0 if refused else len(ports)), report
        if refused:
            self._all_gone(ports)
        else:
            self.held.setdefault(number, []).extend(ports)

    @rule(number=_children)
    def drop(self, number: int) -> None:
        """A child gives up what it has."""
        actor = self.children[number]
        if actor is not None:
            actor.ask(do="drop")
            self._all_gone(self.held.pop(number, []))

    @rule(number=_children)
    def flood(self, number: int) -> None:
        """A child sends what is no request."""
        actor = self.children[number]
        if actor is not None:
            actor.ask(do="flood", service=self.server.service_name)

    @rule(data=st.binary(max_size=200))
    def attack(self, data: bytes) -> None:
        """A process that is nobody's child sends messages with rights of every kind, and packets."""
        self.hostile.order("m", self.server.service_name, data)
        self.hostile.done()

    @precondition(lambda self: sum(actor is not None for actor in self.children) > 1)
    @rule(number=_children)
    def kill(self, number: int) -> None:
        """A child is killed, with whatever it has and whatever it may claim."""
        actor = self.children[number]
        if actor is None:
            return
        actor.end()
        self.children[number] = None
        self._all_gone(self.registered.pop(number, []) + self.held.pop(number, []))
        self._forget(number)

    @rule()
    def clear(self) -> None:
        """All registrations are ended."""
        self.server.clear_client_data_for_testing()
        for number in list(self.registered):
            self._all_gone(self.registered.pop(number))
        self.required.clear()
        self.refused.clear()

    # -- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def counts(self) -> None:
        """The server has the registrations of the model; those of the killed it may have yet to notice."""
        living = {number for number in {*self.registered, *self.required} if self.children[number] is not None}
        assert self.server.registration_count >= len(living), (self.server.registration_count, living)

    @property
    def required(self) -> set[int]:
        """The children with a requirement."""
        found: set[int] = self.__dict__.setdefault("_required", set())
        return found

    def _has_ports(self, number: int) -> bool:
        return bool(self.registered.get(number))  # One without ports does not stand in the way.

    def _forget(self, number: int) -> None:
        self.required.discard(number)
        self.refused.discard(number)

    def _all_gone(self, ports: list[ReceiveRight]) -> None:
        """Nobody has a right to any of these ports any more."""
        for port in ports:
            with port:
                with pytest.raises(NoSenders):
                    port.receive(_PATIENCE)
