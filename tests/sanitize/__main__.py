"""`python -m tests.sanitize asan [PYTEST ARGUMENT...]`: the tests, with the compiled module under AddressSanitizer and
UndefinedBehaviorSanitizer. `... primitives`: the C primitives under both, alone. `... valgrind`: the same, looking for
leaks of memory and descriptors. Exit status 0 if nothing was found.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g", "-O1"]
#: what the tests need of the tree, and what takes long under a sanitizer without running a line of C
PARTS = (
    "machrv",
    "include",
    "tests",
    "bench",
    "docs",
    ".ci",
    ".github",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "MANIFEST.in",
    "build_ffi.py",
    "setup.py",
    "pyproject.toml",
)
UNTOUCHED = (
    "test_packaging.py",
    "test_build.py",
    "test_macos_build.py",
    "test_sanitize.py",
    "test_soak.py",
    "test_fuzz.py",
)
#: what cannot be under a sanitizer: children that are started without this environment, an injected ENOMEM that hits the
#: sanitizer's own memory, and a count of mappings that includes the sanitizer's
APART = ("validation_hostile", "test_faults", "test_memory_beside_a_message_arrives_whole")


EXAMPLES = """\
examples:
  python -m tests.sanitize primitives                    half a minute: the C alone
  python -m tests.sanitize valgrind                      the same, looking for leaks
  python -m tests.sanitize asan tests/test_rights.py     some tests, or without an argument all of them
"""


def main(arguments: list[str]) -> int:
    """The command."""
    commands = {"asan": asan, "primitives": primitives, "valgrind": valgrind}
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
    flags = ["-Wall", f"-I{ROOT / 'include'}", "-o", str(built)]
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
    """The tests, in a copy of the tree whose module is built for it. Every process of a test is watched."""
    for part in PARTS:
        source, ignore = ROOT / part, shutil.ignore_patterns("*.so", "__pycache__", "build")
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=ignore)
        elif source.exists():
            shutil.copy(source, folder / part)
    flags = " ".join(SANITIZE)
    subprocess.run(
        [sys.executable, "build_ffi.py"], cwd=folder, check=True, env={**os.environ, "CFLAGS": flags, "LDFLAGS": flags}
    )
    reports = folder / "reports"
    reports.mkdir()
    libraries = [
        subprocess.run([compiler(), f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        "PYTHONPATH": str(folder),
        # The buffers that the primitives fill are larger than what Python's own allocator takes: they are watched.
        # What CPython itself leaves at its end is not ours; the primitives allocate nothing (see valgrind).
        "ASAN_OPTIONS": f"detect_leaks=0:exitcode=66:log_path={reports}/asan",
        "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={reports}/ubsan",
    }
    ignored = [f"--ignore=tests/{name}" for name in UNTOUCHED]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *ignored]
    command += ["-k", " and ".join(f"not {name}" for name in APART), *(arguments or ["tests"])]
    status = subprocess.run(command, cwd=folder, env=environment).returncode
    found = sorted(reports.iterdir())
    for report in found:
        print(report.read_text())
    print(f"{len(found)} reports of the sanitizers")
    return status or len(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
