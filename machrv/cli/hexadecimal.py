r"""Bytes that people have as text: hex in the forms in which tools print it.

The forms: plain digits, with whatever separates them; lists (`0x13, 0x15`, C arrays, words of debuggers, which are in this
machine's byte order); escapes (`\x13\x15`, `b'...'`, C strings); dumps with offsets and characters (xxd, hexdump, od,
tcpdump, lldb, Wireshark), also those that leave repeated lines out.
"""

# What belongs here: text in, bytes out, or where it cannot be read. What must never happen here: a guess at what the
# bytes mean, or text that is passed over silently.

from __future__ import annotations

import re
from itertools import takewhile
from sys import byteorder

#: Longer text is refused, since all of it has to be in memory at once; a file of bytes has no limit.
LONGEST = 16 << 20
#: As many bytes may come of lines that a dump leaves out.
LARGEST = 64 << 20

_NOISE = re.compile(r"(?:#|//).*")
_BETWEEN = re.compile(r"[\s,;:_|.{}()\[\]-]+")
#: How a C or Python variable begins that holds what follows.
_NAMED = re.compile(r"(?=[A-Za-z_])[\w \t*]{1,200}(?:\[\w*\])?\s{0,9}=\s{0,9}")
_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, "'": 39, '"': 34, "e": 27}
_TOKEN = re.compile(r"\\x([0-9a-fA-F]{1,2})|\\([0-7]{1,3})|\\(\r?\n)|\\(.)|([^\\])", re.DOTALL)
_QUOTED = re.compile(
    r"""\s*(?:[bB]|bytearray\s*\(\s*[bB])?("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')\s*\)?[\s;,]*""", re.DOTALL
)
_OFFSET = re.compile(r"^\s*(?:0x)?([0-9a-fA-F]{4,16})(?:(?:\s*<[^>\n]*>)?(:)|(?=\s|$))")
_GROUP = re.compile(r"^(?:0[xX])?(?:[0-9a-fA-F]{2}){1,8}$")
_SPACED = re.compile(r"(\s*)(\S+)")
_FRAMED = re.compile(r"^(.*?)\s(?:\|.*\||>.*<)\s*$")
#: Groups of words that stand four spaces apart, as od puts them on some systems.
_APART = re.compile(r"^\s*[0-9a-fA-F]{4}(?:\s{4,}[0-9a-fA-F]{4})+\s*$")
_REPEATED = "*"


class HexError(ValueError):
    """Text that is no hex; says in which line and column."""

    def __init__(self, problem: str, line: int = 0, column: int = 0) -> None:
        where = f"line {line}, column {column}: " if column else f"line {line}: " if line else ""
        super().__init__(where + problem)


def from_hex(text: str) -> bytes:
    """The bytes that the text stands for. Raises HexError."""
    text = text.lstrip("\ufeff").strip()
    if len(text) > LONGEST:
        raise HexError(f"this is more than {LONGEST >> 20} MiB of text: make a file of the bytes (xxd -r -p)")
    named = _NAMED.match(text)
    if named:
        text = text[named.end() :]
    if text.startswith("bytes.fromhex"):
        text = text.partition("(")[2].rpartition(")")[0].strip().strip("'\"")
    for read in (_escaped, _dumped, _listed):
        found = read(text)
        if found is not None:
            return found
    return _plain(text)


# -- escapes ----------------------------------------------------------------------------------------------------------


def _escaped(text: str) -> bytes | None:
    r"""`b'\x13A'`, `"\x13" "A"`, or `\x13A` without quotes."""
    if text.startswith(("'", '"', "b'", 'b"', "B'", 'B"', "(", "bytearray(")):
        inner = text.strip("();")
        pieces, at = [], 0
        while at < len(inner):
            match = _QUOTED.match(inner, at)
            if match is None:
                break
            pieces.append(match[1][1:-1])
            at = match.end()
        if pieces and at == len(inner):
            if not any("\\" in piece for piece in pieces) and text[:1] not in "bB":
                return from_hex("".join(pieces))  # Digits in quotes.
            return b"".join(_unescape(piece, text) for piece in pieces)
    if text.startswith("\\"):
        return _unescape("".join(text.split()), text)
    return None


