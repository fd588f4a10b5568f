"""`machrv demo`: what it shows is what happened, and it notices when that is not what must happen."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE

ROOT = Path(__file__).parent.parent
MODULE = [sys.executable, "-m", "machrv"]

#: The checks that the demo exists for, by the words that they must contain, and what they find.
CENTRAL = {
    "the child got": "5 rights from the parent",
    "a second claim got": "0 rights",
    "a stranger got": "0 rights",
    "receive right: the child received": "'hail' from the parent",
    "send-once right: one message spends it": True,
    "the server's name is free again": True,
}


def run(*command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=env)


def run_changed(change: str, *arguments: str) -> dict[str, Any]:
    """What the demo finds when `change`, Python code, has broken something. It must not exit with 0."""
    program = f"import os, sys\nfrom machrv import *\nfrom machrv.cli import demo, main\n{change}\nsys.exit(main())"
    result = run(sys.executable, "-c", program, "demo", "--json", *arguments)
    assert result.returncode == 1, (result.stdout, result.stderr)
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["ok"] is False
    return {check["what"]: check["found"] for check in found["checks"] if not check["ok"]}


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """What one run of the demo reports to machines."""
    result = run(*MODULE, "demo", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


def test_a_reader_sees_two_lanes_of_80_columns_and_the_checks() -> None:
    """The installed command prints what `python -m machrv` prints: a timeline, no line wider than a terminal."""
    script = shutil.which("machrv", path=str(Path(sys.executable).parent))
    assert script is not None, "the command is not installed beside this Python"
    for command in ([script], MODULE):
        result = run(*command, "demo")
        assert (result.returncode, result.stderr) == (0, "")
        lines = result.stdout.splitlines()
        assert max(map(len, lines)) <= 80
        for word in ("PARENT, pid ", "CHILD, pid ", "STRANGER, pid "):
            assert word in result.stdout
        assert "FAIL" not in result.stdout and lines[-1].endswith("all is as it must be.")


def test_it_is_as_wide_as_the_terminal_and_coloured_where_asked() -> None:
    """COLUMNS and FORCE_COLOR count, as for the other commands; --color=never does more."""
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environment |= {"COLUMNS": "140", "FORCE_COLOR": "1"}
    coloured = subprocess.run([*MODULE, "demo"], capture_output=True, text=True, env=environment).stdout
    assert "\x1b[32m  ok" in coloured
    plain = subprocess.run([*MODULE, "demo", "--color=never"], capture_output=True, text=True, env=environment).stdout
    assert "\x1b" not in plain and 80 < max(map(len, plain.splitlines())) <= 140
    for lines in (coloured.splitlines(), plain.splitlines()):
        assert lines[-1].strip("\x1b[0123m").endswith("all is as it must be.")


def test_every_exchange_is_reported_by_the_process_that_took_part(report: dict[str, Any]) -> None:
    """Three processes tell, in the order of one clock; nothing arrives before it was sent."""
    assert len(set(report["processes"].values())) == 3
    times = [event["ms"] for event in report["events"]]
    assert times == sorted(times) and times[0] == 0
    at = {(event["process"], event["what"]): event["ms"] for event in report["events"]}
    for sent, arrived in (
        (("child", "send right: sends 'good'"), ("parent", "send right: 'good' arrives")),
        (("parent", "sends 'hail' to the receive right"), ("child", "receive right: 'hail' arrives")),
        (("child", "send-once right: sends 'once'"), ("parent", "send-once right: 'once' arrives")),
        (("child", "file: reads ['parent'], adds a line"), ("parent", "file: reads ['parent', 'child']")),
        (("parent", "socket: says 'ping'"), ("child", "socket: hears 'ping', says 'pong'")),
        (("child", "socket: hears 'ping', says 'pong'"), ("parent", "socket: hears 'pong'")),
        (("stranger", "asks the server, by its name"), ("stranger", "gets 0 rights")),
        (("child", "asks a second time"), ("child", "gets 0 rights")),
    ):
        assert at[sent] <= at[arrived]


def test_what_arrives_bears_the_identity_that_the_kernel_attests(report: dict[str, Any]) -> None:
    """Every message shows its sender: this user, and the process that the others know under that pid."""
    pids = report["processes"]
    senders = {("parent", pids["child"]), ("parent", pids["stranger"])}
    senders |= {("child", pids["parent"]), ("stranger", pids["parent"])}
    attested = [event for event in report["events"] if event["attested"]]
    assert {(event["process"], event["attested"]["pid"]) for event in attested} == senders
    versions = {(event["attested"]["pid"], event["attested"]["pidversion"]) for event in attested}
    assert len(versions) == 3 and all(version for _, version in versions)
    assert {event["attested"]["uid"] for event in attested} == {os.geteuid()}


def test_the_checks_say_what_was_found(report: dict[str, Any]) -> None:
    """Second claim, stranger and leftovers are among the checks, with what was found."""
    found = {check["what"]: check["found"] for check in report["checks"]}
    assert CENTRAL.items() <= found.items()
    for process in ("parent", "child"):
        assert found[f"open in the {process}, as before"].keys() == {"descriptors", "port names"}
    assert report["ok"] is True and all(check["ok"] for check in report["checks"])


@pytest.mark.skipif(sys.platform != "linux", reason="what older Linux kernels lack")
@pytest.mark.parametrize(
    "without",
    [["PIDFD_INFO"], ["PIDFD_INFO", "PIDFS"], ["PIDFD_INFO", "PIDFS", "PASSPIDFD", "NETNS_COOKIE"]],
    ids=["as on Linux 6.9", "as on Linux 6.5", "as on Linux 5.3"],
)
def test_it_passes_with_what_older_kernels_offer(without: list[str], tmp_path: Path) -> None:
    """What the README promises for older kernels: the same, in parent and child alike, with newer features off."""
    off = " | ".join(f"lib.MACHRV_WITHOUT_{feature}" for feature in without)
    (tmp_path / "sitecustomize.py").write_text(f"from machrv._mach import lib\nlib.machrv_without({off})\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    result = run(*MODULE, "demo", env=environment)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout


def test_it_fails_when_a_server_gives_to_whoever_asks() -> None:
    """A stranger and a second claim that get something are noticed."""
    found = run_changed("""
