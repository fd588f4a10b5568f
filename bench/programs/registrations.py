"""What registrations cost: `registrations.py`, with the pids on standard input. Prints JSON: microseconds of the
registering thread's time and bytes, for each.

One send right per process, moved. The bytes are those that the process grows by (its resident pages) and those that
Python counts; descriptors and what the kernel keeps behind them are none of either.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from time import thread_time_ns

from machrv import ReceiveRight, RendezvousServer


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Register, count, give up."""
    pids = [int(line) for line in sys.stdin]
    server = RendezvousServer.get_instance()
    with ReceiveRight.allocate() as port:
        with server.lock:  # What the first one brings along is not what each costs.
            server.register_ports_for_pid(os.getpid(), {"port": port.make_send()})
        server.clear_client_data_for_testing()
        rights = [port.make_send() for _ in pids]
        gc.collect()
        before, fds = resident(), len(os.listdir("/proc/self/fd"))
        began = thread_time_ns()
        with server.lock:
            for pid, right in zip(pids, rights):
                server.register_ports_for_pid(pid, {"port": right})
        registered = thread_time_ns()
        gc.collect()
        after = resident()
        opened = len(os.listdir("/proc/self/fd")) - fds
        began_clearing = thread_time_ns()
        server.clear_client_data_for_testing()
        cleared = thread_time_ns()
        count = len(pids)
        print(
            json.dumps(
                {
                    "register": (registered - began) / count / 1000,
                    "end": (cleared - began_clearing) / count / 1000,
                    "resident": (after - before) / count,
                    "descriptors": opened / count,
                }
            )
        )
        server.close()


if __name__ == "__main__":
    main()
