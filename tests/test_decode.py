"""`machrv decode`: what people see of messages, whole, cut short, behind one another, and of what is none."""

from __future__ import annotations

import io
import json
import os
import pty
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from machrv import (
    AuditToken,
    Disposition,
    GuardedPortDescriptor,
    Message,
    MessageFormatError,
    OutOfLineDescriptor,
    OutOfLinePortsDescriptor,
    PortDescriptor,
    Trailer,
    four_char_code,
)
from machrv._mach import lib
from machrv.cli import main
from machrv.kernel.linux import LinuxKernel
from machrv.rendezvous import protocol

from .conftest import PATIENCE
from .sockets import socket_of

DECODE = [sys.executable, "-m", "machrv", "decode"]
ME = AuditToken(auid=0xFFFFFFFF, euid=1000, egid=100, ruid=1000, rgid=100, pid=4711, asid=0, pidversion=99)
REQUEST = Message(
    0x6D727A76,
    remote_port=0x203,
    remote_disposition=Disposition.COPY_SEND,
    local_port=0x307,
    local_disposition=Disposition.MAKE_SEND_ONCE,
)


def reply(additional: bytes = b"<?xml", trailer: bool = True) -> Message:
    """A reply with two ports, as a child receives it."""
    message = protocol.reply(
        {four_char_code("port"): PortDescriptor(0x303, 17), 7: PortDescriptor(0x403, 16)}, additional
    )
    message.trailer = Trailer(3, (1000, 100), ME) if trailer else None
    return message


def every_kind(trailer: Trailer | None = None) -> Message:
    """A message with a descriptor of each kind."""
    descriptors = [
        PortDescriptor(0x203, Disposition.COPY_SEND),
        OutOfLineDescriptor(address=0x7000, size=4096, deallocate=1),
        OutOfLinePortsDescriptor(disposition=Disposition.MOVE_SEND, address=0x9000, count=3),
        OutOfLineDescriptor(address=0x8000, size=1, type=3),
        GuardedPortDescriptor(0x303, Disposition.MOVE_RECEIVE, context=0xABCD, flags=1),
    ]
    return Message(1234, b"body", descriptors, remote_port=0x103, remote_disposition=19, trailer=trailer)


def decode(data: bytes, *options: str, status: int = 0) -> str:
    """What the command prints for bytes on its standard input, in this process."""
    stdin, stdout = sys.stdin, sys.stdout
    sys.stdin, sys.stdout = io.TextIOWrapper(io.BytesIO(data)), io.StringIO()
    try:
        assert main(["decode", *options]) == status, sys.stdout.getvalue()
        return sys.stdout.getvalue()
    finally:
        sys.stdin, sys.stdout = stdin, stdout


def decoded(data: bytes, *options: str, status: int = 0) -> dict[str, Any]:
    """The same for programs."""
    found: dict[str, Any] = json.loads(decode(data, "--json", *options, status=status))
    assert found["ok"] is (status == 0)
    return found


def values(message: dict[str, Any]) -> dict[str, Any]:
    """The values of a message's fields by section and name."""
    return {f"{field['section']}/{field['name']}": field["value"] for field in message["fields"]}


# -- whole messages ---------------------------------------------------------------------------------------------------


def test_each_field_stands_with_its_offset_its_bytes_and_its_meaning() -> None:
    """A request as a child sends it: six fields, four bytes each."""
    lines = decode(REQUEST.encode()).splitlines()
    assert lines[0] == "message 1: 24 bytes at offset 0, a rendezvous request"
    rows = [line.split(None, 6) for line in lines[2:8]]
    assert [row[0] for row in rows] == ["0", "4", "8", "12", "16", "20"]
    assert [bytes.fromhex("".join(row[1:5])) for row in rows] == [
        REQUEST.encode()[at : at + 4] for at in range(0, 24, 4)
    ]
    assert [row[5] for row in rows] == [
        "msgh_bits",
        "msgh_size",
        "msgh_remote_port",
        "msgh_local_port",
        "msgh_voucher_port",
        "msgh_id",
    ]
    assert "remote COPY_SEND, local MAKE_SEND_ONCE" in lines[2] and "'mrzv'" in lines[7]
    assert lines[-1] == "1 message: nothing is wrong."


