from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from small_reports import dense_row, slim_row, small_report, write_run

from chase.benchmarks.page import write_report
from chase.errors import CheckpointError, OutputError, UnknownName
from chase.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return write_run(tmp_path / "run")


def test_markdown_holds_the_verdict_and_the_tables(run: Run) -> None:
    lines = write_report(run.folder, format="md").read_text(encoding="utf-8").splitlines()

    assert lines[0] == "# run"
    assert lines[2].startswith("The slim network is 2.00× as fast as the dense one at batch size 1, is no faster at")
    assert lines[4].startswith("slim model.onnx. onnxruntime (CPUExecutionProvider) in fp32")
    assert "## Can it be trusted?" in lines
    assert "- ! No faster than dense at batch size 8: slim model.onnx." in lines
    start = lines.index("## Speed-up over the dense network")
    assert lines[start + 2 : start + 7] == [
        "Medians of paired ratios, with their interval. Precision: fp32. Clock: host.",
        "",
        "| artifact | runtime | batch | speed-up (×) | 95 % from (×) | to (×) | verdict | MACs promise (×) | "
        "efficiency | against |",
        "| --- | --- | --: | --: | --: | --: | --- | --: | --: | --- |",
        "| slim model.onnx | onnxruntime | 1 | 2.00 | 1.96 | 2.04 | faster | 2.00 | 1.00 | dense model.onnx |",
    ]
    assert lines[-1].startswith("- exported files: `chase export --format onnx --run ")


def test_markdown_says_what_the_training_cost(run: Run) -> None:
    lines = write_report(run.folder, format="md").read_text(encoding="utf-8").splitlines()

    start = lines.index("## MACs of the training")
    assert lines[start + 4 : start + 9] == [
        "| column | TMACs | of the dense training |",
        "| --- | --: | --- |",
        "| theoretical | 3.00 | 0.250× |",
        "| GPU-supported | 9.00 | 0.750× |",
        "| dense | 12.00 | 1.000× |",
    ]


def test_markdown_shows_names_letter_by_letter(tmp_path: Path) -> None:
    row = slim_row(artifact="a|b_*<script>[x](y)", warnings=("two\nlines | here",))
    run = write_run(tmp_path / "run", report=small_report([dense_row(), row]))

    text = write_report(run.folder, format="md").read_text(encoding="utf-8")

    assert "| a\\|b\\_\\*&lt;script&gt;\\[x\\](y) | onnxruntime |" in text
    assert "- ! Two lines \\| here." in text


def test_csv_has_a_line_for_each_row_and_no_raw_samples(run: Run) -> None:
    text = write_report(run.folder, format="csv").read_text(encoding="utf-8")

    rows = list(csv.DictReader(text.splitlines()))
    report = small_report()
    assert [float(row["latency_ms.p50"]) for row in rows] == [row.latency_ms["p50"] for row in report.rows]
    assert [row["artifact"] for row in rows] == [row.artifact for row in report.rows]
    assert (rows[1]["speedup_vs_dense.ci95.low"], rows[1]["speedup_vs_dense.ci95.high"]) == ("1.96", "2.04")
    assert rows[0]["speedup_vs_dense"] == ""
    assert (rows[1]["macs.theoretical"], rows[1]["settings.threads"]) == ("1000000", "1")
    assert rows[4]["warnings"] == "the calls took 2.5 times"
    assert not {name for name in rows[0] if name.startswith(("samples_ms", "gpu_ms", "cpu_ms", "enqueue_ms"))}


def test_csv_quotes_what_needs_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", report=small_report([slim_row(artifact='a, "b"\nc')]))

    text = write_report(run.folder, format="csv").read_text(encoding="utf-8")

    (row,) = csv.DictReader(text.splitlines(keepends=True))
    assert row["artifact"] == 'a, "b"\nc'


def test_json_is_bench_json_and_the_facts_of_the_run(run: Run) -> None:
    content = json.loads(write_report(run.folder, format="json").read_text(encoding="utf-8"))

    assert content["bench"] == json.loads(run.bench.read_text())
    assert content["run"]["name"] == "run"
    assert [epoch["step"] for epoch in content["run"]["epochs"]] == [10, 20, 30, 40]
    assert content["run"]["missing"][0]["what"] == "exported files"


def test_a_run_that_was_not_measured_has_no_csv(run: Run) -> None:
    run.bench.unlink()

    with pytest.raises(
        CheckpointError, match="run has no bench.json, so there are no rows; make it with `chase bench`"
    ):
        write_report(run.folder, format="csv")
    assert json.loads(write_report(run.folder, format="json").read_text(encoding="utf-8"))["bench"] is None
    assert "Nothing has been measured yet." in write_report(run.folder, format="md").read_text(encoding="utf-8")


def test_an_unknown_format_is_refused(run: Run) -> None:
    with pytest.raises(UnknownName, match="no report format named 'pdf'; known: csv, html, json, md"):
        write_report(run.folder, format="pdf")


def test_a_report_that_cannot_be_written_says_so(run: Run) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        write_report(run.folder, format="md", out=run.bench / "report.md")


def test_reports_lie_in_the_run_unless_told_otherwise(run: Run, tmp_path: Path) -> None:
    assert write_report(str(run.folder), format="md") == run.folder / "report.md"
    assert write_report(run.folder, format="csv", out=tmp_path / "deep" / "rows.csv") == tmp_path / "deep" / "rows.csv"
    assert run.artifacts() == []  # a report is no exported file
