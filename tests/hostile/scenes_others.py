"""F4, F5, F13 to F17: who is who, where the names are, and our own mistakes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from machrv import (
    AuditToken,
    Disposition,
    MachrvError,
    Message,
    ReceiveRight,
    RendezvousClient,
    RendezvousPort,
    RendezvousServerBase,
    SendRight,
)
from machrv._mach import lib
from machrv.kernel import current

from .scenes import attack, drained, limited, moved_here, root, wait_for_descriptors
from .stage import HERE, ROOT, Program, Stage

#: a user that nobody is
SOMEBODY, SOMEBODY_ELSE = 54321, 54322


def namespaces() -> str:
    """What needs pid namespaces."""
    if shutil.which("unshare") is None:
        return "there is no unshare (util-linux)"
    tried = subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True)
    return tried.stderr.decode().strip() if tried.returncode else ""


@attack("F4")
def nobody_over_an_end_that_was_kept(stage: Stage) -> str:
    """Who moved a receive right to us keeps a copy, switches credentials off, and forges notifications. We do not know ourselves yet."""
    before = stage.descriptors()
    with moved_here(stage, "nobody") as (_, right):
        lib.machrv_without(0)  # Who we are has to be found out again, as after a start.
        found = drained(right, 0.5)
    assert found[0] == 0, f"{found[0]} forged messages were believed"
    wait_for_descriptors(stage, before)
    return f"no message, {found[1]} errors"


@attack("F4", namespaces)
def nobody_from_outside(stage: Stage) -> str:
    """A server in a pid namespace: who is outside sends it requests and forgeries, floods it and holds 1,100 connections."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = []
    for command in (["flood_fresh", "requests", "1"], ["flood_held", "headers", "20"], ["hold", "1100"]):
        inside = Program(["-m", "tests.hostile.inside"], environment, ["unshare", "--pid", "--fork", "--kill-child"])
        attacker = None
        try:
            with limited(1024):
                service, folder = inside.hear().split()
            program = [str(HERE / "attackers" / "connections.py"), command[0], service, *command[1:]]
            attacker = Program(program, {**environment, "MACHRV_BOOTSTRAP_DIR": folder})
            assert attacker.hear() == "ready"
            inside.tell()
            said.append(inside.hear())
            assert "claims" in said[-1], said
            attacker.kill()
            attacker = None
            inside.tell()
            before, after = map(int, inside.hear().split())
            assert after <= before + 3, f"{after} descriptors, {before} before"
        finally:
            if attacker is not None:
                attacker.kill()
            inside.kill()
    return "; ".join(said)


@attack("F5", root)
def a_pid_that_is_used_again(stage: Stage) -> str:
    """Who made a right is gone, and another process with its pid makes one that claims the same port: two names, two ports."""
    before = stage.descriptors()
    with ReceiveRight.allocate() as port:
        attacker = stage.attacker("packets", "again", ports={1: port.make_send()})
        with port.receive(10) as message:
            honest = message.rights.pop()
        attacker.tell()
        said = attacker.hear()
        if said != "sent":
            stage.end(attacker)
            honest.close()  # type: ignore[union-attr]
            return f"not tried: {said}"
        with port.receive(10) as message:
            other = message.rights.pop()
        assert isinstance(honest, SendRight) and isinstance(other, SendRight)
        with honest, other:
            assert honest.name != other.name, "two makers' rights are one"
            honest.send(Message(1, b"secret secret secret"), timeout=1)
            attacker.tell()
            first, second = map(int, attacker.hear().split())
        stage.end(attacker)
    assert first > 0 and second == 0, (first, second)
    wait_for_descriptors(stage, before)
    return "two names; what was sent to the honest one came there"


NAMESPACE = """
import ctypes, subprocess, sys
from machrv import RegistrationError, RendezvousServer, ReceiveRight, launch
with RendezvousServer.get_instance() as server, ReceiveRight.allocate() as port:
    assert ctypes.CDLL(None, use_errno=True).unshare(0x20000000) == 0  # CLONE_NEWPID: of the next child
    right = port.make_send()
    command = [sys.executable, "-c", '''
from machrv import RendezvousClient, RendezvousError
import os, sys
sys.stdin.readline()
try:
    RendezvousClient.connect(os.environ["MACHRV_SERVICE_NAME"], timeout=5)
except RendezvousError as error:
    print("child:", error)
''']
    import os
    os.environ["MACHRV_SERVICE_NAME"] = server.service_name
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with server.lock:
        try:
            server.register_ports_for_pid(child.pid, {"port": right})
        except RegistrationError as error:
            print("parent:", error)
    assert not right.closed and server.registration_count == 0
    print(child.communicate("\\n")[0], end="")
    right.close()
"""


