"""`machrv trace`: what is recorded of real programs, and what the page says of it."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import PATIENCE
from .traces import Traced, command, python, trace

SECRET = b"nobody is to read this, ever"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """The demo, traced."""
    return trace(tmp_path_factory.mktemp("demo"), sys.executable, "-m", "machrv", "demo")


def test_the_demo_is_seen_whole(demo: Traced) -> None:
    """Every message of the demo at both ends; who asked, who answered, and in which reply the rights moved."""
    assert demo.status == 0 and b"all is as it must be" in demo.output
    assert [lane[0] for lane in demo.data["lanes"]] == ["machrv demo", "demo_child stranger", "demo_child child"]
    parent, stranger, child = "machrv demo", "demo_child stranger", "demo_child child"
    request, reply = "a rendezvous request", "a rendezvous reply"
    expected = [(stranger, parent, request), (parent, stranger, reply)]
    expected += [(child, parent, request), (parent, child, reply)] * 2
    expected += [(child, parent, f"message {number}") for number in (1, 2, 3, 4)] + [(parent, child, "message 10")]
    assert sorted((*ends, True) for ends in expected) == sorted(demo.messages)
    moved = [arrow[3:] for arrow in demo.data["arrows"] if arrow[3]]
    words = "'file' file, 'once' send-once right, 'recv' receive right, 'send' send right, 'sock' file"
    assert [[5, words]] == [[count, demo.data["strings"][words]] for count, words in moved]
    assert demo.failures == [] and "nothing failed" in demo.said
    [look_up] = [event for event in demo.events if "BOOTSTRAP_UNKNOWN_SERVICE" in event["more"]]
    assert look_up["failure"] == "" and look_up["more"].endswith("as expected")  # The demo makes sure that it is free.


def test_a_receive_right_is_followed_to_where_it_goes(demo: Traced) -> None:
    """The port whose receive right moves is with the parent first, then with the child, until that destroys it."""
    strings, stays = demo.data["strings"], demo.data["stays"]
    [port] = {stay[0] for stay in stays if [other[0] for other in stays].count(stay[0]) == 2}
    (_, first, _, gone), (_, second, came, until) = [stay for stay in stays if stay[0] == port]
    assert (first, second) == (0, 2) and gone <= came < until
    [destroyed] = [e for e in demo.events if e["port"] == strings[port] and e["text"].startswith("destroys")]
    assert destroyed["lane"] == 2 and destroyed["at"] == until


def test_the_fields_of_a_message_are_there_but_not_its_body(demo: Traced) -> None:
    """What `machrv decode` says of header, descriptors and trailer, with the ports that the names stand for."""
    [reply] = [event for event in demo.events if event["kind"] == "receive" and event["rights"] == 5]
    rows = reply["rows"]
    assert "MRZV" in rows["20 msgh_id"] and rows["24 msgh_descriptor_count"] == "5 descriptors"
    assert rows["28 name"].endswith(" = a file") and "PORT_RECEIVE" in rows["62 disposition"]
    assert "= port " in rows["52 name"] and any(value.startswith("process ") for value in rows.values())
    assert rows["body"] == "28 bytes not recorded (--bodies)"
    assert rows["keys"].startswith("'file': a file; 'once': port ") and rows["keys"].endswith("; 'sock': a file")


def test_the_page_needs_nothing_and_is_for_its_owner_alone(demo: Traced, tmp_path: Path) -> None:
    """No address to fetch from, a policy that forbids it besides, and a file that nobody else can read."""
    head = demo.page.partition('id="data"')[0]
    assert "http:" not in head.replace("http://www.w3.org/2000/svg", "") and "https:" not in head
    assert "default-src 'none'; style-src 'sha256-" in demo.page and " on" + "click" not in demo.page
    result = trace(tmp_path, *python("ReceiveRight.allocate().close()"))
    assert result.status == 0 and stat.S_IMODE((tmp_path / "page.html").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    ("program", "status", "says"),
    [
        (["sh", "-c", "exit 7"], 7, "no process of this run has used machrv"),
        (["sh", "-c", "kill -TERM $$"], 128 + signal.SIGTERM, ""),
        (["/there/is/no/such/program"], 127, "cannot be run: No such file"),
        (["/etc/passwd"], 126, "cannot be run: Permission denied"),
        ([], 2, "no program was given"),
    ],
    ids=["status", "signal", "not there", "not a program", "none"],
)
def test_the_exit_status_is_the_programs(tmp_path: Path, program: list[str], status: int, says: str) -> None:
    """As a shell gives it."""
    result = trace(tmp_path, *program)
    assert result.status == status and says in result.said and result.page == ""


def test_input_output_and_descriptors_are_the_programs(tmp_path: Path) -> None:
    """Every byte goes through, what the shell opened for it is open, and the recorder takes none of the first numbers."""
    code = "current()\nos.write(3, b'on three')\nfd = os.dup(0)\nprint(fd, flush=True)\nos.write(1, os.read(0, 100))"
    reader, writer = os.pipe()
    script = f'exec 3>&{writer}; exec "$0" -m machrv trace -o "$1" -- "$0" -c "$2"'
    arguments = ["bash", "-c", script, sys.executable, str(tmp_path / "page.html"), python(code)[2]]
    try:
        done = subprocess.run(arguments, input=b"\0\xff\n", capture_output=True, pass_fds=[writer], timeout=PATIENCE)
        assert os.read(reader, 100) == b"on three"
    finally:
        os.close(reader)
        os.close(writer)
    number, _, rest = done.stdout.partition(b"\n")
    assert rest == b"\0\xff\n" and int(number) < 20 and done.returncode == 0
    assert done.stderr.decode().splitlines()[-1].startswith("machrv trace: 1 process, 0 messages, nothing failed: ")


def test_a_process_that_is_killed_is_shown_as_far_as_it_came(tmp_path: Path) -> None:
    """Its messages are there, and the signal, and what it was in the middle of: nothing is kept back in memory."""
    code = (
        "port = ReceiveRight.allocate()\nright = port.make_send()\nright.send(Message(77))\n"
        "import threading, time\nwhile port.receive().id != 77: pass\n"
        "threading.Thread(target=port.receive, daemon=True).start()\n"
        "while not any(b'futex' not in open(f'/proc/self/task/{t}/wchan', 'rb').read() for t in os.listdir('/proc/self/task')"
        " if int(t) != os.getpid()): time.sleep(0.001)\n"
        "os.kill(os.getpid(), 9)"
    )
    result = trace(tmp_path, *python(code))
    assert result.status == 128 + 9
    assert [message[2:] for message in result.messages] == [("message 77", True)]
    assert "is killed: SIGKILL" in result.failures


def test_how_a_child_ended_is_told_by_the_kernel(tmp_path: Path) -> None:
    """The exit status of a process that is nobody's child here, where Linux tells it (6.15)."""
    seen = (  # A child that ends sooner than this command gets to look is gone without a word.
        "def is_seen():\n    for fd in os.listdir(watcher):\n        try:\n"
        "            if f'Pid:\\t{os.getpid()}\\n' in open(f'{watcher}/{fd}').read(): return True\n"
        "        except OSError: pass\n"
    )
    child = f"import os, sys, time; from machrv.kernel import current\nwatcher = sys.argv[1]\n{seen}current()\n"
    child += "while not is_seen(): time.sleep(0.001)\nsys.exit(3)"
    code = (
        f"current()\nchild = {child!r}\n"
        "done = subprocess.run([sys.executable, '-c', child, f'/proc/{os.getppid()}/fdinfo'])\nprint(done.returncode)"
    )
    result = trace(tmp_path, *python(code))
    assert result.status == 0 and result.output == b"3\n"
    release = tuple(int(word) for word in os.uname().release.split(".")[:2])
    told = ["ends otherwise than it should: exit status 3"] if release >= (6, 15) else []
    assert result.failures == told
    assert ", 1 failed: " in result.said or not told


