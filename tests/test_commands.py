"""Every command that there is: its --help shows how it is used, and what it shows is what it understands."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from machrv import cli
from machrv.cli.progress import Progress

ROOT = Path(__file__).parent.parent

#: What is run as a program of its own: by people who work on machrv.
TOOLS = [["-m", f"tests.{path.parent.name}"] for path in sorted(ROOT.glob("tests/*/__main__.py"))]
TOOLS += [["-m", "tests.surface"], ["build_ffi.py"], ["-m", "tests.release.macos"], ["-m", "bench"]]
TOOLS = [
    tool
    for tool in TOOLS
    if (ROOT / tool[0]).exists()
    or (ROOT / f"{tool[-1].replace('.', '/')}.py").exists()
    or (ROOT / tool[-1].replace(".", "/") / "__main__.py").exists()
]


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its subcommands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from parsers(command)


def examples(text: str) -> list[str]:
    """The command lines under "examples:", without what is said of them (behind three spaces)."""
    lines = re.search(r"^examples?:\n((?:  .*\n|\n)*)", text + "\n", re.MULTILINE)
    told = (
        re.sub(r"\n {6}", " ", lines[1]).splitlines() if lines else []
    )  # What is further in belongs to the line before.
    return [line.strip().split("   ")[0] for line in told if line.strip()]


COMMANDS = list(parsers(cli.parser()))


@pytest.mark.parametrize("command", COMMANDS, ids=[command.prog for command in COMMANDS])
def test_help_shows_examples_that_are_understood(command: argparse.ArgumentParser) -> None:
    """Each command of `machrv` has examples of itself, and each can be parsed."""
    shown = [line for line in examples(command.format_help()) if "machrv" in line]
    assert shown, f"`{command.prog} --help` has no example"
    assert any(line.startswith(command.prog) for line in shown), shown
    for line in shown:
        words = shlex.split(line)
        if "machrv" in words:
            words = words[words.index("machrv") + 1 :]
            end = next((place for place, word in enumerate(words) if word in ("|", "<", ">")), len(words))
            cli.parser().parse_args(words[:end])


@pytest.mark.parametrize("command", COMMANDS, ids=[command.prog for command in COMMANDS])
def test_help_says_what_each_argument_is(command: argparse.ArgumentParser, monkeypatch: pytest.MonkeyPatch) -> None:
    """No option or argument is left unexplained, and no line is much wider than a terminal."""
    monkeypatch.setenv("COLUMNS", "80")
    subcommands = argparse._SubParsersAction
    unexplained = [
        action.dest for action in command._actions if not action.help and not isinstance(action, subcommands)
    ]
    assert unexplained == []
    assert [line for line in command.format_help().splitlines() if len(line) > 92] == []


@pytest.mark.parametrize("tool", TOOLS, ids=[tool[-1] for tool in TOOLS])
def test_the_tools_show_examples(tool: list[str]) -> None:
    """`--help` of what contributors run: examples, an exit status of 0, and nothing is started."""
    done = subprocess.run([sys.executable, *tool, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (0, "") == (done.returncode, done.stderr)
    shown = examples(done.stdout)
    assert [line for line in shown if line.startswith("python ") and tool[-1] in line], done.stdout


def test_no_command_is_an_error_that_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    """`machrv` alone."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([])
    assert 2 == stopped.value.code
    assert "machrv --help" in capsys.readouterr().err


def test_completion_is_the_shells_through_argcomplete(tmp_path: Path) -> None:
    """Where argcomplete is installed, it finds the marker and completes commands and options; nobody has to have it."""
    pytest.importorskip("argcomplete")
    said = tmp_path / "completions"
    line = "machrv d"
    environment = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SUPPRESS_SPACE": "1", "COMP_LINE": line}
    environment |= {"COMP_POINT": str(len(line)), "_ARGCOMPLETE_STDOUT_FILENAME": str(said)}
    subprocess.run([sys.executable, "-m", "machrv"], cwd=ROOT, env={**os.environ, **environment}, check=True)
    assert {"demo", "decode", "doctor"} == {word.strip() for word in said.read_text().split("\n")}
    assert "PYTHON_ARGCOMPLETE_OK" in Path(cli.__file__).read_text()[:1024]


def test_a_run_that_takes_long_says_what_it_is_doing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line comes once the time is over, on standard error; a quick run says nothing."""
    import threading

    said = threading.Event()

    def doing() -> str:
        said.set()
        return "waiting for a test"

    with Progress("quick", doing):
        pass
    monkeypatch.setattr("machrv.cli.progress.FIRST", 0.0)
    with Progress("slow", doing):
        assert said.wait(30)
    assert capsys.readouterr() == ("", "slow: waiting for a test\n")
