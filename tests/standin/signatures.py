"""The C types of libSystem's functions, read from include/machrv/mach.h and darwin.h."""

from __future__ import annotations

import re
from pathlib import Path

_HEADERS = Path(__file__).resolve().parents[2] / "include" / "machrv"
_PROTOTYPE = re.compile(r"^(\w[\w ]*?)\s(\w+)\(([^()]*)\);", re.MULTILINE)
_PARAMETER = re.compile(r"(?P<type>.*?[\s*])\w+")


def signatures() -> dict[str, str]:
    """Of each function, the type that CFFI is asked for: its prototype without the parameters' names."""
    text = "".join((_HEADERS / f"{name}.h").read_text() for name in ("mach", "darwin"))
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    found = {}
    for result, function, parameters in _PROTOTYPE.findall(text):
        types = []
        for parameter in " ".join(parameters.split()).split(", "):
            match = _PARAMETER.fullmatch(parameter)
            types.append(match["type"].strip() if match else parameter)
        found[function] = f"{result}(*)({', '.join(types)})"
    return found


SIGNATURES = signatures()
