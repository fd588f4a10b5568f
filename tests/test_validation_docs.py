"""The programs in docs/security.md in a place that they were not written for. (tests/test_docs.py runs them as shown.)"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import PATIENCE

DOCUMENT = Path(__file__).parent.parent / "docs" / "security.md"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with every program of the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    found = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert [name for name, _ in found] == ["parent.py", "child.py"]
    for name, code in found:
        (tmp_path / name).write_text(code, encoding="utf-8")
    return tmp_path


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks what only Linux can check")
def test_the_child_refuses_another_parent(programs: Path) -> None:
    """Started by a process that is no server, or under a name that somebody else has, it has no rendezvous."""
    code = (
        "import subprocess, sys\n"
        "from machrv import RendezvousServer\n"
        "server = RendezvousServer.get_instance()\n"
        "code = 'import subprocess, sys; sys.exit(subprocess.call([sys.executable, \"child.py\"]))'\n"
        "environment = {**__import__('os').environ, 'MACHRV_SERVICE_NAME': server.service_name}\n"
        "sys.exit(subprocess.call([sys.executable, '-c', code], env=environment))\n"
    )
    environment = {**os.environ, "MACH_PORT_RENDEZVOUS_PEER_VALDATION": "0"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=programs, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1 and done.stdout == ""
    assert "not this process's parent" in done.stderr and "is_parent_of_this_process" in done.stderr
