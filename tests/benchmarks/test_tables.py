from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_reports import ENVIRONMENT, gained, slim_row

from chase.benchmarks.report import Report
from chase.benchmarks.tables import (
    documents,
    newest,
    overhead,
    paper,
    published,
    rewritten,
    selection,
    shapes,
    slimming_training,
    speed_ups,
)
from chase.errors import CheckpointError, RecipeError


def test_the_documents_hold_the_tables_that_the_results_give() -> None:
    texts = [document.read_text() for document in documents()]

    assert sum("<!-- results: shapes -->" in text for text in texts) == 1
    for text in texts:
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


def test_speed_ups_of_several_reports_stand_in_one_table() -> None:
    rows = [slim_row(), slim_row(batch_size=32, speedup_vs_dense=gained(0.5, "dense", verdict="slower"))]
    one = Report(environment=ENVIRONMENT, rows=tuple(rows))
    two = replace(one, rows=tuple(replace(row, artifact="other") for row in rows))

    assert speed_ups(one, two).splitlines() == [
        "A Processor, 1 thread, ONNX Runtime 1.20.0, torch 2.9.0, 2026-01-02:",
        "",
        "| network | fewer MACs | ONNX Runtime, batch 1 | ONNX Runtime, batch 32 |",
        "|---|--:|--:|--:|",
        "| slim model.onnx | 2.00 × | 2.00 × | 0.50 × |",
        "| other | 2.00 × | 2.00 × | 0.50 × |",
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


ENVIRONMENT_ROW = {"cpu": "A Processor", "threads": 1, "torch": "2.9.0", "date": "2026-01-02T03:04:05"}


def test_the_replayed_schedules_have_a_line_each() -> None:
    row = {"model": "vgg19", "allocation": "umm", "channels_last": True, "batch_size": 32, "compactions": 5}
    stretches = [
        {"masked_step_s": 0.75, "macs_ratio": 1.0, "time_ratio": 1.0},
        {"masked_step_s": 0.73, "macs_ratio": 0.278, "time_ratio": 0.303},
    ]
    row |= {"settings": {"normalise": "layer", "prune_skip": True}, "time_ratio": 0.466, "rows": stretches}
    even = row | {"allocation": "even", "channels_last": False, "settings": {}}

    source, _, _, _, *lines = slimming_training({"environment": ENVIRONMENT_ROW, "rows": [row, even]}).splitlines()

    assert source == "A Processor, 1 thread, torch 2.9.0, 2026-01-02:"
    assert lines == [
        "| vgg19 | umm normalise=layer, prune_skip=true | channels-last | 32 | 5 | 740 ms | 0.28 × | 0.30 × | 0.47 × |",
        "| vgg19 | the same share of every layer | contiguous | 32 | 5 | 740 ms | 0.28 × | 0.30 × | 0.47 × |",
    ]


def test_the_overhead_has_its_noise_floor_beside_it() -> None:
    row = {"model": "resnet50", "batch_size": 8, "work": {"side": 224}, "masking_ms": 12.41, "masking_share": 0.00627}
    row |= {"sparse_over_dense": {"median": 1.01, "ci95": [0.99, 1.0301]}, "event_ms": 800.4}
    row |= {"dense_over_dense": {"median": 0.998, "ci95": [0.97, 1.02]}}

    *_, line = overhead({"environment": ENVIRONMENT_ROW, "rows": [row]}).splitlines()

    assert line == ("| resnet50 | 8 of 224x224 | 12.4 | 0.63 % | 1.010 (0.990–1.030) | 0.998 (0.970–1.020) | 800 |")


def test_every_way_of_selection_has_its_memory_by_the_weight() -> None:
    row = {"way": "exact", "cpu_ms": 400.26, "extra_mb": 44.5, "off_by": 0}

    *_, line = selection({"environment": ENVIRONMENT_ROW, "weights": 23_652_032, "rows": [row]}).splitlines()

    assert line == "| exact | 400 ms | 44 MB | 1.9 bytes | 0 |"


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(RecipeError, match="no table named 'shape'; known: speed-ups, shapes"):
        published("shape")
