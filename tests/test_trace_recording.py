"""The recorder inside the traced program hurts nobody, and whoever reads its files believes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from machrv import Disposition, MachError, Message, PortDescriptor, SendRight
from machrv.kernel import Kernel, current
from machrv.trace import SUFFIX, VARIABLE
from machrv.trace.events import Story, tell
from machrv.trace.kernel import TracingKernel
from machrv.trace.matching import match
from machrv.trace.page import page
from machrv.trace.reading import Process, read

from .conftest import PATIENCE
from .traces import python

#: Says everything that it did, and what it found open.
PROGRAM = (
    "port = ReceiveRight.allocate()\nright = port.make_send()\n"
    "for number in range(40): right.send(Message(number)); print(port.receive(10).id)\n"
    "right.close(); port.close(); print(current().mach_port_names())"
)


def run(environment: dict[str, str], code: str = PROGRAM, **popen: Any) -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        python(code), env={**os.environ, **environment}, capture_output=True, timeout=PATIENCE, **popen
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A private directory to record into."""
    folder = tmp_path / "records"
    folder.mkdir(0o700)
    return folder


def test_without_the_variable_the_kernel_is_the_kernel() -> None:
    """Nothing stands before it, and nothing of the recorder is loaded: no call costs more."""
    code = "print(type(current()).__name__, [name for name in sys.modules if 'trace' in name and 'machrv' in name])"
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run(python(code), env=environment, capture_output=True, timeout=PATIENCE)
    assert done.stdout == f"{type(current()).__name__} []\n".encode() or type(current()) is TracingKernel


@pytest.mark.parametrize("place", ["missing", "open to others", "a file", "a link", "not writable", "not a path"])
def test_a_directory_that_will_not_do_makes_no_difference(tmp_path: Path, folder: Path, place: str) -> None:
    """The program runs as ever, and nothing is written anywhere."""
    target = str(folder)
    if place == "missing":
        folder.rmdir()
    elif place == "open to others":
        folder.chmod(0o755)
    elif place == "a file":
        target = str(tmp_path / "file")
        Path(target).touch()
    elif place == "a link":
        target = str(tmp_path / "link")
        os.symlink(folder, target)
    elif place == "not writable":
        target = "/proc/self"
    else:
        target = "\x01\udc80" + "x" * 5000
    numbers = "".join(f"{number}\n" for number in range(40))
    assert run({VARIABLE: target}) == (0, f"{numbers}[]\n".encode(), b"")
    assert not folder.exists() or list(folder.iterdir()) == []


def test_no_room_makes_no_difference(folder: Path) -> None:
    """A file that cannot grow (RLIMIT_FSIZE, as a full disk): what had room is there, the rest is counted."""
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
    assert run({VARIABLE: str(folder)}, limit + PROGRAM) == run({}, PROGRAM)
    [process] = read(str(folder))
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 2000
    assert 0 < len(process.exchanges) < 40 and process.damaged <= 1


def test_the_end_of_the_recording_is_noticed(folder: Path) -> None:
    """A directory that is removed: nothing is written any more, neither there nor into a file that nobody sees."""
    code = (
        "port = ReceiveRight.allocate()\nimport shutil\nshutil.rmtree(os.environ['MACHRV_TRACE'])\nport.close()\n"
        "print([link for fd in os.listdir('/proc/self/fd') if '(deleted)' in (link := os.readlink(f'/proc/self/fd/{fd}')"
        " if os.path.lexists(f'/proc/self/fd/{fd}') else '')])"
    )
    assert run({VARIABLE: str(folder)}, code) == (0, b"[]\n", b"")
    assert not folder.exists()


def test_a_program_that_closes_everything_and_opens_its_own_files_keeps_them_clean(
    tmp_path: Path, folder: Path
) -> None:
    """The recorder's descriptor may be closed, and its number be the program's: the recorder opens another file."""
    code = (
        "port = ReceiveRight.allocate()\nhigh = [int(fd) for fd in os.listdir('/proc/self/fd') if int(fd) >= 500]\n"
        "os.closerange(500, 1000)\nmine = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "for fd in range(500, 520): os.dup2(mine, fd)\n"
        "port.make_send().close(); os.write(mine, b'mine'); port.close(); print(len(high))"
    )
    done = subprocess.run(
        [*python(code), str(tmp_path / "mine")],
        env={**os.environ, VARIABLE: str(folder)},
        capture_output=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"1\n", b"")
    assert (tmp_path / "mine").read_bytes() == b"mine"
    found = [json.loads(line)[0] for file in folder.iterdir() for line in file.read_text().splitlines()]
    assert sorted(found) == ["call"] * 4 + ["end", "start"]


