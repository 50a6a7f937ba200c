"""The whole chain on real images, as `chase demo` runs it, with a narrower network and fewer epochs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from chase.checkpoint import load_network
from chase.cli import main
from chase.data import load_data
from chase.runtimes import open_runtime

SMALLER = ["-o", "training.epochs=10", "-o", "model.width=0.5", "--seconds", "0.05"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with pytest.raises(SystemExit) as stop:
            main(["demo", *SMALLER, "--quiet"])
    assert stop.value.code == 0
    return folder / "runs/digits-demo"


def test_slim_meets_both_sparsities_exactly_on_the_grid(demo: Path) -> None:
    facts = load_network(demo / "slim.pt").facts
    masked = load_network(demo / "checkpoint.pt")
    total = sum(weight.numel() for name, weight in masked.model.state_dict().items() if weight.ndim > 1)

    assert round((1 - facts["sparsity"]) * total) == round(0.1 * total)
    assert facts["channel_sparsity"] == 0.5
    assert all(after % 8 == 0 for _, after in facts["widths"].values())


def test_slim_is_smaller_and_about_as_good_as_its_dense_twin(demo: Path) -> None:
    slim, dense = load_network(demo / "slim.pt").facts, load_network(demo / "dense/dense.pt").facts

    assert slim["test_accuracy"] >= 90
    assert slim["test_accuracy"] >= dense["test_accuracy"] - 5
    assert slim["macs"]["gpu_supported"] < 0.8 * dense["macs"]["dense"] == 0.8 * slim["macs"]["dense"]
    assert slim["params"]["stored"] < 0.6 * dense["params"]["stored"]
    assert (demo / "slim.pt").stat().st_size < (demo / "dense/dense.pt").stat().st_size


def test_every_artifact_answers_as_the_masked_network(demo: Path) -> None:
    images, _ = next(load_data("digits").test.batches(64))
    with torch.inference_mode():
        expected = load_network(demo / "checkpoint.pt").model(images)

    for name in ("slim.pt", "model.onnx", "model.ts"):
        with open_runtime(demo / name) as runtime:
            assert torch.allclose(runtime.run(images), expected, atol=1e-4 * float(expected.abs().max()))


def test_the_benchmark_pairs_slim_with_dense_and_measures_accuracy(demo: Path) -> None:
    rows = json.loads((demo / "bench.json").read_text())["rows"]
    accuracies = {row["artifact"]: row["accuracy"] for row in rows}

    assert {row["batch_size"] for row in rows} == {1, 2, 32}
    assert len(rows) == 18
    assert accuracies["slim model.onnx"] == load_network(demo / "slim.pt").facts["test_accuracy"]
    assert accuracies["dense model.ts"] == load_network(demo / "dense/dense.pt").facts["test_accuracy"]
    assert all((row["speedup_vs_dense"] is None) == row["artifact"].startswith("dense") for row in rows)


def test_the_manifest_leads_from_every_artifact_back_to_the_recipe(demo: Path) -> None:
    entries = json.loads((demo / "manifest.json").read_text())

    assert list(entries["model.onnx"]["parents"]) == ["slim.pt"]
    assert entries["model.onnx"]["parents"]["slim.pt"] == entries["slim.pt"]["sha256"]
    assert entries["slim.pt"]["parents"]["checkpoint.pt"] == entries["checkpoint.pt"]["sha256"]
    assert list(entries["checkpoint.pt"]["parents"]) == ["recipe.yaml"]
