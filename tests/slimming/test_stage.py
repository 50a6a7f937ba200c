"""The slimming stage, from a trained checkpoint to slim.pt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from chase import checkpoint
from chase.checkpoint import Network, load_network
from chase.counting import count
from chase.errors import CheckpointError, EquivalenceError, RecipeError
from chase.files import sha256
from chase.models import MODELS
from chase.recipe import Recipe
from chase.run import Run
from chase.slimming import channel_groups
from chase.slimming.groups import prunable
from chase.slimming.network import cut
from chase.slimming.stage import rehearse, slim_checkpoint, stored_masks
from chase.sparse.masks import unpack
from chase.training import train

BLOCKS: dict[str, Any] = {
    "model": {"name": "vgg8", "width": 0.25},
    "data": {"name": "synthetic", "shape": [3, 8, 8], "train": 64, "test": 16, "classes": 4, "batch_size": 16},
    "method": {"name": "chase", "sparsity": 0.5, "channel_sparsity": 0.4, "round_to": 1},
    "training": {"epochs": 1},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of one epoch."""
    folder = tmp_path_factory.mktemp("run")
    return train(Recipe.from_dict(BLOCKS), Run(folder), device="cpu")


@pytest.fixture(scope="module")
def slim(trained: Path) -> tuple[Network, dict[str, Any]]:
    """Its slim network and the facts that the stage returned."""
    facts = slim_checkpoint(trained, trained.with_name("slim.pt"), round_to=4)
    return load_network(trained.with_name("slim.pt")), facts


def test_the_slim_file_answers_as_the_masked_one(trained: Path, slim: tuple[Network, dict[str, Any]]) -> None:
    x: Tensor = torch.rand(5, 3, 8, 8)

    torch.testing.assert_close(slim[0].model(x), load_network(trained).model(x))
    assert slim[1]["certificate"]["max_rel"] <= 1e-10
    assert slim[1]["certificate"]["samples"] == {"random": 3, "other_size": 1, "real": 16}


def test_the_slim_file_is_small_and_says_where_it_came_from(
    trained: Path, slim: tuple[Network, dict[str, Any]]
) -> None:
    network, _ = slim

    assert network.kind == "slim"
    assert network.content["parent_sha256"] == sha256(trained)
    assert network.content["recipe"] == Recipe.from_dict(BLOCKS).to_dict()
    assert network.path.stat().st_size < trained.stat().st_size
    assert "training" not in network.content


def test_the_facts_of_the_training_are_kept_and_the_counts_are_those_of_the_slim_network(
    trained: Path, slim: tuple[Network, dict[str, Any]]
) -> None:
    network, facts = slim
    before = load_network(trained).facts
    counts = count(network.model, network.input.example())

    for key in ("epoch", "validation_accuracy", "test_accuracy", "sparsity", "complete"):
        assert network.facts[key] == before[key]
    assert facts == network.facts | {"certificate": network.content["certificate"]}
    assert network.macs == counts.macs.to_dict() | {"dense": before["macs"]["dense"]}
    assert network.params == counts.params.to_dict() | {"dense": before["params"]["dense"]}
    assert network.params["stored"] < network.params["dense"]


def test_widths_stand_on_the_grid_and_channel_sparsity_follows_from_them(slim: tuple[Network, dict[str, Any]]) -> None:
    widths = slim[1]["widths"]

    assert [dense for dense, _ in widths.values()] == [16, 16, 32, 32, 64, 64]
    assert all(left % 4 == 0 for _, left in widths.values())
    assert slim[1]["channel_sparsity"] == pytest.approx(1 - sum(left for _, left in widths.values()) / 224)


def test_the_stored_masks_are_those_of_the_slim_weights(slim: tuple[Network, dict[str, Any]]) -> None:
    network = slim[0]

    for name, bits in network.content["masks"]["weights"].items():
        weight = network.model.get_parameter(name)
        assert not weight[unpack(bits, weight) == 0].any()