def test_every_call_of_a_kernel_goes_to_the_real_one() -> None:
    """Whatever `Kernel` declares, now or later, but for what is made of the other calls."""
    own = vars(TracingKernel)
    names = [name for name, value in vars(Kernel).items() if callable(value) and not name.startswith("_")]
    made_of_others = ("mach_msg", "memory")
    assert [name for name in names if name not in own and name not in made_of_others] == []
    assert not getattr(TracingKernel, "__abstractmethods__", None)


@pytest.fixture
def tracing(folder: Path) -> Kernel:
    """The kernel of this process, traced."""
    kernel: Kernel = TracingKernel(current(), str(folder), 0)
    return kernel


def close(tracing: Kernel) -> None:
    """Give the recorder's descriptor up."""
    recorder = tracing._recorder  # type: ignore[attr-defined]
    os.close(recorder._fd)
    recorder._off = True


def test_results_and_failures_are_the_real_kernels(tracing: Kernel, kernel: Kernel, folder: Path) -> None:
    """Positional or by keyword; a MachError is the very one; what a program must not do is refused as ever."""
    name = tracing.mach_port_allocate(right=1)
    tracing.mach_port_insert_right(name, poly=name, disposition=20)
    assert tracing.mach_port_get_refs(name, 0) == kernel.mach_port_get_refs(name, 0) == 1
    message = Message(1, descriptors=[PortDescriptor(name, Disposition.COPY_SEND)]).encode_to(
        name, Disposition.COPY_SEND
    )
    assert tracing.mach_msg(bytearray(message), 1) is None
    received = Message.decode(tracing.mach_msg(None, 2 | 3 << 24, receive_name=name, timeout=5) or b"")
    assert received.descriptors[0].name == name and received.id == 1
    tracing.mach_port_destroy(name)
    with pytest.raises(MachError) as caught:
        tracing.mach_port_destroy(name)
    assert caught.value.symbol == "KERN_INVALID_NAME" and caught.value.__traceback__ is not None
    wrongs: list[tuple[Any, ...]] = [("x",), (1, 2, 3), (), ([],)]
    for wrong in wrongs:
        outcomes = []
        for asked in (kernel, tracing):
            with pytest.raises((TypeError, MachError)) as refused:
                asked.mach_port_destroy(*wrong)
            outcomes.append(type(refused.value))
        assert outcomes[0] is outcomes[1]
    with pytest.raises(MachError):
        tracing.mach_msg("no bytes", 1)  # type: ignore[arg-type]
    close(tracing)
    [process] = read(str(folder))
    assert process.damaged == 0 and len(process.exchanges) >= 2


def test_a_message_that_lies_is_refused_as_ever(tracing: Kernel, kernel: Kernel) -> None:
    """Descriptors that are not there, addresses that nobody has: what is recorded is not looked for in memory."""
    name = kernel.mach_port_allocate(1)
    kernel.mach_port_insert_right(name, name, 20)
    right = SendRight(name, kernel)
    header = Message(1, bits=1 << 31).encode_to(name, Disposition.COPY_SEND)
    outcomes = []
    for kernels in (kernel, tracing):
        for tail in (
            b"\xff" * 4,
            (1).to_bytes(4, "little") + b"\xff" * 12,
            (1).to_bytes(4, "little") + bytes(11) + b"\x02",
        ):
            body = tail + bytes(8)
            image = header[:4] + (24 + len(body)).to_bytes(4, "little") + header[8:24] + body
            try:
                outcomes.append(str(kernels.mach_msg(image, 1, timeout=0)))
            except MachError as error:
                outcomes.append(error.symbol)
    assert outcomes[:3] == outcomes[3:]
    close(tracing)
    right.release()
    kernel.mach_port_destroy(name)


# -- reading ----------------------------------------------------------------------------------------------------------

TOKEN = [0, 0, 0, 0, 0, 4711, 0, 99]
START = ["start", 1, 1, 4711, 1, 0, "linux", TOKEN, "name"]


