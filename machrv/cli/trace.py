"""`machrv trace -- PROGRAM ...`: run a program, and draw what it and its children did with ports."""

# What belongs here: the run (its environment, signals, exit status) and where the page goes. What must never happen
# here: a byte on PROGRAM's standard input or output, or an exit status that is not its own without a word about it.

from __future__ import annotations

import os
import sys
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from subprocess import Popen

    from machrv.trace.reading import Process
    from machrv.trace.watching import Watcher

DEFAULT_FILE = "machrv-trace.html"
#: --bodies without a number.
_BODIES = 256
#: What a shell answers for a program that cannot be run, and that is not there.
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """See `machrv.cli`."""
    import argparse

    parser = commands.add_parser(
        "trace",
        help="run a program and draw what its processes do with ports",
        usage="machrv trace [-o FILE] [--chrome FILE] [--keep DIRECTORY] [--bodies[=BYTES]]\n"
        "                    -- PROGRAM [ARGUMENT ...]\n"
        "       machrv trace --draw DIRECTORY [-o FILE] [--chrome FILE]",
        description="Runs PROGRAM and records every message, right and process event in all of its processes\n"
        "that use machrv. Then draws one page that needs nothing else: a lane per process, an\n"
        "arrow per message.\n\n"
        "What messages say is not recorded unless you ask for it, and of command lines only the\n"
        "program's name.\n\n"
        "The exit status is PROGRAM's, 128 and the signal's number if one ended it; 126 or 127\n"
        "if it could not be run.",
        epilog="examples:\n  machrv trace -- python parent.py\n  machrv trace -o page.html --bodies=64 -- ./server --port 80\n"
        "  machrv trace --keep recording -- ./server\n  machrv trace --draw recording --chrome trace.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-o",
        dest="file",
        metavar="FILE",
        default=DEFAULT_FILE,
        help=f"the page (./{DEFAULT_FILE}); - is standard output: what PROGRAM writes there goes to standard error then",
    )
    parser.add_argument(
        "--chrome",
        metavar="FILE",
        default="",
        help="the same as Chrome trace JSON, for ui.perfetto.dev or chrome://tracing",
    )
    parser.add_argument("--keep", metavar="DIRECTORY", default="", help="keep the recording there, to be drawn later")
    parser.add_argument(
        "--draw", metavar="DIRECTORY", default="", help="draw a recording that was kept; no PROGRAM is run"
    )
    parser.add_argument(
        "--bodies",
        metavar="BYTES",
        nargs="?",
        type=_bytes,
        const=_BODIES,
        default=0,
        help=f"record the first BYTES of each message's body ({_BODIES})",
    )
    parser.add_argument("program", nargs=argparse.REMAINDER, metavar="PROGRAM", help="what to run, after --")
    parser.set_defaults(run=run)


def _bytes(text: str) -> int:
    import argparse

    if not text.isascii() or not text.isdigit() or not int(text) <= 1 << 20:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes from 0 to {1 << 20}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """The command. Returns the exit status."""
    program = arguments.program[1:] if arguments.program[:1] == ["--"] else arguments.program
    if arguments.draw:
        return _draw_kept(arguments, program)
    if not program:
        _say("no program was given: machrv trace -- PROGRAM [ARGUMENT ...]")
        return 2
    return record(program, arguments.file, arguments.bodies, arguments.chrome, arguments.keep)


def _draw_kept(arguments: argparse.Namespace, program: list[str]) -> int:
    """Draw what `--keep` has kept."""
    from machrv.trace.keeping import kept

    if program or arguments.keep or arguments.bodies:
        _say("--draw runs no program: it takes -o and --chrome, and nothing else")
        return 2
    if _unwritable(arguments.file, arguments.chrome):
        return 2
    try:
        words, processes = kept(arguments.draw)
        if not processes:
            _say(f"{arguments.draw} has no recording of machrv trace in it")
            return 2
        _draw(processes, words, arguments.file, arguments.chrome)
    except OSError as error:
        _say(f"{error.filename or arguments.draw}: {error.strerror or error}")
        return 2
    return 0


def _unwritable(*files: str) -> bool:
    """Whether one of the files cannot be written, which is said."""
    if files.count("-") > 1:
        _say("one of the files can go to standard output, and not both")
        return True
    for file in files:
        folder = os.path.dirname(os.path.abspath(file))
        if file not in ("", "-") and (not os.access(folder, os.W_OK | os.X_OK) or os.path.isdir(file)):
            _say(f"{file} cannot be written: choose another place")
            return True
    return False


