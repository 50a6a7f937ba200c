from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_reports import dense_row, slim_row, small_report, write_run, write_slim

from chase.benchmarks.page.facts import gather
from chase.errors import CheckpointError
from chase.run import Run


def test_a_run_gives_all_that_its_files_hold(tmp_path: Path) -> None:
    run = write_run(tmp_path / "mine")
    (run.folder / "dense").mkdir()
    (run.folder / "dense" / "metrics.jsonl").write_text('{"epoch": 1, "loss": 1.0}\n')

    facts = gather(run.folder)

    assert facts.name == "mine"
    assert facts.report == small_report()
    assert (facts.network["kind"], facts.network["file"], facts.network["about"]) == ("slim", "slim.pt", "A small one.")
    assert facts.network["certificate"]["max_rel"] == 3e-16
    assert [epoch["epoch"] for epoch in facts.epochs] == [1, 2, 3, 4]
    assert [epoch["loss"] for epoch in facts.dense_epochs] == [1.0]
    assert set(facts.manifest) == {"slim.pt", "bench.json"}
    assert facts.changed == ()


def test_each_thing_that_is_missing_comes_with_its_command(tmp_path: Path) -> None:
    folder = tmp_path / "my run"
    folder.mkdir()
    write_slim(folder)

    assert gather(folder).missing == (
        ("how training went", f"chase train --run '{folder}'"),
        ("exported files", f"chase export --format onnx --run '{folder}'"),
        ("measurements of latency, throughput and accuracy", f"chase bench --run '{folder}'"),
    )


def test_measurements_say_what_they_lack(tmp_path: Path) -> None:
    blind = slim_row(accuracy=None, accuracy_reason="no data was given", speedup_vs_dense=None)
    run = write_run(tmp_path / "run", report=small_report([blind]))

    found = dict(gather(run.folder).missing)

    assert found["accuracy through each runtime (no data was given)"].startswith("chase bench --data FOLDER --run ")
    assert found["a dense network to compare with"].startswith("chase bench --against dense")


def test_a_slim_network_that_is_not_there_is_replaced_by_the_checkpoint(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    run.slim.rename(run.checkpoint)

    facts = gather(run.folder)

    assert facts.network["file"] == "checkpoint.pt"
    assert "the slim network and its widths" in dict(facts.missing)


def test_files_that_changed_since_they_were_recorded_or_measured_are_found(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    run.record(run.bench, parents=[run.slim])
    write_slim(run.folder, about="Another.")
    run.record(run.slim)  # the manifest is up to date again, but what was measured is gone

    assert gather(run.folder).changed == ("slim.pt",)
    small_report([dense_row()]).save(run.bench)
    assert set(gather(run.folder).changed) == {"slim.pt", "bench.json"}


def test_a_bench_json_alone_is_enough(tmp_path: Path) -> None:
    small_report().save(tmp_path / "campaign" / "bench.json")
    small_report().save(tmp_path / "h200.json")

    assert gather(tmp_path / "campaign" / "bench.json").name == "campaign"
    assert gather(tmp_path / "h200.json").name == "h200"
    assert gather(tmp_path / "h200.json").missing == ()


@pytest.mark.parametrize("line", ["{", "[]", "{}", "3"])
def test_a_damaged_line_of_metrics_is_named(tmp_path: Path, line: str) -> None:
    run = write_run(tmp_path / "run")
    run.metrics.write_text('{"epoch": 1}\n' + line + "\n")

    with pytest.raises(CheckpointError, match="metrics.jsonl line 2 is no epoch"):
        gather(run.folder)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    run.bench.write_text("{")
    with pytest.raises(CheckpointError, match="bench.json"):
        gather(run.folder)
    run.bench.unlink()
    run.slim.write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="slim.pt cannot be read"):
        gather(run.folder)


def test_a_folder_with_nothing_in_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds nothing to report; begin with `chase train`"):
        gather(tmp_path)
    with pytest.raises(CheckpointError, match="no such run: .*nowhere"):
        gather(tmp_path / "nowhere")


def test_facts_are_json(tmp_path: Path) -> None:
    facts = gather(write_run(tmp_path / "run").folder)

    assert json.loads(json.dumps(facts.to_dict()))["network"]["facts"]["widths"]["conv3"] == [32, 13]


def test_a_run_without_a_folder_of_its_own_name_is_called_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run")
    monkeypatch.chdir(run.folder)

    assert gather(Path(".")).name == "run"
    assert gather(Path("bench.json")).name == "run"
    assert Run(Path(".")).bench == Path("bench.json")
