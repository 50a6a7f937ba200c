"""Starting from the weights of another training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_training import same_weights

from chase import checkpoint
from chase.checkpoint import InputSpec
from chase.errors import CheckpointError, RecipeError
from chase.models import build
from chase.pretrained import take_weights

SETTINGS = {"num_classes": 3, "in_channels": 1, "side": 8}


def saved(folder: Path, kind: str = "dense") -> Path:
    model = build("mlp", **SETTINGS)
    checkpoint.save(
        folder / "weights.pt",
        kind=kind,
        model={"name": "mlp", "settings": SETTINGS},
        network=model,
        input=InputSpec(shape=(1, 8, 8)),
        widths=None,
        facts={},
    )
    return folder / "weights.pt"


def test_every_weight_is_taken_over(tmp_path: Path) -> None:
    torch.manual_seed(1)
    path = saved(tmp_path)
    model = build("mlp", **SETTINGS)

    take_weights(model, path)

    assert same_weights(model, checkpoint.load_model(path))


def test_another_architecture_is_refused_with_what_differs(tmp_path: Path) -> None:
    path = saved(tmp_path)
    model = build("mlp", **{**SETTINGS, "num_classes": 4})
    before = {name: value.clone() for name, value in model.state_dict().items()}

    with pytest.raises(RecipeError, match=r"another network: 5.weight is \[3, 512\] there and \[4, 512\] here"):
        take_weights(model, path)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_slim_network_has_other_shapes_and_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds a slim network; this needs: dense, masked"):
        take_weights(build("mlp", **SETTINGS), saved(tmp_path, kind="slim"))
