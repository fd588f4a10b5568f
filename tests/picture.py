"""Makes docs/trace.svg, the picture of a trace that the README shows, from what `machrv demo --trace` draws:

    python -m tests.picture

It needs Chromium and chromedriver (Debian: apt install chromium chromium-driver).
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path
from typing import Any

from tests.browser import browser

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "trace.svg"
WIDTH, HEIGHT = 900, 1300
#: Above the lanes: their heads.
HEADS = 60

TAKE = """
document.getElementById('chart').style.maxHeight = 'none';
const chart = document.getElementById('chart').getBoundingClientRect();
return new Promise(done => setTimeout(() => done({
  width: Math.ceil(chart.width), height: document.getElementById('space').clientHeight,
  drawn: new XMLSerializer().serializeToString(document.getElementById('picture')),
  heads: [...document.querySelectorAll('#lanes div')].map(head => {
    const box = head.getBoundingClientRect();
    return [box.left - chart.left, box.width, head.style.background, ...[...head.children].map(e => e.textContent)];
  }),
}), 300))
"""

TEXT = """<title>What machrv demo --trace draws</title>
<desc>Three lanes, time from top to bottom. A stranger asks the parent for its rights and gets a reply without any. The child
asks and gets five: two files, a send-once right, a receive right and a send right. Messages go back and forth; a second claim
gets nothing. In the end the server's name is looked up, and is free again.</desc>"""


def main() -> None:
    """Run the demo, open its page, keep the lanes."""
    with tempfile.TemporaryDirectory() as folder, browser() as window:
        page = Path(folder) / "demo.html"
        subprocess.run(
            [sys.executable, "-m", "machrv", "demo", f"--trace={page}"], check=True, stdout=subprocess.DEVNULL
        )
        window.open(page, "#show=messages,processes&zoom=2", WIDTH, HEIGHT)
        PICTURE.write_text(picture(window.run(TAKE)), encoding="utf-8")
    print(f"{PICTURE}: {PICTURE.stat().st_size:,} bytes")


def picture(taken: dict[str, Any]) -> str:
    """An SVG of its own, for light and dark surroundings."""
    css = (ROOT / "machrv" / "trace" / "page.css").read_text(encoding="utf-8")
    colours = re.findall(r"^:root \{.*?^\}$|^@media \(prefers.*?^\}$", css, re.DOTALL | re.MULTILINE)
    texts = [line.replace("#picture ", "") for line in css.splitlines() if line.startswith("#picture") and "{" in line]
    inside = re.sub(r"^<svg[^>]*>|</svg>$", "", taken["drawn"].replace(' xmlns="http://www.w3.org/2000/svg"', ""))
    inside = re.sub(r"(\d+\.\d\d)\d+", r"\1", inside.replace("><", ">\n<"))
    heads = "\n".join(
        f'<rect x="{left:.0f}" y="10" width="{wide:.0f}" height="40" rx="6" fill="{colour}"/>'
        f'<text class="head" x="{left + 8:.0f}" y="27">{escape(name)}</text>'
        f'<text class="head less" x="{left + 8:.0f}" y="43">{escape(about)}</text>'
        for left, wide, colour, name, about in taken["heads"]
    )
    size = f'width="{taken["width"]}" height="{taken["height"] + HEADS}"'
    style = "\n".join(
        [
            *colours,
            *texts,
            "text.head { fill: #fff; stroke: none; font-weight: 600; }",
            "text.head.less { font-size: 11.5px; }",
        ]
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {taken["width"]} {taken["height"] + HEADS}" role="img" font-family="system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif">
{TEXT}
<style>
{style}
</style>
<rect width="100%" height="100%" rx="8" fill="var(--paper)"/>
{heads}
<g transform="translate(0 {HEADS})">
{inside}
</g>
</svg>
"""


if __name__ == "__main__":
    main()
