"""The command `machrv`: its subcommands, and what its exit status means."""

# Finding the subcommand. What must never happen here: work, or an import that a subcommand's child processes would pay for.
#
# Each subcommand is a module of this package with a function `add_to(commands)` that adds its parser and sets the
# parser's default `run` to a function from the parsed arguments to the exit status. All of them are loaded whichever is run:
# what only one of them needs is imported when it runs.

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from machrv.cli.version import version

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

_COMMANDS = ("demo", "decode", "doctor", "exec", "ports", "trace")

#: What a shell says of a program that SIGPIPE has ended.
_CLOSED_PIPE = 128 + 13


def parser() -> argparse.ArgumentParser:
    """The command line of `machrv`, all subcommands with it."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="machrv",
        description="Mach port rendezvous: a parent hands port rights to a child it launched.",
        epilog="examples:\n  machrv demo      what it is for, shown with real processes\n"
        "  machrv doctor    whether it works here, and what to do if not\n\n"
        "A shell can complete commands and options: pip install argcomplete, then\n"
        'eval "$(register-python-argcomplete machrv)"; for fish, see its manual.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_const", dest="run", const=_version, help="print the version")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name in _COMMANDS:
        try:
            import_module(f"machrv.cli.{name}").add_to(commands)
        except ImportError as error:  # The compiled module, as a rule; doctor does without, and says more.
            broken = commands.add_parser(name, help=f"does not work: {error}", add_help=False)
            broken.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
            broken.set_defaults(run=_broken, error=error)
    return parser


def _broken(arguments: argparse.Namespace) -> int:
    print(f"this command cannot be loaded: {arguments.error}; `machrv doctor` says why", file=sys.stderr)
    return 1


def _version(_: argparse.Namespace) -> int:
    print("machrv", version())
    return 0


def _check_command(command: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Ends with a usage error for a command that there is not, and says which one may be meant."""
    word = next((argument for argument in arguments if not argument.startswith("-")), None)
    if word is None or word in _COMMANDS:
        return
    from difflib import get_close_matches

    close = get_close_matches(word, _COMMANDS, 1)
    meant = f"did you mean {close[0]!r}?" if close else f"the commands are {', '.join(_COMMANDS)}"
    command.error(f"there is no command {word!r}: {meant}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (None: the program's). Returns the exit status.

    0: all is as it must be. 1: something is not. 2: the arguments make no sense. 130: interrupted from the keyboard.
    141: whoever reads the output has gone.
    """
    command = parser()
    if "_ARGCOMPLETE" in os.environ:  # A shell asks, through argcomplete; nobody else has to have it.
        import argcomplete

        argcomplete.autocomplete(command)
    _check_command(command, sys.argv[1:] if arguments is None else arguments)
    parsed = command.parse_args(arguments)
    if parsed.run is None:
        command.error("no command was given; `machrv --help` lists them")
    try:
        status: int = parsed.run(parsed)
        sys.stdout.flush()
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        # Whoever reads the output has seen enough (`machrv demo | head`). Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            return _CLOSED_PIPE
        print(f"machrv: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status
