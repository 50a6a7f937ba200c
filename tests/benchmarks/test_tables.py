from __future__ import annotations

from pathlib import Path

import pytest
from small_reports import ENVIRONMENT, gained, slim_row

from chase.benchmarks.report import Report
from chase.benchmarks.tables import ROOT, newest, paper, published, rewritten, shapes
from chase.errors import CheckpointError, RecipeError


def test_the_readme_holds_the_tables_that_the_results_give() -> None:
    text = (ROOT / "README.md").read_text()

    assert "<!-- results: shapes -->" in text
    assert rewritten(text, published) == text, "run python -m chase.benchmarks.tables"


def test_a_table_replaces_what_stands_between_its_marks_and_nothing_else() -> None:
    text = "a\n<!-- results: one -->\nold\nold\n<!-- end -->\nb\n<!-- results: two -->\n<!-- end -->\n"

    found = rewritten(text, lambda name: f"table {name}")

    assert found == (
        "a\n<!-- results: one -->\ntable one\n<!-- end -->\nb\n<!-- results: two -->\ntable two\n<!-- end -->\n"
    )
    assert rewritten(found, lambda name: f"table {name}") == found


def test_the_shapes_table_has_a_line_for_every_row_with_a_speed_up() -> None:
    slower = slim_row(batch_size=32, speedup_vs_dense=gained(0.5, "dense", verdict="slower"))
    report = Report(environment=ENVIRONMENT, rows=(slim_row(speedup_vs_dense=None), slim_row(), slower))

    source, _, _, _, *lines = shapes(report).splitlines()

    assert source == "A Processor, 1 thread, ONNX Runtime 1.20.0, torch 2.9.0, 2026-01-02:"
    assert lines == [
        "| slim model.onnx | onnxruntime | 1 | 2.00 × (1.96–2.04) | 2.00 × | 1.00 | faster |",
        "| slim model.onnx | onnxruntime | 32 | 0.50 × (0.49–0.51) | 2.00 × | 0.25 | slower |",
    ]


def test_the_newest_results_are_taken(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    for name in ("2026-02-01-shapes.json", "2026-10-01-shapes.json", "2026-11-01-other.json"):
        (tmp_path / "cpu" / name).touch()

    assert newest("shapes", tmp_path).name == "2026-10-01-shapes.json"
    with pytest.raises(CheckpointError, match="no results 'overhead'"):
        newest("overhead", tmp_path)


def test_a_table_of_the_paper_says_what_made_it_and_has_a_line_for_every_row() -> None:
    cell = {"digits": 1, "failed": False, "mean": 28.0, "std": None, "paper": None}
    content = {
        "columns": ["accuracy", "executed MACs"],
        "rows": [{"row": "Chase", "cells": {"accuracy": cell | {"std": 0.25}, "executed MACs": cell | {"digits": 2}}}],
        "command": ["chase", "paper", "improvements", "--only", "vgg-19: *"],
        "environment": {"cpu": "A Processor", "torch": "2.9.0", "date": "2026-01-02T03:04:05"},
    }

    assert paper(content).splitlines() == [
        "`chase paper improvements --only 'vgg-19: *'` on A Processor, torch 2.9.0, 2026-01-02:",
        "",
        "|  | accuracy | executed MACs |",
        "|---|--:|--:|",
        "| Chase | 28.0 ± 0.2 | 28.00 |",
    ]


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(RecipeError, match="no table named 'shape'; known: shapes"):
        published("shape")
