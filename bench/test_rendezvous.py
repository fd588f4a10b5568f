"""One rendezvous: a process that runs already asks a server in another process and takes what it gets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.conftest import HERE
from machrv import RendezvousClient


@pytest.fixture(params=[1])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """The name of a server in a process of its own, and how many rights it gives."""
    name, count = f"org.machrv.bench.{os.getpid()}", request.param
    command = [sys.executable, str(HERE / "programs" / "server.py"), name, str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == b"ready\n"
        yield name, count
        process.stdin.close()
        assert process.wait(30) == 0


def test_rendezvous(benchmark: BenchmarkFixture, server: tuple[str, int]) -> None:
    """Look-up, request, reply, every right taken and closed."""
    name, count = server

    def claim() -> int:
        taken = 0
        with RendezvousClient.connect(name) as client:
            for key in range(count):
                right = client.take_send_right(key)
                if right is not None:
                    taken += 1
                    right.close()
        return taken

    assert benchmark(claim) == count
