"""The kernels that the vectors run over, by name.

What belongs here: one factory per kernel, each call of which makes a task with an empty port space of its own. What must
never happen here: anything that lets one kernel be judged by another measure.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, cast

from machrv.kernel import Kernel


class Closable(Protocol):
    def close(self) -> None: ...


def linux() -> Kernel:
    from machrv.kernel.linux import LinuxKernel

    return LinuxKernel()


def darwin_standin() -> Kernel:
    """The macOS adapter over a stand-in for libSystem: its marshalling, without a Mac."""
    from tests.standin.kernel import StandInKernel

    return StandInKernel()


KERNELS: dict[str, Callable[[], Kernel]] = {"linux": linux, "darwin-standin": darwin_standin}


def close(kernel: Kernel) -> None:
    """Give back everything that a task of `KERNELS` has."""
    cast(Closable, kernel).close()


@contextmanager
def private_bootstrap_directory() -> Iterator[Path]:
    """Service names of this process and its children live in a directory that nobody else uses, gone afterwards."""
    before = os.environ.get("MACHRV_BOOTSTRAP_DIR")
    with tempfile.TemporaryDirectory(prefix="machrv-conformance-") as directory:
        os.environ["MACHRV_BOOTSTRAP_DIR"] = directory
        try:
            yield Path(directory)
        finally:
            if before is None:
                del os.environ["MACHRV_BOOTSTRAP_DIR"]
            else:
                os.environ["MACHRV_BOOTSTRAP_DIR"] = before
