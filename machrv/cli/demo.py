"""`machrv demo`: one rendezvous, shown with real processes and judged."""

# What belongs here: the parent's part of the story, and what must be true of every part. What must never happen here: a
# line that is printed whether or not its subject happened; every line is an event that a process reported as it
# happened, or a comparison of what was found with what must be.

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from subprocess import DEVNULL, PIPE
from time import monotonic
from typing import TYPE_CHECKING, Any

from machrv.cli.account import CHILDS_LINE, PARENTS_LINE, PATIENCE, Event, Identity, left_over
from machrv.cli.colour import Palette, add_option
from machrv.cli.progress import Progress
from machrv.cli.timeline import Timeline
from machrv.errors import MachError, MachrvError
from machrv.rights.files import fileport
from machrv.kernel import current
from machrv.kernel.choice import tell
from machrv.rendezvous.launch import launch
from machrv.message import BOOTSTRAP_UNKNOWN_SERVICE, Message
from machrv.rendezvous.server import RendezvousServer
from machrv.rights import ReceiveRight, SendRight

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping
    from io import FileIO

    from machrv.message.audit import AuditToken
    from machrv.kernel import Process
    from machrv.rights.kinds import OwnedRight
    from machrv.rendezvous.port import RendezvousPort

#: The program of the children; what it is to do follows.
CHILD = [sys.executable, "-m", "machrv.cli.demo_child"]

#: What a child's account lacks if it did not come that far.
NOTHING = "nothing"


