"""Targets that are C alone, without Python: tests/fuzz/native/*.c, under AddressSanitizer and UndefinedBehaviorSanitizer.

What belongs here: compiling one, and feeding it. With clang's libFuzzer coverage guides; without, the engine's mutations go to
the same program through a pipe.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

from tests.sanitize.programs import ADDRESS, supports
from tests.sanitize.static import FLAGS, SOURCES, compiler

FOLDER = Path(__file__).parent / "native"
_ENVIRONMENT = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0:handle_abort=1:quarantine_size_mb=16"}


def has_libfuzzer() -> bool:
    """Whether clang can link with it."""
    if shutil.which("clang") is None:
        return False
    text = b"int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return d && n > 9; }"
    command = ["clang", "-fsanitize=fuzzer,address", "-x", "c", "-", "-o", "/dev/null"]
    return subprocess.run(command, input=text, capture_output=True).returncode == 0


def _compiled(folder: Path, name: str, command: list[str], *more: str) -> str:
    program = folder / name
    sources = [str(FOLDER / f"{name}.c"), *(str(FOLDER / one) for one in more), *map(str, SOURCES)]
    subprocess.run([*command, *FLAGS, "-o", str(program), *sources], check=True)
    return str(program)


class Program:
    """A target: a process that is sent inputs."""

    def __init__(self, name: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="machrv-fuzz-")
        options = ADDRESS if supports(*ADDRESS) else ["-g", "-O1"]
        program = _compiled(Path(self._folder.name), name, [compiler(), *options], "driver.c")
        self._process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**_ENVIRONMENT, "TMPDIR": self._folder.name}
        )

    def __call__(self, data: bytes) -> int:
        """One input. Raises RuntimeError if the program has not come to its end: it has said why."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(struct.pack("=I", len(data)) + data)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        if not self._process.stdout.read(1):
            raise RuntimeError(f"the program has ended: {self._process.wait()}")
        return 1

    def close(self) -> None:
        """End the program."""
        self._process.communicate()
        self._folder.cleanup()


def guided(name: str, inputs: list[bytes], seconds: float, into: Path | None) -> int:
    """Let libFuzzer choose: its exit status. New inputs go to `into`, where one is given."""
    with tempfile.TemporaryDirectory(prefix="machrv-fuzz-") as made:
        folder = Path(made)
        seeds, new = folder / "seeds", into or folder / "new"
        for needed in (seeds, new):
            needed.mkdir(exist_ok=True)
        for number, data in enumerate(inputs):
            (seeds / f"{number:04}").write_bytes(data)
        options = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=undefined", "-g", "-O1"]
        program = _compiled(folder, name, ["clang", *options])
        # Without the names of functions: to tell them, libFuzzer starts a program, whose pipes are counted as left behind.
        told = [f"-max_total_time={int(seconds)}", "-max_len=4096", "-rss_limit_mb=0", "-timeout=120", "-verbosity=0"]
        told += ["-print_funcs=0", "-print_final_stats=1", f"-artifact_prefix={os.getcwd()}/"]
        return subprocess.run([program, *told, str(new), str(seeds)], env={**_ENVIRONMENT, "TMPDIR": made}).returncode