def write(folder: Path, *records: object, name: str = "4711-1", raw: bytes = b"") -> None:
    lines = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    (folder / f"{name}{SUFFIX}").write_bytes(lines + raw)


GARBAGE = [
    b"\xff\xfe\n",
    b"[" * 100_000 + b"\n",
    b"1" * 10_000 + b"\n",
    b'["call"]\n["began",1]\n["ended",9,1,null,null]\n[]\n{}\nnull\n"start"\n',
    b'["start",1e999,1,1,1,0,"",null,""]\n',
    b'["start",1,1,1,1,0,"linux",[1,2],"x"]\n',
    b'["call",1,2,3,"x",[],[["p","q"]],null,null,null]\n',
    b'["call",1,2,3,"mach_port_mod_refs",[],[],null,null,null]\n',
    b'["call",1,2,3,"bootstrap_check_in",[{"a":1}],[],[[]],["p",1],null]\n',
    b'["began",1,1,1,1,1,1,null,["zz",[],"",""]]\n',
    b'["began",1,1,1,1,1,1,null,["%s",[],"",""]]\n["ended",1,2,null,["%s",[null,[null,["p",1]]],"00","00"]]\n'
    % ((b"\xff" * 64).hex().encode(), (b"\xff" * 64).hex().encode()),
    b'["lost",-5]\n["end",-1]\n["full",1]\n',
    b'["start",99999999999999999999999,1,1,1,0,"",null,""]\n',
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_no_file_breaks_the_page(folder: Path, garbage: bytes) -> None:
    """Lines of whatever kind are counted as damaged or shown: a page is made in any case."""
    write(folder, START, raw=garbage + b'["end",5]\n["cut sho')
    [process] = read(str(folder))
    assert process.pid in (4711, 1) and process.damaged
    text = page(tell([process]), ["x"])
    assert "records of" in text or "record of" in text


def test_what_is_no_file_is_not_read(folder: Path, tmp_path: Path) -> None:
    """A pipe that would block, a link to a file of somebody else's, a folder."""
    os.mkfifo(folder / f"1-1{SUFFIX}")
    (tmp_path / "secret").write_text(json.dumps(START) + "\n")
    os.symlink(tmp_path / "secret", folder / f"2-1{SUFFIX}")
    (folder / f"3-1{SUFFIX}").mkdir()
    assert read(str(folder)) == []


def header(size: int = 24, id: int = 5, bits: int = 0x13) -> str:
    return (bits.to_bytes(4, "little") + size.to_bytes(4, "little") + bytes(12) + id.to_bytes(4, "little")).hex()


TRAILER = (bytes(4) + (52).to_bytes(4, "little") + bytes(12) + b"".join(n.to_bytes(4, "little") for n in TOKEN)).hex()


def sends(number: int, began: int, ended: int | None, port: str = "p", id: int = 5) -> list[list[object]]:
    sent = [header(id=id), [[port, 1 << 16], ["", 0]], "", ""]
    records: list[list[object]] = [["began", number, began, number, 1, -1, 0, None, sent]]
    return records if ended is None else [*records, ["ended", number, ended, None, None]]


def receives(number: int, began: int, ended: int, port: str = "p", id: int = 5) -> list[list[object]]:
    received = [header(id=id), [["", 0], [port, 1 << 17]], TRAILER, ""]
    right = [port, 1 << 17]
    return [["began", number, began, 1, 2, -1, 7, right, None], ["ended", number, ended, None, received]]


def told(folder: Path, *records: list[list[object]]) -> tuple[list[Process], Story]:
    write(folder, START, *[record for group in records for record in group])
    processes = read(str(folder))
    return processes, tell(processes)


def test_messages_that_are_alike_are_paired_in_their_order(folder: Path) -> None:
    """A port is one queue: sent first is received first. That is certain, sent one after the other."""
    groups = [sends(n, 10 * n, 10 * n + 5) for n in range(1, 5)] + [receives(10 + n, 1, 100 + n) for n in range(1, 5)]
    processes, _ = told(folder, *groups)
    pairs = match(processes)
    assert [(pair.sent.began, pair.received.ended, pair.certain) for pair in pairs] == [
        (10 * n, 100 + n, True) for n in range(1, 5)
    ]


def test_what_two_threads_sent_at_the_same_time_is_not_certain(folder: Path) -> None:
    """It is said, on the page and in the details; the last one is certain again."""
    processes, story = told(
        folder,
        sends(1, 10, 30),
        sends(2, 20, 40),
        receives(3, 1, 50),
        receives(4, 51, 60),
        sends(5, 70, 71),
        receives(6, 80, 81),
    )
    assert [pair.certain for pair in match(processes)] == [False, True, True]
    text = page(story, ["x"])
    assert "1 arrow (dashed) may belong to other messages" in text
    assert "another thread sent a message like it at the same time" in text


def test_where_the_system_does_not_name_ports_only_what_is_alone_is_certain(folder: Path) -> None:
    """As on macOS: the id of a port is not told."""
    groups = [sends(1, 10, 11, port=""), receives(2, 1, 20, port="")]
    processes, _ = told(folder, *groups)
    assert [pair.certain for pair in match(processes)] == [True]
    processes, _ = told(folder, *groups, sends(3, 30, 31, port=""), receives(4, 1, 40, port=""))
    assert [pair.certain for pair in match(processes)] == [False, False]


def test_missing_records_make_pairs_uncertain(folder: Path) -> None:
    """One message of three was not written down: which ones the others are cannot be known."""
    groups = [sends(n, 10 * n, 10 * n + 1) for n in (1, 2)] + [receives(10 + n, 1, 100 + n) for n in (1, 2)]
    processes, _ = told(folder, *groups, [["lost", 1]])
    assert [pair.certain for pair in match(processes)] == [False, False]


def test_nothing_is_received_before_it_was_sent(folder: Path) -> None:
    """A receive whose send was not recorded is not given the next one."""
    processes, story = told(folder, receives(1, 1, 5), sends(2, 10, 11), receives(3, 12, 13))
    assert [(pair.sent.began, pair.received.ended) for pair in match(processes)] == [(10, 13)]
    assert sum(arrow.received is not None and arrow.sent is not None for arrow in story.arrows) == 2
    assert any("was not recorded" in str(event.rows()) for event in story.events)


def test_a_process_killed_in_a_send_may_have_sent(folder: Path) -> None:
    """The message was received: it was. Of the next one nobody knows; both calls did not come back."""
    processes, story = told(folder, sends(1, 10, None), sends(2, 20, None), receives(3, 1, 30))
    assert len(match(processes)) == 1
    assert [event.failure for event in story.failures] == ["did not come back"] * 2


def test_too_many_events_are_left_out_in_the_middle_and_it_is_said(folder: Path) -> None:
    """The beginning and the end are there, with what failed at the end."""
    calls: list[list[object]] = [
        ["call", n, n + 1, 1, "mach_port_allocate", [1], [], n, [f"{n}", 1 << 17], None] for n in range(2, 1002)
    ]
    failed: list[object] = [
        "call",
        5000,
        5001,
        1,
        "mach_port_destroy",
        [7],
        [["", 0]],
        None,
        None,
        ["KERN_INVALID_NAME", None],
    ]
    _, story = told(folder, calls, [failed])
    text = page(story, ["x"], most=100)
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert len(data["events"]) == 100 and data["gap"] == 50 and data["left_out"] == 902
    assert "902 events in the middle are left out: the page shows 100 at most" in text
    assert data["failures"] == [99]


@pytest.mark.skipif(sys.platform != "linux", reason="ports have identities that all processes know on Linux")
def test_a_port_is_known_by_the_same_identity_to_all_who_hold_rights(kernel: Kernel) -> None:
    """Its receive right, a send right, a send-once right; a file is a file; what is nothing has none."""
    name = kernel.mach_port_allocate(1)
    once, _ = kernel.mach_port_extract_right(name, 21)
    identity, bits = kernel.port_identity(name)
    assert len(identity) == 16 and bits == 1 << 17
    assert kernel.port_identity(once) == (identity, 1 << 18)
    file = kernel.fileport_makeport(0)
    assert kernel.port_identity(file)[0] == "file"
    for gone in (file, once):
        kernel.mach_port_deallocate(gone)
    kernel.mach_port_destroy(name)
    assert kernel.port_identity(name) == kernel.port_identity(0) == ("", 0)
