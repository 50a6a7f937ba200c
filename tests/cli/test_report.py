from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import Chase
from small_reports import small_report, write_run

from chase.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return write_run(tmp_path / "runs" / "mine")


def test_the_page_lies_in_the_run_that_was_named(chase: Chase, run: Run) -> None:
    code, out, err = chase("report", str(run.folder))

    assert (code, out) == (0, "")
    assert err.startswith("The slim network is 2.00× as fast as the dense one at batch size 1")
    assert f"written to {run.folder / 'report.html'}" in err
    assert f"not in the report: exported files; run `chase export --format onnx --run {run.folder}`" in err
    assert (run.folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_current_run_is_the_default(chase: Chase, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.folder.parents[1])
    (run.folder.parent / "latest").write_text("mine\n")

    assert chase("report", "--quiet") == (0, "", "")
    assert (run.folder / "report.html").is_file()


def test_a_run_is_named_for_all_commands_alike(chase: Chase, run: Run) -> None:
    assert chase("--run", str(run.folder), "report", "--format", "md")[0] == 0
    assert (run.folder / "report.md").is_file()


@pytest.mark.parametrize("format", ["html", "md", "csv", "json"])
def test_the_result_names_the_file(chase: Chase, run: Run, tmp_path: Path, format: str) -> None:
    target = tmp_path / "elsewhere" / f"page.{format}"

    code, out, _ = chase("report", str(run.folder), "--format", format, "--out", str(target), "--json")

    found = json.loads(out)
    assert code == 0
    assert (found["report"], found["format"]) == (str(target), format)
    assert found["missing"][0]["what"] == "exported files"
    assert target.is_file()


def test_a_bench_json_alone_has_a_report_beside_it(chase: Chase, tmp_path: Path) -> None:
    small_report().save(tmp_path / "h200.json")

    assert chase("report", str(tmp_path / "h200.json"), "--quiet")[0] == 0
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "pdf"], "no report format named 'pdf'; known: csv, html, json, md"),
        (["nowhere"], "no such run: nowhere; start one with `chase train`"),
        (["empty"], "empty holds nothing to report; begin with `chase train`"),
        (["broken.json"], "broken.json is no"),
        ([], "there is no current run here"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    chase: Chase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.json").write_text("{")
    run = ["empty"] if arguments == ["--format", "pdf"] else []

    code, out, err = chase("report", *run, *arguments)

    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
