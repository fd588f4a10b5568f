"""`python -m tests.fuzz [--seconds N] [TARGET...]`: fuzz each target for so long, one after the other. With `--orders N`,
hypothesis looks for orders of events instead, N for each target.

Exit status 0 if nothing was found. What is found is printed, with the input; put it into corpus/TARGET, and write a test.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from . import NATIVE, TARGETS, engine

EXAMPLES = """\
examples:
  python -m tests.fuzz                                    every target, a minute each
  python -m tests.fuzz codec --seconds 600 --into found   one target, its new inputs kept in found/codec
  python -m tests.fuzz codec --distil found               take into the corpus what of them is new
  python -m tests.fuzz --orders 2000 packets              so many orders of events, chosen by hypothesis
"""


def main() -> int:
    """Each target in a process of its own: libFuzzer ends the one that it runs in."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", default=list(TARGETS), help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target (default: 60)")
    parser.add_argument("--into", type=Path, help="put new inputs into this folder")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations, where atheris does not choose")
    parser.add_argument("--distil", type=Path, metavar="FOLDER", help="keep what is new in FOLDER/TARGET in the corpus")
    parser.add_argument("--plain", action="store_true", help="mutate the corpus, even where atheris is installed")
    parser.add_argument(
        "--orders", type=int, metavar="N", help="so many orders of events, chosen by hypothesis, instead"
    )
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(unknown)}")
    if arguments.here:
        return _here(arguments.targets[0], arguments)
    if arguments.distil:
        return _distil(arguments.targets, arguments.distil)
    if arguments.orders:
        from . import machines

        for name in (name for name in arguments.targets if name not in NATIVE):
            machines.run(name, arguments.orders)
            print(f"{name}: {arguments.orders} orders of events")
        return 0
    status = 0
    for name in arguments.targets:
        print(f"fuzzing {name} for {arguments.seconds:g} s ...", flush=True)
        command = [sys.executable, "-m", "tests.fuzz", "--here", name]
        command += [f"--seconds={arguments.seconds}", f"--seed={arguments.seed}"]
        command += ["--plain"] if arguments.plain else []
        command += [f"--into={arguments.into / name}"] if arguments.into else []
        status |= subprocess.run(command).returncode != 0
    return status


def _here(name: str, arguments: argparse.Namespace) -> int:
    if arguments.into is not None:
        arguments.into.mkdir(parents=True, exist_ok=True)
    if not arguments.plain and name in NATIVE:
        from . import native

        if native.has_libfuzzer():
            return native.guided(name.removeprefix("native_"), engine.kept(name), arguments.seconds, arguments.into)
    elif not arguments.plain and engine.has_atheris():
        engine.guided(name, arguments.seconds, arguments.into)
    print(engine.plain(name, arguments.seconds, arguments.seed))
    return 0


def _distil(targets: list[str], folder: Path) -> int:
    for name in targets:
        print(f"playing the inputs of {name} ...", flush=True)
        seeds = len(engine.kept(name)) - len(list((engine.CORPUS / name).glob("*")))
        inputs = engine.kept(name)[seeds:] + [path.read_bytes() for path in sorted((folder / name).glob("*"))]
        (engine.CORPUS / name).mkdir(parents=True, exist_ok=True)
        for path in (engine.CORPUS / name).glob("*"):
            path.unlink()
        for data in engine.distilled(name, inputs):
            (engine.CORPUS / name / sha256(data).hexdigest()[:16]).write_bytes(data)
        print(f"{name}: {len(list((engine.CORPUS / name).glob('*')))} kept of {len(inputs)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
