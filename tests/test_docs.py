"""What the documentation shows works as it is shown: its programs, its commands, what they print, its links and names.

How a page is read is in tests/pages.py. Links inside the site are checked when it is built: tests/test_docs_site.py.
"""

from __future__ import annotations

import builtins
import inspect
import operator
import os
import re
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import FunctionType

import pytest

import machrv
from machrv import aio, cli
from machrv.rendezvous.policy import POLICY_VARIABLE
from tests.pages import PAGES, ROOT, Reader, blocks

#: How many blocks of a page say that they are not run, and why. A number here is a reader who has to believe us.
NOT_RUN = {
    "CONTRIBUTING.md": 2,  # What a contributor does: .ci/run is the last command, and builds the site.
    "README.md": 2,  # The two commands of a newcomer: .ci/run runs them letter by letter.
    "docs/performance.md": 1,  # All measurements: ten minutes. .ci/run does the short form.
    "docs/start.md": 1,  # The same as the first of the README, without the demo.
    "docs/macos.md": 1,  # Wheels for a Mac: tests/test_macos_build.py makes them.
}

RUN = [page for page in PAGES if any(block.language in ("python", "sh", "console") for block in blocks(page))]


@pytest.fixture(scope="module")
def read(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[None]]:
    """Every page that is asked for, read, as many at once as there are processors."""
    wanted = [page for page in RUN if any(f"[{page}]" in item.name for item in request.session.items)]
    readers = [Reader(page, tmp_path_factory.mktemp(Path(page).stem)) for page in wanted]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return {reader.page: pool.submit(reader.read) for reader in readers}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the pages are written on Linux")
@pytest.mark.parametrize("page", RUN)
def test_a_page_does_what_it_says(page: str, read: dict[str, Future[None]]) -> None:
    """Each of its programs and commands runs, in order, in an empty directory, and prints what is shown."""
    read[page].result()


#: Pages that do not do what they say, and how that is told.
WRONG = {
    "```python\nprint(1)\n```\n\n```text\n2\n```\n": "expected\n2\n",
    "```sh\necho 1\n```\n\n```text\n2\n```\n": "expected\n2\n",
    "```console\n$ echo 1\n1\n$ echo 1\n2\n```\n": "expected\n2\n",
    "```python\n# a.py\nprint(1)\n```\n\n`python a.py` prints:\n\n```text\n2\n```\n": "expected\n2\n",
    "```python\n# a.py\nprint(1)\n```\n": "nothing runs a.py",
    "```python\nraise SystemExit(3)\n```\n": "returncode=3",
    "```console\n$ exit 3\n```\n": "returncode=3",
    "```python\nimport sys; print(1, file=sys.stderr)\n```\n": "stderr='1",
    "```python\nfrom machrv import ReceiveRight; ReceiveRight.allocate()\n```\n": "ResourceWarning",
    "```pyhton\nprint(1)\n```\n": "'pyhton'",
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the pages are written on Linux")
@pytest.mark.parametrize("text", WRONG)
def test_a_page_that_does_something_else_is_found(text: str, tmp_path: Path) -> None:
    """Wherever it is wrong, the line is named."""
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{text}", encoding="utf-8")
    with pytest.raises(AssertionError, match=re.escape(WRONG[text])) as failure:
        Reader(str(page), tmp_path).read()
    assert str(page) in str(failure.value)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_that_are_not_run_are_counted(page: str) -> None:
    """Each says why, and their number is known here."""
    assert sum(block.not_run is not None for block in blocks(page)) == NOT_RUN.get(page, 0)


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_needs_is_there_for_tests(page: str) -> None:
    """What a block needs is in the extra "test", so that .ci/run runs it."""
    (extra,) = re.findall(r"^test = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert [block.needs for block in blocks(page) if block.needs and f'"{block.needs}>=' not in extra] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Every relative link and picture is a file of this repository. (The site's build looks at the anchors too.)"""
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(([^)\s:#]+)(?:#[^)]*)?\)", text)
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


CLASSES = {
    name
    for source in Path(machrv.__file__).parent.rglob("*.py")
    for name in re.findall(r"^ *class (\w+)", source.read_text(encoding="utf-8"), re.MULTILINE)
}


@pytest.mark.parametrize("page", PAGES)
def test_names_exist(page: str) -> None:
    """An exception, a right or a client that a page mentions is there, under that name."""
    text = (ROOT / page).read_text(encoding="utf-8")
    names = set(re.findall(r"`(\w+(?:Error|Timeout|Warning|Right|Client|Server|Descriptor))\b", text))
    assert {name for name in names - CLASSES if not hasattr(builtins, name)} == set()


def test_every_public_name_is_in_the_reference() -> None:
    """What can be imported from machrv and from machrv.aio is described there, once."""
    text = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    described = re.findall(r"^\.\. auto\w+:: machrv\.((?:aio\.)?\w+)(?:\(.*\))?$", text, re.MULTILINE)
    assert sorted(described) == sorted(set(described))
    assert {*machrv.__all__, *(f"aio.{name}" for name in aio.__all__)} - set(described) == set()


def test_every_exception_is_explained() -> None:
    """The page on errors has each that can be caught, and each has what to do in its row."""
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    public = {name: getattr(machrv, name) for name in machrv.__all__}
    errors = [name for name, kind in public.items() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert [name for name in errors if f"`{name}`" not in page] == []
    assert re.findall(r"^.*\| *\|$", page, re.MULTILINE) == []


def test_every_command_and_variable_is_in_the_reference() -> None:
    """The commands of `machrv`, and what is looked for in the environment under a name of ours."""
    page = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    sources = [path.read_text(encoding="utf-8") for path in Path(machrv.__file__).parent.rglob("*.py")]
    variables = {name for text in sources for name in re.findall(r'"(MACHRV_[A-Z_]+)"', text)} - {"MACHRV_RE"}
    assert len(variables) > 1
    assert [name for name in [*variables, POLICY_VARIABLE] if f"`{name}`" not in page] == []
    assert [name for name in cli.command._COMMANDS if f"`machrv {name}`" not in page] == []


@pytest.mark.parametrize("name", [*machrv.__all__, *(f"aio.{name}" for name in aio.__all__)])
def test_it_has_a_docstring(name: str) -> None:
    """Every public name, and all that has a public name in a public class. (Its fields: in comments, by `#:`.)"""
    thing = operator.attrgetter(name)(machrv)
    assert thing.__doc__ or name.isupper()
    if isinstance(thing, type):
        for base in [base for base in thing.__mro__ if base.__module__.startswith("machrv")]:
            assert vars(base).get("__doc__"), base
            members = {key: value for key, value in vars(base).items() if not key.startswith("_")}
            for key, value in members.items():
                if isinstance(value, (property, classmethod, staticmethod, FunctionType)):
                    assert inspect.getdoc(getattr(base, key)), f"{base.__name__}.{key}"