def test_a_child_that_dies_before_it_uses_machrv_has_a_lane(tmp_path: Path) -> None:
    """Its start, its command, and how it ended, since who launched it knows: an exit status, or a signal."""
    code = (
        "with ReceiveRight.allocate() as port:\n"
        "    launch(['sh', '-c', 'exit 3'], {'port': port.make_send(), 'log': open(os.devnull)}).wait()\n"
        "    launch([sys.executable, '-c', 'import os; os.kill(os.getpid(), 9)'], {'port': port.make_send()}).wait()\n"
        "    launch(['true']).wait()\n"
    )
    result = trace(tmp_path, *python(code))
    assert result.status == 0, result.said
    parent, *children = result.data["lanes"]
    assert [child[0] for child in children] == ["sh", "python -c", "true"]
    assert all("did not use machrv" in child[1] for child in children)
    for lane, expected in ((1, "exit status 3"), (2, "SIGKILL"), (3, "")):
        begins, ends = (event for event in result.events if event["lane"] == lane)
        assert begins["text"] == "is launched" and begins["rows"]["program"] == children[lane - 1][0]
        assert ends["failure"] == expected and ends["at"] > begins["at"]
    first, *_ = [event for event in result.events if event["text"].startswith("launches ")]
    assert first["lane"] == 0 and first["rows"]["rights"] == "'log', 'port'" and "'log', 'port'" in first["more"]
    assert ", 2 failed: " in result.said and result.said.startswith("machrv trace: 1 process, ")


