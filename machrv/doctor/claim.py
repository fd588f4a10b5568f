"""One claim by a real child, all the way, measured."""

# What belongs here: the parent's side of it. What must never happen here: a child that is still there afterwards, or a
# wait without an end.

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import ExitStack, closing
from subprocess import DEVNULL, PIPE, TimeoutExpired
from time import perf_counter
from typing import TYPE_CHECKING

from machrv.doctor.findings import NOTE, OK, WRONG, Finding
from machrv.errors import MachrvError, NoSenders, ReceiveTimeout, UnsupportedError
from machrv.kernel import current
from machrv.rendezvous.launch import launch
from machrv.rendezvous.server import RendezvousServer
from machrv.rights import ReceiveRight, fileport

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from typing import Any

    from machrv.message import Message

SECTION = "Live check"
CHILD = [sys.executable, "-m", "machrv.doctor.claim_child"]
PATIENCE = 10.0


def look() -> Iterator[Finding]:
    """Launch a child, hand it a port and a file, hear from it, and see that nothing is left."""
    try:
        took, message, problem = _perform(nameless=False)
    except (MachrvError, OSError) as error:
        yield Finding(SECTION, "a claim", WRONG, f"{type(error).__name__}: {error}", "the lines above may say why")
        yield from _without_a_name()
        return
    if message is None or problem:
        yield Finding(SECTION, "a claim", WRONG, problem, "the lines above may say why")
        return
    account = json.loads(message.body.partition(b"\0")[0])
    yield Finding(SECTION, "a claim", OK, "a child was launched, claimed a port and a file, and used both")
    yield Finding(
        SECTION,
        "time",
        OK,
        f"{took * 1000:.0f} ms from launch to the child's message; of these {account['import']:.1f} ms to import machrv, "
        f"{account['claim']:.2f} ms to claim",
    )
    if account["read"] != "here":
        yield Finding(SECTION, "file", WRONG, f"the child read {account['read']!a} where 'here' was written")


def _without_a_name() -> Iterator[Finding]:
    """Where names are denied, whether children can be launched without."""
    what = "a claim without a name"
    try:
        took, message, problem = _perform(nameless=True)
    except UnsupportedError as error:
        yield Finding(SECTION, what, NOTE, str(error))
    except (MachrvError, OSError) as error:
        yield Finding(SECTION, what, WRONG, f"{type(error).__name__}: {error}")
    else:
        if message is None or problem:
            yield Finding(SECTION, what, WRONG, problem)
        else:
            yield Finding(SECTION, what, OK, f"launch(..., nameless=True) works here: {took * 1000:.0f} ms")


def _perform(nameless: bool) -> tuple[float, Message | None, str]:
    """Seconds, the child's message, and what went wrong."""
    with ExitStack() as stack:
        server = stack.enter_context(RendezvousServer(nameless=nameless))
        inbox = stack.enter_context(ReceiveRight.allocate())
        file = stack.enter_context(tempfile.TemporaryFile(buffering=0))
        file.write(b"here")
        rights = {"port": inbox.make_send(), "file": fileport(file.fileno())}
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        started = perf_counter()
        quiet: dict[str, Any] = {"stdin": DEVNULL, "stdout": DEVNULL, "stderr": PIPE}
        process = launch(CHILD, rights, server=server, nameless=nameless, env=environment, **quiet)
        with process, closing(current().open_process(process.pid)) as pinned:
            try:
                message = inbox.receive(PATIENCE)
            except (NoSenders, ReceiveTimeout):
                return 0.0, None, _why(process)
            took = perf_counter() - started
            token = message.audit_token
            if token is None or not pinned.matches(token):
                return took, message, f"the message is not the child's in the kernel's words: {token}"
            _, said = process.communicate(timeout=PATIENCE)
            if process.returncode or said:
                return took, message, _last(said) or f"the child ended with status {process.returncode}"
            if server.registration_count:
                return took, message, "the claim was answered, and its registration is still there"
            return took, message, ""


def _why(process: subprocess.Popen[bytes]) -> str:
    """What a child says that did not report in time."""
    try:
        _, said = process.communicate(timeout=0.5)
    except TimeoutExpired:
        process.kill()
        _, said = process.communicate()
        return f"nothing was heard of the child in {PATIENCE:.0f} seconds. {_last(said)}".rstrip()
    return _last(said) or f"the child ended with status {process.returncode} and said nothing"


def _last(said: bytes) -> str:
    lines = said.decode("utf-8", "backslashreplace").strip().splitlines()
    return f"the child says: {lines[-1]}" if lines else ""
