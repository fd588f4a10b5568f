"""`machrv decode`: Mach messages, field by field."""

# What belongs here: where the bytes come from, and what the exit status is. What must never happen here: a traceback,
# whatever the bytes are.

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
    from collections.abc import Callable, Iterator
    from typing import Any, BinaryIO

    Read = Callable[[int], bytes]

_EPILOG = r"""INPUT is a file, - for standard input (the default), or hex. Files and standard
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
offset, is said), 2 if a file is not there or the arguments make no sense."""

_TRAILERS = {"auto": None, "always": True, "never": False}
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
    sources = list(_sources(arguments))
    doing, missing = [""], False
    with Progress("machrv decode", lambda: f"{doing[0]}, {output.messages} messages so far") as progress:
        for source in sources:
            output.source = source.name if len(sources) > 1 else ""
            doing[0] = f"reading {source.name!a}" if source.name != "-" else "reading standard input"
            progress.quiet = source.ask()
            try:
                before = output.messages
                for found in Splitter(source.open(), _TRAILERS[arguments.trailers]):
                    progress.quiet = sys.stdout.isatty()  # Then one sees that it goes on.
                    output.message(found, dissect(found.image, found.size, found.padding, found.offset))
                if output.messages == before:
                    output.failure(f"{source.title}: there is nothing to decode: a message has at least 24 bytes")
            except HexError as error:
                missing = missing or source.no_hex is _Source.no_file
                output.failure(f"{source.title}: {source.no_hex}: {error}")
            except _Unreadable as error:
                missing = missing or isinstance(error.__cause__, FileNotFoundError)
                output.failure(f"{source.title}: {error}")
            finally:
                source.close()
        output.end()
    return 2 if missing else 0 if output.ok else 1


class _Unreadable(Exception):
    """The input cannot be read; not an OSError, which stands for output that cannot be written."""


def _sources(arguments: Namespace) -> Iterator[_Source]:
    """Each file, and what is no file behind one another: hex."""
    words: list[str] = []
    for word in arguments.input or ["-"]:
        if word == "-" or arguments.binary or os.path.lexists(word):
            if words:
                yield _Source(arguments, "", words)
                words = []
            yield _Source(arguments, word, [])
        else:
            words.append(word)
    if words:
        yield _Source(arguments, "", words)


class _Source:
    """Where bytes come from: a file, "-" for standard input, or words of hex."""

    no_hex = "this is no hex"
    no_file = "there is no such file, and it is no hex"

    def __init__(self, arguments: Namespace, name: str, words: list[str]) -> None:
        self.name = name or "the argument"
        self.title = "standard input" if name == "-" else name or words[0][:200]
        self._hex: bool = arguments.hex
        self._binary: bool = arguments.binary
        self._file: BinaryIO | None = None
        self._words = words
        if words and not self._hex:
            self.no_hex = self.no_file

    def ask(self) -> bool:
        """Tell somebody at a terminal that it is his turn."""
        if self.name == "-" and sys.stdin is not None and sys.stdin.isatty():
            print("machrv decode: waiting for hex; end it with Ctrl-D", file=sys.stderr)
            return True
        return False

    def open(self) -> Read:
        """What reads the bytes of the messages. Raises _Unreadable and HexError."""
        if self._words:
            return io.BytesIO(from_hex(" ".join(self._words))).read
        if self.name == "-":
            if sys.stdin is None:
                raise _Unreadable("it is closed")
            file = sys.stdin.buffer
        else:
            try:
                file = self._file = open(self.name, "rb")
            except OSError as error:
                raise _Unreadable(error.strerror or str(error)) from error
        read = _reader(file)
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


def _reader(file: BinaryIO) -> Read:
    """Reads what has come, without waiting for more."""
    some = getattr(file, "read1", file.read)

    def read(count: int) -> bytes:
        try:
            return bytes(some(count))
        except OSError as error:
            raise _Unreadable(error.strerror or str(error)) from None

    return read


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
