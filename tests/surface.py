"""The public surface as text: names, signatures, members, bases, constants, and the command line.

    python -m tests.surface           print it
    python -m tests.surface --renew   write it to tests/public_surface.txt, which tests/test_public_surface.py holds it against

What belongs here: how the surface is put into words, the same ones on every Python that is supported. What must never
happen here: a judgement. Whatever differs from the recorded text is for a person to see, and to record if it is meant.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import FunctionType

from machrv import cli

RECORD = Path(__file__).with_name("public_surface.txt")
INCLUDE = Path(__file__).parent.parent / "include" / "machrv"

#: What users may import from; everything else in the package is nobody's but ours.
MODULES = (
    "machrv",
    "machrv.aio",
    "machrv.errors",
    "machrv.message",
    "machrv.kernel",
    "machrv.kernel.memory",
    "machrv.kernel.linux",
    "machrv.kernel.darwin",
)

#: The headers whose constants `machrv.message` has on every platform.
HEADERS = ("kern_return", "port", "message", "notify", "bootstrap", "rendezvous")

_HEAD = """\
# The public surface of machrv. Renew it with `python -m tests.surface --renew`, read the difference, and tell users of it
# in CHANGELOG.md: what is here is what they build on.
"""

#: Of the names with two underscores, those that are no more than bookkeeping.
_BOOKKEEPING = {
    "__getnewargs__",
    "__reduce__",
    "__reduce_ex__",
    "__annotate__",  # these two Python 3.14 and newer make themselves
    "__annotate_func__",
    "__new__",
    "__init__",
    "__repr__",
    "__str__",
    "__del__",
}

_ABSENT = object()


def surface() -> str:
    """All of it."""
    sections = [_HEAD]
    known: dict[int, str] = {}
    modules = {name: import_module(name) for name in MODULES}
    for name, module in modules.items():
        for public in _names(module):
            known.setdefault(id(getattr(module, public)), f"{name}.{public}")
    for name, module in modules.items():
        lines: list[str] = []
        for public in _names(module):
            value = getattr(module, public)
            where = known[id(value)]
            lines += _described(public, value, known) if where == f"{name}.{public}" else [f"{public}: see {where}"]
        sections.append("\n".join([f"## {name}", "", *lines, ""]))
    sections.append("\n".join(["## constants of machrv.message", "", *_constants(), ""]))
    sections.append("\n".join(["## the command line", "", *_commands(cli.parser()), ""]))
    return "\n".join(sections)


def _names(module: object) -> list[str]:
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return sorted(listed)
    here = getattr(module, "__name__")
    return sorted(
        name for name, value in vars(module).items() if not name.startswith("_") and _home(value).startswith(here)
    )


def _home(value: object) -> str:
    return getattr(value, "__module__", "") if isinstance(value, (type, FunctionType)) else ""


def _described(name: str, value: object, known: Mapping[int, str]) -> Iterator[str]:
    if isinstance(value, type):
        yield from _class(name, value, known)
    elif isinstance(value, FunctionType):
        yield f"{_def(value)} {name}{_signature(value)}"
    else:
        yield f"{name}: {type(value).__name__}"


def _class(name: str, cls: type, known: Mapping[int, str]) -> Iterator[str]:
    """A class, without what it has as a public base has it."""
    named = ", ".join(known.get(id(base), base.__name__).removeprefix("machrv.") for base in _bases(cls))
    yield f"class {name}{f'({named})' if named else ''}"
    constructor = _constructor(cls)
    if constructor is not None:
        yield f"    {name}{_signature(constructor, bound=True).partition(' -> ')[0]}"
    fields: tuple[str, ...] = getattr(cls, "_fields") if hasattr(cls, "_field_defaults") else ()
    if fields:
        yield f"    in this order: {', '.join(fields)}"
    bases = [base for base in cls.__mro__[1:] if id(base) in known]
    inherited = {line for base in bases for line in map(str, _members(base, set()).values())}
    inherited |= {line.removeprefix("abstract ") for line in inherited}
    for member, line in sorted(_members(cls, set(fields)).items()):
        if isinstance(line, type):
            yield from (f"    {inner}" for inner in _class(member, line, known))
        elif line not in inherited:
            yield f"    {line}"


def _bases(cls: type) -> Iterator[type]:
    """What an object is besides; a class that nobody knows by name stands for its own bases."""
    for base in cls.__bases__:
        if base.__name__.startswith("_") or hasattr(base, "_field_defaults"):
            yield from _bases(base)
        elif base is not object:
            yield base


def _ours(cls: type) -> list[type]:
    """The class and its bases, furthest first, as far as we wrote them: `namedtuple` writes some."""
    ours = [base for base in reversed(cls.__mro__) if base.__module__.startswith("machrv")]
    return [base for base in ours if "_field_defaults" not in vars(base)]


def _constructor(cls: type) -> FunctionType | None:
    call = vars(type(cls)).get("__call__")
    if isinstance(call, FunctionType):
        return call
    for base in reversed(_ours(cls)):
        for name in ("__init__", "__new__"):
            found = vars(base).get(name)
            found = found.__func__ if isinstance(found, staticmethod) else found
            if isinstance(found, FunctionType):
                return found
    return None


def _members(cls: type, fields: set[str]) -> dict[str, str | type]:
    """Each public member, its own and those of bases of ours, and how it reads."""
    annotations: dict[str, str] = {}
    members: dict[str, object] = {}
    for base in _ours(cls):
        annotations.update({key: _written(kind) for key, kind in inspect.get_annotations(base).items()})
        members.update(vars(base))
    found: dict[str, str | type] = {}
    for name in {*members, *annotations} - fields:
        if name.startswith("__") and (name in _BOOKKEEPING or not isinstance(members.get(name), FunctionType)):
            continue
        if name.startswith("_") and not name.startswith("__"):
            continue
        found[name] = _member(name, members.get(name, _ABSENT), annotations.get(name, ""))
    return found


def _written(annotation: object) -> str:
    """As in the source, in modules with and without `from __future__ import annotations`."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _member(name: str, value: object, annotation: str) -> str | type:
    if isinstance(value, FunctionType):
        abstract = "abstract " if getattr(value, "__isabstractmethod__", False) else ""
        return f"{abstract}{_def(value)} {name}{_signature(value)}"
    if isinstance(value, (classmethod, staticmethod)):
        bound = isinstance(value, classmethod)
        return f"{type(value).__name__} {name}{_signature(value.__func__, bound)}"
    if isinstance(value, property):
        kind = annotation or (_written(value.fget.__annotations__.get("return", "")) if value.fget else "")
        return f"{name}: {kind}{'' if value.fset else ' (to be read)'}"
    if isinstance(value, type):
        return value
    plain = value is None or isinstance(value, (bool, int, float, str, bytes, tuple))
    return name + (f": {annotation}" if annotation else "") + (f" = {value!r}" if plain else "")


