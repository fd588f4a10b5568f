"""`machrv exec`: claim files and sockets, put them at numbers, and become a program that has never heard of machrv."""

# What must never happen here: a descriptor of machrv's own at a number that somebody asked for, or anything left open in the
# program that it did not ask for.

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable
    from typing import NoReturn

_FIRST = 3  # Where systemd's sockets begin: sd_listen_fds(3).
_NOT_GOT, _NOT_EXECUTABLE, _NOT_FOUND = 125, 126, 127

_USAGE = "machrv exec [-h] [--listen] [--timeout SECONDS] KEY=FD ... -- PROGRAM [ARGUMENT ...]"
_DESCRIPTION = """\
Claims the files and sockets that this process was launched with, puts each at the
number that PROGRAM expects it at, and becomes PROGRAM. KEY is what the parent has
registered it under; 0, 1 and 2 are standard input, output and error.

With --listen, LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES tell PROGRAM what it has,
as systemd does: the numbers are 3, 4, 5 ..., and need not be given. Memory objects
can be had the same way: on Linux each is a file that can be mapped.

The exit status is PROGRAM's; 125 if what it was to get did not come; 126 or 127 if
it could not be run; 2 if the arguments make no sense.
"""
_EPILOG = """\
examples:
  machrv exec sock=3 log=2 -- ./server --quiet
  machrv exec --listen http=3 tls=4 -- ./server

In the parent, in Python:
  launch(["machrv", "exec", "sock=3", "--", "./server"], {"sock": socket})
"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """See `machrv.cli`."""
    import argparse

    parser = commands.add_parser(
        "exec",
        help="claim files and sockets, put them at numbers, and become a program",
        usage=_USAGE,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--listen", action="store_true", help="set LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="how long to wait (30)")
    parser.add_argument(
        "rest", nargs=argparse.REMAINDER, metavar="KEY=FD ... -- PROGRAM", help="what goes where; then what to become"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The command. Returns an exit status only if it has failed."""
    from machrv.errors import MachrvError

    try:
        wanted, program = _understood(arguments.rest, arguments.listen)
    except ValueError as error:
        _say(f"{error}\nusage: {_USAGE}")
        return 2
    try:
        _reserve(wanted.values())
        _put_in_place(wanted, arguments.timeout)
    except (MachrvError, OSError) as error:
        _say(f"{program[0]} was not run: {error}")
        return _NOT_GOT
    if arguments.listen:
        names = ":".join(wanted)
        os.environ |= {"LISTEN_FDS": str(len(wanted)), "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": names}
    try:
        _become(program)
    except OSError as error:
        _say(f"{program[0]} cannot be run: {error.strerror or error}")
        return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE


def _understood(rest: list[str], listen: bool) -> tuple[dict[str, int], list[str]]:
    """What goes where, and the program. Raises ValueError."""
    end = rest.index("--") if "--" in rest else len(rest)
    program = rest[end + 1 :]
    wanted: dict[str, int] = {}
    if not program:
        raise ValueError("no program was given: it stands behind --")
    for word in rest[:end]:
        key, _, number = word.rpartition("=")
        if not key and listen:
            key, number = word, str(_FIRST + len(wanted))
        wanted[_checked_key(key, word, listen, wanted)] = _checked_number(number, word, wanted)
    if not wanted:
        raise ValueError("nothing is to be claimed: say what goes where, as in sock=3")
    if listen and sorted(wanted.values()) != list(range(_FIRST, _FIRST + len(wanted))):
        raise ValueError(f"with --listen the numbers are {_FIRST}, {_FIRST + 1}, ..., none left out")
    return dict(sorted(wanted.items(), key=lambda item: item[1])) if listen else wanted, program


def _checked_key(key: str, word: str, listen: bool, others: dict[str, int]) -> str:
    from machrv.errors import KeyFormatError
    from machrv.rendezvous.keys import uint32_key

    try:
        number = uint32_key(key)
    except KeyFormatError as error:
        raise ValueError(f"{word!r} is no KEY=FD, as in sock=3: {error}") from None
    if number in map(uint32_key, others):
        raise ValueError(f"{word!r}: the key {key!r} is given twice")
    if listen and ":" in key:
        raise ValueError(f"{word!r}: a name in LISTEN_FDNAMES has no colon")
    return key


def _checked_number(text: str, word: str, others: dict[str, int]) -> int:
    from resource import RLIMIT_NOFILE, getrlimit

    most = getrlimit(RLIMIT_NOFILE)[0]
    if not text.isascii() or not text.isdecimal() or int(text) >= most:
        raise ValueError(f"{word!r}: {text!r} is no number of a descriptor, from 0 to {most - 1}")
    if int(text) in others.values():
        raise ValueError(f"{word!r}: the number {text} is given twice")
    return int(text)


def _reserve(numbers: Iterable[int]) -> None:
    """Before machrv opens anything: what it opens gets none of these numbers."""
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for number in sorted(numbers):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(nowhere, number, inheritable=False)
    if nowhere not in set(numbers):
        os.close(nowhere)


def _put_in_place(wanted: dict[str, int], timeout: float) -> None:
    """Claim, and put everything at its number. What came besides is given up."""
    from machrv.rendezvous.client import RendezvousClient

    taken: dict[int, int] = {}
    with RendezvousClient.connect(timeout=timeout) as rights:
        for key, number in wanted.items():
            taken[number] = rights.take_fd(key)
    for number, descriptor in taken.items():
        os.dup2(descriptor, number)  # `descriptor` is none of the numbers: those are taken.
        os.close(descriptor)


def _become(program: list[str]) -> NoReturn:
    import signal

    for name in ("SIGPIPE", "SIGXFSZ"):  # Python ignores them, and what is ignored a program inherits.
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    sys.stdout.flush()
    os.execvp(program[0], program)


def _say(text: str) -> None:
    print(f"machrv exec: {text}", file=sys.stderr)