def test_descriptors_of_every_kind() -> None:
    """Port, memory, ports, volatile memory, guarded port: each member by name, and what it means."""
    (message,) = decoded(every_kind().encode())["messages"]
    found = values(message)
    for expected in (
        "descriptor 0: port/name",
        "descriptor 1: out-of-line memory/deallocate",
        "descriptor 2: out-of-line ports/count",
        "descriptor 3: volatile out-of-line memory/size",
        "descriptor 4: guarded port/context",
    ):
        assert expected in found
    assert found["descriptor 1: out-of-line memory/address"] == 0x7000
    assert found["descriptor 2: out-of-line ports/count"] == 3
    assert found["descriptor 4: guarded port/context"] == 0xABCD
    text = decode(every_kind().encode())
    assert "COPY_SEND: the sender's send right is copied" in text and "IMMOVABLE_RECEIVE" in text


def test_fields_lie_side_by_side_from_the_first_byte_to_the_last() -> None:
    """No byte is left out, none is shown twice."""
    data = every_kind(Trailer(1, (1000, 100), ME, 5, 0, 0x33)).encode() + reply().encode() + REQUEST.encode()
    at = 0
    for message in decoded(data)["messages"]:
        for field in message["fields"]:
            assert field["offset"] == at and bytes.fromhex(field["hex"]) == data[at : at + field["size"]]
            at += field["size"]
    assert at == len(data)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 6])
def test_a_trailer_of_every_size_is_found(count: int) -> None:
    """From the plain one to the one with labels; an audit token word by word."""
    fields = (7, (1000, 100), ME, 0xC0FFEE, 12, 0x77)[:count]
    data = Message(9, b"four", trailer=Trailer(*fields)).encode()
    first, second = decoded(data + REQUEST.encode())["messages"]
    assert first["trailer_size"] == len(data) - 28 and second["offset"] == len(data)
    found = {name.partition("/")[2]: value for name, value in values(first).items() if name.startswith("trailer")}
    assert found["msgh_trailer_size"] == first["trailer_size"]
    if count >= 1:
        assert found["msgh_seqno"] == 7
    if count >= 3:
        assert (found["msgh_audit.val[5]"], found["msgh_audit.val[7]"]) == (4711, 99)
    if count >= 4:
        assert found["msgh_context"] == 0xC0FFEE
    if count == 6:
        assert (found["msgh_ad"], found["msgh_labels"]) == (12, 0x77)


def test_a_reply_with_its_keys_and_its_additional_data() -> None:
    """Keys as four characters where they are, the descriptor that each belongs to, the data, the padding."""
    text = decode(reply().encode())
    assert "7 (0x7): the key of descriptor 0" in text and "'port' (0x706f7274): the key of descriptor 1" in text
    assert "5 bytes of additional data" in text and "<?xml" in text
    assert "PORT_RECEIVE: the receiver has the receive right" in text and "process 4711" in text


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (Message(65, bytes((0, 0, 0, 0, 1, 0, 0, 0)) + struct.pack("=I", 0x503)), "PORT_DELETED"),
        (Message(66, bytes((0, 0, 0, 0, 1, 0, 0, 0)) + struct.pack("=I", 0x503)), "SEND_POSSIBLE"),
        (Message(69, b"", [PortDescriptor(0x503, Disposition.PORT_RECEIVE)]), "PORT_DESTROYED"),
        (Message(70, bytes((0, 0, 0, 0, 1, 0, 0, 0)) + struct.pack("=I", 3)), "NO_SENDERS"),
        (Message(71), "SEND_ONCE"),
        (Message(72, bytes((0, 0, 0, 0, 1, 0, 0, 0)) + struct.pack("=I", 0x503)), "DEAD_NAME"),
    ],
)
def test_notifications_and_who_may_send_them(message: Message, expected: str) -> None:
    """The kernel's are taken apart; the same from a process is said to be none."""
    message.trailer = Trailer(0, (0, 0), AuditToken.KERNEL)
    text = decode(message.encode())
    assert f"the notification {expected}" in text and "the kernel itself" in text and "odd" not in text
    assert ("0x503" in text) == (expected not in ("NO_SENDERS", "SEND_ONCE")) and ("not_count" in text) == (
        expected == "NO_SENDERS"
    )
    message.trailer = Trailer(0, (1000, 100), ME)
    assert f"a process sent this, not the kernel: {expected}" in decode(message.encode())


