"""The walls of the house, read from its code: which module imports which, where code is, how long it is.

What fails is named with its file and line. What each room is for is in CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "machrv"

#: The rooms, lowest first: what is in one imports that room and those before it, and no other.
LAYERS = (
    "machrv._mach",
    "machrv.constants",
    "machrv.errors",
    "machrv.log",
    "machrv.message",
    "machrv.kernel",
    "machrv.rights",
    "machrv.channel",
    "machrv.requirement",
    "machrv.rendezvous",
    "machrv.aio",
    "machrv.anatomy",
    "machrv.trace",
    "machrv.doctor",
    "machrv.cli",
    "machrv.__main__",
    "machrv",
)
#: Who may import the compiled module, `machrv._mach`.
BELOW = ("machrv.constants", "machrv.message", "machrv.kernel")
#: Only these may be defined in an `__init__.py`: it hands names on.
HANDS_ON = {"__getattr__", "__dir__"}
LONGEST = 400


class Arrow(NamedTuple):
    """One module imports another, at this line."""

    source: str
    line: int
    target: str
    file: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.source} imports {self.target}"


def modules(root: Path) -> dict[str, Path]:
    """Every module of the package in `root`, by name."""
    paths = sorted((root / "machrv").rglob("*.py"))
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import in the code, those within functions too; not those that only type checkers see."""
    if isinstance(node, ast.If) and any(_word(part) == "TYPE_CHECKING" for part in ast.walk(node.test)):
        children: Iterator[ast.AST] = iter(node.body if isinstance(node.test, ast.UnaryOp) else node.orelse)
    else:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        children = ast.iter_child_nodes(node)
    for child in children:
        yield from statements(child)


def _word(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def arrows(root: Path = ROOT) -> list[Arrow]:
    """Who imports whom. `from package import name` leads to the module of that name, if there is one, else to the package."""
    known = modules(root)
    found = []
    for source, path in known.items():
        parts = source.split(".")
        for statement in statements(ast.parse(path.read_text())):
            if isinstance(statement, ast.Import):
                targets = [name.name for name in statement.names]
            else:
                base = statement.module or ""
                if statement.level:
                    package = parts if path.name == "__init__.py" else parts[:-1]
                    package = package[: len(package) - statement.level + 1]
                    base = ".".join([*package, *([base] if base else [])])
                within = [f"{base}.{name.name}" for name in statement.names]
                targets = [name if name in known or name == "machrv._mach" else base for name in within]
            for target in dict.fromkeys(targets):
                if target != source and (target in known or target == "machrv._mach"):
                    found.append(Arrow(source, statement.lineno, target, str(path.relative_to(root))))
    return found


def layer(module: str) -> int:
    """The number of the room that a module is in."""
    for number, room in enumerate(LAYERS[:-1]):
        if module == room or module.startswith(f"{room}."):
            return number
    assert module == "machrv", f"{module} is in no room: {', '.join(LAYERS)}"
    return len(LAYERS) - 1


def circles(found: list[Arrow]) -> list[list[Arrow]]:
    """For every module that leads back to itself, the shortest way there; each circle once."""
    outgoing: dict[str, list[Arrow]] = {}
    for arrow in found:
        outgoing.setdefault(arrow.source, []).append(arrow)
    seen: set[frozenset[str]] = set()
    rounds = []
    for start in outgoing:
        ways: dict[str, list[Arrow]] = {start: []}
        queue = [start]
        while queue:
            here = queue.pop(0)
            for arrow in outgoing.get(here, []):
                if arrow.target == start:
                    way = [*ways[here], arrow]
                    members = frozenset(step.source for step in way)
                    if members not in seen:
                        seen.add(members)
                        rounds.append(way)
                    queue = []
                    break
                if arrow.target not in ways:
                    ways[arrow.target] = [*ways[here], arrow]
                    queue.append(arrow.target)
    return rounds


def test_no_module_imports_itself_in_the_end() -> None:
    """No circles, nor any that an import within a function hides."""
    found = circles(arrows())
    assert not found, "\n\n".join("\n".join(map(str, way)) for way in found)


def test_imports_point_down() -> None:
    """A room imports itself and those below."""
    up = [arrow for arrow in arrows() if layer(arrow.target) > layer(arrow.source)]
    assert not up, "\n".join(map(str, up))


def test_only_the_kernel_and_the_codec_know_the_compiled_module() -> None:
    """Others get its constants from `machrv.constants`, and its calls from a `Kernel`."""
    found = [
        arrow
        for arrow in arrows()
        if arrow.target == "machrv._mach"
        and not any(arrow.source == room or arrow.source.startswith(f"{room}.") for room in BELOW)
    ]
    assert not found, "\n".join(map(str, found))


def test_no_module_is_too_long() -> None:
    """Past 400 lines it is two modules."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        file, lines = str(path.relative_to(ROOT)), path.read_text().count("\n")
        if lines > LONGEST:
            found.append(f"{file}:{lines}: {lines} lines, and at most {LONGEST} are read in one go")
    assert not found, "\n".join(found)


def test_packages_hand_names_on_and_define_nothing() -> None:
    """An `__init__.py` has imports, tables of names, and the lazy `__getattr__`."""
    found = []
    for path in sorted(PACKAGE.rglob("__init__.py")):
        file = str(path.relative_to(ROOT))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                if node.name not in HANDS_ON:
                    found.append(f"{file}:{node.lineno}: {node.name} is defined here: give it a module")
    assert not found, "\n".join(found)


def test_no_c_of_ours_knows_python() -> None:
    """C is bound to Python by CFFI alone."""
    found = []
    for path in sorted([*PACKAGE.rglob("*.[ch]"), *(ROOT / "include").rglob("*.h")]):
        file = str(path.relative_to(ROOT))
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if any(word in line for word in ("Python.h", "PyObject", "PyMethodDef", "PyInit_")):
                found.append(f"{file}:{number}: {line.strip()}")
    assert not found, "\n".join(found)


# -- that a broken wall is seen ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "circle", "up"),
    [
        ({"errors.py": "", "rights/a.py": "import machrv.errors"}, 0, 0),
        ({"rights/a.py": "from machrv.rights import b", "rights/b.py": "def f():\n    import machrv.rights.a"}, 1, 0),
        (
            {"rights/a.py": "if TYPE_CHECKING:\n    import machrv.rights.b", "rights/b.py": "import machrv.rights.a"},
            0,
            0,
        ),
        ({"rights/a.py": "from . import b", "rights/b.py": "from .a import name"}, 1, 0),
        ({"errors.py": "def f():\n    from machrv.cli import main", "cli/__init__.py": "import machrv.errors"}, 1, 1),
        ({"kernel/choice.py": "from machrv.trace import kernel", "trace/kernel.py": ""}, 0, 1),
    ],
    ids=["none", "in a function", "for checkers", "relative", "up and down", "up"],
)
def test_a_circle_and_an_arrow_up_are_found(tmp_path: Path, files: dict[str, str], circle: int, up: int) -> None:
    """In a house that is built for it."""
    for name, text in {"__init__.py": "", **files}.items():
        path = tmp_path / "machrv" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    found = arrows(tmp_path)
    assert len(circles(found)) == circle
    assert sum(layer(arrow.target) > layer(arrow.source) for arrow in found) == up
    assert all(str(arrow).startswith(f"{arrow.file}:{arrow.line}: ") for arrow in found)