answer = RendezvousServer.ports_for_client
def generous(self, token):
    return answer(self, token) or {1: RendezvousPort(self._port.name, Disposition.MAKE_SEND)}
RendezvousServer.ports_for_client = generous
""")
    assert found == {"a stranger got": "1 rights", "a second claim got": "1 rights"}


def test_it_fails_when_a_stranger_is_taken_for_the_child() -> None:
    """A server that goes by the name that a client knows, not by who it is, gives everything to the stranger."""
    found = run_changed("""
demo.PATIENCE = 1.0
from machrv.rendezvous.registry import Registry
claim = Registry.claim
def claim_any(self, token):
    child, = self._registrations
    return claim(self, AuditToken(*token[:5], child, 0, self._registrations[child].process.pidversion))
Registry.claim = claim_any
""")
    assert "the demo came to" in found


def test_it_fails_when_a_message_is_not_from_the_child() -> None:
    """The kernel's word on each message is compared with the process that was launched."""
    found = run_changed("""
real = current().open_process
def another(pid):
    return real(os.getppid() if sys._getframe(1).f_code.co_name == "perform" else pid)
current().open_process = another
""")
    assert set(found) == {"send right: the parent received", "send-once right: the parent received"}
    assert "somebody else" in found["send-once right: the parent received"]


@pytest.mark.parametrize("leak", ["os.dup(0)", "current().mach_port_allocate(1)"], ids=["a descriptor", "a port name"])
@pytest.mark.parametrize("process", ["parent", "child"])
def test_it_fails_when_something_is_left_open(process: str, leak: str) -> None:
    """One descriptor or one port name that is open at the end is noticed, in either process."""
    if process == "parent":
        change = f"demo._begin = lambda process, begin=demo._begin: (begin(process), {leak})"
    else:
        child = f"""
import os
from machrv import current
from machrv.cli import demo_child
demo_child._talk = lambda fd, talk=demo_child._talk: (talk(fd), {leak})
demo_child.child()
"""
        change = f"""
demo.CHILD = [sys.executable, "-c", {child!r}]
demo.Story._stranger = lambda self, server: {{"claimed": 0, "waiting": 1}}
"""
    assert set(run_changed(change)) == {f"open in the {process}, as before"}


def test_it_fails_when_the_child_dies_before_it_asks() -> None:
    """What came until then is shown, and that it is not the end."""
    child = "import sys; sys.exit(3)"
    found = run_changed(f"demo.PATIENCE = 0.2\ndemo.CHILD = [sys.executable, '-c', {child!r}]")
    assert "the demo came to" in found and found["the child's exit status"] == 3


def test_a_reader_that_leaves_early_is_no_reason_for_a_traceback() -> None:
    """`machrv demo | head -1` ends quietly."""
    with subprocess.Popen([*MODULE, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.wait(PATIENCE) == 128 + signal.SIGPIPE
        assert process.stderr.read() == b""


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"]])
def test_help_shows_an_example_and_fits_a_terminal(arguments: list[str]) -> None:
    """Help is for somebody who has not used the command yet."""
    result = run(*MODULE, *arguments)
    assert result.returncode == 0
    assert "example" in result.stdout and "machrv demo" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_no_command_and_an_unknown_one_are_errors_of_usage() -> None:
    """They exit with 2, and say what there is."""
    for arguments in ([], ["dmeo"]):
        result = run(*MODULE, *arguments)
        assert result.returncode == 2 and "usage: machrv" in result.stderr
        if arguments:
            assert "did you mean 'demo'?" in result.stderr
    assert "the commands are demo, decode" in run(*MODULE, "xyzzy").stderr
