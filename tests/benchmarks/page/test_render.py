from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pages import Page
from small_reports import dense_row, slim_row, small_report, write_run

from chase.benchmarks.page import gather, write_report
from chase.benchmarks.page.glossary import GLOSSARY
from chase.benchmarks.page.tables import at
from chase.run import Run

EVIL = '"><img src=x onerror=alert(1)><script>alert(2)<\\/script>'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("runs") / "mine")


@pytest.fixture(scope="module")
def text(run: Run) -> str:
    return write_report(run.folder).read_text(encoding="utf-8")


def own(text: str) -> str:
    """The page without the plotting library."""
    return re.sub(r"<script>/\*\*.*?</script>", "", text, flags=re.DOTALL)


def test_the_tables_hold_the_numbers_of_bench_json(run: Run, text: str) -> None:
    rows: list[dict[str, Any]] = json.loads(run.bench.read_text())["rows"]
    page = Page(text)
    gained = [row for row in rows if row["speedup_vs_dense"]]
    once = rows[:3]

    checked = 0
    for field, expected in (
        ("latency_ms.p50", rows),
        ("speedup_vs_dense.median", gained),
        ("accuracy", once),
        ("macs.theoretical", once),
    ):
        lines = page.lines(field)
        assert len(lines) == len(expected)
        for line, row in zip(lines, expected, strict=True):
            for name, shown in line.items():
                number = at(row, name)
                assert shown == str(number), name
                checked += 1

    assert checked > 150
    fields = {name for table in page.tables for line in table for name in line}
    assert {"latency_ms.p90", "throughput", "speedup_vs_dense.ci95.0", "efficiency", "macs.gpu_supported"} <= fields
    assert {"params.nonzero", "params.stored", "size_bytes", "compressed_bytes", "worst_logit_error"} <= fields


def test_the_page_needs_nothing_else(text: str) -> None:
    page = Page(text)

    linked = [value for name, value in page.attributes if name in ("src", "href") and value]
    assert [link for link in linked if not link.startswith(("#", "data:"))] == []
    assert "http" not in own(text).replace("http-equiv", "")
    assert ("content", "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:") in (
        page.attributes
    )


def test_the_page_is_of_moderate_size_and_the_same_each_time(run: Run, text: str) -> None:
    again = write_report(run.folder).read_text(encoding="utf-8")

    assert len(text) < 6_000_000
    assert again == text


def test_the_page_says_where_its_numbers_come_from(text: str) -> None:
    words = Page(text).words

    assert {
        "A Processor",
        "2.9.0",
        "chase bench --data 'my images'",
        "slim.pt",
        "1 of 3 widths are no multiple of 8",
    } <= {
        *words,
        *(word.partition(",")[0] for word in words),
    }
    assert any(re.fullmatch(r"[0-9a-f]{64}", word) for word in words)
    assert all(word in words and meaning in words for word, meaning in GLOSSARY)


def test_each_part_has_its_chart(text: str) -> None:
    found = re.findall(r'id="chart-([\w-]+)"', text)

    batches = [
        f"{kind}-{size}" for kind in ("gain", "accuracy-latency", "accuracy-throughput", "latency") for size in (1, 8)
    ]
    assert found == [*batches, "widths", "sparsity", "validation-accuracy", "loss"]
    drawn = json.loads(re.findall(r'<script type="application/json" id="charts">(.*?)</script>', text)[0])
    assert [chart["name"] for chart in drawn] == found


def test_names_cannot_become_part_of_the_page(tmp_path: Path) -> None:
    evil = small_report(
        [
            dense_row(artifact=EVIL, warnings=(EVIL,), runtime=EVIL),
            slim_row(artifact="</script><script>alert(3)</script>", accuracy=None, accuracy_reason=EVIL),
        ],
        environment={"cpu": EVIL, EVIL: EVIL},
        command=(EVIL,),
        profiles={
            EVIL: (
                {"layer": EVIL, "op": EVIL, "macs": 1, "share_of_macs": 1.0, "ms": 1.0, "share_of_time": 1.0}
                | {"width": [3], "aligned": False},
            )
        },
    )
    run = write_run(tmp_path / EVIL.replace("/", ""), report=evil, about=EVIL)

    text = write_report(run.folder).read_text(encoding="utf-8")

    page = Page(text)
    assert page.tags.count("script") == 3
    assert "img" not in page.tags
    assert page.tags.count("title") == page.tags.count("h1") == 1
    assert [name for name, _ in page.attributes if name.startswith("on")] == []


def test_a_page_is_made_of_what_is_there(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    run.bench.unlink()
    run.metrics.unlink()

    words = Page(write_report(run.folder).read_text(encoding="utf-8")).words

    assert "Nothing has been measured yet." in words
    assert f"chase bench --run {run.folder}" in words
    assert "Widths of the layers" in words
    assert "MACs of the training" in words
    assert "Training loss" not in words


def test_a_bench_json_alone_makes_a_page_beside_it(tmp_path: Path) -> None:
    small_report().save(tmp_path / "h200.json")

    target = write_report(tmp_path / "h200.json")

    assert target == tmp_path / "report.html"
    words = Page(target.read_text(encoding="utf-8")).words
    assert "h200" in words
    assert "Not in this report" not in words


def test_what_was_gathered_once_is_written_in_every_format(run: Run, tmp_path: Path) -> None:
    facts = gather(run.folder)

    for format in ("html", "md", "csv", "json"):
        assert write_report(facts, format=format, out=tmp_path / f"page.{format}").stat().st_size > 500
