from __future__ import annotations

import json
from pathlib import Path

import torch

from chase.benchmarks.overhead import main, training_step


def test_the_report_holds_raw_samples_and_ratios(tmp_path: Path) -> None:
    main(["--out", str(tmp_path / "o.json"), "--case", "vgg8:2", "--seconds", "0.1"])

    (row,) = json.loads((tmp_path / "o.json").read_text())["rows"]
    assert (row["model"], row["batch_size"]) == ("vgg8", 2)
    assert set(row["samples_ms"]) == {"dense", "again", "sparse"}
    assert row["masking_share"] == row["masking_ms"] / row["dense_step_ms"]
    low, high = row["sparse_over_dense"]["ci95"]
    assert low <= row["sparse_over_dense"]["median"] <= high


def test_the_sparse_step_trains_and_stays_sparse() -> None:
    step, sparsifier = training_step("vgg8", 2, sparse=True)
    assert sparsifier is not None
    weight, mask = sparsifier.model.get_parameter("features.3.weight"), sparsifier.masks.weights["features.3.weight"]
    before = weight.detach().clone()

    step()

    assert not torch.equal(weight, before)
    assert not weight.detach()[mask == 0].any()