def add_to(commands: Any) -> None:
    """Add the command to the parser of `machrv`."""
    from argparse import RawDescriptionHelpFormatter

    parser = commands.add_parser(
        "demo",
        help="hand five rights to a real child, show what happens, and check it",
        description="Launches a child and hands it a send right, a receive right, a send-once right,\n"
        "an open file and one end of a socket. Shows what each process did, when, and who\n"
        "the kernel says sent it. A second claim and a stranger must get nothing, and\n"
        "nothing may be left behind.\n\n"
        "Exit status: 0 if all was as it must be, 1 if anything was not.",
        epilog="examples:\n  machrv demo\n  machrv demo --json | python3 -m json.tool\n  machrv demo --trace",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument(
        "--trace",
        metavar="FILE",
        nargs="?",
        const="machrv-trace.html",
        help="draw what the processes do, as machrv trace does (./machrv-trace.html)",
    )
    add_option(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """The command. Returns the exit status."""
    if arguments.trace is not None:
        from machrv.cli.trace import record

        again = [sys.executable, "-m", "machrv", "demo", *(["--json"] if arguments.json else [])]
        return record(again, arguments.trace)
    timeline = Timeline()
    kernel = NOTHING
    try:
        kernel = current().name
        with Progress("machrv demo", lambda: "; ".join(event.what for event in timeline.events[-1:]) or "begins"):
            Story(timeline).perform()
    except (MachrvError, OSError, ValueError, subprocess.SubprocessError) as error:
        timeline.check("the demo came to", "its end", f"{type(error).__name__}: {error}")
    system = {"system": f"{platform.system()} {platform.release()}", "python": platform.python_version()}
    paint = Palette(arguments.color, sys.stdout)
    if arguments.json:
        print(json.dumps({**system, "kernel": kernel, **timeline.as_json()}))
    else:
        print(f"machrv demo, on {system['system']} with Python {system['python']}\n\n{timeline.as_text(paint)}")
    return 0 if timeline.ok else 1


class WitnessedServer(RendezvousServer):
    """A rendezvous server that writes down who asked and how much was handed out."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        super().__init__()

    def ports_for_client(self, audit_token: AuditToken) -> Mapping[int, RendezvousPort] | None:
        """As any rendezvous server decides."""
        ports = super().ports_for_client(audit_token)
        count = 0 if ports is None else len(ports)
        what = f"the server is asked, and answers with {count} rights"
        self._timeline.events.append(Event(monotonic(), "parent", what, True, Identity.of(audit_token)))
        return ports


class Parent:
    """The parent's ends of the five rights, and what it gives away. The stack owns what nobody else takes."""

    def __init__(self, stack: ExitStack) -> None:
        own = stack.enter_context
        self.inbox: ReceiveRight = own(ReceiveRight.allocate())
        self.once: ReceiveRight = own(ReceiveRight.allocate())
        moved = own(ReceiveRight.allocate())
        self.outbox: SendRight = own(moved.make_send())
        self.file: FileIO = own(tempfile.TemporaryFile(buffering=0))
        self.file.write(PARENTS_LINE)
        self.file.seek(0)
        ours, other = socket.socketpair()
        self.socket: socket.socket = own(ours)
        self.socket.settimeout(PATIENCE)
        with other:  # The fileport keeps it open.
            self.rights: dict[str, OwnedRight] = {
                "send": own(self.inbox.make_send()),
                "recv": moved,
                "once": own(self.once.make_send_once()),
                "file": own(fileport(self.file.fileno())),
                "sock": own(fileport(other.fileno())),
            }


class Story:
    """One run of the demo: what happens, written into a timeline as it happens."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self._check = timeline.check

    def _tell(self, what: str, sends: bool = False, attested: AuditToken | None = None) -> None:
        self.timeline.events.append(Event(monotonic(), "parent", what, sends, Identity.of(attested)))

    def perform(self) -> None:
        """All of it."""
        before = left_over()
        with ExitStack() as stack:
            server = stack.enter_context(WitnessedServer(self.timeline))
            self.timeline.pids["parent"] = current().audit_token().pid
            self._tell("makes five rights")
            parent = Parent(stack)
            self._tell("launches the child, registers five rights for it", sends=True)
            process = launch([*CHILD, "child"], parent.rights, server=server, stdin=PIPE, stdout=PIPE)
            with self._account("child", process) as child, closing(current().open_process(process.pid)) as pinned:
                stranger = self._stranger(server)
                _begin(process)
                self._exchange(parent, pinned)
            self._judge(child, stranger)
            self._check("registrations that are left", 0, server.registration_count)
            self._tell("closes its ends and its server")
        self._check("the server's name is free again", True, _is_free(server.service_name))
        self._check("open in the parent, as before", before, left_over())

    @contextmanager
    def _account(self, name: str, process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
        """The facts that a child reports, complete after the block. The process has ended then, whatever happens."""
        facts: dict[str, Any] = {}
        self.timeline.pids[name] = process.pid
        try:
            yield facts
            process.wait(PATIENCE)
        finally:
            self._check(f"the {name}'s exit status", 0, _ended(process))
            output, _ = process.communicate()
            for line in output.splitlines():
                kind, *account = json.loads(line)
                if kind == "fact":
                    facts[account[0]] = account[1]
                else:
                    event = Event(*account)
                    attested = None if event.attested is None else Identity(*event.attested)
                    self.timeline.events.append(event._replace(attested=attested))

    def _stranger(self, server: RendezvousServer) -> dict[str, Any]:
        """A process that knows the name and asks first, while five rights wait for the child."""
        process = subprocess.Popen([*CHILD, "stranger", server.service_name], stdin=DEVNULL, stdout=PIPE)
        with self._account("stranger", process) as facts:
            pass
        return {**facts, "waiting": server.registration_count}

    def _exchange(self, parent: Parent, child: Process) -> None:
        """Every right is used, in both directions where there are two."""
        self._receive("send right", parent.inbox, "good", child)
        self._tell("sends 'hail' to the receive right", sends=True)
        parent.outbox.send(Message(10, b"hail"), PATIENCE)
        self._receive("send-once right", parent.once, "once", child)
        self._receive("send right", parent.inbox, "read", child)
        content = os.pread(parent.file.fileno(), 1000, 0).decode(errors="replace")
        self._tell(f"file: reads {content.split()}")
        self._check("file: the lines in it", (PARENTS_LINE + CHILDS_LINE).decode(), content)
        self._check("file: its offset is shared, and stands at", len(content), parent.file.tell())
        self._tell("socket: says 'ping'", sends=True)
        parent.socket.sendall(b"ping")
        heard = parent.socket.recv(100).decode(errors="replace")
        self._tell(f"socket: hears {heard!r}")
        self._check("socket: the parent heard", "pong", heard)
        self._receive("send right", parent.inbox, "done", child)

    def _receive(self, what: str, port: ReceiveRight, expected: str, child: Process) -> None:
        """Take a message; it must say `expected` and be the child's, in the kernel's words."""
        message = port.receive(PATIENCE)
        token, text = message.audit_token, message.body.decode(errors="replace")
        self._tell(f"{what}: {text!r} arrives", attested=token)
        is_child = token is not None and child.matches(token) and token.ruid == os.getuid()
        sender = "the child" if is_child else f"somebody else ({Identity.of(token)})"
        self._check(f"{what}: the parent received", f"{expected!r} from the child", f"{text!r} from {sender}")

    def _judge(self, child: dict[str, Any], stranger: dict[str, Any]) -> None:
        """What the other processes reported, against what must be."""
        check = self._check

        def sender(identity: object) -> str:
            me = Identity.of(current().audit_token())
            return "the parent" if me is not None and identity == list(me) else f"somebody else ({identity})"

        claimed = f"{child.get('claimed')} rights from {sender(child.get('server'))}"
        check("the child got", "5 rights from the parent", claimed)
        hail = f"{child.get('received')!r} from {sender(child.get('received from'))}"
        check("receive right: the child received", "'hail' from the parent", hail)
        check("send-once right: one message spends it", True, child.get("spent"))
        check("file: the child read", PARENTS_LINE.decode(), child.get("read"))
        check("socket: the child heard", "ping", child.get("heard"))
        check("a second claim got", "0 rights", f"{child.get('claimed again')} rights")
        check("a stranger got", "0 rights", f"{stranger.get('claimed')} rights")
        check("registrations that it left alone", 1, stranger.get("waiting"))
        check("open in the child, as before", child.get("before", "a count"), child.get("after", NOTHING))


def _begin(process: subprocess.Popen[bytes]) -> None:
    """Let the child go on: it waits for a line."""
    if process.stdin is not None:
        process.stdin.write(b"\n")
        process.stdin.flush()


def _ended(process: subprocess.Popen[bytes]) -> int | str:
    """The exit status of a process that ends now, of its own accord or not."""
    try:
        return process.wait(1.0)
    except subprocess.TimeoutExpired:
        process.kill()
        return "none, it had to be killed"


def _is_free(service_name: str) -> bool:
    try:
        SendRight.adopt(current().bootstrap_look_up(service_name)).close()
    except MachError as error:
        tell("expected")  # For `--trace`: this look-up was to fail.
        return error.code == BOOTSTRAP_UNKNOWN_SERVICE
    return False