def test_an_id_of_a_notification_with_another_body_is_plain_bytes() -> None:
    """Programs may use the same numbers: that is odd, not wrong."""
    text = decode(Message(70, b"hello there!").encode())
    assert "this is not the form of NO_SENDERS" not in text  # Twelve bytes are its form; the NDR record tells.
    assert "no NDR record that any machine writes" in text
    text = decode(Message(72, b"hello").encode())
    assert "this is not the form of DEAD_NAME" in text and "hello" in text


# -- many messages ----------------------------------------------------------------------------------------------------


def test_messages_behind_one_another_with_and_without_trailers() -> None:
    """Whatever precedes, the next one is found."""
    messages = [
        REQUEST,
        reply(),
        Message(5, bytes(28)),
        Message(5, bytes(28)),
        every_kind(),
        Message(6, b"abc"),
        Message(6, b"abc", trailer=Trailer(1)),
        every_kind(Trailer()),
        REQUEST,
    ]
    data = b"".join(message.encode() for message in messages)
    found = decoded(data)["messages"]
    assert [message["offset"] for message in found] == [
        sum(len(earlier.encode()) for earlier in messages[:index]) for index in range(len(messages))
    ]


def test_padding_between_messages() -> None:
    """A message of 27 bytes, filled up: the next one begins at 28."""
    found = decoded(Message(6, b"abc").encode() + b"\0" + REQUEST.encode())["messages"]
    assert [message["offset"] for message in found] == [0, 28]


def test_whether_trailers_follow_can_be_said() -> None:
    """Bytes that can be read both ways: a message without ports of 52 bytes, or an audit trailer."""
    ambiguous = Message(7).encode() + struct.pack("=2I11I", 0, 52, 0, *ME[1:3], *ME)
    assert decoded(ambiguous)["count"] == 1
    assert decoded(ambiguous, "--trailers", "never")["count"] == 2
    assert decoded(REQUEST.encode() * 2, "--trailers", "always", status=1)["fault_count"] > 0