def test_a_look_ups_timeout_is_a_number(tmp_path: Path) -> None:
    """In seconds, not the name of its type."""
    result = trace(tmp_path, *python("try: current().bootstrap_look_up('nobody', 2.5)\nexcept MachError: pass"))
    [event] = [event for event in result.events if event["text"] == "looks a name up"]
    assert event["rows"]["call"] == "bootstrap_look_up('nobody', 2.5)"


def test_what_fails_is_listed_with_its_symbol(tmp_path: Path) -> None:
    """A send to a port that has died, a wait in vain, a name that is none; a look that finds nothing is no failure."""
    code = (
        "def tried(call):\n    try:\n        call()\n    except MachrvError:\n        pass\n"
        "port = ReceiveRight.allocate()\nright = port.make_send()\n"
        "tried(lambda: port.receive(timeout=0))\ntried(lambda: port.receive(timeout=0.001))\n"
        "port.close()\ntried(lambda: right.send(Message(5)))\ntried(lambda: current().mach_port_destroy(0x7703))\n"
        "tried(lambda: current().mach_port_get_refs(0x7703, 0))"
    )
    result = trace(tmp_path, *python(code))
    waited, *rest = result.failures
    assert waited.startswith("waits on port ") and waited.endswith(": MACH_RCV_TIMED_OUT")
    assert rest == [
        "sends message 5: MACH_SEND_INVALID_DEST",
        "destroys all it has of an unknown port: KERN_INVALID_NAME",
        "mach_port_get_refs: KERN_INVALID_NAME",
    ]
    assert ", 4 failed: " in result.said


SENDS_A_SECRET = (
    f"port = ReceiveRight.allocate()\nright = port.make_send()\nright.send(Message(6, {SECRET!r}))\nport.receive(10)"
)


@pytest.mark.parametrize("bodies", [0, 8, 1000])
def test_bodies_are_recorded_as_far_as_asked_for(tmp_path: Path, bodies: int) -> None:
    """Not at all otherwise: neither in the page nor in what it was made from."""
    keep = "\nimport glob, shutil\nfor file in glob.glob(os.environ['MACHRV_TRACE'] + '/*.trace'): shutil.copy(file, sys.argv[1])"
    options = (f"--bodies={bodies}",) if bodies else ()
    result = trace(tmp_path, *python(SENDS_A_SECRET + keep), str(tmp_path), options=options)
    [record] = tmp_path.glob("*.trace")
    recorded = record.read_text()
    there = SECRET[:bodies]
    assert there.hex() in recorded and SECRET[: bodies + 4].hex() not in recorded or bodies == 1000
    assert "nobody is to" not in result.page or bodies == 1000
    rows = [event["rows"] for event in result.events if event["kind"] in ("send", "receive")]
    assert all(("not recorded" in row.get("body", "")) == (bodies < len(SECRET)) for row in rows)
    shown = [row.get("24 data", "").partition("  ")[2] for row in rows]
    assert shown == [SECRET.decode() if bodies == 1000 else f"{there.decode()}…" if bodies else ""] * 2