def _def(function: object) -> str:
    return "async def" if inspect.iscoroutinefunction(function) else "def"


def _signature(function: object, bound: bool = False) -> str:
    """As in the source: annotations as they are written there. `bound`: without the first parameter."""
    signature = inspect.signature(function)  # type: ignore[arg-type]
    parameters = list(signature.parameters.values())[bound:]
    returned = "" if signature.return_annotation is signature.empty else f" -> {_written(signature.return_annotation)}"
    return f"({', '.join(_parameters(parameters))}){returned}"


def _parameters(parameters: Iterable[inspect.Parameter]) -> Iterator[str]:
    kinds = inspect.Parameter
    last = None
    for parameter in parameters:
        if last is kinds.POSITIONAL_ONLY and parameter.kind is not last:
            yield "/"
        if parameter.kind is kinds.KEYWORD_ONLY and last not in (kinds.KEYWORD_ONLY, kinds.VAR_POSITIONAL):
            yield "*"
        last = parameter.kind
        stars = "*" if last is kinds.VAR_POSITIONAL else "**" if last is kinds.VAR_KEYWORD else ""
        text = stars + parameter.name
        annotated = parameter.annotation is not kinds.empty
        text += f": {_written(parameter.annotation)}" if annotated else ""
        if parameter.default is not kinds.empty:
            text += f" = {parameter.default!r}" if annotated else f"={parameter.default!r}"
        yield text


def _constants() -> Iterator[str]:
    message = import_module("machrv.message")
    for header in HEADERS:
        for name in re.findall(r"^#define (\w+)[ \t]+\S", (INCLUDE / f"{header}.h").read_text(), re.MULTILINE):
            if hasattr(message, name):
                yield f"{name} = {getattr(message, name):#x}"


def _commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield parser.prog
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in dict(sorted(action.choices.items())).values():
                yield from _commands(command)
        elif not isinstance(action, argparse._HelpAction):
            yield f"    {_option(action)}"


def _option(action: argparse.Action) -> str:
    text = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    if action.option_strings and action.nargs != 0:
        text += f" {action.metavar or action.dest.upper()}"
    if action.choices is not None:
        text += f" of {', '.join(map(str, action.choices))}"
    if action.nargs not in (None, 0):
        text += f", as often as {action.nargs!r} says"
    if action.nargs != 0 and action.default not in (None, argparse.SUPPRESS):
        text += f", otherwise {action.default!r}"
    return text


def main(arguments: list[str]) -> int:
    """The command: see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.surface",
        description="Print the public surface of machrv.",
        epilog="examples:\n  python -m tests.surface\n  python -m tests.surface --renew",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--renew", action="store_true", help=f"write it to tests/{RECORD.name} instead")
    if parser.parse_args(arguments).renew:
        RECORD.write_text(surface())
    else:
        print(surface(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
