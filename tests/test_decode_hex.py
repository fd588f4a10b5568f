"""Hex as people have it: what tools print, what programs contain, and where it cannot be read."""

from __future__ import annotations

import shutil
import struct
import subprocess
import textwrap
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machrv.cli.hexadecimal import LONGEST, HexError, from_hex

MESSAGE = struct.pack("=6I", 0x1513, 24, 0x203, 0x307, 0, 0x6D727A76)
SAMPLES = [
    MESSAGE,
    bytes(200) + MESSAGE,
    MESSAGE + b"abcd ef| 12 34 > 5" + MESSAGE,
    bytes(range(256)),
    MESSAGE[:16],
    b"\0" * 17,
]


def _characters(data: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data)


def _rows(data: bytes) -> list[tuple[int, bytes]]:
    return [(at, data[at : at + 16]) for at in range(0, len(data), 16)]


FORMS: dict[str, Callable[[bytes], str]] = {
    "digits": bytes.hex,
    "capitals": lambda data: data.hex().upper(),
    "spaces": lambda data: data.hex(" "),
    "colons": lambda data: data.hex(":"),
    "words": lambda data: data.hex(" ", -4),
    "short lines": lambda data: "\n".join(textwrap.wrap(data.hex(), 64)),
    "lines of words, with comments": lambda data: "\n".join(
        f"{row.hex(' ', -4)}  # {at:#x}" for at, row in _rows(data)
    ),
    "Windows lines": lambda data: "\r\n".join(row.hex(" ") for _, row in _rows(data)),
    "bytes": repr,
    "bytearray": lambda data: repr(bytearray(data)),
    "an assignment": lambda data: f"message = {data!r}",
    "bytes.fromhex": lambda data: f"bytes.fromhex('{data.hex()}')",
    "quoted digits": lambda data: f'"{data.hex()}"',
    "escapes": lambda data: "".join(f"\\x{byte:02x}" for byte in data),
    "a C string in two lines": lambda data: '"' + '"\n  "'.join(f"\\x{byte:02x}" for byte in data) + '";',
    "octal escapes": lambda data: "".join(f"\\{byte:03o}" for byte in data),
    "a list of 0x": lambda data: ", ".join(f"0x{byte:02x}" for byte in data),
    "a Python list": lambda data: f"[{', '.join(map(hex, data))}]",
    "one 0x": lambda data: f"0x{data.hex()}",
    "a C array": lambda data: "static const uint8_t m[] = {\n"
    + ",\n".join(f"  0x{byte:02x}" for byte in data)
    + f"\n}};\nunsigned int m_len = {len(data)};\n",
    "lldb": lambda data: "\n".join(f"0x16fdff{at:04x}: {row.hex(' ')}  {_characters(row)}" for at, row in _rows(data)),
    "Wireshark": lambda data: "\n".join(f"{at:04x}   {row.hex(' ')}   {_characters(row)}" for at, row in _rows(data)),
    "tcpdump": lambda data: "\n".join(
        f"\t0x{at:04x}:  {row.hex(' ', -2)}  {_characters(row)}" for at, row in _rows(data)
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("data", SAMPLES, ids=range(len(SAMPLES)))
def test_a_form_is_read(form: str, data: bytes) -> None:
    """Whatever the bytes are, characters beside them included."""
    assert from_hex(FORMS[form](data)) == data


def test_words_of_a_debugger_are_in_this_machines_order() -> None:
    """gdb's x/6xw."""
    words = struct.unpack("=6I", MESSAGE)
    text = "0x7ffe0000 <buffer>:\t" + "\t".join(f"0x{word:08x}" for word in words[:4])
    text += "\n0x7ffe0010 <buffer+16>:\t" + "\t".join(f"0x{word:08x}" for word in words[4:])
    assert from_hex(text) == MESSAGE
    assert from_hex(" ".join(f"0x{word:08x}" for word in words)) == MESSAGE


@pytest.mark.parametrize(
    "command",
    [
        *("xxd", "xxd -p", "xxd -u", "xxd -g1", "xxd -g4", "xxd -g 8 -c 24", "xxd -i", "xxd -o 256", "xxd -a"),
        *("hexdump -C", "hexdump", "hexdump -v -C", "hexdump -x"),
        *("od -A x -t x1z", "od -t x1", "od -v -x", "od -A d -t x1z", "od -v -A n -t x1", "od -v -A x -t x4"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("data", SAMPLES, ids=range(len(SAMPLES)))
def test_what_a_tool_prints_is_read(command: str, data: bytes) -> None:
    """The dumps of this machine's own tools, those that leave repeated lines out included."""
    if shutil.which(command.split()[0]) is None:
        pytest.skip(f"{command.split()[0]} is not installed")
    dump = subprocess.run(command.split(), input=data, capture_output=True, check=True).stdout.decode()
    assert from_hex(dump) == data


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("13 15 0g", "line 1, column 8: 'g'"),
        ("13 15\n00 zz", "line 2, column 4: 'z'"),
        ("131", "3 digits: one is missing"),
        ("\\x13\\q", "line 1, column 5"),
        ("0x13, 0x123", "neither a byte nor a word"),
        ("00000000: 1315 0000\n00000010: 1315", "line 1: 4 bytes where the next offset says 16"),
        ("00000000: 1315 0000\n*\n00000009: 1315", "do not lead there"),
        ("00000000: 00 00 00 00\n*\nffffffffffff: 00", "do not lead there"),
        ("13 15\n*\n00 00", "lines that were left out"),
        ("0" * (LONGEST + 2), "more than 16 MiB"),
        ("b'\u20ac'", "no byte"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(text: str, problem: str) -> None:
    """Line and column of what is no hex."""
    with pytest.raises(HexError) as caught:
        from_hex(text)
    assert problem in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(max_size=80), st.text("0123456789abcdefx\\'\"b:|>*,{}[]()= \n\t", max_size=120)))
def test_any_text_is_bytes_or_a_hex_error(text: str) -> None:
    """Nothing else is raised."""
    try:
        assert isinstance(from_hex(text), bytes)
    except HexError as error:
        assert str(error)


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=1, max_size=70), st.sampled_from(sorted(FORMS)))
def test_what_was_written_comes_back(data: bytes, form: str) -> None:
    """Any bytes, in any form that says where they end."""
    assert from_hex(FORMS[form](data)) == data
