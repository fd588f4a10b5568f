"""What attackers are let loose on: a server, a well-behaved child, a port that waits, and clocks over all of them.

What belongs here: processes and measuring. What must never happen here: an attack, or a judgement of one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter
from typing import Any

from machrv import (
    MachError,
    ReceiveRight,
    ReceiveTimeout,
    RendezvousClient,
    RendezvousServer,
    RendezvousTimeout,
    SendRight,
)
from machrv._mach import lib
from machrv.kernel import current
from machrv.kernel.linux import LinuxKernel

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PATIENCE = 60.0


class Program:
    """A child with which one speaks in lines."""

    def __init__(self, command: list[str], environment: dict[str, str], prefix: list[str] | None = None) -> None:
        self.process = subprocess.Popen(
            [*(prefix or []), sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=ROOT,
        )
        self.pid = self.process.pid

    def tell(self, line: str = "") -> None:
        """A line for it."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        """Its next line, "" at its end."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def kill(self) -> None:
        """Kill it, and wait for it."""
        self.process.kill()
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdout.close()
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.process.wait()


@dataclass
class Times:
    """How long things took, in seconds: registering and claims, and by how much waits were late."""

    registering: list[float] = field(default_factory=list)
    claims: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)

    def text(self) -> str:
        """For a person."""
        worst = max(self.late, default=0.0)
        return (
            f"{len(self.claims)} claims, median {median(self.claims) * 1e3:.2f} ms, worst {max(self.claims) * 1e3:.1f} ms; "
            f"registering, worst {max(self.registering) * 1e3:.1f} ms; waits late by at most {worst * 1e3:.1f} ms"
        )


class Stage:
    """A server with a bootstrap directory of its own. Close it. `slack`: how many times longer than it should a claim beside a flood
    may take."""

    def __init__(self, slack: float = 1.0) -> None:
        self.slack = slack
        self.folder = tempfile.mkdtemp(prefix="machrv-hostile-")
        self._before = os.environ.get("MACHRV_BOOTSTRAP_DIR")
        os.environ["MACHRV_BOOTSTRAP_DIR"] = self.folder
        self.server = RendezvousServer.get_instance()
        self.inbox = ReceiveRight.allocate()
        self._programs: list[Program] = []
        self._good: Program | None = None

    def close(self) -> None:
        """End every process and the server."""
        for program in self._programs:
            program.kill()
        self.inbox.close()
        self.server.close()
        if self._before is None:
            del os.environ["MACHRV_BOOTSTRAP_DIR"]
        else:
            os.environ["MACHRV_BOOTSTRAP_DIR"] = self._before
        shutil.rmtree(self.folder)
        lib.machrv_settle(30_000)

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- processes ----------------------------------------------------------------------------------------------------

    def program(self, *command: str, ports: dict[int, Any] | None = None, prefix: list[str] | None = None) -> Program:
        """Start a child, with these ports registered for it."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        with self.server.lock:
            program = Program([*command], environment, prefix)
            if ports is not None:
                self.server.register_ports_for_pid(program.pid, ports)
        self._programs.append(program)
        return program

    def attacker(
        self,
        file: str,
        what: str,
        *arguments: object,
        ports: dict[int, Any] | None = None,
        prefix: list[str] | None = None,
    ) -> Program:
        """Start an attacker; it has said that it is ready when this returns."""
        command = [str(HERE / "attackers" / f"{file}.py"), what, self.server.service_name, *map(str, arguments)]
        attacker = self.program(*command, ports=ports, prefix=prefix)
        said = attacker.hear()
        assert said == "ready", f"the attacker said {said!r}"
        return attacker

    def end(self, *programs: Program) -> None:
        """They are no longer wanted."""
        for program in programs:
            program.kill()
            self._programs.remove(program)

    # -- clocks -------------------------------------------------------------------------------------------------------

    def claim(self, times: Times, timeout: float = PATIENCE) -> None:
        """Register a right for the well-behaved child, and have it claimed."""
        if self._good is None:
            self._good = self.program(str(HERE / "good.py"))
        began = perf_counter()
        with self.server.lock:
            self.server.register_ports_for_pid(self._good.pid, {1: self.inbox.make_send()})
        times.registering.append(perf_counter() - began)
        self._good.tell(f"{self.server.service_name} {timeout}")
        answer = json.loads(self._good.hear())
        assert answer.get("ports") == 1, answer
        times.claims.append(answer["took"])

    def claims(self, seconds: float, most: int = 1_000_000) -> Times:
        """Claims for so long, one after the other; beside them a receive and a connect that wait in vain, for 0.2 s each."""
        times = Times()
        self.claim(Times())  # The first one starts the child.
        with self._waits(times):
            until = monotonic() + seconds
            while monotonic() < until and len(times.claims) < most:
                self.claim(times)
        return times

    def quick(self, count: int = 50) -> Times:
        """So many claims alone."""
        times = Times()
        self.claim(Times())
        for _ in range(count):
            self.claim(times)
        return times

    @contextmanager
    def _waits(self, times: Times, timeout: float = 0.2) -> Iterator[None]:
        over = threading.Event()
        failures: list[BaseException] = []
        mute = LinuxKernel()
        door = mute.bootstrap_check_in("mute")

        def waiting(wait: Any) -> None:
            try:
                while not over.is_set():
                    began = perf_counter()
                    wait()
                    times.late.append(perf_counter() - began - timeout)
            except BaseException as error:
                failures.append(error)

        def receive() -> None:
            try:
                self.inbox.receive(timeout, wait_for_senders=True).close()
            except ReceiveTimeout:
                pass
            except MachError as error:  # Where a scene leaves few descriptors, it may say that there are none; in time.
                if error.code != lib.KERN_RESOURCE_SHORTAGE:
                    raise

        def connect() -> None:
            try:
                RendezvousClient.connect("mute", timeout).close()
            except RendezvousTimeout:
                pass

        threads = [threading.Thread(target=waiting, args=(wait,)) for wait in (receive, connect)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()
            mute.mach_port_destroy(door)
            mute.close()
        if failures:
            raise failures[0]

    # -- what is left -------------------------------------------------------------------------------------------------

    @staticmethod
    def descriptors() -> int:
        """How many there are, once what is given up is closed."""
        assert lib.machrv_settle(30_000) == 0, "a close still waits"
        return len(os.listdir("/proc/self/fd"))

    def look_up(self) -> SendRight:
        """A right to the server, as a client has it."""
        return SendRight(current().bootstrap_look_up(self.server.service_name))
