"""How `machrv decode` shows what it has found: for people, and for programs."""

# What belongs here: the layout of the output. What must never happen here: more kept in memory than one field, since a
# message may have millions; bytes of the input that reach a terminal as they are.

from __future__ import annotations

import json
import shutil
import textwrap
from sys import byteorder
from typing import TYPE_CHECKING

from machrv.anatomy import id_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import IO

    from machrv.anatomy import Field, Found, Problem
    from machrv.cli.colour import Palette

#: How many bytes of a field are shown unless all are wanted.
SHOWN = 256
SHOWN_TO_PROGRAMS = 1 << 16
#: How many problems are listed at the end.
_LISTED = 20
_MOST_LISTED = 1000

_PER_ROW = 4
_PER_DUMP_ROW = 16
_OFFSET, _BYTES, _NAME = 8, 3 * _PER_ROW - 1, 21
_MARGIN = _OFFSET + 2 + _BYTES + 2 + _NAME + 2
_NARROWEST = 24


class Output:
    """What both have in common: they count. `ok` is false once anything is wrong.

    `source` is what the messages that come are from, "" if there is but one source.
    """

    wrong: int
    odd: int

    def __init__(self) -> None:
        self.source = ""
        self.messages = 0
        self.wrong = 0
        self.odd = 0
        self.problems: list[tuple[str, Problem]] = []

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.wrong == 0

    def count(self, field: Field) -> None:
        """Remember what is wrong with a field."""
        for problem in field.problems:
            self.wrong += problem.wrong
            self.odd += not problem.wrong
            if problem.wrong and len(self.problems) < _MOST_LISTED:
                self.problems.append((self.source, problem))

    def message(self, found: Found, fields: Iterable[Field]) -> None:
        """Show a message."""
        raise NotImplementedError

    def failure(self, text: str) -> None:
        """Show what kept the input from being read. `text` may hold anything."""
        self.wrong += 1

    def end(self) -> None:
        """That was all."""
        raise NotImplementedError


class TextOutput(Output):
    """For people."""

    def __init__(self, file: IO[str], paint: Palette, everything: bool) -> None:
        super().__init__()
        self._write = file.write
        self._paint = paint
        self._all = everything
        # Who reads a terminal gets whole words; programs and files get whole lines.
        self._width = max(shutil.get_terminal_size().columns - _MARGIN, _NARROWEST) if file.isatty() else 0

    def message(self, found: Found, fields: Iterable[Field]) -> None:
        """See `Output.message`."""
        self.messages += 1
        title = f"message {self.messages}: {_extent(found)} at offset {found.offset}{_of(self.source)}{_kind(found)}"
        self._write(("\n" if self.messages > 1 else "") + self._paint("strong", title) + "\n")
        section = ""
        for field in fields:
            if field.section != section:
                section = field.section
                self._write(f"  {self._paint('name', section)}\n")
            self.count(field)
            self._field(field)
        if found.lost:
            self._write("  what follows is not decoded: where the next message begins is not known\n")

    def _field(self, field: Field) -> None:
        if field.size:
            if field.value is None and field.size > 2 * _PER_ROW and len(field.data) > 2 * _PER_ROW:
                self._dump(field)
            else:
                self._rows(field)
        for problem in field.problems:
            label = self._paint("wrong", "WRONG") if problem.wrong else self._paint("odd", "odd")
            lines = (
                textwrap.wrap(f"offset {problem.offset}: {problem.text}", self._width + _MARGIN - 18)
                if self._width
                else []
            )
            text = f"\n{'':18}".join(lines) if lines else f"offset {problem.offset}: {problem.text}"
            self._write(f"{'':{_OFFSET}}  {label}{'' if problem.wrong else '  '}  {text}\n")

    def _rows(self, field: Field) -> None:
        """Four bytes to a row, the name and the meaning beside them."""
        meaning = field.meaning
        if field.data and field.value is None and not field.missing:
            meaning = f"{_characters(field.data)}  {meaning}".rstrip()
        words = textwrap.wrap(meaning, self._width) if self._width else [meaning]
        shown = [field.data[at : at + _PER_ROW].hex(" ") for at in range(0, len(field.data), _PER_ROW)] or [""]
        if field.missing and field.size <= 2 * _PER_ROW:
            places = [*(f"{byte:02x}" for byte in field.data), *["--"] * field.missing]
            shown = [" ".join(places[at : at + _PER_ROW]) for at in range(0, len(places), _PER_ROW)]
        elif field.missing:
            words = [f"{words[0]}, {field.missing} bytes" if not field.data else words[0], *words[1:]]
        for row in range(max(len(shown), len(words))):
            offset = str(field.offset + row * _PER_ROW) if row < len(shown) else ""
            data = shown[row] if row < len(shown) else ""
            name = field.name if not row else ""
            text = words[row] if row < len(words) else ""
            colour = "wrong" if any(problem.wrong for problem in field.problems) else "odd" if field.problems else ""
            text = self._paint(colour, text) if colour else self._paint("faint", text) if field.missing else text
            line = f"{self._paint('faint', f'{offset:>{_OFFSET}}')}  {data:<{_BYTES}}  {name:<{_NAME}}  {text}"
            self._write(line.rstrip() + "\n")

    def _dump(self, field: Field) -> None:
        """Sixteen bytes to a row, the characters beside them, the name and the meaning above."""
        note = f": {field.meaning}" if field.meaning else f", {field.size} bytes"
        self._write(f"{self._paint('faint', f'{field.offset:>{_OFFSET}}')}  {field.name}{note}\n")
        count = len(field.data) if self._all else min(len(field.data), SHOWN)
        for at in range(0, count, _PER_DUMP_ROW):
            row = field.data[at : min(at + _PER_DUMP_ROW, count)]
            offset = self._paint("faint", f"{field.offset + at:>{_OFFSET}}")
            self._write(f"{offset}  {row.hex(' '):<{3 * _PER_DUMP_ROW - 1}}  |{_characters(row)}|\n")
        if count < len(field.data):
            self._write(f"{'':{_OFFSET}}  and {len(field.data) - count} bytes more (--all shows them)\n")
        if field.missing:
            self._write(f"{'':{_OFFSET}}  {self._paint('faint', f'{field.missing} bytes are missing')}\n")

    def failure(self, text: str) -> None:
        """See `Output.failure`."""
        super().failure(text)
        self._write(f"{self._paint('wrong', 'WRONG')}  {_printable(text)}\n")

    def end(self) -> None:
        """See `Output.end`."""
        if not self.messages:
            return
        count = f"{self.messages} message{'' if self.messages == 1 else 's'}"
        odd = f" {self.odd} odd thing{'' if self.odd == 1 else 's'}." if self.odd else ""
        if self.ok:
            self._write(f"\n{count}: {self._paint('good', 'nothing is wrong.')}{odd}\n")
            return
        faults = f"{self.wrong} fault{'' if self.wrong == 1 else 's'}"
        self._write(f"\n{count}: {self._paint('wrong', faults)}.{odd}\n")
        for source, problem in self.problems[:_LISTED]:
            self._write(f"  offset {problem.offset}{_of(source)}: {problem.text}\n")
        if len(self.problems) > _LISTED:
            self._write(f"  and {self.wrong - _LISTED} more\n")


