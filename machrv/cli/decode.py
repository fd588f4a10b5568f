"""`machrv decode`: Mach messages, field by field.

What belongs here: where the bytes come from, and what the exit status is. What must never happen here: a traceback,
whatever the bytes are.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

from machrv.anatomy import Splitter, dissect
from machrv.cli.colour import Palette, add_option
from machrv.cli.decoded import JsonOutput, Output, TextOutput
from machrv.cli.hexadecimal import LONGEST, HexError, from_hex
from machrv.cli.progress import Progress

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
    from typing import Any, BinaryIO

    Read = Callable[[int], bytes]

_EPILOG = r"""INPUT is a file, - for standard input (the default), or hex. A file or standard
input may be hex too: digits with or without spaces, a dump of xxd, hexdump or od,
0x.. lists, \x.. escapes, a Python bytes literal. Messages may stand behind one
another, each with or without its trailer.

examples:
  machrv decode message.bin
  machrv decode 13150000 18000000 03020000 07020000 00000000 767a726d
  machrv decode "b'\x13\x15\x00\x00\x18'"
  xxd message.bin | machrv decode
  python3 -c 'import machrv, sys; sys.stdout.buffer.write(machrv.Message(
      7, b"hello").encode())' | machrv decode
  machrv decode --json message.bin | python3 -m json.tool

exit status: 0 if every message is valid, 1 if anything is wrong (what, and at which
offset, is said), 2 if the arguments make no sense."""

_TEXT = bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100)) + b"\t\n\v\f\r\x1b"


def add_to(commands: Any) -> None:
    """See `machrv.cli`."""
    from argparse import RawDescriptionHelpFormatter

    parser = commands.add_parser(
        "decode",
        help="take Mach messages apart: each field, what it means, what is wrong with it",
        description="Shows each field of Mach messages with its offset, bytes and meaning, and what is\n"
        "wrong with it. A message that is cut short is shown as far as it goes.",
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", metavar="INPUT", nargs="*", help="a file, - for standard input, or hex")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--hex", action="store_true", help="INPUT is hex, or a file of hex, whatever it looks like")
    kind.add_argument("--binary", action="store_true", help="INPUT is a file of bytes, whatever it looks like")
    parser.add_argument(
        "--trailers",
        choices=("auto", "always", "never"),
        default="auto",
        help="whether a trailer follows each message (auto: where the bytes look like one)",
    )
    parser.add_argument("--all", action="store_true", help="show all bytes of long bodies")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    add_option(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """The command. Returns the exit status."""
    stdout = sys.stdout
    output: Output
    if arguments.json:
        output = JsonOutput(stdout.write, arguments.all)
    else:
        output = TextOutput(stdout, Palette(arguments.color, stdout), arguments.all)
    source = _Source(arguments)
    with Progress("machrv decode", lambda: f"{source.doing}, {output.messages} messages so far") as progress:
        try:
            progress.quiet = source.ask()
            read = source.open()
            trailers = {"auto": None, "always": True, "never": False}[arguments.trailers]
            for found in Splitter(read, trailers):
                source.doing = "decoding"
                progress.quiet = stdout.isatty()
                output.message(found, dissect(found.image, found.size, found.padding, found.offset))
            if not output.messages:
                output.failure("there is nothing to decode: a message has at least 24 bytes")
        except HexError as error:
            output.failure(f"{source.name}: {source.no_hex}: {error}")
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            output.failure(f"{source.name}: {error.strerror or error}")
        finally:
            source.close()
        output.end()
    return 0 if output.ok else 1


class _Source:
    """Where the bytes come from."""

    no_hex = "this is no hex"

    def __init__(self, arguments: Namespace) -> None:
        words = arguments.input or ["-"]
        self.doing = "waiting for input"
        self._hex: bool = arguments.hex
        self._binary: bool = arguments.binary
        self._file: BinaryIO | None = None
        self._words: list[str] = []
        self.name = words[0] if len(words) == 1 else "the arguments"
        if len(words) > 1 or (words[0] != "-" and not self._binary and not os.path.lexists(words[0])):
            self._words = words
            self.name = "the argument"
            if not self._hex:
                self.no_hex = "there is no such file, and it is no hex"

    def ask(self) -> bool:
        """Tell somebody at a terminal that it is his turn."""
        if self.name == "-" and sys.stdin is not None and sys.stdin.isatty():
            print("machrv decode: waiting for hex; end it with Ctrl-D", file=sys.stderr)
            return True
        return False

    def open(self) -> Read:
        """What reads the bytes of the messages. Raises OSError and HexError."""
        if self._words:
            return io.BytesIO(from_hex(" ".join(self._words))).read
        if self.name == "-":
            if sys.stdin is None:
                raise OSError("there is no standard input")
            file = sys.stdin.buffer
        else:
            file = self._file = open(self.name, "rb")
        self.doing = "reading standard input" if self.name == "-" else f"reading {self.name!a}"
        read = getattr(file, "read1", file.read)
        if self._binary:
            return read
        first = read(1 << 16)
        if not self._hex and first.translate(None, _TEXT):
            return _chain(first, read)
        text, more = _gather(first, read)
        try:
            if not self._hex and text.translate(None, _TEXT):
                return _chain(text, read)
            decoded = text.decode("utf-8", "strict" if not self._hex else "replace")
        except UnicodeDecodeError:
            return _chain(text, read)
        if not decoded.strip():
            return _chain(b"", read)
        if not self._hex:
            self.no_hex = "this is text, but no hex (--binary takes it as it is)"
        if more:
            raise HexError(f"it is more than {LONGEST >> 20} MiB; make a file of the bytes (xxd -r -p)")
        return io.BytesIO(from_hex(decoded)).read

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _gather(first: bytes, read: Read) -> tuple[bytes, bool]:
    """What comes, up to the longest text; and whether there is more. Ends early where it turns out to be no text."""
    pieces, size = [first], len(first)
    while size <= LONGEST:
        piece = read(1 << 20)
        if not piece:
            return b"".join(pieces), False
        pieces.append(piece)
        size += len(piece)
        if piece.translate(None, _TEXT):
            break
    return b"".join(pieces), size > LONGEST


def _chain(first: bytes, read: Read) -> Read:
    """Reads what has been read already, then the rest."""
    kept = [first]

    def chained(count: int) -> bytes:
        return kept.pop() if kept and kept[0] else read(count)

    return chained
