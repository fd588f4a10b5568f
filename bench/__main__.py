"""`python -m bench`: measure everything, about ten minutes, and write docs/performance.json, the tables and the plots.

What belongs here: the order of things. What must never happen here: figures of two runs in one file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import growth, page, syscalls
from bench.measure import HERE


def _machine() -> dict[str, str]:
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    busy = os.getloadavg()[0]
    return {
        "processor": f"{model}, {len(os.sched_getaffinity(0))} CPUs{', virtual' if _virtual() else ''}",
        "system": f"Linux {platform.release().split('-')[0]} ({platform.machine()})",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "load when it began": f"{busy:.1f}",
    }


def _virtual() -> bool:
    return " hypervisor " in Path("/proc/cpuinfo").read_text()


def main() -> None:
    """Everything, one after the other."""
    argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure everything, about ten minutes, and write docs/performance.json, the tables and the plots.",
        epilog="examples:\n  python -m bench\n  python -m pytest bench    a short run, which writes nothing",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    machine = _machine()
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        # Its exit status says whether the ceilings held. Whether the targets were reached, the page says.
        command = [sys.executable, "-m", "pytest", str(HERE), "--full", "--benchmark-quiet", "--figures", str(results)]
        subprocess.run(command, cwd=HERE.parent, check=False)
        print("bench: how costs grow, and system calls ...", flush=True)
        figures = {
            "machine": machine,
            "results": json.loads(results.read_text()),
            "growth": growth.measured(),
            "calls": syscalls.measured(),
        }
    page.FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
    page.renew()


if __name__ == "__main__":
    main()
