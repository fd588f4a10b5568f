"""So many clients at once: `crowd.py PEER ADDRESS CLIENTS`. A `bench.measure` worker: of the claims that it is asked for, each
client, a process of its own, makes its share; the figure is nanoseconds per claim, from the first to the last."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from time import perf_counter_ns

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.measure import answer  # noqa: E402
from bench.peers.rendezvous import PEERS  # noqa: E402

clients = int(sys.argv[3])
one = PEERS[sys.argv[1]].claims(sys.argv[2], 1)


def claim(count: int) -> None:
    """Claim one right, so many times."""
    for _ in range(count):
        one()


def run(count: int) -> float:
    """All clients are there and wait; they are let go, and report when they are through. Starting and ending processes is
    not what is measured: the first to be through waits for the last."""
    share = max(1, count // clients)
    ready, go, through, leave = os.pipe(), os.pipe(), os.pipe(), os.pipe()
    pids = []
    for _ in range(clients):
        pid = os.fork()
        if pid == 0:
            os.close(go[1])
            os.close(leave[1])
            claim(2)  # What is set up on first use is not what is measured.
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            claim(share)
            os.write(through[1], b"x")
            os.read(leave[0], 1)
            os._exit(0)
        pids.append(pid)
    os.close(ready[1])
    os.close(through[1])
    _all(ready[0])
    began = perf_counter_ns()
    os.close(go[1])
    _all(through[0])
    spent = perf_counter_ns() - began
    os.close(leave[1])
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0
    for fd in (ready[0], go[0], through[0], leave[0]):
        os.close(fd)
    return spent / (share * clients)


def _all(pipe: int) -> None:
    """Every client has written its byte."""
    waiting = clients
    while waiting:
        said = len(os.read(pipe, waiting))
        assert said, "a client has ended early"
        waiting -= said


claim(100)  # Modules are loaded and bytecode has met its types before the clients are forked off.
answer(run)
