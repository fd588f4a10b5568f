"""Nothing waits: `python -m tests.hostile.waiting [--seconds N]`. Claims beside an attacker of each kind, as a table.

What belongs here: the figures of docs/reliability.md. What must never happen here: a judgement; that is for `scenes_*`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from statistics import median

from machrv import MachError, ReceiveRight

from .stage import Stage, Times

#: who is at work, and how he is started; None: nobody
WHO: dict[str, tuple[object, ...] | None] = {
    "nobody": None,
    "F1: TCP sockets that linger, in 13 ways": ("closing", "server", "linger", 0),
    "F3: 80 MB, a million descriptors, laden receive rights": ("packets", "too_much", 0),
    "F6: 1,100 connections held": ("connections", "hold", 1100),
    "F7: one connection full of requests": ("connections", "flood_held", "requests"),
    "F7: 20 connections full of messages": ("connections", "flood_held", "headers", 20),
    "F7: 64 requests on each new connection": ("connections", "flood_fresh", "requests", 64),
    "a process that computes, for comparison": ("spin", "spin", 1),
}


def row(name: str, times: Times) -> str:
    """One line of the table."""
    return (
        f"| {name} | {len(times.claims)} | {median(times.claims) * 1e3:.2f} ms | {max(times.claims) * 1e3:.0f} ms "
        f"| {median(times.registering) * 1e3:.2f} ms | {max(times.registering) * 1e3:.0f} ms | {max(times.late) * 1e3:.0f} ms |"
    )


def drops(stage: Stage, seconds: float) -> Times:
    """F11: bundles drop by drop, to a port whose thread receives whatever comes."""
    import threading

    stop = threading.Event()
    with ReceiveRight.allocate() as port:
        stage.attacker("packets", "drops", ports={n: port.make_send() for n in range(250)})

        def drink() -> None:
            while not stop.is_set():
                try:
                    port.receive(0.2, wait_for_senders=True).close()
                except MachError:
                    pass

        drinker = threading.Thread(target=drink)
        drinker.start()
        try:
            return stage.claims(seconds)
        finally:
            stop.set()
            drinker.join()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.waiting", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="for each attacker (default: 30)")
    told = parser.parse_args()
    logging.getLogger("machrv").setLevel(logging.CRITICAL)
    print(
        "| at work | claims | median | worst | registering | worst | waits late by at most |\n|---|---:|---:|---:|---:|---:|---:|"
    )
    for name, command in WHO.items():
        with Stage() as stage:
            stage.quick(20)
            if command is not None:
                stage.attacker(str(command[0]), str(command[1]), *command[2:])
            print(row(name, stage.claims(told.seconds)), flush=True)
    with Stage() as stage:
        stage.quick(20)
        print(row("F11: receive rights drop by drop", drops(stage, told.seconds)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