def test_a_finer_grid_gives_the_channel_sparsity_of_the_training(trained: Path, tmp_path: Path) -> None:
    facts = slim_checkpoint(trained, tmp_path / "slim.pt", round_to=1)

    assert facts["channel_sparsity"] == load_network(trained).facts["channel_sparsity"]
    assert facts["channel_sparsity"] == pytest.approx(0.4, abs=1 / 224)


def test_a_slim_file_is_not_slimmed_again(slim: tuple[Network, dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds a slim network; this needs: masked"):
        slim_checkpoint(slim[0].path, tmp_path / "again.pt")


def test_a_dense_file_is_refused(trained: Path, tmp_path: Path) -> None:
    content = checkpoint.read(trained)
    torch.save(content | {"kind": "dense"}, tmp_path / "dense.pt")

    with pytest.raises(CheckpointError, match="holds a dense network; this needs: masked"):
        slim_checkpoint(tmp_path / "dense.pt", tmp_path / "slim.pt")


def test_masks_of_other_settings_are_refused(trained: Path, tmp_path: Path) -> None:
    content = checkpoint.read(trained)
    content["recipe"]["method"]["keep"] = ["features.0"]
    torch.save(content, tmp_path / "other.pt")

    with pytest.raises(CheckpointError, match="the stored masks belong to another model or other settings: features.0"):
        stored_masks(load_network(tmp_path / "other.pt"))


def test_a_certificate_that_fails_writes_nothing(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*arguments: Any, **settings: Any) -> Any:
        small, plan, kept = cut(*arguments, **settings)
        small.get_parameter("features.0.bias").data[0] += 1
        return small, plan, kept

    monkeypatch.setattr("chase.slimming.network.cut", faulty)

    with pytest.raises(EquivalenceError, match="nothing was written"):
        slim_checkpoint(trained, tmp_path / "slim.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_without_channel_sparsity_keeps_every_channel(tmp_path: Path) -> None:
    blocks = BLOCKS | {"method": {"name": "static", "sparsity": 0.5}}
    source = train(Recipe.from_dict(blocks), Run(tmp_path / "static"), device="cpu")

    facts = slim_checkpoint(source, tmp_path / "slim.pt")

    assert facts["widths"] == {}
    assert facts["channel_sparsity"] == 0
    assert facts["macs"]["gpu_supported"] == facts["macs"]["dense"]


class Scaled(nn.Module):
    """A forward pass with a number of channels in its arithmetic; no shape shows that it follows them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv(x).relu()
        answer: Tensor = self.fc(hidden.mean((2, 3)) * float(hidden.shape[1]))
        return answer


def test_a_rehearsal_refuses_before_training_what_could_not_be_slimmed_after_it() -> None:
    model, example = Scaled(), torch.zeros(1, 3, 8, 8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    groups = prunable(channel_groups(model, example))

    assert [group.name for group in groups] == ["conv"]
    with pytest.raises(EquivalenceError, match="differs from the masked one"):
        rehearse(model, groups, example=example)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_training_is_rehearsed_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "scaled", lambda num_classes: Scaled())
    blocks = BLOCKS | {"model": {"name": "scaled"}}

    with pytest.raises(EquivalenceError):
        train(Recipe.from_dict(blocks), Run(tmp_path / "run"), device="cpu")
    assert not (tmp_path / "run").exists()


class FixedSize(nn.Module):
    """A forward pass with a size written into it; a trial shows that it cannot change."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.fc(self.conv(x).relu().view(-1, 256))
        return answer


def test_a_training_without_channels_that_may_leave_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "fixed-size", lambda num_classes: FixedSize())
    blocks = BLOCKS | {"model": {"name": "fixed-size"}}

    with pytest.raises(RecipeError, match="channel_sparsity 0.4 cannot be reached: no channel may leave"):
        train(Recipe.from_dict(blocks), Run(tmp_path / "run"), device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_rehearsal_passes_what_can_be_slimmed() -> None:
    model, example = MODELS["cifar-resnet20"](num_classes=10), torch.zeros(1, 3, 16, 16)

    rehearse(model, prunable(channel_groups(model, example), prune_skip=True), example=example)
