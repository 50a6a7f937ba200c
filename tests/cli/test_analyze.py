from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import Chase

SMALL = ["-o", "model.hidden=[24,16]", "-o", "model.side=8", "-o", "training.epochs=2"]
SPARSE = [*SMALL, "--method", "rigl", "--sparsity", "0.5", "-o", "method.update_every=10"]
QUICK = ["--criterion", "umm", "--share", "0.25", "--limit", "8"]


def test_a_run_on_digits_from_training_to_the_page(chase: Chase, empty: Path) -> None:
    trained = chase("train", "--model", "mlp", "--data", "digits", *SPARSE, "--quiet")
    assert trained[0] == 0, trained[2]

    code, out, err = chase("analyze", "--threshold", "0")

    assert code == 0
    table, pruned = out.split("top-1 accuracy, %")
    assert [line.split()[0] for line in table.splitlines() if line] == ["umm,", "layer", "1", "3", "5"]
    assert [words.split()[0] for words in pruned.splitlines()[1:4]] == ["criterion", "unpruned", "umm"]
    assert "network-slimming left out: this channel criterion needs a norm" in err
    assert "one-shot pruning of 40 channels, without fine-tuning, on 144 images of the validation split" in err
    assert (empty / "runs/run/analysis.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    found = json.loads((empty / "runs/run/analysis.json").read_text())
    recorded = json.loads((empty / "runs/run/metrics.jsonl").read_text().splitlines()[-1])["amenable"]
    assert found["epochs"] == [1, 2]
    assert {layer: shares[-1] for layer, shares in found["amenable"]["ws"]["0.3"].items()} == recorded["ws"]["0.3"]


def test_the_result_as_json_is_the_file_and_where_it_lies(chase: Chase, workspace: Path) -> None:
    code, out, _ = chase("analyze", *QUICK, "--json")

    found = json.loads(out)
    assert code == 0
    assert (found.pop("page"), found["analysis"]) == ("runs/tiny/analysis.html", "runs/tiny/analysis.json")
    assert found == {"analysis": found["analysis"], **json.loads(Path(found["analysis"]).read_text())}
    (row,) = found["prunability"]["rows"]
    assert (found["prunability"]["images"], row["criterion"], row["share"]) == (8, "umm", 0.25)
    assert row["channel_sparsity"] == 0.625  # half of the channels had left before


def test_what_is_shown_can_be_chosen(chase: Chase, workspace: Path) -> None:
    code, out, _ = chase(
        "analyze", "--no-prunability", "--metric", "ws", "--threshold", "0.4", "--layer", "features.1*"
    )

    lines = out.splitlines()
    assert code == 0
    assert lines[0].strip() == "ws, v = 0.4"
    assert [line.split()[0] for line in lines if line.startswith("features")] == [f"features.{n}" for n in (10, 14, 17)]
    assert "pruned" not in out
    assert json.loads(Path("runs/tiny/analysis.json").read_text())["prunability"] is None


def test_floors_keep_layers_from_collapsing(chase: Chase, workspace: Path) -> None:
    most = ["--criterion", "umm", "--share", "0.6", "--limit", "8", "--json"]

    bare, floored = (chase("analyze", *most, "--min-channel-ratio", ratio) for ratio in ("0", "1"))

    assert "A layer is left with a single channel by umm from 60 % on (features." in bare[2]
    assert "single channel" not in floored[2]
    rows = [json.loads(out)["prunability"]["rows"][0] for _, out, _ in (bare, floored)]
    assert (len(rows[0]["collapsed"]) > 0, rows[1]["collapsed"]) == (True, [])


def test_a_folder_can_be_named(chase: Chase, workspace: Path) -> None:
    (workspace / "runs/latest").unlink()

    assert chase("analyze", "runs/tiny", "--no-prunability", "--quiet")[:2] == (0, "")
    assert chase("--run", "runs/tiny", "analyze", "--no-prunability", "--quiet")[:2] == (0, "")


def test_of_a_dense_run_only_prunability_is_left(chase: Chase, empty: Path) -> None:
    trained = chase("train", "--model", "mlp", "--data", "digits", "--method", "dense", *SMALL, "--quiet")
    assert trained[0] == 0, trained[2]

    code, out, err = chase("analyze", *QUICK)
    assert (code, "amenable" in out, "unpruned" in out) == (0, False, True)
    assert "holds no amenable channels: it was trained dense" in err

    code, out, err = chase("analyze", "--no-prunability")
    assert (code, out) == (2, "")
    assert err.startswith("chase: runs/run/metrics.jsonl holds no amenable channels: it was trained dense")


REFUSED = [
    (["runs/none"], "no such run: runs/none"),
    (["--metric", "wss"], "no amenable metric named 'wss'; did you mean 'ws'?"),
    (["--threshold", "0.25"], "at the threshold 0.25, only at 0, 0.2, 0.3, 0.4"),
    (["--layer", "conv*"], "no layer fits 'conv*'"),
    (["--criterion", "umn"], "did you mean 'umm'?"),
    (["--share", "1"], "must lie in (0, 1), not 1.0"),
    (["--limit", "0"], "0 images are too few"),
    (["--draws", "0"], "0 draws are too few"),
    (["--min-channel-ratio", "2"], "min_channel_ratio must lie in [0, 1], not 2"),
    (["--data", "nowhere/images"], "nowhere/images"),
    (["--device", "cuda:99"], "'cuda:99' is not available here"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED, ids=[" ".join(case[0]) for case in REFUSED])
def test_bad_input_is_one_line_and_exit_2(chase: Chase, workspace: Path, arguments: list[str], words: str) -> None:
    code, _, err = chase("analyze", *arguments, "--quiet")

    assert code == 2
    assert words in err
    assert err.count("\n") == 1
    assert not list(workspace.glob("runs/tiny/analysis.*"))


def test_a_run_that_lacks_something_says_what(chase: Chase, workspace: Path) -> None:
    checkpoint, metrics = Path("runs/tiny/checkpoint.pt"), Path("runs/tiny/metrics.jsonl")

    checkpoint.rename("away.pt")
    assert "no such file: runs/tiny/checkpoint.pt" in chase("analyze", "--quiet")[2]
    assert chase("analyze", "--no-prunability", "--quiet")[0] == 0

    metrics.unlink()
    code, out, err = chase("analyze")
    assert (code, out, err) == (2, "", "chase: runs/tiny has no metrics.jsonl; make it with `chase train`\n")