def test_a_child_of_fork_has_a_lane_of_its_own(tmp_path: Path) -> None:
    """Its messages are its own, though it has its parent's kernel and recorder."""
    code = (
        "with ReceiveRight.allocate() as port:\n"
        "    if os.fork() == 0:\n"
        "        with ReceiveRight.allocate() as own, own.make_send() as right:\n"
        "            right.send(Message(8)); own.receive(10)\n"
        "        os._exit(0)\n"
        "    os.wait()"
    )
    result = trace(tmp_path, *python(code))
    assert [lane[0][:6] for lane in result.data["lanes"]] == ["python", "python"]
    [sent] = [event for event in result.events if event["kind"] == "send"]
    assert sent["lane"] == 1 and result.messages[0][2:] == ("message 8", True)
    assert {event["lane"] for event in result.events if event["text"] == "comes from a fork"} == {1}


def test_a_process_that_becomes_another_program_has_a_lane_for_each(tmp_path: Path) -> None:
    """The same process, so the same number; the second one's exit status is the process's."""
    second = "from machrv.kernel import current; current(); raise SystemExit(4)"
    result = trace(tmp_path, *python(f"current(); os.execv(sys.executable, [sys.executable, '-c', {second!r}])"))
    assert result.status == 4
    first, second = result.data["lanes"]
    assert first[1] == second[1] and first[1].startswith("pid ")
    assert [event["text"] for event in result.events if event["lane"] == 0][-1] == "becomes another program"
    assert result.failures == ["ends otherwise than it should: exit status 4"]


def test_who_was_not_recorded_is_known_by_what_others_received(tmp_path: Path) -> None:
    """A child without the variable in its environment: the kernel tells the receiver who sent."""
    code = (
        "child = 'from machrv import *\\nwith RendezvousClient.connect() as c, c.take_send_right(1) as r: r.send(Message(9))'\n"
        "with ReceiveRight.allocate() as port, launch([sys.executable, '-c', child], {1: port.make_send()},\n"
        "    env={k: v for k, v in os.environ.items() if k != 'MACHRV_TRACE'}) as process:\n"
        "    assert port.receive(10).audit_token.pid == process.pid"
    )
    result = trace(tmp_path, *python(code))
    assert result.status == 0, result.said
    unknown = result.data["lanes"][1]
    assert unknown[0].startswith("process ") and unknown[1] == "not recorded"
    assert (unknown[0], result.data["lanes"][0][0], "message 9", True) in result.messages
    assert "was not recorded: of it is known what others received from it" in result.page


