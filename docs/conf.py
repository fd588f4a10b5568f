"""The documentation site: `python -m sphinx -W docs build/site`.

What belongs here: Sphinx's settings, and how docstrings, which are written in Markdown, reach it. What must never happen
here: anything that is fetched from elsewhere, when the site is built or when it is read.

Sphinx, because it describes what is there when the program runs: machrv imports its names lazily and makes properties of
C layouts, which a generator that only reads source files does not see. And because it counts what it cannot resolve
(`nitpicky`): with -W a link, an anchor or a name that leads nowhere ends the build.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.util.nodes import make_refnode

import machrv

project = "machrv"
author = "The machrv authors"
copyright = "the machrv authors, BSD-3-Clause"
version = release = machrv.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
nitpicky = True
nitpick_ignore_regex = [
    (
        "py:.*",
        r"Self|AnyServer|HasFileno|FileLike|Thing|Encoding|Type|R|T|socket|mmap|Open(Text|Binary)Mode|TextIOWrapper|(os|subprocess|asyncio|mmap)\..*",
    )
]  # Python's own: what lists them is not fetched.
suppress_warnings = ["ref.python"]  # `type[...]` in a signature, where classes have a member `type`.
highlight_language = "none"  # A block says what it is, or it is a picture.

# Markdown: every heading down to the third level is an anchor, named as GitHub names it.
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

# Docstrings: in the order of the source, with types as they are written there.
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autoclass_content = "both"
add_module_names = False
smartquotes = False
default_role = "code"
python_use_unqualified_type_names = True

# No font, script or picture of anybody else's: the theme uses the reader's own fonts.
html_theme = "furo"
html_title = "machrv"
html_static_path = ["_static"]
html_css_files = ["machrv.css"]
html_copy_source = False
html_show_sphinx = False


_PUBLIC = set(machrv.__all__)
_MARKUP = re.compile(
    r"(?s)(?P<ticks>`+)(?P<code>.+?)(?P=ticks)|(?P<error>\b[A-Z]\w+(?:Error|Timeout))\b|(?P<mark>[*|\\]|(?<=\w)_\b)"
)


def _marked(match: re.Match[str]) -> str:
    """A public name is a link, other code is code, and what is markup only to reStructuredText stands for itself."""
    name = (match["code"] or match["error"] or "").removeprefix("machrv.")
    if name in _PUBLIC:
        return f":py:obj:`{match['code'] or name} <machrv.{name}>`"
    return f"``{match['code']}``" if match["code"] else match["error"] or f"\\{match['mark']}"


def docstring(app: Any, what: str, name: str, thing: object, options: Any, lines: list[str]) -> None:
    """Docstrings are Markdown, of which they use code spans and indented code: made reStructuredText, in place."""
    parts = re.split(r"((?:^ {4}.*\n?|(?<=\n)\n(?= {4}))+)", "\n".join(lines), flags=re.MULTILINE)
    prose, code = parts[::2], [f"\n\n.. code-block:: python\n\n{part}\n" for part in parts[1::2]] + [""]
    lines[:] = "".join(_MARKUP.sub(_marked, text) + block for text, block in zip(prose, code)).split("\n")


def name_in_signature(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """A name as a module of ours imports it (`Kernel`, `machrv.rights.SendRight`): the one that is described here."""
    if node.get("refdomain") != "py":
        return None
    domain, name = env.get_domain("py"), node["reftarget"].rpartition(".")[2]
    found = next((known for known in (f"machrv.{name}", *domain.objects) if known.endswith(f".{name}")), "")
    if found not in domain.objects:
        return None
    return make_refnode(app.builder, node["refdoc"], domain.objects[found].docname, found, contnode, found)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", docstring)
    app.connect("missing-reference", name_in_signature)
