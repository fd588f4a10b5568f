"""What a claim costs beside a client that misbehaves.

What belongs here: measuring. What must never happen here: a time in the judgement that is not compared with the same
claim alone, in the same run.
"""

from __future__ import annotations

from statistics import median

from machrv import RendezvousServer

from .crew import Nursery

ROUNDS = 150

#: what a bad neighbour does, and the order that makes it do so
NEIGHBOURS = {
    "holds 1,000 connections": ("hold", 1000),
    "sends 10,000 requests and never reads": ("ask", 10_000),
    "connects and stalls": ("hold", 1),
    "floods": ("flood", 20_000),
}


def beside(nursery: Nursery, server: RendezvousServer, what: str) -> tuple[float, float, int]:
    """The median time of a claim in seconds: alone, and beside this neighbour; and what the neighbour got done."""
    order, count = NEIGHBOURS[what]
    good, bad = nursery.child(), nursery.child()
    service = server.service_name
    try:
        good.ask("time", service=service, rounds=10)
        alone = median(good.ask("time", service=service, rounds=ROUNDS))
        bad.tell(order, service=service, count=count)
        done = bad.answer() if order == "hold" else -1
        taken = median(good.ask("time", service=service, rounds=ROUNDS))
        return alone, taken, done if done >= 0 else bad.answer()
    finally:
        good.close()
        bad.kill()
