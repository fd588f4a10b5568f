"""A well-behaved child: it claims when it is told to, and says how long that took. `python good.py`, orders on standard input."""

from __future__ import annotations

import json
import sys
from time import perf_counter

from machrv import MachrvError, RendezvousClient


def main() -> None:
    """One line in, one line out."""
    for line in sys.stdin:
        service, timeout = line.split()
        began = perf_counter()
        try:
            client = RendezvousClient.connect(service, timeout=float(timeout))
        except MachrvError as error:
            print(json.dumps({"took": perf_counter() - began, "error": f"{type(error).__name__}: {error}"}), flush=True)
            continue
        took = perf_counter() - began
        count = client.port_count
        client.close()
        print(json.dumps({"took": took, "ports": count}), flush=True)


if __name__ == "__main__":
    main()
