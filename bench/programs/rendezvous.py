"""One end of a rendezvous: `rendezvous.py serve|claim PEER ADDRESS PORTS`. See bench.measure and bench.peers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.measure import answer, repeated  # noqa: E402
from bench.peers.rendezvous import PEERS  # noqa: E402

role, peer, address, ports = sys.argv[1], PEERS[sys.argv[2]], sys.argv[3], int(sys.argv[4])
if role == "serve":
    close = peer.listen(address, ports)
    print("ready", flush=True)
    sys.stdin.read()
    close()
    sys.stdout.flush()
    os._exit(0)  # Not every peer has a way to stop.
else:
    answer(repeated(peer.claims(address, ports)))