class JsonOutput(Output):
    """For programs: one object, written as it comes."""

    def __init__(self, write: Callable[[str], object], everything: bool) -> None:
        super().__init__()
        self._write = write
        self._all = everything
        self._failures: list[str] = []
        write('{"messages": [')

    def message(self, found: Found, fields: Iterable[Field]) -> None:
        """See `Output.message`."""
        self.messages += 1
        before = self.wrong
        size = len(found.image)
        about = {
            "source": self.source,
            "offset": found.offset,
            "size": size,
            "trailer_size": size - found.size - found.padding,
        }
        self._write(f"{',' if self.messages > 1 else ''}\n{json.dumps(about)[:-1]}, \"fields\": [")
        comma = missing = 0
        for field in fields:
            self.count(field)
            missing += field.missing
            self._write(f"{',' if comma else ''}\n  {json.dumps(self._of(field))}")
            comma = 1
        rest = {"missing": missing, "valid": self.wrong == before, "rest_not_decoded": found.lost}
        self._write(f"\n ], {json.dumps(rest)[1:]}")

    def _of(self, field: Field) -> dict[str, object]:
        shown = field.data if self._all else field.data[:SHOWN_TO_PROGRAMS]
        about: dict[str, object] = {
            "section": field.section,
            "name": field.name,
            "offset": field.offset,
            "size": field.size,
            "missing": field.missing,
            "hex": shown.hex(),
            "value": field.value,
            "meaning": field.meaning,
            "problems": [problem._asdict() for problem in field.problems],
        }
        if len(shown) < len(field.data):
            about["hex_left_out"] = len(field.data) - len(shown)
        return about

    def failure(self, text: str) -> None:
        """See `Output.failure`."""
        super().failure(text)
        self._failures.append(text)

    def end(self) -> None:
        """See `Output.end`."""
        faults = [
            {"source": source, "offset": problem.offset, "text": problem.text} for source, problem in self.problems
        ]
        rest = {
            "count": self.messages,
            "ok": self.ok,
            "fault_count": self.wrong,
            "faults": faults,
            "errors": self._failures,
        }
        self._write(f"\n], {json.dumps(rest)[1:]}\n")


def _extent(found: Found) -> str:
    trailer = len(found.image) - found.size - found.padding
    said = int.from_bytes(found.image[4:8], byteorder) if len(found.image) >= 8 else 0
    if said > found.size:
        return f"{found.size} of {said} bytes"
    return f"{found.size} byte{'' if found.size == 1 else 's'}{f' and {trailer} of trailer' if trailer else ''}"


def _of(source: str) -> str:
    return f" of {_printable(source)}" if source else ""


def _kind(found: Found) -> str:
    name = id_name(int.from_bytes(found.image[20:24], byteorder, signed=True)) if len(found.image) >= 24 else ""
    return f", {name}" if name else ""


def _characters(data: memoryview) -> str:
    return "".join(chr(byte) if 0x20 <= byte <= 0x7E else "." for byte in bytes(data))


def _printable(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode("ascii") if not text.isprintable() else text
