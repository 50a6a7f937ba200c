"""The dense twin of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from chase.checkpoint import load_network
from chase.files import sha256
from chase.recipe import Recipe
from chase.run import Run
from chase.slimming.stage import slim_checkpoint
from chase.training import train
from chase.twin import write_dense

BLOCKS: dict[str, Any] = {
    "model": {"name": "mlp", "hidden": [8]},
    "data": {"name": "synthetic", "shape": [1, 4, 4], "train": 20, "test": 4, "classes": 2, "batch_size": 10},
    "training": {"epochs": 1},
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with a slim network."""
    made = Run(tmp_path / "run")
    method = {"name": "chase", "sparsity": 0.5, "channel_sparsity": 0.5, "round_to": 1}
    train(Recipe.from_dict({**BLOCKS, "method": method}), made, device="cpu")
    slim_checkpoint(made.checkpoint, made.slim, round_to=1)
    return made


def train_twin(run: Run) -> None:
    train(Recipe.from_dict({**BLOCKS, "method": "dense"}), run.dense, device="cpu")


def test_without_a_trained_twin_it_is_the_same_architecture_untrained(run: Run) -> None:
    twin = load_network(write_dense(run))

    assert twin.kind == "dense"
    assert twin.path == run.folder / "dense" / "dense.pt"
    assert twin.facts["trained"] is False
    assert twin.macs == dict.fromkeys(("theoretical", "gpu_supported", "dense"), 16 * 8 + 8 * 2)
    assert twin.params["stored"] == twin.params["dense"] == 16 * 8 + 8 + 8 * 2 + 2
    assert twin.input == load_network(run.slim).input
    assert run.is_current(twin.path, trained=False)


def test_a_trained_twin_is_stripped_to_its_network(run: Run) -> None:
    train_twin(run)

    twin = load_network(write_dense(run))

    trained = load_network(run.dense.checkpoint)
    assert twin.facts == trained.facts | {"trained": True}
    assert twin.content["parent_sha256"] == sha256(trained.path)
    assert "training" not in twin.content
    assert twin.path.stat().st_size < trained.path.stat().st_size
    x = torch.rand(2, 1, 4, 4)
    assert torch.equal(twin.model(x), trained.model(x))


def test_a_twin_that_is_current_is_not_written_again(run: Run) -> None:
    path = write_dense(run)
    first = path.stat().st_mtime_ns

    assert write_dense(run).stat().st_mtime_ns == first

    train_twin(run)
    assert load_network(write_dense(run)).facts["trained"] is True
    second = path.stat().st_mtime_ns
    assert write_dense(run).stat().st_mtime_ns == second


def test_a_training_that_was_interrupted_is_no_twin(run: Run) -> None:
    train_twin(run)
    content = torch.load(run.dense.checkpoint, weights_only=True)
    content["facts"]["complete"] = False
    torch.save(content, run.dense.checkpoint)

    assert load_network(write_dense(run)).facts["trained"] is False
