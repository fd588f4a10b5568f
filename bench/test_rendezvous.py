"""One rendezvous: a process that runs already asks a server in another process, takes what it gets, and closes it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.conftest import Held
from bench.measure import HERE, server, worker
from bench.peers.rendezvous import PEERS


@pytest.mark.parametrize("ports", [1, 5, 64])
def test_claims(
    held: Held, full: bool, compiled: Callable[[str], str], tmp_path: Path, placement: str, ports: int
) -> None:
    """Look-up, request, reply, every right taken and closed; each way with a server of its own kind.

    The client in C makes the Mach calls, and asks machrv's server.
    """
    commands = {peer: [sys.executable, str(HERE / "programs" / "rendezvous.py"), "{}", peer] for peer in PEERS}
    commands = {"machrv": commands.pop("machrv"), "C": [compiled("rendezvous"), "{}"], **commands}
    if ports > 1 and not full:  # Only the targets' rows have all of them.
        commands = {peer: commands[peer] for peer in ("machrv", "C", "plain sockets")}
    with ExitStack() as stack:
        sides = {}
        for number, (peer, command) in enumerate(commands.items()):
            both = [*command, str(tmp_path / f"org.machrv.bench.{os.getpid()}.{number}"), str(ports)]
            stack.enter_context(server([part.format("serve") for part in both]))
            sides[peer] = stack.enter_context(worker([part.format("claim") for part in both]))
            if peer == "machrv":
                sides["client in C"] = stack.enter_context(worker([compiled("child"), "claim", Path(both[-2]).name]))
        held("claims", f"{ports} port{'s' * (ports > 1)}, {placement}", sides)
