"""The C primitives under sanitizers and valgrind: see tests/sanitize, which also runs the whole suite under them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(what: str) -> None:
    """One of the commands."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.sanitize", what],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout


def sanitizers() -> bool:
    """Whether the compiler can link with both."""
    command = ["cc", "-x", "c", "-", "-fsanitize=address,undefined", "-o", "/dev/null"]
    try:
        return subprocess.run(command, input=b"int main(void) { return 0; }", capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not sanitizers(), reason="the compiler has no AddressSanitizer (apt install gcc)")
def test_the_primitives_under_address_and_undefined_behavior_sanitizer() -> None:
    """No access outside an object, nothing that C leaves undefined, on any path that a program can reach."""
    run("primitives")


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed (apt install valgrind)")
def test_the_primitives_leak_neither_memory_nor_descriptors() -> None:
    """Under valgrind."""
    run("valgrind")


def test_every_primitive_is_called() -> None:
    """By what runs under the sanitizers: a new one is not forgotten."""
    declared = set(re.findall(r"\b(machrv_\w+)\(", (ROOT / "include/machrv/linux.h").read_text()))
    called = set(re.findall(r"\b(machrv_\w+)\(", (ROOT / "tests/sanitize/primitives.c").read_text()))
    assert declared and declared <= called, declared - called
