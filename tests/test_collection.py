"""Which tests there are, on which system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import ON_MACOS

TESTS = Path(__file__).parent

#: pytest as it would look around on another system: what is there of the standard library stays this one's.
_ELSEWHERE = """
import sys, sysconfig
import hypothesis.strategies, pytest
sysconfig.get_config_vars()
sys.platform = {platform!r}
sys.exit(pytest.main(["--collect-only", "-q", "-W", "ignore", "-p", "no:cacheprovider", {folder!r}]))
"""


def collected(platform: str) -> set[str]:
    """The modules of which something would be run."""
    program = _ELSEWHERE.format(platform=platform, folder=str(TESTS))
    done = subprocess.run([sys.executable, "-c", program], cwd=TESTS.parent, capture_output=True, text=True)
    assert 0 == done.returncode, done.stdout
    return {line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line}


def test_a_mac_is_spared_what_only_linux_can_do() -> None:
    """Plain `python -m pytest` imports there no module that looks for Linux, and finds something in each of the others."""
    expected = {f"tests/{path.name}" for pattern in ON_MACOS for path in TESTS.glob(pattern)}
    assert expected == collected("darwin")