@attack("F13", lambda: root() or namespaces())
def a_child_in_a_pid_namespace(stage: Stage) -> str:
    """Both sides say what is the matter, and nothing is lost: neither the right nor, where it is a grandchild that asks, a registration."""
    done = subprocess.run([sys.executable, "-c", NAMESPACE], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    for side in ("parent: ", "child: "):
        assert any(line.startswith(side) and "pid namespace" in line for line in done.stdout.splitlines()), done.stdout
    before = stage.descriptors()
    with ReceiveRight.allocate() as port:
        command = [str(HERE / "good.py")]
        child = stage.program(
            *command, ports={1: port.make_send()}, prefix=["unshare", "--pid", "--fork", "--kill-child"]
        )
        child.tell(f"{stage.server.service_name} 5")
        said = child.hear()
        assert "pid namespace" in said and stage.server.registration_count == 1, said
        stage.end(child)
    wait_for_descriptors(stage, before)
    return "an error on both sides, which says so; nothing is lost"


#: another user may not be able to read what Python is made of
PRELOADED = """
import os
import machrv.kernel.linux.bootstrap, machrv.rendezvous.telling
from machrv import RendezvousClient, RendezvousError, RendezvousServer, current
current().event_queue().close()
"""


def _as(user: int, code: str, **environment: str) -> str:
    """What a program of another user prints."""
    clean = {key: value for key, value in os.environ.items() if key not in ("XDG_RUNTIME_DIR", "MACHRV_BOOTSTRAP_DIR")}
    done = subprocess.run(
        [sys.executable, "-c", f"{PRELOADED}os.setgid({user}); os.setuid({user})\n{code}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**clean, **environment},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SERVE = """
try:
    with RendezvousServer.get_instance() as server:
        print("served")
except RendezvousError as error:
    print("refused:", error)
try:
    RendezvousClient.connect("somebody", timeout=1)
except RendezvousError as error:
    print("not asked:", error)
"""


@attack("F14", root)
def a_directory_that_was_taken_beforehand(stage: Stage) -> str:
    """/tmp/machrv-UID is another user's: an error that says what to set; with that set there is service."""
    taken = Path(f"/tmp/machrv-{SOMEBODY}")
    if taken.exists():
        return "not tried: it is there"
    taken.mkdir(mode=0o777)
    own = Path(tempfile.mkdtemp(prefix="machrv-own-"))
    try:
        os.chown(taken, SOMEBODY_ELSE, SOMEBODY_ELSE)
        os.chown(own, SOMEBODY, SOMEBODY)
        said = _as(SOMEBODY, SERVE)
        assert said.count("MACHRV_BOOTSTRAP_DIR") == 2 and "served" not in said, said
        assert "served" in _as(SOMEBODY, SERVE, MACHRV_BOOTSTRAP_DIR=str(own))
    finally:
        taken.rmdir()
        shutil.rmtree(own)
    return "refused, with what to set; set, there is service"


@attack("F15", root)
def a_directory_that_can_be_exchanged(stage: Stage) -> str:
    """In a directory that others can write to: refused. In a safe one, where another user answers: refused."""
    open_to_all = Path(tempfile.mkdtemp(prefix="machrv-open-"))
    try:
        open_to_all.chmod(0o777)
        inner = open_to_all / "names"
        inner.mkdir(mode=0o700)
        os.chown(inner, SOMEBODY, SOMEBODY)
        said = _as(SOMEBODY, SERVE, MACHRV_BOOTSTRAP_DIR=str(inner))
        assert "served" not in said and "others can write" in said, said
        open_to_all.chmod(0o755)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            file = "." + os.urandom(16).hex()
            pid = os.fork()
            if pid == 0:  # Whoever listens is who it was then.
                try:
                    listener.bind(str(inner / file))
                    os.setuid(SOMEBODY_ELSE)
                    listener.listen()
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)
            os.chown(inner / file, SOMEBODY, SOMEBODY)
            os.symlink(file, inner / "somebody")
            said = _as(SOMEBODY, SERVE, MACHRV_BOOTSTRAP_DIR=str(inner))
        assert "served" in said and "not asked:" in said, said
        assert "connected" not in said
    finally:
        shutil.rmtree(open_to_all)
    return "refused in both"


@attack("F16")
def names_that_are_no_text(stage: Stage) -> str:
    """Lone surrogates, NULs, nothing, very long: a typed error, or a name like any other."""
    kernel = current()
    for name in ("\ud800", "a\udfffb", "", "\0", "x" * 100_000, "../..", "\udc80"):
        for call in (
            lambda: RendezvousClient.connect(name, timeout=1).close(),
            lambda: kernel.bootstrap_look_up(name),
            lambda: kernel.mach_port_destroy(kernel.bootstrap_check_in(name)),
        ):
            try:
                call()
            except MachrvError:
                pass
    return "a typed error each"


@attack("F17")
def signal_handlers_that_raise(stage: Stage) -> str:
    """A timer whose handler raises, in the middle of whatever a claim does: no descriptor and no name is lost."""
    with ReceiveRight.allocate() as port, Everybody(port):
        program = stage.program(str(HERE / "interrupted.py"), "everybody", "3")
        said = program.hear()
        assert program.process.wait(30) == 0, said
        stage.end(program)
    return said


class Everybody(RendezvousServerBase):
    """A server that has four rights to one port for whoever asks."""

    def __init__(self, port: ReceiveRight) -> None:
        self._to = port
        super().__init__(ReceiveRight(current().bootstrap_check_in("everybody")))

    def ports_for_client(self, audit_token: AuditToken) -> dict[int, RendezvousPort]:
        return {number: RendezvousPort(self._to.name, Disposition.MAKE_SEND) for number in range(4)}
