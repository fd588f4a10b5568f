"""Plays a case, and says what is wrong about its end.

What belongs here: what must hold after any fault. Each side has a claim, or a typed error, or an empty answer, in
bounded time; every right was given up exactly once; nothing is left but what was there before; the next client is
served. What must never happen here: a case judged more mildly than the others.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from .actors import CLAIM_TIMEOUT, Actor, Report, client, server
from .cases import Case
from .strace import Call, attached, calls, was_hit

_OF_THE_CLIENT = ("client",)
_OF_THE_SERVER = ("dispatch", "exit")


class Row(NamedTuple):
    """What became of a case."""

    case: Case
    hit: bool
    registered: str
    outcome: str
    log: list[str]
    problems: list[str]
    seconds: float


class Stage:
    """A server that lives as long as no case kills it, and a client for each case."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="machrv-faults-")
        self._log = Path(self._folder.name, "strace")
        self._start()

    def _start(self) -> None:
        self.server = Actor(server)
        about = self.server.answer()
        assert about is not None
        self.service, self.thread = about["service"], about["thread"]

    def close(self) -> None:
        """End the server."""
        self.server.tell(do="quit")
        self.server.wait()
        self._folder.cleanup()

    # -- listing ------------------------------------------------------------------------------------------------------

    def list_calls(self, where: str) -> list[Call]:
        """The system calls that a claim makes there, when nothing is broken."""
        row = self._play(Case(where, "", 0, ""))
        assert not row.problems, row
        found = calls(self._log)
        if where in _OF_THE_SERVER:
            return found[:-1]  # The last one is still waiting.
        # strace may have come after the order, and left before it saw the report.
        names = [call.name for call in found]
        start = names.index("recvfrom") + 1 if "recvfrom" in names else 0
        return found[start : (names + ["sendto"]).index("sendto")]

    # -- playing ------------------------------------------------------------------------------------------------------

    def play(self, case: Case) -> Row:
        """Play a case; up to three times, for now and then a thread takes another way and does not come to the call."""
        for _ in range(3):
            row = self._play(case)
            if row.hit or row.problems:
                break
        return row

    def _play(self, case: Case) -> Row:
        began = monotonic()
        problems: list[str] = []
        actor = Actor(client)
        inject = case.inject if case.fault else ""
        tracer: Callable[[int], object] = lambda thread: attached(thread, self._log, inject)
        actor.answer()
        self.server.ask(do="prepare")
        with self._traced(case.where == "register", tracer, self.server.pid):
            registered = self._ask(self.server, problems, do="register", pid=actor.pid)
        settled: Report | None = None
        outcome = "gone without asking"
        thread = self.thread if case.where in _OF_THE_SERVER else actor.pid if case.where in _OF_THE_CLIENT else 0
        with self._traced(bool(thread), tracer, thread):
            if case.where == "exit":
                actor.end()
                settled = self._ask(self.server, problems, do="settle")
            else:
                may_die = case.where in _OF_THE_CLIENT and case.fault == "SIGKILL"
                outcome = self._claim(actor, problems, may_die)
        if outcome not in ("killed", "gone without asking"):
            self._look_at(actor, problems)
        if case.where != "exit":
            settled = self._ask(self.server, problems, do="settle")
        if settled is not None and case.fault == "SIGKILL" and case.where not in _OF_THE_CLIENT:
            # The call may have come only after the last answer: whoever was killed by then is dead now.
            if os.waitid(os.P_PID, self.server.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                settled = None
        log = self._judge_server(case, registered, settled, problems)
        self._judge_next(problems)
        told = "" if registered is None else str(registered["registered"])
        if monotonic() - began > 3 * CLAIM_TIMEOUT:
            problems.append("took too long")
        hit = (
            not case.fault or was_hit(self._log) or case.fault == "SIGKILL" and (settled is None or outcome == "killed")
        )
        return Row(case, hit, told, outcome, log, problems, monotonic() - began)

    @staticmethod
    @contextmanager
    def _traced(wanted: bool, tracer: Callable[[int], object], thread: int) -> Iterator[None]:
        with tracer(thread) if wanted else nullcontext():  # type: ignore[attr-defined]
            yield

    @staticmethod
    def _ask(actor: Actor, problems: list[str], **what: object) -> Report | None:
        try:
            return actor.ask(**what)
        except TimeoutError:
            problems.append(f"no answer to {what}: it hangs")
            return None

    def _claim(self, actor: Actor, problems: list[str], may_die: bool = False) -> str:
        """Let the client claim: its outcome."""
        began = monotonic()
        report = self._ask(actor, problems, service=self.service)
        if monotonic() - began > CLAIM_TIMEOUT + 1.0:
            problems.append("the client was kept waiting beyond its time")
        if report is None:
            status = actor.end()
            if not (may_die and status == -9):
                problems.append(f"the client ended with status {status}")
            return "killed"
        outcome = str(report["outcome"])
        if outcome.startswith("untyped"):
            problems.append(f"the client got an error that is not typed: {outcome}")
        return outcome

    def _look_at(self, actor: Actor, problems: list[str]) -> None:
        """Look at what is left of a client once it has claimed, and let it end."""
        report = self._ask(actor, problems, look=1)
        if report is None or report["left"]:
            problems.append(f"left in the client: {report and report['left']}")
        if actor.wait():
            problems.append("the client did not end well")

    def _judge_server(
        self, case: Case, registered: Report | None, settled: Report | None, problems: list[str]
    ) -> list[str]:
        """What the server says of its rights; a new one if it was killed."""
        if settled is None:
            status = self.server.end()
            if not (case.fault == "SIGKILL" and case.where not in _OF_THE_CLIENT and status == -9):
                problems.append(f"the server ended with status {status}")
            self._start()
            return []
        told = str(registered and registered["registered"])
        if "untyped" in told or "lost" in told or "but" in told:
            problems.append(f"registering: {told}")
        problems += settled["rights"] if told == "yes" else []
        if settled["registrations"]:
            problems.append(f"{settled['registrations']} registrations are left")
        problems += [f"left in the server: {what}" for what in settled["left"]]
        return list(settled["log"])

    def _judge_next(self, problems: list[str]) -> None:
        """Whatever happened, the next one is served."""
        before = len(problems)
        self._ask(self.server, problems, do="prepare")
        actor = Actor(client)
        actor.answer()
        registered = self._ask(self.server, problems, do="register", pid=actor.pid)
        outcome = self._claim(actor, problems)
        if outcome != "killed":
            self._look_at(actor, problems)
        settled = self._ask(self.server, problems, do="settle")
        if registered != {"registered": "yes"} or outcome != "claimed" or settled is None or any(settled.values()):
            problems.append(f"the next client: {registered}, {outcome}, {settled}")
        if len(problems) > before and settled is None:
            self.server.end()
            self._start()
