"""Read a report as a program would, and show it in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

Line = dict[str, str]


class Page(HTMLParser):
    """The tags, the words and the tables of a page; cells are kept by the field of bench.json that they show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.tables: list[list[Line]] = []
        self.attributes: list[tuple[str, str | None]] = []
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        given = dict(attrs)
        if tag in ("script", "style"):
            self._inside.append(tag)
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr" and self.tables:
            self.tables[-1].append({})
        elif tag == "td" and (field := given.get("data-field")):
            self.tables[-1][-1][field] = given.get("data-value") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside and data.strip():
            self.words.append(data.strip())

    def lines(self, field: str) -> list[Line]:
        """The lines of the table that shows a field."""
        return next([line for line in table if line] for table in self.tables if any(field in line for line in table))


def chromium() -> str | None:
    """The browser that CHASE_CHROMIUM names, or one that is installed."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return os.environ.get("CHASE_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


PROBE = """
<script>
addEventListener("load", () => setTimeout(() => {
  const found = (PROBED)();
  const target = parent === window ? window : parent;
  target.postMessage(JSON.stringify(found), "*");
}, 300));
</script>
"""
LISTEN = """
<script>
addEventListener("message", (event) => {
  const pre = document.createElement("pre");
  pre.id = "probed";
  pre.textContent = event.data;
  document.body.append(pre);
});
</script>
"""


def probed(page: Path, expression: str, *, width: int = 1400, options: Sequence[str] = ()) -> tuple[Any, list[str]]:
    """What a function in the page answers when it is shown `width` pixels wide, and what the console said meanwhile.

    The page stands in a frame, since a window of Chromium is never narrower than 500 pixels.
    """
    copy, frame = page.with_name("probed.html"), page.with_name("frame.html")
    text = page.read_text(encoding="utf-8")
    copy.write_text(text.replace("</body>", PROBE.replace("PROBED", expression) + "</body>"), encoding="utf-8")
    inner = f'<iframe src="probed.html" style="border: 0; width: {width}px; height: 900px"></iframe>'
    frame.write_text(f"<!doctype html><body>{LISTEN}{inner}</body>", encoding="utf-8")
    program = chromium()
    assert program
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--enable-logging=stderr")
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [
        program,
        *flags,
        *options,
        profile,
        "--window-size=1500,1000",
        "--virtual-time-budget=6000",
        "--dump-dom",
    ]
    shown = subprocess.run([*command, frame.as_uri()], capture_output=True, timeout=120, check=True)
    dom = shown.stdout.decode()
    answer = re.search(r'<pre id="probed">(.*?)</pre>', dom, re.DOTALL)
    assert answer, f"the page did not answer: {dom[-500:]}"
    said = [line for line in shown.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line]
    plain = answer[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return json.loads(plain), said
