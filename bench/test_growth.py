"""What becomes slower with more: clients at once, registrations. (`python -m bench.growth` draws the whole picture.)"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path

from bench.conftest import HERE, Held
from bench.measure import server, worker


def test_clients_at_once(held: Held, full: bool, tmp_path: Path) -> None:
    """Time per claim, with so many client processes that ask one server at once."""
    many = 500 if full else 32
    address = str(tmp_path / f"org.machrv.bench.crowd.{os.getpid()}")
    with ExitStack() as stack:
        stack.enter_context(
            server([sys.executable, str(HERE / "programs" / "rendezvous.py"), "serve", "machrv", address, "1"])
        )
        crowd = [sys.executable, str(HERE / "programs" / "crowd.py"), os.path.basename(address)]
        sides = {f"{n} clients": stack.enter_context(worker([*crowd, str(n)])) for n in (many, 8)}
        held("growth", f"{many} clients at once", sides, count=6 * many)