def record(program: list[str], file: str, bodies: int = 0, chrome: str = "", keep_in: str = "") -> int:
    """Run `program`, draw what it did into `file` and `chrome`. Returns the exit status, which is the program's."""
    from machrv.cli.progress import Progress
    from machrv.trace.keeping import keep
    from machrv.trace.reading import read
    from machrv.trace.watching import Watcher

    if _unwritable(file, chrome) or (keep_in and _taken(keep_in)):
        return 2
    with Watcher() as watcher:
        try:
            status = _run(program, watcher, bodies, None if file != "-" and chrome != "-" else sys.stderr.fileno())
        except OSError as error:
            _say(f"{program[0]} cannot be run: {error.strerror or error}")
            return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
        watcher.settle()
        processes: list[Process] = []
        try:
            with Progress("machrv trace", lambda: f"{program[0]} has ended; drawing what was recorded"):
                processes = read(watcher.directory)
                watcher.tell(processes)
                if keep_in:
                    keep(watcher.directory, keep_in, program_words(program), processes)
                if processes:
                    _draw(processes, program, file, chrome)
        except OSError as error:
            watcher.keep = True
            with suppress(OSError):
                keep(watcher.directory, watcher.directory, program_words(program), processes)
            where = watcher.directory
            _say(
                f"{error.filename or file} cannot be written ({error.strerror}); what was recorded is in {where}: --draw it"
            )
            return status or 1
    if not processes:
        _say("no process of this run has used machrv, so there is nothing to draw")
    return status


def _taken(directory: str) -> bool:
    """Whether a recording cannot be kept there, which is said."""
    if os.path.isdir(directory) and not os.listdir(directory):
        return False
    if not os.path.exists(directory) and not _unwritable(directory):
        return False
    if os.path.exists(directory):
        _say(f"{directory} is there already, and is no empty directory: choose another place with --keep")
    return True


def program_words(program: list[str]) -> list[str]:
    """Of a command line, what a page shows: arguments may be secret."""
    from machrv.trace.recording import title

    return [title(program)]


def _run(program: list[str], watcher: Watcher, bodies: int, stdout: int | None = None) -> int:
    """Run the program to its end. Returns the exit status that a shell would give."""
    import subprocess

    from machrv.trace import BODIES_VARIABLE, VARIABLE

    environment = {**os.environ, VARIABLE: watcher.directory, BODIES_VARIABLE: str(bodies)}
    with _signals() as running:
        # What was open for this command is open for the program, as if the shell had started it.
        process = subprocess.Popen(program, env=environment, stdout=stdout, close_fds=False)
        running.append(process)
        watcher.watch(process.pid)
        while process.poll() is None:
            watcher.wait(0.5 if watcher.sees(process.pid) else 0.02)
        watcher.ended(process.pid, process.returncode)
    return 128 - process.returncode if process.returncode < 0 else process.returncode


class _signals:
    """Signals are the program's business while it runs: what this process gets is handed on.

    Not what the terminal sends: that goes to both, as they are in one process group. What is ignored stays ignored, also
    in the program; handlers do not get there (execve).
    """

    def __init__(self) -> None:
        self._running: list[Popen[bytes]] = []

    def __enter__(self) -> list[Popen[bytes]]:
        import signal

        self._before = {}
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._hand_on)
        return self._running

    def _hand_on(self, number: int, _: object) -> None:
        import signal

        if number in (signal.SIGINT, signal.SIGQUIT) and _is_in_foreground():
            return
        for process in self._running:
            process.send_signal(number)

    def __exit__(self, *_: object) -> None:
        import signal

        for number, handler in self._before.items():
            signal.signal(number, handler)


def _is_in_foreground() -> bool:
    """Whether the keyboard's signals come here, and so to the program as well."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _draw(processes: list[Process], program: list[str], file: str, chrome: str) -> None:
    from machrv.trace.events import tell
    from machrv.trace.export import chrome_json
    from machrv.trace.page import page
    from machrv.trace.wording import plural

    story = tell(processes)
    _write(file, page(story, program))
    if chrome:
        _write(chrome, chrome_json(story))
    for process in processes:
        if process.survived:
            _say(f"process {process.pid} is still running: what it does from now on is not recorded")
    failed = len(story.failures)
    count = sum(process.recorded for process in story.lanes)
    counts = f"{count} process{'' if count == 1 else 'es'}, {plural(story.messages, 'message')}"
    written = " and ".join(name for name in (file, chrome) if name and name != "-") or "standard output"
    _say(f"{counts}, {failed or 'nothing'} failed: {written}")


def _write(file: str, text: str) -> None:
    """Put the page where it belongs, whole or not at all; only its owner may read it."""
    import tempfile

    data = text.encode("utf-8", "replace")
    if file == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    if os.path.exists(file) and not os.path.isfile(file):
        with open(file, "wb") as device:
            device.write(data)
        return
    target = os.path.abspath(file)
    fd, temporary = tempfile.mkstemp(prefix=".machrv-trace-", dir=os.path.dirname(target))
    try:
        with open(fd, "wb") as page:
            page.write(data)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def _say(text: str) -> None:
    print(f"machrv trace: {text}", file=sys.stderr)
