"""So many clients at once: `crowd.py SERVICE CLIENTS`. A `bench.measure` worker: of the claims that it is asked for, each
client, a process of its own, makes its share; the figure is nanoseconds per claim, from the first to the last."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from time import perf_counter_ns

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.measure import answer  # noqa: E402
from machrv import RendezvousClient  # noqa: E402

service, clients = sys.argv[1], int(sys.argv[2])


def claim(count: int) -> None:
    """Claim one right, so many times."""
    for _ in range(count):
        with RendezvousClient.connect(service) as client:
            right = client.take_send_right(0)
            assert right is not None
            right.close()


def run(count: int) -> float:
    """All clients are there and wait; then they are let go, and the last one ends."""
    share = max(1, count // clients)
    ready_in, ready_out = os.pipe()
    go_in, go_out = os.pipe()
    pids = []
    for _ in range(clients):
        pid = os.fork()
        if pid == 0:
            os.close(go_out)
            claim(1)  # What is loaded and set up on first use is not what is measured.
            os.write(ready_out, b"x")
            os.read(go_in, 1)
            claim(share)
            os._exit(0)
        pids.append(pid)
    waiting = clients
    while waiting:
        waiting -= len(os.read(ready_in, waiting))
    began = perf_counter_ns()
    os.close(go_out)
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0
    spent = perf_counter_ns() - began
    for fd in (ready_in, ready_out, go_in):
        os.close(fd)
    return spent / (share * clients)


answer(run)
