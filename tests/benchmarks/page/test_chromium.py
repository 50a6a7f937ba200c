"""The page in a real browser: an empty console, charts with data, tables with the numbers, no scrolling sideways."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pages import chromium, probed
from small_reports import dense_row, other_row, slim_row, small_report, write_run

from chase.benchmarks.page import write_report
from chase.run import Run

pytestmark = pytest.mark.skipif(
    chromium() is None, reason="no Chromium here: install one, or let CHASE_CHROMIUM name one"
)
EVIL = "<img src=x onerror=hit=1>"
PROFILE = {"layer": EVIL, "op": "Conv", "macs": 1, "share_of_macs": 1.0, "ms": 1.0, "share_of_time": 1.0}
CLOCK = {"sm_mhz": 1000, "temperature_c": 40, "power_w": 200.0, "throttle": []}
LOOK = """() => {
  const charts = [...document.querySelectorAll(".chart")].map((place) => ({
    name: place.id.replace("chart-", ""),
    points: place.data.map((trace) => (trace.x || []).filter((x) => x !== null).length),
    lines: place.querySelectorAll(".main-svg path").length,
    inside: place.getBoundingClientRect().right <= innerWidth,
    text: place.textContent,
  }));
  const cells = [...document.querySelectorAll("td[data-field='latency_ms.p50']")].map((cell) => cell.dataset.value);
  const ink = () => getComputedStyle(document.body).color + document.querySelector(".xtick text").style.fill;
  const before = ink();
  document.getElementById("theme").click();
  return {
    charts, cells, before, after: ink(), wide: document.documentElement.scrollWidth, width: innerWidth,
    images: document.querySelectorAll("img").length, hit: window.hit === 1, title: document.title,
  };
}"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    rows = [dense_row(), slim_row(), other_row(artifact=EVIL), dense_row(batch_size=8), slim_row(batch_size=8)]
    clocks = tuple({"t_s": n, **CLOCK} for n in range(3))
    profiles: dict[str, Any] = {EVIL: ({**PROFILE, "width": [13], "aligned": False},)}
    report = small_report(rows, clocks=clocks, profiles=profiles)
    run = write_run(tmp_path_factory.mktemp("shown") / "a <b>run", report=report)
    write_report(run.folder)
    return run


@pytest.fixture(scope="module")
def desktop(run: Run) -> tuple[Any, list[str]]:
    return probed(run.folder / "report.html", LOOK)


@pytest.fixture(scope="module")
def phone(run: Run) -> tuple[Any, list[str]]:
    dark = ("--blink-settings=preferredColorScheme=0",)
    return probed(run.folder / "report.html", LOOK, width=390, options=dark)


def test_the_console_stays_empty(desktop: tuple[Any, list[str]], phone: tuple[Any, list[str]]) -> None:
    assert desktop[1] == []
    assert phone[1] == []


def test_every_chart_has_data_and_is_drawn(desktop: tuple[Any, list[str]]) -> None:
    charts = desktop[0]["charts"]

    names = [chart["name"] for chart in charts]
    sized = ("gain", "accuracy-latency", "accuracy-throughput", "latency")
    assert names == [f"{kind}-{size}" for kind in sized for size in (1, 8)] + [
        *("profile-0", "gpu-sm_mhz", "gpu-temperature_c", "gpu-power_w"),
        *("widths", "sparsity", "validation-accuracy", "loss"),
    ]
    assert [chart["name"] for chart in charts if not all(chart["points"]) or chart["lines"] < 3] == []
    assert charts[names.index("latency-1")]["points"] == [12, 12, 12]


def test_the_tables_in_the_browser_hold_the_numbers(run: Run, desktop: tuple[Any, list[str]]) -> None:
    rows = json.loads(run.bench.read_text())["rows"]

    assert desktop[0]["cells"] == [str(row["latency_ms"]["p50"]) for row in rows]


def test_names_are_shown_and_never_run(desktop: tuple[Any, list[str]]) -> None:
    shown = desktop[0]

    assert (shown["images"], shown["hit"]) == (0, False)
    assert shown["title"].startswith("a <b>run")
    assert EVIL in next(chart["text"] for chart in shown["charts"] if chart["name"] == "latency-1")


def test_light_and_dark_follow_the_system_and_the_button(
    desktop: tuple[Any, list[str]], phone: tuple[Any, list[str]]
) -> None:
    light, dark = desktop[0], phone[0]

    assert light["before"] != dark["before"]
    assert light["after"] == dark["before"]
    assert dark["after"] == light["before"]


@pytest.mark.parametrize("name", ["desktop", "phone"])
def test_nothing_sticks_out_at_the_side(name: str, request: pytest.FixtureRequest) -> None:
    shown = request.getfixturevalue(name)[0]

    assert shown["width"] == {"desktop": 1400, "phone": 390}[name]
    assert shown["wide"] <= shown["width"]
    assert [chart["name"] for chart in shown["charts"] if not chart["inside"]] == []


def test_a_broken_page_would_be_noticed(run: Run, tmp_path: Path) -> None:
    text = (run.folder / "report.html").read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    broken.write_text(re.sub(r"<script>/\*\*.*?</script>", "", text, flags=re.DOTALL), encoding="utf-8")

    drawn, said = probed(broken, '() => document.querySelectorAll(".main-svg").length')

    assert drawn == 0
    assert any("Plotly is not defined" in line for line in said)
