"""`machrv doctor`: whether machrv works here, what it does without, and what to do about it."""

# What belongs here: the order of the examination, how it is printed, and the exit status. What must never happen here:
# a check (machrv/doctor), or an import that fails where the compiled module is broken: that is when this command is
# needed.

from __future__ import annotations

import json
import platform
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

from machrv.cli.colour import Palette, add_option
from machrv.cli.progress import Progress
from machrv.cli.version import version
from machrv.doctor.findings import NOTE, OK, WARNING, WRONG, Finding, examined

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

_COLOURS = {OK: "good", NOTE: "name", WARNING: "odd", WRONG: "wrong"}
_LABELS = {OK: "ok", NOTE: "note", WARNING: "warn", WRONG: "WRONG"}
_WHAT = 26
_INDENT = 2 + 5 + 2
_WIDEST = 110


def add_to(commands: Any) -> None:
    """See `machrv.cli`."""
    from argparse import RawDescriptionHelpFormatter

    parser = commands.add_parser(
        "doctor",
        help="whether machrv works here, what it has to do without, and what to do about it",
        description="Looks at Python, the compiled module, the kernel, limits, sandboxes and the bootstrap\n"
        "directory, and has a child make a real claim. Changes nothing, unless --fix is given.",
        epilog="examples:\n"
        "  machrv doctor\n"
        "  machrv doctor --fix                       remove what killed processes have left\n"
        "  machrv doctor --require user=1000 --require identifier=/usr/bin/python3\n"
        "  machrv doctor --json | python3 -m json.tool\n\n"
        "exit status: 0 if machrv works here, with warnings or without; 1 if something keeps it from\n"
        "working; 2 if the arguments make no sense.",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--fix", action="store_true", help="remove stale names from the bootstrap directory, and nothing else"
    )
    parser.add_argument("--quick", action="store_true", help="without the child's claim")
    parser.add_argument(
        "--require",
        metavar="NAME[=VALUE]",
        action="append",
        default=[],
        help="whether this process meets that: a method of ProcessRequirement.Builder, such as user=1000; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    add_option(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """The command. Returns the exit status."""
    doing = ["looking around"]
    findings = []
    printer = None if arguments.json else _Printer(Palette(arguments.color, sys.stdout))
    with Progress("machrv doctor", lambda: f"{doing[0]} ...") as progress:
        for finding in _examination(arguments, doing):
            findings.append(finding)
            if printer is not None:
                progress.quiet = False
                printer.show(finding)
    works = all(finding.state != WRONG for finding in findings)
    if printer is None:
        print(json.dumps(_report(findings, works)))
    else:
        printer.end(findings)
    return 0 if works else 1


def _examination(arguments: Namespace, doing: list[str]) -> Iterator[Finding]:
    """Everything, as far as the rooms before let one get. `doing` says what is looked at."""
    from machrv.doctor import python

    doing[0] = "looking at Python"
    yield from examined(python.SECTION, python.look)
    if not python.module_loads():
        return
    kernel = ""
    for finding, name in _kernel():
        kernel = name
        yield from finding
    rooms = _linux_rooms(arguments.fix) if kernel == "linux" else _macos_rooms() if kernel == "darwin" else []
    for section, look in rooms:
        doing[0] = f"looking at: {section}"
        yield from examined(section, look)
    if kernel:
        from machrv.doctor import identity, names

        doing[0] = "checking a name in, and looking it up"
        yield from examined(names.SECTION, names.look)
        doing[0] = "looking at this process as others see it"
        yield from examined(identity.SECTION, lambda: identity.look(arguments.require))
    if kernel and not arguments.quick:
        from machrv.doctor import claim

        doing[0] = "waiting for a child to make a claim"
        yield from examined(claim.SECTION, claim.look)


def _kernel() -> Iterator[tuple[list[Finding], str]]:
    """Which kernel there is, or why there is none."""
    from machrv.errors import MachrvError
    from machrv.kernel import current

    try:
        yield [], current().name
    except (MachrvError, OSError) as error:
        # Not the end: what the rooms find may say why.
        name = "linux" if sys.platform.startswith("linux") else ""
        yield [Finding("Kernel", "ports", WRONG, f"{type(error).__name__}: {error}")], name


def _linux_rooms(fix: bool) -> list[tuple[str, Callable[[], Iterable[Finding]]]]:
    from machrv.doctor import directory, linux, surroundings

    return [
        (linux.SECTION, linux.look),
        (surroundings.LIMITS, surroundings.limits),
        (surroundings.SANDBOXES, surroundings.sandboxes),
        (directory.SECTION, lambda: directory.look(fix)),
    ]


def _macos_rooms() -> list[tuple[str, Callable[[], Iterable[Finding]]]]:
    from machrv.doctor import macos

    return [(macos.SECTION, macos.look)]


def _report(findings: list[Finding], works: bool) -> dict[str, Any]:
    return {
        "ok": works,
        "version": version(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "counts": {state: sum(finding.state == state for finding in findings) for state in _LABELS},
        "fallbacks": {finding.what: finding.fallback for finding in findings if finding.fallback},
        "findings": [finding._asdict() for finding in findings],
    }


class _Printer:
    """Prints findings as they come, by section."""

    def __init__(self, paint: Palette) -> None:
        self._paint = paint
        self._section = ""
        # Who reads a terminal gets whole words; programs and files get whole lines.
        self._width = min(shutil.get_terminal_size().columns, _WIDEST) if sys.stdout.isatty() else 1 << 16

    def show(self, finding: Finding) -> None:
        """One finding: its state, what it is about, what was found, what to do."""
        if finding.section != self._section:
            print(("\n" if self._section else "") + self._paint("strong", finding.section))
            self._section = finding.section
        label = self._paint(_COLOURS[finding.state], f"{_LABELS[finding.state]:<5}")
        text = _printable(finding.found)
        room = max(self._width - _INDENT - _WHAT, 30)
        lines = textwrap.wrap(text, room) or [""]
        if finding.advice:
            lines += textwrap.wrap(f"-> {_printable(finding.advice)}", room, subsequent_indent="   ")
        print(f"  {label}  {finding.what:<{_WHAT - 2}}  {lines[0]}".rstrip())
        for line in lines[1:]:
            print(f"{'':{_INDENT + _WHAT}}{line}")
        sys.stdout.flush()

    def end(self, findings: list[Finding]) -> None:
        """The verdict."""
        wrong = [finding.what for finding in findings if finding.state == WRONG]
        warnings = sum(finding.state == WARNING for finding in findings)
        more = f", with {warnings} warning{'' if warnings == 1 else 's'}" if warnings else ""
        if wrong:
            print(f"\n{self._paint('wrong', 'machrv does not work here')}: {', '.join(wrong)}.")
        else:
            print(f"\n{self._paint('good', 'machrv works here')}{more}.")


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
