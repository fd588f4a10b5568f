"""The C types of libSystem's functions, read from include/machrv/darwin.h."""

from __future__ import annotations

import re
from pathlib import Path

_HEADER = Path(__file__).resolve().parents[2] / "include" / "machrv" / "darwin.h"
_PROTOTYPE = re.compile(r"^(\w[\w ]*?)\s(\w+)\(([^()]*)\);", re.MULTILINE)
_PARAMETER = re.compile(r"(?P<type>.*?[\s*])\w+")


def signatures() -> dict[str, str]:
    """Of each function, the type that CFFI is asked for: its prototype without the parameters' names."""
    text = re.sub(r"/\*.*?\*/", "", _HEADER.read_text(), flags=re.DOTALL)
    found = {}
    for result, function, parameters in _PROTOTYPE.findall(text):
        types = []
        for parameter in " ".join(parameters.split()).split(", "):
            match = _PARAMETER.fullmatch(parameter)
            types.append(match["type"].strip() if match else parameter)
        found[function] = f"{result}(*)({', '.join(types)})"
    return found


SIGNATURES = signatures()
