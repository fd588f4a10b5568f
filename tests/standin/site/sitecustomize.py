"""Put on PYTHONPATH, this makes the stand-in the kernel of a process and of every Python process that it starts.

With STANDIN_HARDENED in the environment, a mistake about a right ends the process.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import machrv.kernel.choice  # noqa: E402
from tests.standin.kernel import StandInKernel  # noqa: E402

kernel = StandInKernel(hardened="STANDIN_HARDENED" in os.environ)
kernel.task.functions.kernel.event_queue().close()  # What C opens once is not a test's.
machrv.kernel.choice._current = kernel
