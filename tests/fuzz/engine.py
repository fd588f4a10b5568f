"""Feeds a target until its time is up.

What belongs here: choosing inputs. What must never happen here: knowledge of what an input means. With atheris the
choice is guided by coverage; without, inputs of the corpus are mutated.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import threading
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any

CORPUS = Path(__file__).parent / "corpus"
_LONGEST = 4096


def make(name: str) -> Any:
    """The target of this name."""
    return import_module(f"tests.fuzz.{name}").Target()


def kept(name: str) -> list[bytes]:
    """The inputs that are kept for a target, the seeds first."""
    seeds: list[bytes] = import_module(f"tests.fuzz.{name}").seeds()
    return seeds + [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]


def replay(target: Any, inputs: list[bytes]) -> int:
    """Every input once. Returns what the target counts."""
    return sum(_call(target, data) for data in inputs)


def mutate_for(target: Any, inputs: list[bytes], seconds: float, seed: int = 0) -> tuple[int, int]:
    """Mutations of the inputs, the same ones for the same seed: (executions, what the target counts)."""
    source = random.Random(seed)
    until = monotonic() + seconds
    executions = counted = 0
    while monotonic() < until:
        counted += _call(target, mutated(source.choice(inputs), source))
        executions += 1
    return executions, counted


def mutated(data: bytes, source: random.Random) -> bytes:
    """Some bytes changed, inserted, repeated or cut off."""
    image = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 3, 8))):
        at = source.randrange(len(image) + 1)
        what = source.randrange(5)
        if what == 0 or not image:
            image[at:at] = source.randbytes(source.choice((1, 4, 16)))
        elif what == 1:
            del image[at : at + source.choice((1, 4, 16))]
        elif what == 2:
            image[at:at] = image[at : at + source.choice((4, 12, 32))]
        else:
            image[at % len(image)] = source.choice((0, 1, 0xFF, 0x80, source.randrange(256)))
    return bytes(image[:_LONGEST])


def _call(target: Any, data: bytes) -> int:
    try:
        count: int = target(data)
    except BaseException:
        print(f"input: {data!r}", file=sys.stderr)
        raise
    return count


def plain(name: str, seconds: float, seed: int = 0) -> str:
    """Mutate the corpus of a target: what came of it, in a line."""
    target = make(name)
    began = monotonic()
    try:
        inputs = kept(name)
        counted = replay(target, inputs)
        executions, more = mutate_for(target, inputs, seconds, seed)
    finally:
        target.close()
    return _line(name, len(inputs) + executions, counted + more, monotonic() - began)


def _line(name: str, executions: int, counted: int, seconds: float) -> str:
    what = getattr(import_module(f"tests.fuzz.{name}"), "COUNTED")
    return f"{name}: {executions} executions, {counted} {what}, {seconds:.0f} s"


def distilled(name: str, inputs: list[bytes]) -> list[bytes]:
    """Those of the inputs, the short ones first, that go a way through machrv which none before has gone."""
    seen: set[tuple[str, int, int]] = set()
    ways: set[tuple[str, int, int]] = set()

    def enter(frame: FrameType, event: str, _: object) -> Any:
        if "/machrv/" not in frame.f_code.co_filename:
            return None
        last = 0

        def line(frame: FrameType, event: str, _: object) -> Any:
            nonlocal last
            ways.add((frame.f_code.co_filename, last, frame.f_lineno))
            last = frame.f_lineno
            return line

        return line

    found = []
    threading.settrace(enter)  # for the dispatch thread, which the target starts
    target = make(name)
    try:
        for data in sorted(inputs, key=len):
            ways.clear()
            sys.settrace(enter)
            _call(target, data)
            sys.settrace(None)
            if not ways <= seen:
                seen |= ways
                found.append(data)
    finally:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
        target.close()
    return found


def has_atheris() -> bool:
    """Whether coverage can guide."""
    return find_spec("atheris") is not None


def guided(name: str, seconds: float, into: Path | None) -> None:
    """Let libFuzzer choose. Does not return: it ends the process, with status 0 if nothing was found.

    New inputs go to `into`, where one is given. Nothing of machrv may have been imported: it could not be instrumented.
    """
    import atheris

    with atheris.instrument_imports(include=["machrv"]):
        found = import_module(f"tests.fuzz.{name}")
        import_module("machrv.kernel.linux")
        target = found.Target()
    folder = Path(tempfile.mkdtemp(prefix=f"machrv-fuzz-{name}-"))
    seeds = folder / "seeds"
    new = into or folder / "new"
    for needed in (seeds, new):
        needed.mkdir(exist_ok=True)
    for number, data in enumerate(kept(name)):
        (seeds / f"{number:04}").write_bytes(data)
    began = monotonic()
    counts = [0, 0]

    def once(data: bytes) -> None:
        counts[1] += target(data)
        counts[0] += 1
        if counts[0] % 16 == 0 and monotonic() - began > seconds:
            target.close()
            print(_line(name, *counts, monotonic() - began), flush=True)
            shutil.rmtree(folder)
            os._exit(0)  # libFuzzer goes on for ever, and its own end keeps nothing.

    arguments = [sys.argv[0], str(new), str(seeds), f"-max_len={_LONGEST}", "-timeout=30", "-rss_limit_mb=0"]
    arguments += ["-verbosity=0", f"-artifact_prefix={folder}/", "-len_control=20"]
    atheris.Setup(arguments, once)
    atheris.Fuzz()
