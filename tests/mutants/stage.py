"""A copy of the tree, in which faults are planted and tests are run. The tree itself is never touched."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from .fault import Fault, planted

ROOT = Path(__file__).parent.parent.parent

#: What of the tree the tests need.
NEEDED = ("machrv", "include", "tests", "bench", "docs", "README.md", "build_ffi.py", "pyproject.toml")
NATIVE = Path("machrv/native/linux")

#: Seconds for each test or file of tests, after which they are ended. A test must fail, and not hang.
PATIENCE = 150

#: pytest's exit status
PASSED, FAILED = 0, 1


class Outcome(NamedTuple):
    """How the tests ended: their exit status (negative: a signal; None: they hung), what they said, and how long it took."""

    status: int | None
    said: str
    seconds: float


class Stage:
    """The copy. `build` is where objects of the C stay from fault to fault."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "tree"
        self._build = folder / "build"
        self._build.mkdir()
        self._objects: dict[str, Path] = {}
        self.root.mkdir()
        for name in NEEDED:
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", ".hypothesis", "_build")
                shutil.copytree(ROOT / name, self.root / name, symlinks=True, ignore=ignored)
            else:
                shutil.copy2(ROOT / name, self.root / name)

    def play(self, fault: Fault) -> Outcome:
        """Plant the fault, run the tests that ought to notice, and take it out again. Raises NoLongerApplies."""
        path = self.root / fault.file
        before, text = path.read_text(), planted(fault, self.root)
        try:
            self._write(path, text)
            if fault.compiled:
                self._link({path.name: self._compile(path, self._build / "planted.o")})
            return self.run(fault.tests)
        finally:
            self._write(path, before)
            if fault.compiled:
                self._link({})

    def run(self, tests: tuple[str, ...]) -> Outcome:
        """Run tests as the copy has them, and end what they have started with them."""
        began = monotonic()
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        process = subprocess.Popen(
            [*command, *(f"tests/{test}" for test in tests)],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": str(self.root)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            said, status = process.communicate(timeout=PATIENCE * len(tests))[0], process.returncode
        except subprocess.TimeoutExpired:
            said, status = "", None
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)  # Whoever is left.
            except ProcessLookupError:
                pass
            process.communicate()
        return Outcome(status, said, monotonic() - began)

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.write_text(text)
        if path.suffix == ".py":  # What was compiled is told from its source by the second.
            Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)

    # -- the compiled module ---------------------------------------------------------------------------------------------

    def _link(self, instead: dict[str, Path]) -> None:
        """Make the module of the objects, some of them exchanged."""
        if not self._objects:
            self._compile_all()
        objects = [str(path) for path in {**self._objects, **instead}.values()]
        made = self._build / "_mach.so"
        self._run(*_compiler(), "-shared", "-pthread", "-o", str(made), *objects)
        (module,) = self.root.glob("machrv/_mach*.so")
        made.replace(module)  # Another file: who has the old one mapped keeps it.

    def _compile_all(self) -> None:
        binding = self._build / "_mach.c"
        emit = "import sys, build_ffi; build_ffi.ffibuilder.emit_c_code(sys.argv[1])"
        self._run(sys.executable, "-c", emit, str(binding))
        sources = [binding, *sorted((self.root / NATIVE).glob("*.c"))]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            made = pool.map(lambda source: self._compile(source, self._build / f"{source.stem}.o"), sources)
            objects = dict(zip((source.name for source in sources), made))
        self._objects = objects

    def _compile(self, source: Path, into: Path) -> Path:
        flags = ["-std=gnu11", "-O1", "-fPIC", "-fvisibility=hidden", "-pthread", "-w"]
        include = [f"-I{self.root / 'include'}", f"-I{self.root / NATIVE}", f"-I{sysconfig.get_path('include')}"]
        self._run(*_compiler(), *flags, *include, "-c", str(source), "-o", str(into))
        return into

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, cwd=self.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}")


def _compiler() -> list[str]:
    return os.environ.get("CC", "cc").split()