def test_who_outlives_the_program_is_named(tmp_path: Path) -> None:
    """On standard error and on the page. Once the recording is over, such a process records no more, and lives on."""
    reader, writer = os.pipe()
    ready, told = os.pipe()
    child = (
        "import os; from machrv import *; from machrv.kernel import current\ncurrent(); os.write({told}, b'x')\n"
        "os.read({reader}, 1)\nReceiveRight.allocate().close(); os.write({told}, b'y')"
    ).format(reader=reader, told=told)
    code = (
        f"current()\np = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=-3, stderr=-3, pass_fds=[{reader}, {told}])\n"
        f"print(p.pid, flush=True)\nassert os.read({ready}, 1) == b'x'\nos._exit(0)"
    )
    file = tmp_path / "page.html"
    try:
        arguments = command("-o", file, "--", *python(code))
        done = subprocess.run(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[reader, ready, told], timeout=PATIENCE
        )
        pid = int(done.stdout)
        assert f"process {pid} is still running" in done.stderr.decode()
        assert f"({pid}) was still running when the recording ended" in file.read_text()
        os.write(writer, b"x")
        assert os.read(ready, 1) == b"y"
    finally:
        for fd in (reader, writer, ready, told):
            os.close(fd)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_program_and_the_page_is_drawn(tmp_path: Path, number: int) -> None:
    """What this command is sent, the program gets; what comes of it is the program's business."""
    code = (
        "import signal\nport = ReceiveRight.allocate()\n"
        "def end(*_):\n    print('ends', flush=True); sys.exit(5)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "try:\n    print('begins', flush=True)\n    port.receive(timeout=20)\nexcept KeyboardInterrupt:\n    end()"
    )
    file = tmp_path / "page.html"
    # Ignored, as in what a shell runs in the background, it would be ignored there too; a handler does not get there (execve).
    before = signal.signal(number, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            command("-o", file, "--", *python(code)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    finally:
        signal.signal(number, before)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begins\n"
        process.send_signal(number)
        output, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (5, b"ends\n")
    assert ", pid " in file.read_text()  # It may have been in the wait by then, or before it.


@pytest.mark.parametrize("place", ["missing/page.html", "."])
def test_a_place_that_cannot_be_written_is_told_before_the_program_runs(tmp_path: Path, place: str) -> None:
    """Nothing is run for nothing."""
    done = subprocess.run(
        command("-o", tmp_path / place, "--", sys.executable, "-c", "print('ran')"),
        capture_output=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (2, b"") and b"cannot be written" in done.stderr


def test_demo_trace_makes_the_page(tmp_path: Path) -> None:
    """The demo's own output stays what it is."""
    file = tmp_path / "demo.html"
    arguments = [sys.executable, "-m", "machrv", "demo", "--json", f"--trace={file}"]
    done = subprocess.run(arguments, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0 and done.stdout.startswith(b'{"system"')
    assert "demo_child stranger" in file.read_text()


# -- where it goes, and later --------------------------------------------------------------------------------------------

TALKS = (
    "with ReceiveRight.allocate() as port, port.make_send() as right:\n"
    "    right.send(Message(5)); port.receive(10); print('said', flush=True)\n"
    "    launch(['sh', '-c', 'exit 3'], {'port': port.make_send()}).wait()\n"
)


def run(*arguments: str | Path, **popen: Any) -> subprocess.CompletedProcess[bytes]:
    """`machrv trace`, to its end."""
    return subprocess.run(command(*arguments), capture_output=True, timeout=PATIENCE, **popen)


def test_the_page_goes_to_standard_output(tmp_path: Path) -> None:
    """Whole and alone: what the program says goes to standard error then."""
    done = run("-o", "-", "--", *python(TALKS), cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith(b"<!DOCTYPE html>") and done.stdout.endswith(b"</html>\n")
    assert done.stderr.startswith(b"said\n") and b"failed: standard output" in done.stderr
    assert list(tmp_path.iterdir()) == []
    both = run("-o", "-", "--chrome", "-", "--", "true", cwd=tmp_path)
    assert both.returncode == 2 and b"not both" in both.stderr


def test_a_recording_that_is_kept_is_drawn_later(tmp_path: Path) -> None:
    """The same lanes, events and ends; and only its owner can look."""
    kept = tmp_path / "kept"
    done = run("-o", tmp_path / "now.html", "--keep", kept, "--", *python(TALKS))
    assert done.returncode == 0 and stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in kept.iterdir())
    later = run("--draw", kept, "-o", tmp_path / "later.html")
    assert later.returncode == 0 and later.stdout == b"" and later.stderr.replace(b"later", b"now") == done.stderr
    pages = [Traced(0, b"", "", (tmp_path / name).read_text()) for name in ("now.html", "later.html")]
    assert pages[0].data == pages[1].data and len(pages[0].data["lanes"]) == 2
    again = run("-o", tmp_path / "x.html", "--keep", kept, "--", "true")
    assert again.returncode == 2 and b"is there already" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--draw", "none"), "No such file"),
        (("--draw", "."), "has no recording"),
        (("--draw", ".", "--", "true"), "runs no program"),
        (("--draw", ".", "-o", "none/page.html"), "cannot be written"),
        (("--keep", "none/there", "--", "true"), "cannot be written"),
        (("--chrome", "none/there", "--", "true"), "cannot be written"),
    ],
)
def test_what_cannot_be_drawn_or_kept_is_a_usage_error(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    """And nothing is run, and nothing is left."""
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and says in done.stderr.decode() and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b'{"program": 5, "endings": [[1]]}', b'{"program": [], "endings": [[[], 1, 2, 3, 4, 5]]}'],
)
def test_a_kept_recording_is_not_believed(tmp_path: Path, content: bytes) -> None:
    """Whatever is in the file about the ends, the rest is drawn."""
    run("-o", tmp_path / "now.html", "--keep", tmp_path / "kept", "--", *python(TALKS))
    (tmp_path / "kept" / "endings.json").write_bytes(content)
    assert run("--draw", tmp_path / "kept", "-o", tmp_path / "later.html").returncode == 0


def test_chrome_trace_json(tmp_path: Path) -> None:
    """As Perfetto reads it: processes with names, slices with times and durations that nest, and a flow for each message."""
    file = tmp_path / "trace.json"
    result = trace(tmp_path, sys.executable, "-m", "machrv", "demo", options=("--chrome", str(file)))
    assert result.status == 0 and str(file) in result.said
    events = json.loads(file.read_text())["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X", "i", "s", "f"}
    names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert sorted(names.values()) == ["demo_child child", "demo_child stranger", "machrv demo"]
    slices = [event for event in events if event["ph"] == "X"]
    assert all(event["dur"] > 0 and event["ts"] >= 0 and event["pid"] in names and event["tid"] for event in slices)
    assert len(slices) + sum(event["ph"] == "i" for event in events) == len(result.events)

    def around(flow: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            each
            for each in slices
            if (each["pid"], each["tid"]) == (flow["pid"], flow["tid"])
            and each["ts"] <= flow["ts"] <= each["ts"] + each["dur"]
        ]

    begins = {event["id"]: event for event in events if event["ph"] == "s"}
    ends = {event["id"]: event for event in events if event["ph"] == "f"}
    assert begins.keys() == ends.keys() and len(begins) == len(result.messages) == 11
    for number, begin in begins.items():
        assert any(each["cat"] == "send" for each in around(begin)) and begin["cat"] == ends[number]["cat"]
        assert any(each["cat"] == "receive" for each in around(ends[number])) and ends[number]["bp"] == "e"
    [reply] = [
        event
        for event in slices
        if event["name"] == "sends a rendezvous reply" and "keys" in event["args"] and "file" in event["args"]["keys"]
    ]
    assert reply["args"]["about"].endswith("5 rights")


def test_who_holds_which_right_is_counted(tmp_path: Path) -> None:
    """From when a right is made or comes to when it is moved, given up, or its port dies; references are counted."""
    code = (
        "port, other = ReceiveRight.allocate(), ReceiveRight.allocate()\n"
        "one = port.make_send(); two = one.copy(); one.close()\n"  # Still held.
        "to = other.make_send(); once = port.make_send_once()\n"
        "to.send(Message(1, descriptors=[two]))\n"  # Nobody's now.
        "came = other.receive(10).rights.pop()\n"
        "once.send(Message(2)); port.receive(10, wait_for_senders=True)\n"
        "port.close()\n"  # What came is a dead name.
        "came.close(); to.close(); other.close()"
    )
    data = trace(tmp_path, *python(code)).data
    strings = data["strings"]
    made = [hold for hold in data["holds"] if strings[hold[4]] == "receive right"]
    first, second = made[0][0], made[1][0]
    found = [(hold[0], strings[hold[4]]) for hold in data["holds"]]
    assert sorted(found) == sorted(
        [(first, "receive right"), (second, "receive right"), (second, "send right"), (first, "send-once right")]
        + [(first, "send right")] * 2
    )
    by_right = {
        right: [hold[2:4] for hold in data["holds"] if hold[0] == first and strings[hold[4]] == right]
        for _, right in found
    }
    [[made_at, closed]], [mine, his] = by_right["receive right"], sorted(by_right["send right"])
    assert made_at < mine[0] < mine[1] < his[0] < his[1] == closed  # Not when `one` was closed, nor when `came` was.
    [[since, until]] = by_right["send-once right"]
    assert mine[0] < since < until < closed
