"""C libraries other than this one's: musl before 1.2.6 sends 252 rights in a message, and no 253rd."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("about Linux", allow_module_level=True)

from machrv import MachError, PortDescriptor, ReceiveRight, RegistrationError, RendezvousServer, launch
from machrv._mach import lib
from machrv.doctor import linux
from machrv.doctor.findings import WARNING
from machrv.kernel import current
from machrv.kernel.linux import LinuxKernel
from machrv.message import MACH_PORT_RIGHT_SEND, Disposition

from .linux_tasks import Peer, allocate, end, introduce, names, receive, send
from .linux_tasks import bootstrap, nursery, peer, task  # noqa: F401 (fixtures)
from .sanitize.static import FLAGS, SOURCES

PROGRAM = Path(__file__).parent / "programs" / "full_message.c"


@pytest.fixture
def old_musl() -> Iterator[int]:
    """This process as if its C library were musl 1.2.5: how many rights one message takes."""
    lib.machrv_without(lib.MACHRV_WITHOUT_LARGE_CONTROL)
    yield lib.machrv_max_fds()
    lib.machrv_without(0)


def test_the_limit_is_found_and_kept(task: LinuxKernel, peer: Peer, old_musl: int) -> None:
    """252 go to another process; one more, or a body that takes a descriptor, is refused before anything has moved."""
    assert old_musl == 252
    inbox, way = introduce(peer, task)
    port = allocate(task)
    right = PortDescriptor(port, Disposition.MAKE_SEND_ONCE)
    for count, body in ((253, 0), (252, 100_000)):
        with pytest.raises(MachError, match=r"252 with musl before 1\.2\.6") as caught:
            send(task, way, 1, bytes(body), [right] * count)
        assert caught.value.code == lib.MACH_SEND_TOO_LARGE
    for count, body in ((252, 0), (251, 100_000)):
        send(task, way, 2, bytes(body), [right] * count)
        message = receive(peer, inbox)
        assert (len(message.descriptors), len(message.body)) == (count, body)
        for name in names(message):
            peer.mach_port_deallocate(name)
    for name, _ in task.mach_port_names():
        task.mach_port_destroy(name)
    end(peer, inbox)


def test_registering_one_more_says_why(server: RendezvousServer, old_musl: int) -> None:
    """The error names the C library and the limit; nothing was moved, and a registration of as many as go is claimed."""
    with ReceiveRight.allocate() as port:
        rights = {key: port.make_send() for key in range(old_musl + 1)}
        with pytest.raises(RegistrationError, match=r"253 ports .* at most 252: .* musl before 1\.2\.6"):
            with server.lock:
                server.register_ports_for_pid(os.getpid(), rights)
        assert current().mach_port_get_refs(port.name, MACH_PORT_RIGHT_SEND) == old_musl + 1
        rights.pop(0).close()
        code = """
from machrv import RendezvousClient
with RendezvousClient.connect() as rights:
    for key in range(1, 253):
        rights.take_send_right(key).close()
"""
        with launch([sys.executable, "-c", code], rights, server=server) as child:
            assert child.wait(30) == 0


def test_doctor_says_so(old_musl: int) -> None:
    """As a warning, with the number."""
    [finding] = [finding for finding in linux.look() if finding.what == "rights in one message"]
    assert finding.state == WARNING and "252 in place of 253" in finding.found and "musl" in finding.found


def limit_of(version: str) -> int:
    """What is known of a version of musl."""
    return 252 if tuple(map(int, version.split("."))) < (1, 2, 6) else 253


@pytest.mark.skipif(
    shutil.which("musl-gcc") is None, reason="musl-gcc is not installed (Debian: apt install musl-tools)"
)
def test_on_musl_itself(tmp_path: Path) -> None:
    """All of the C, made for musl and run here: it finds the limit of that version; so many rights go, one more is refused."""
    machine = platform.machine()
    behind = [f"-idirafter/usr/include{folder}" for folder in ("", f"/{machine}-linux-gnu")]  # Linux's own headers
    made = ["musl-gcc", *behind, *FLAGS, "-static", "-o", str(tmp_path / "program"), str(PROGRAM), *map(str, SOURCES)]
    compiled = subprocess.run(made, capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr
    ran = subprocess.run(
        [str(tmp_path / "program")], capture_output=True, text=True, env={"MACHRV_BOOTSTRAP_DIR": str(tmp_path)}
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = subprocess.run([f"/lib/ld-musl-{machine}.so.1"], capture_output=True, text=True).stderr
    version = re.search(r"^Version (\S+)", told, re.MULTILINE)
    assert version is not None and int(ran.stdout) == limit_of(version[1])
