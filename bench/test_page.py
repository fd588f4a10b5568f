"""The page of figures is the one that its figures make."""

from __future__ import annotations

import json

from bench.page import FIGURES, PAGE, rendered
from bench.plot import DOCS, drawings


def test_the_page_is_what_its_figures_make() -> None:
    """Nobody has typed a figure; `python -m bench.page` makes tables and plots anew."""
    figures = json.loads(FIGURES.read_text())
    assert rendered(PAGE.read_text(), figures) == PAGE.read_text()
    for name, picture in drawings(figures["growth"]).items():
        assert (DOCS / name).read_text() == picture