def test_messages_are_shown_as_they_come() -> None:
    """A pipe that stays open: what has come is shown before the rest is there."""
    with subprocess.Popen(DECODE, stdin=-1, stdout=-1, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(REQUEST.encode() * 10)
        process.stdin.flush()
        assert process.stdout.readline().startswith(b"message 1:")
        process.stdin.close()
        assert b"10 messages: nothing is wrong." in process.stdout.read()


# -- cut short and broken ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message", [REQUEST, reply(trailer=False), every_kind()], ids=["request", "reply", "every kind"]
)
def test_cut_at_every_byte_it_is_shown_as_far_as_it_goes(message: Message) -> None:
    """Each byte that is there is shown, what is missing adds up to the rest, and it is a fault."""
    whole = message.encode()
    for size in range(1, len(whole)):
        found = decoded(whole[:size], status=1)
        (only,) = found["messages"]
        assert b"".join(bytes.fromhex(field["hex"]) for field in only["fields"]) == whole[:size]
        if size >= 28 + 5 * 16:
            assert only["missing"] == len(whole) - size
        assert [field["offset"] for field in only["fields"] if field["section"] == "header"] == list(range(0, 24, 4))
        assert found["fault_count"] == 1 and found["faults"][0]["offset"] == (4 if size >= 8 else 4 * (size // 4))
    text = decode(whole[:22], status=1)
    assert "cut short: 2 of 4 bytes" in text and f"{len(whole) - 22} bytes are missing" in text


def test_a_trailer_cut_short() -> None:
    """The message is whole, its trailer is not."""
    whole = reply().encode()
    found = decoded(whole[:-10], status=1)
    assert found["faults"][0]["offset"] == 76 + 4 and "10 bytes are missing" in found["faults"][0]["text"]
    assert found["messages"][0]["missing"] == 10


@pytest.mark.parametrize(
    ("bytes_", "offset", "text"),
    [
        (struct.pack("=6I", 0, 23, 0, 0, 0, 0), 4, "at least the 24 bytes"),
        (struct.pack("=6I", 0, 1 << 24, 0, 0, 0, 0), 4, "missing"),
        (struct.pack(">6I", 19, 24, 0, 0, 0, 0), 4, "in the other byte order: 24"),
        (struct.pack("=6I", 31, 24, 1, 0, 0, 0), 0, "the remote disposition is 31"),
        (struct.pack("=6I", 16, 24, 1, 0, 0, 0), 0, "MOVE_RECEIVE"),
        (struct.pack("=6I", 0x40, 24, 0, 0, 0, 0), 0, "bits 0x40 have no meaning"),
        (struct.pack("=6I", 0x80000000, 24, 0, 0, 0, 0), 24, "msgh_descriptor_count is missing"),
        (struct.pack("=7I", 0x80000000, 28, 0, 0, 0, 0, 0xFFFFFFFF), 24, "at most 0 fit"),
        (struct.pack("=10I", 0x80000000, 40, 0, 0, 0, 0, 1, 0, 0, 9 << 24), 39, "no such descriptor"),
        (struct.pack("=10I", 0x80000000, 40, 0, 0, 0, 0, 1, 0, 0, 1 << 24), 40, "size is missing"),
        (struct.pack("=10I", 0x80000000, 40, 0, 0, 0, 0, 1, 5, 0, 23 << 16), 38, "no such disposition"),
        (REQUEST.encode() + struct.pack("=4I", 0, 16, 0, 0), 28, "no trailer has this size"),
        (REQUEST.encode() + bytes(5), 28, "1 of the 4 bytes of msgh_trailer_size are there"),
        (REQUEST.encode() + b"\x13\x15\0", 24, "3 of the 4 bytes of msgh_bits are there"),
        (Message(0x6D727A76, b"more", local_port=1, local_disposition=21).encode(), 20, "24 bytes and nothing else"),
        (Message(0x6D727A76).encode(), 20, "a send-once right for the reply"),
        (protocol.reply({2: PortDescriptor(1, 17), 1: PortDescriptor(1, 17)}).encode().replace(b"\1\0\0\0\2", b"\2\0\0\0\2"), 56, "keys ascend"),
        (reply(trailer=False).encode().replace(b"\5\0\0\0\0\0\0\0<", b"\xff\0\0\0\0\0\0\0<"), 60, "8 bytes are left"),
        (reply(trailer=False).encode()[:-1] + b"x", 73, "3 zero bytes"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_at_its_offset(bytes_: bytes, offset: int, text: str) -> None:
    """Each kind of fault: where, what, and exit status 1."""
    found = decoded(bytes_, status=1)
    assert [offset] == [fault["offset"] for fault in found["faults"] if text in fault["text"]], found["faults"]
    assert f"offset {offset}: " in decode(bytes_, status=1)


def test_one_lie_is_one_fault() -> None:
    """What is missing because of it is not wrong a second time."""
    found = decoded(struct.pack("=7I", 0x80000000, 28, 0, 0, 0, 0, 0xFFFFFFFF), status=1)
    assert found["fault_count"] == 1 and found["messages"][0]["fields"][-1]["section"] == "descriptors 0 to 4294967294"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="packets of the Linux kernel")
def test_a_packet_of_the_linux_kernel_is_recognised() -> None:
    """What strace shows of a send is not a Mach message, and is said to be what it is."""
    kernel, other, name = LinuxKernel(), LinuxKernel(), f"org.machrv.test.decode.{os.getpid()}"
    port, door = kernel.mach_port_allocate(lib.MACH_PORT_RIGHT_RECEIVE), other.bootstrap_check_in(name)
    way = kernel.bootstrap_look_up(name)
    given = Message(7, b"", [PortDescriptor(port, Disposition.MAKE_SEND)]).encode_to(way, Disposition.MOVE_SEND)
    kernel.mach_msg(given, lib.MACH_SEND_MSG)
    (right,) = Message.decode(other.mach_msg(None, lib.MACH_RCV_MSG, None, door, PATIENCE)).descriptors
    assert isinstance(right, PortDescriptor)
    other.mach_msg(Message(7, b"four").encode_to(right.name, Disposition.MOVE_SEND), lib.MACH_SEND_MSG)
    with socket.socket(fileno=os.dup(socket_of(kernel, port))) as end:
        packet = end.recv(1000, socket.MSG_PEEK)
    other.close()
    kernel.close()
    assert "a packet of machrv's Linux kernel" in decode(packet, status=1)


def test_faults_do_not_keep_what_follows_from_being_shown() -> None:
    """A message with a fault inside, then a good one."""
    bad = struct.pack("=10I", 0x80000000, 40, 0, 0, 0, 0, 1, 0, 0, 9 << 24)
    found = decoded(bad + REQUEST.encode(), status=1)
    assert [message["valid"] for message in found["messages"]] == [False, True]


def test_a_lie_about_sizes_costs_nothing(tmp_path: Path) -> None:
    """4 GiB and 2**32 descriptors are announced in a file of 100 MB: little is read, little is kept."""
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.write(b"\xff" * 64)
        file.truncate(100 << 20)
    code = (
        "import resource, sys; from machrv.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))\n"
        "status = main(sys.argv[1:]); sys.stdout.flush(); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code, "decode", big], capture_output=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (1, b"")
    assert len(done.stdout) < 10_000 and b"is not decoded" in done.stdout


def test_long_bodies_are_cut_in_the_output_unless_all_is_wanted() -> None:
    """256 bytes for people; all of them with --all."""
    data = Message(1, bytes(range(256)) * 4).encode()
    short, long = decode(data), decode(data, "--all")
    assert "and 768 bytes more" in short and "more" not in long
    assert len(long.splitlines()) - len(short.splitlines()) == 768 // 16 - 1


# -- any bytes --------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
@example(b"")
@example(b"\xff" * 100)
@example(b"13 15 zz")
def test_every_byte_string_has_an_answer(data: bytes) -> None:
    """Output, status 0 or 1, nothing raised; the same verdict for people and for programs."""
    for options in ([], ["--json"], ["--binary"], ["--hex"], ["--trailers", "always"]):
        stdin, stdout = sys.stdin, sys.stdout
        sys.stdin, sys.stdout = io.TextIOWrapper(io.BytesIO(data)), io.StringIO()
        try:
            status = main(["decode", *options])
            text = sys.stdout.getvalue()
        finally:
            sys.stdin, sys.stdout = stdin, stdout
        assert status in (0, 1) and text and text.isascii()
        if "--json" in options:
            assert json.loads(text)["ok"] is (status == 0)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_what_the_codec_refuses_has_a_fault_here(data: Any) -> None:
    """A mutated message is either valid for both, or wrong here, or more than one message here."""
    image = bytearray(
        data.draw(
            st.sampled_from([REQUEST, reply(), reply(trailer=False), every_kind(), every_kind(Trailer())])
        ).encode()
    )
    for _ in range(data.draw(st.integers(0, 4))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    image = image[: data.draw(st.integers(24, len(image)))]
    found = json.loads(_run(bytes(image)))
    try:
        message = Message.decode(image)
    except MessageFormatError:
        assert (
            not found["ok"]
            or found["count"] > 1
            or any(field["section"] == "padding" for field in found["messages"][0]["fields"])
        )
    else:
        if found["count"] == 1:
            values_ = values(found["messages"][0])
            assert values_["header/msgh_id"] & 0xFFFFFFFF == message.id & 0xFFFFFFFF
            structural = [fault for fault in found["faults"] if "missing" in fault["text"] or "fit" in fault["text"]]
            assert structural == []


def _run(data: bytes) -> str:
    stdin, stdout = sys.stdin, sys.stdout
    sys.stdin, sys.stdout = io.TextIOWrapper(io.BytesIO(data)), io.StringIO()
    try:
        main(["decode", "--json", "--binary"])
        return sys.stdout.getvalue()
    finally:
        sys.stdin, sys.stdout = stdin, stdout


# -- where it comes from, where it goes -------------------------------------------------------------------------------


def test_a_file_standard_input_and_hex_are_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whichever way the bytes come."""
    file = tmp_path / "message.bin"
    file.write_bytes(REQUEST.encode())
    expected = decode(REQUEST.encode())
    words = REQUEST.encode().hex(" ", 4).split()
    for arguments in ([str(file)], [REQUEST.encode().hex()], words, [repr(REQUEST.encode())], ["--hex", *words]):
        assert main(["decode", *arguments]) == 0
        assert capsys.readouterr().out == expected
    file.write_text(REQUEST.encode().hex())
    assert main(["decode", str(file)]) == main(["decode", "--hex", str(file)]) == 0
    assert capsys.readouterr().out == expected * 2


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    """No such file, a directory, text that is no hex, nothing at all."""
    for arguments, expected in (
        ([str(tmp_path / "none")], "there is no such file, and it is no hex"),
        (["--binary", str(tmp_path / "none")], "No such file"),
        ([str(tmp_path)], "Is a directory"),
        (["--hex", "13 1g"], "line 1, column 5: 'g' is no hexadecimal digit"),
    ):
        status = 2 if "o such file" in expected else 1
        done = subprocess.run([*DECODE, *arguments], capture_output=True, text=True, timeout=PATIENCE)
        assert (done.returncode, done.stderr) == (status, "") and expected in done.stdout
    assert "this is text, but no hex" in decode(b"hello world", status=1)
    assert "there is nothing to decode" in decode(b"", status=1)
    assert "there is nothing to decode" in decode(b" \n", status=1)
    assert decoded(b"hello world", status=1)["errors"]


def test_several_files_one_after_the_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each message and each fault says which file it is in; one that is not there does not keep the others away."""
    (tmp_path / "one").write_bytes(REQUEST.encode())
    (tmp_path / "two").write_bytes(REQUEST.encode()[:20])
    files = [str(tmp_path / name) for name in ("one", "two", "none", "one")]
    assert main(["decode", *files]) == 2
    text = capsys.readouterr().out
    assert f"message 1: 24 bytes at offset 0 of {files[0]}" in text and f"offset 4 of {files[1]}: cut short" in text
    assert f"{files[2]}: there is no such file" in text and "message 3:" in text
    assert main(["decode", "--json", *files]) == 2
    found = json.loads(capsys.readouterr().out)
    assert [message["source"] for message in found["messages"]] == [files[0], files[1], files[3]]
    assert len(found["errors"]) == 1


def test_output_that_cannot_be_written_is_not_blamed_on_the_input() -> None:
    """A full device: the reason is the output, in a line."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*DECODE, REQUEST.encode().hex()], stdout=full, stderr=subprocess.PIPE, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (1, b"machrv: No space left on device\n")


def on_a_terminal(arguments: list[str], environment: dict[str, str]) -> bytes:
    """What a command writes to a terminal."""
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    own, other = pty.openpty()
    with subprocess.Popen(
        [*DECODE, *arguments], stdin=subprocess.DEVNULL, stdout=other, env={**clean, "TERM": "xterm", **environment}
    ) as process:
        os.close(other)
        output = b""
        try:
            while piece := os.read(own, 4096):
                output += piece
        except OSError:
            pass  # That is how a terminal ends.
        os.close(own)
        assert process.wait(PATIENCE) in (0, 1)
    return output


def test_colours_on_a_terminal_only(tmp_path: Path) -> None:
    """And where they are asked for; what they say is said in words too."""
    words = REQUEST.encode().hex()
    assert b"\x1b[" in on_a_terminal([words], {})
    assert b"\x1b[" not in on_a_terminal([words], {"NO_COLOR": "1"})
    assert b"\x1b[" not in on_a_terminal([words], {"TERM": "dumb"})
    assert b"\x1b[" in on_a_terminal(["--color=always", words], {"NO_COLOR": "1"})
    assert b"\x1b[" not in on_a_terminal(["--json", words], {})
    assert "\x1b[" not in decode(REQUEST.encode())
    assert "\x1b[" in decode(REQUEST.encode(), "--color=always")


def test_lines_fit_a_terminal() -> None:
    """Long meanings go on in the next line."""
    output = on_a_terminal(["--color=never", every_kind().encode().hex()], {"COLUMNS": "80"})
    lines = output.decode().replace("\r", "").splitlines()
    assert max(map(len, lines)) <= 80 and any(line.startswith(" " * 44) for line in lines)


def test_bytes_of_a_message_do_not_reach_the_terminal_as_they_are() -> None:
    """Escapes in a body or an id are shown as dots and numbers."""
    text = decode(Message(0x1B5B324A, b"\x1b[2J\x07\x9b" + b"\x1b" * 30).encode())
    assert "\x1b" not in text and text.isascii()


def test_help_shows_examples_and_fits_a_terminal() -> None:
    """Help is for somebody who has not used the command yet."""
    done = subprocess.run([*DECODE, "--help"], capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"})
    assert done.returncode == 0 and "examples:" in done.stdout and "xxd" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 84


def test_a_long_run_says_what_it_is_doing() -> None:
    """Standard input that does not come: after two seconds there is a line on standard error."""
    with subprocess.Popen(DECODE, stdin=-1, stdout=-1, stderr=-1) as process:
        assert process.stdin is not None and process.stderr is not None
        assert process.stderr.readline().startswith(b"machrv decode: reading standard input")
        process.stdin.close()
        assert process.wait(PATIENCE) == 1