def _unescape(text: str, whole: str) -> bytes:
    found = bytearray()
    at = 0
    for match in _TOKEN.finditer(text):
        at = match.end()
        digits, octal, _, single, plain = match.groups()
        code = int(digits, 16) if digits else int(octal, 8) if octal else ord(plain) if plain else -1
        if single:
            if single not in _ESCAPES:
                raise _error(f"an escape \\{single!a:.6} that means no byte", whole, whole.find("\\" + single))
            code = _ESCAPES[single]
        if code > 255:
            raise _error("a character or an escape that is no byte", whole, whole.find(match[0]))
        if code >= 0:
            found.append(code)
    if at != len(text):
        raise _error("an escape that does not end", whole, len(whole) - 1)
    return bytes(found)


# -- lists ------------------------------------------------------------------------------------------------------------


def _listed(text: str) -> bytes | None:
    """Numbers that begin with 0x each: bytes, or words of 2, 4 or 8 bytes in this machine's order."""
    body = text
    if text[:1] == "{":
        body = text[1:].partition("}")[0]
    if body.lstrip(" \t\r\n[(")[:2] not in ("0x", "0X"):
        return None
    body = "\n".join(_NOISE.sub("", line) for line in body.splitlines())
    tokens = [token for token in _BETWEEN.split(body) if token]
    if not tokens or not all(token[:2] in ("0x", "0X") for token in tokens):
        return None
    found = []
    for token in tokens:
        digits = token[2:].rstrip("uUlL")
        try:
            value = int(digits, 16)
        except ValueError:
            raise _error(f"{token[:20]!a} is no hexadecimal number", text, text.find(token)) from None
        if len(tokens) == 1 and len(digits) % 2 == 0:
            return bytes.fromhex(digits)
        if len(digits) <= 2:
            found.append(bytes((value,)))
        elif len(digits) in (4, 8, 16):
            found.append(value.to_bytes(len(digits) // 2, byteorder))
        elif len(digits) > 16 and len(digits) % 2 == 0:
            found.append(bytes.fromhex(digits))
        else:
            raise _error(f"{token[:20]!a} is neither a byte nor a word of 2, 4 or 8 bytes", text, text.find(token))
    return b"".join(found)


# -- dumps ------------------------------------------------------------------------------------------------------------


class _Line:
    """A line of a dump: where it stands, its offset in digits ("*" for lines left out), what follows it."""

    def __init__(self, number: int, offset: str, colon: bool, rest: str) -> None:
        self.number = number
        self.offset = offset
        self.colon = colon
        self.rest = rest

    def groups(self) -> list[str]:
        """What could be digits; the characters beside them too, as far as they look the same."""
        return list(takewhile(_GROUP.match, self.rest.split()))

    def likely_groups(self) -> list[str]:
        """What is digits if one goes by the gaps, where nothing tells how many bytes the line has."""
        framed = _FRAMED.match(self.rest)
        if framed and not self.colon:
            return _Line(0, "", True, framed[1]).groups()
        groups: list[str] = []
        for gap, group in _SPACED.findall(self.rest):
            beside = len(gap) > 1 if self.colon else len(gap) > 1 and len(groups) != 8 and not _APART.match(self.rest)
            if (groups and beside) or not _GROUP.match(group):
                break
            groups.append(group)
        return groups


def _dumped(text: str) -> bytes | None:
    """Lines that begin with an offset. The first that does not makes it no dump."""
    if not _OFFSET.match(text):
        return None
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() == _REPEATED:
            lines.append(_Line(number, _REPEATED, False, ""))
        elif line.strip():
            match = _OFFSET.match(line)
            if match is None:
                return None
            lines.append(_Line(number, match[1], bool(match[2]), line[match.end() :]))
    if not _is_offset(lines[0], len(lines)):
        return None
    octal_first = (
        len(lines[0].offset) == 7 and len((lines[0].likely_groups() or [""])[0]) == 2
    )  # od, unless told otherwise
    problem = None
    # What stands beside the digits may look like digits: where the gaps do not tell them apart, the next offset does.
    for strict in (True, False):
        for base in (8, 16, 10) if octal_first else (16, 8, 10):
            try:
                return _assemble(lines, base, strict)
            except HexError as error:
                problem = error if problem is None or (base == 16 and not strict) else problem
    raise problem or HexError("this is no dump")


def _is_offset(line: _Line, count: int) -> bool:
    """Whether what stands first in the first of so many lines is an offset, and not bytes."""
    if line.colon:
        return True
    groups = line.likely_groups()
    if not groups or len(groups[0].removeprefix("0x")) == len(line.offset):
        return False
    return not int(line.offset, 16) or (len(line.offset) >= 6 and (count > 1 or bool(_FRAMED.match(line.rest))))


def _assemble(lines: list[_Line], base: int, strict: bool) -> bytes:
    """The rows behind one another, each where its offset says, in this base."""
    found = bytearray()
    start = _offset(lines[0], base)
    last, repeated = b"", False
    for index, line in enumerate(lines):
        if line.offset == _REPEATED:
            repeated = True
            continue
        at = _offset(line, base) - start
        if repeated:
            gap = at - len(found)
            if not last or gap < 0 or at > LARGEST or gap % len(last):
                raise HexError(f"the lines left out before {line.offset} do not lead there", line.number)
            found += last * (gap // len(last))
        if at != len(found):
            there = f"offset {line.offset} is {at} bytes from the first: {len(found)} are there"
            raise HexError(f"a gap or a repetition in the dump: {there}", line.number)
        following = lines[index + 1] if index + 1 < len(lines) else None
        size = None
        if following is not None and following.offset != _REPEATED:
            size = _offset(following, base) - start - at
        last, repeated = _row(line, size, len(last) or None, strict), False
        found += last
    return bytes(found)


def _offset(line: _Line, base: int) -> int:
    try:
        return int(line.offset, base)
    except ValueError:
        raise HexError(f"{line.offset} is no offset", line.number) from None


def _row(line: _Line, size: int | None, most: int | None, strict: bool) -> bytes:
    """The bytes of a line: `size` if that is known, at most as many as the line before."""
    groups = line.likely_groups() if strict or size is None else line.groups()
    row = bytearray()
    limit = most if size is None else None if strict else size
    filled = 0
    for group in groups:
        if limit is not None and len(row) >= limit:
            break
        prefixed = group[:2] in ("0x", "0X")
        data = bytes.fromhex(group[2:] if prefixed else group)
        words = byteorder == "little" and (prefixed or not line.colon)
        row += data[::-1] if words else data
        filled = len(data) if words else 0
    if size is not None and size < len(row) < size + filled:
        del row[size:]  # A last word is filled up.
    if size is not None and len(row) != size:
        raise HexError(f"{len(row)} bytes where the next offset says {size}", line.number)
    return bytes(row)


# -- plain ------------------------------------------------------------------------------------------------------------


def _plain(text: str) -> bytes:
    """Digits, with anything between the bytes that cannot be mistaken for one."""
    try:
        return bytes.fromhex(text)  # Nearly always, and fast.
    except ValueError:
        pass
    bare = "\n".join(_NOISE.sub("", line) for line in text.splitlines())
    pieces = [piece[2:] if piece[:2] in ("0x", "0X") else piece for piece in _BETWEEN.split(bare) if piece]
    if _REPEATED in pieces:
        raise HexError("a * stands for lines that were left out, and without offsets nobody knows how many")
    for piece in pieces:
        if re.search(r"[^0-9a-fA-F]", piece):
            at = text.find(piece)
            match = re.search(r"[^0-9a-fA-F]", text[at:]) if at >= 0 else None
            place = at + match.start() if match else 0
            raise _error(f"{text[place : place + 1]!a} is no hexadecimal digit", text, place)
    digits = "".join(pieces)
    if len(digits) % 2:
        if len(pieces) > 1 and all(len(piece) <= 2 for piece in pieces):  # "3 15 0": bytes without leading zeros
            digits = "".join(piece.zfill(2) for piece in pieces)
        else:
            raise HexError(f"{len(digits)} digits: one is missing, or one too many, for there are two to a byte")
    return bytes.fromhex(digits)


def _error(problem: str, text: str, at: int) -> HexError:
    at = max(0, at)
    line = text.count("\n", 0, at) + 1
    return HexError(problem, line, at - text.rfind("\n", 0, at))
