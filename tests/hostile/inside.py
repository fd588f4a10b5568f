"""A stage of its own, in a pid namespace of its own: who attacks it from outside is nobody there. Orders on standard input."""

from __future__ import annotations

import logging
import os
import sys

from tests.hostile.stage import Stage


def main() -> None:
    """Say the server's name and the directory; then, when told, claim for so long and say what came of it."""
    assert os.getpid() == 1, "this is not a pid namespace of its own"
    logging.getLogger("machrv").setLevel(logging.CRITICAL)
    with Stage() as stage:
        stage.quick(5)
        before = stage.descriptors()
        print(stage.server.service_name, stage.folder, flush=True)
        sys.stdin.readline()
        times = stage.claims(2)
        print(times.text(), flush=True)
        sys.stdin.readline()
        stage.quick(5)
        print(before, stage.descriptors(), flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main()
