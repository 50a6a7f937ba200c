"""The page of an analysis holds the numbers, as charts and as tables, and nothing from elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from pages import Page, chromium, probed
from small_analysis import EPOCHS, SHARES, history, small_analysis, small_prunability, write_metrics

from chase.benchmarks.analysis import History
from chase.benchmarks.page.analysis import analysis_page, write_analysis
from chase.run import Run

EVIL = '"><img src=x onerror=alert(1)>'


def charts(text: str) -> dict[str, dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="charts">(.*?)</script>', text, re.DOTALL)
    assert found
    return {chart["name"]: chart for chart in json.loads(found[1])}


def coloured(value: Any) -> Any:
    """As the page's script does: variables become colours."""
    if isinstance(value, str):
        return "#123456" if value.startswith("--") else value
    if isinstance(value, list):
        return [coloured(inner) for inner in value]
    return {key: coloured(inner) for key, inner in value.items()} if isinstance(value, dict) else value


@pytest.fixture(scope="module")
def text() -> str:
    return analysis_page(small_analysis())


def test_every_chart_is_one_that_plotly_takes(text: str) -> None:
    found = charts(text)

    assert [*found] == [
        *("amenable-umm", "amenable-ws"),
        *(f"{metric}-{v}" for metric in ("umm", "ws") for v in ("0", "0-2", "0-4")),
        *("pruned-10", "pruned-30"),
    ]
    for chart in found.values():
        assert go.Figure(coloured(chart["data"]), coloured(chart["layout"])).data


def test_the_heat_maps_hold_the_shares_in_percent(text: str) -> None:
    (data,) = charts(text)["umm-0-2"]["data"]

    assert (data["x"], data["y"]) == ([*EPOCHS], [*SHARES])
    assert data["z"] == [[100 * share for share in shares] for shares in SHARES.values()]


def test_the_lines_hold_the_means_over_layers(text: str) -> None:
    data = charts(text)["amenable-umm"]["data"]

    assert [trace["name"] for trace in data] == ["v = 0", "v = 0.2", "v = 0.4"]
    assert data[0]["y"] == pytest.approx([25.0, 37.5, 50.0])
    assert data[2]["y"] == pytest.approx([12.5, 18.75, 25.0])


def test_prunability_is_drawn_with_its_spread_beside_the_unpruned_network(text: str) -> None:
    chart = charts(text)["pruned-10"]

    assert [(trace["x"], trace["error_x"]["array"]) for trace in chart["data"]] == [([90.25], [0.0]), ([60.0], [10.0])]
    assert chart["layout"]["shapes"][0]["x0"] == 91.125


def test_the_tables_and_the_first_sentence_say_the_same(text: str) -> None:
    words = Page(text).words

    said = next(word for word in words if word.startswith("In the end"))
    assert said == (
        "In the end 50 % of a layer's channels are sparse amenable (UMM, v = 0.2). Without 30 % of its channels it is "
        "80.50 % accurate by the best of 2 criteria (umm), and 91.12 % with all of them."
    )
    for cell in ("0.88", "90.25", "60.00 ± 10.00", "20.00 ± 10.00", "91.12"):
        assert cell in words
    assert "Can it be trusted?" not in words


def test_either_half_makes_a_page_of_its_own() -> None:
    only_history = charts(analysis_page(small_analysis(prunability=None)))
    only_pruning = charts(analysis_page(small_analysis(history=History(), threshold=None)))

    assert "pruned-10" not in only_history
    assert [*only_pruning] == ["pruned-10", "pruned-30"]


def test_names_are_words_and_what_was_left_out_is_named() -> None:
    named = History(epochs=(1,), shares={"umm": {"0.2": {EVIL: [0.5]}}})
    found = small_prunability(left_out={"network-slimming": "there is no norm"})

    page = Page(analysis_page(small_analysis(history=named, name=EVIL, prunability=found)))

    assert "img" not in page.tags
    assert any("Left out: network-slimming, since there is no norm." in word for word in page.words)


def test_the_page_needs_nothing_from_elsewhere(text: str) -> None:
    page = Page(text)

    assert not [value for name, value in page.attributes if name == "src"]
    assert not [v for name, v in page.attributes if name == "href" and not str(v).startswith(("#", "data:"))]


def test_the_numbers_lie_beside_the_page(tmp_path: Path) -> None:
    run = write_metrics(Run(tmp_path))

    page = write_analysis(run, small_analysis())

    written = json.loads(run.analysis.read_text())
    assert page == tmp_path / "analysis.html"
    assert written["amenable"] == history().shares
    assert written["prunability"] == small_prunability().to_dict()
    assert written["epochs"] == [*EPOCHS]
    assert run.is_current(run.analysis)


LOOK = """() => [...document.querySelectorAll(".chart")].map((place) => ({
  name: place.id, lines: place.querySelectorAll(".main-svg path, .main-svg image").length,
  inside: place.getBoundingClientRect().right <= innerWidth,
}))"""


@pytest.mark.skipif(chromium() is None, reason="no Chromium here: install one, or let CHASE_CHROMIUM name one")
@pytest.mark.parametrize("width", [1400, 390])
def test_a_browser_draws_every_chart_and_says_nothing(tmp_path: Path, text: str, width: int) -> None:
    page = tmp_path / "analysis.html"
    page.write_text(text, encoding="utf-8")

    drawn, said = probed(page, LOOK, width=width)

    assert said == []
    assert len(drawn) == 10
    assert [chart["name"] for chart in drawn if not chart["lines"] or not chart["inside"]] == []
