"""`python -m tests.sanitize asan [PYTEST ARGUMENT...]`: the tests, with the compiled module under AddressSanitizer.
`... ubsan`: under UndefinedBehaviorSanitizer. `... primitives`: the C primitives under both, alone. `... valgrind`: the
same, looking for leaks of memory and descriptors. Exit status 0 if nothing was found.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DEBUG = ["-fno-omit-frame-pointer", "-g", "-O1"]
ADDRESS = ["-fsanitize=address", *DEBUG]
UNDEFINED = ["-fsanitize=undefined", "-fno-sanitize-recover=all", *DEBUG]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", *DEBUG]
#: they compile machrv anew, for another system, or not at all: nothing of what is watched runs in them
ELSEWHERE = (
    "test_build",
    "test_docs",
    "test_macos_build",
    "test_packaging",
    "test_sanitize",
    "test_typing",
)
#: what cannot run under AddressSanitizer: children that are started without this environment, or with little memory to
#: map; a browser; an injected ENOMEM that hits the sanitizer's own memory; addresses that are meant to be bad, which the
#: sanitizer looks at before the kernel does; counts of mappings and threads, a growth, and a time, that include the sanitizer's own
APART = (
    "validation_hostile",
    "test_a_lie_about_sizes_costs_nothing",
    "test_trace_page",
    "test_faults",
    "test_what_coverage_leads_to",
    "(test_fuzz and server)",
    "test_memory_beside_a_message_arrives_whole",
    "test_memory_in_a_message_that_is_destroyed_is_given_back",
    "test_command_runs_all_files_in_processes",
    "test_a_right_that_is_closed_while_somebody_waits",
    "test_a_right_that_comes_back_is_waited_for_again",
    "test_soak",
)

EXAMPLES = """\
examples:
  python -m tests.sanitize primitives                    half a minute: the C alone
  python -m tests.sanitize valgrind                      the same, looking for leaks
  python -m tests.sanitize asan                          all tests: a quarter of an hour
  python -m tests.sanitize ubsan tests/test_rights.py    some of them
"""


def main(arguments: list[str]) -> int:
    """The command."""
    commands = {"asan": asan, "ubsan": ubsan, "primitives": primitives, "valgrind": valgrind}
    if not arguments or arguments[0] not in commands:
        asked = bool({"-h", "--help"} & {*arguments})
        print(f"{__doc__}\n{EXAMPLES}", end="", file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    print(f"{arguments[0]}: compiling, then running what was compiled ...", flush=True)
    with tempfile.TemporaryDirectory(prefix="machrv-sanitize-") as folder:
        return commands[arguments[0]](Path(folder), arguments[1:])


def compiler() -> str:
    """The C compiler."""
    return os.environ.get("CC", "cc")


def program(folder: Path, options: list[str]) -> list[str]:
    """Compile the primitives with what calls them all; the command line to run it."""
    sources = [str(ROOT / "tests/sanitize/primitives.c"), *map(str, sorted(ROOT.glob("machrv/native/linux/*.c")))]
    built = folder / "primitives"
    flags = ["-Wall", "-Wl,--wrap=recvmsg", f"-I{ROOT / 'include'}", "-o", str(built)]
    subprocess.run([compiler(), *options, *flags, *sources], check=True)
    (folder / "names").mkdir()
    return [str(built), str(folder / "names")]


def primitives(folder: Path, _: list[str]) -> int:
    """The primitives under both sanitizers."""
    return subprocess.run(program(folder, SANITIZE)).returncode


def valgrind(folder: Path, _: list[str]) -> int:
    """The primitives under valgrind: no leak, no read of what was never written, no descriptor left."""
    report = folder / "report"
    watch = ["valgrind", "--quiet", "--leak-check=full", "--show-leak-kinds=all", "--error-exitcode=66"]
    watch += ["--track-fds=yes", f"--log-file={report}", f"--suppressions={Path(__file__).with_name('valgrind.supp')}"]
    done = subprocess.run([*watch, *program(folder, ["-g", "-O1"])])
    text = report.read_text()
    print(text, end="")
    opened = text.count("Open file descriptor") + text.count("Open AF_UNIX")
    return done.returncode or opened - text.count("<inherited from parent>")


def asan(folder: Path, arguments: list[str]) -> int:
    """The tests under AddressSanitizer. Its library has to be there before any other: every process preloads it."""
    library = subprocess.run([compiler(), "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    # The buffers that the primitives fill are larger than what Python's own allocator takes: they are watched.
    # What CPython itself leaves at its end is not ours; the primitives allocate nothing (see valgrind).
    options = {
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": f"detect_leaks=0:handle_sigbus=0:exitcode=66:log_path={folder}/reports/asan",
    }
    return suite(folder, arguments, ADDRESS, options, APART)


def ubsan(folder: Path, arguments: list[str]) -> int:
    """The tests under UndefinedBehaviorSanitizer."""
    options = {"UBSAN_OPTIONS": f"print_stacktrace=1:log_path={folder}/reports/ubsan"}
    return suite(folder, arguments, UNDEFINED, options, ())


def suite(folder: Path, arguments: list[str], flags: list[str], options: dict[str, str], apart: tuple[str, ...]) -> int:
    """The tests, in a copy of the tree whose module is compiled with these flags. Every process of a test is watched."""
    tree = folder / "tree"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tree / name)
    compiling = {**os.environ, "CFLAGS": " ".join(flags), "LDFLAGS": " ".join(flags)}
    subprocess.run([sys.executable, "build_ffi.py"], cwd=tree, check=True, env=compiling)
    reports = folder / "reports"
    reports.mkdir()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [f"--ignore-glob=*/{name}*.py" for name in ELSEWHERE]
    if apart:
        command += ["-k", " and ".join(f"not {name}" for name in apart)]
    environment = {**os.environ, **options, "PYTHONPATH": str(tree)}
    status = subprocess.run([*command, *(arguments or ["tests"])], cwd=tree, env=environment).returncode
    found = sorted(reports.iterdir())
    for report in found:
        print(report.read_text())
    print(f"{len(found)} reports of the sanitizer")
    return status or len(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
