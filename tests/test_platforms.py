"""`python -m tests.platforms` without a machine: which kernels it chooses, what it makes of what a machine says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .platforms import report
from .platforms.archive import Archive

STEPS = ["doctor", "demo", "tests"]
SAID = """\
\x1bc\x1b[?7l\x1b[2J[    0.1] Booting\r
=== kernel 6.12.117+deb13-cloud-amd64 x86_64\r
=== step doctor\r
  ok     SO_PASSPIDFD              each message brings its sender's pidfd\r
  warn   PIDFD_GET_INFO            missing: a sender's effective user and group are reported as its real ones\r
  warn   pidfds of the gone        missing: it is delivered, and counts as no process's in particular\r
=== status 0 in 3 s\r
=== step demo\r
21 checks: all is as it must be.\r
=== status 0 in 12 s\r
=== step tests\r
..s.  [100%]\r
SKIPPED [1] tests/test_doctor.py:192: this kernel has no PIDFD_GET_INFO\r
3 passed, 1 skipped in 141.30s (0:02:21)\r
=== status 0 in 145 s\r
=== end\r
"""


def test_a_kernel_on_which_all_went_well_is_green() -> None:
    """What it is, what doctor misses in it, how the tests ended, and why some were skipped."""
    result = report.read("x86_64/6.12", STEPS, SAID)
    assert result.green and result.kernel == "6.12.117+deb13-cloud-amd64 x86_64"
    assert result.lacks == ["PIDFD_GET_INFO", "pidfds of the gone"]
    assert result.tests == "3 passed, 1 skipped"
    assert result.skipped == ["tests/test_doctor.py:192: this kernel has no PIDFD_GET_INFO"]
    row = report.table([result]).splitlines()[-1]
    cells = [
        "6.12.117+deb13-cloud-amd64 x86_64",
        "ok",
        "ok",
        "3 passed, 1 skipped",
        "PIDFD_GET_INFO, pidfds of the gone",
    ]
    assert [cell.strip() for cell in row.strip("|").split("|")] == cells


@pytest.mark.parametrize(
    ("broken", "trouble"),
    [
        (SAID.replace("=== status 0 in 145 s", "=== status 1 in 145 s"), ""),
        (SAID.replace("=== status 0 in 12 s", "=== status 1 in 12 s"), ""),
        (SAID[: SAID.index("3 passed")], "it did not come to: tests"),
        (SAID[: SAID.index("=== kernel")], "it did not start"),
        ("", "it did not start"),
    ],
)
def test_anything_else_is_not(broken: str, trouble: str) -> None:
    """A step that failed, a machine that stopped on its way or never came up."""
    result = report.read("x86_64/6.12", STEPS, broken)
    assert not result.green and result.trouble == trouble
    assert "FAILED" in report.table([result]) or trouble in report.table([result])


def test_a_kernel_that_cannot_be_had_is_in_the_table_and_not_green() -> None:
    """With the reason."""
    result = report.nothing("x86_64/5.10", "404 Not Found")
    assert not result.green and "| x86_64/5.10 |" in report.table([result]) and "404" in report.table([result])


def test_the_newest_of_each_series_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the package that only asks for another one, nor the empty one beside a newer form; modules come along."""
    names = ["linux-image-6.1-cloud-amd64", "linux-image-6.1.0-47-cloud-amd64", "linux-image-6.1.0-50-cloud-amd64"]
    names += ["linux-image-6.1.0-0.deb11.52-cloud-amd64", "linux-image-6.12.43+deb12-cloud-amd64"]
    names += ["linux-image-6.12.117+deb13-cloud-amd64", "linux-image-7.2.13+deb14-cloud-amd64"]
    names += ["linux-binary-7.2.9+deb13-cloud-amd64", "linux-binary-7.2.13+deb14-cloud-amd64"]
    archive = Archive("x86_64", tmp_path, "mirror", "security")
    monkeypatch.setattr(archive, "_apt", lambda *_, **__: "".join(f"{name} - a kernel\n" for name in names))
    assert archive.kernels() == {
        "6.1": ["linux-image-6.1.0-50-cloud-amd64"],
        "6.12": ["linux-image-6.12.117+deb13-cloud-amd64"],
        "7.2": ["linux-binary-7.2.13+deb14-cloud-amd64", "linux-modules-7.2.13+deb14-cloud-amd64"],
    }


def test_where_things_come_from_can_be_said() -> None:
    """In options and in the environment; the help says so, and how it is begun."""
    command = [sys.executable, "-m", "tests.platforms", "--help"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in ("--mirror", "--security", "--cache", "--kernel", "--modules", "--root", "MACHRV_DEBIAN_MIRROR"):
        assert name in told
    assert "python -m tests.platforms 5.10 aarch64/6.12" in told
