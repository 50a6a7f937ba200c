"""Files of slim networks that somebody's own loop trained."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import chosen_groups, random_masks, randomise_
from torch import Tensor, nn

from chase.checkpoint import InputSpec, build_model, load_network
from chase.counting import count
from chase.errors import CheckpointError, TraceError
from chase.models import MODELS
from chase.slimming import Slimmed, slimmed
from chase.slimming.stage import save_slim
from chase.sparse import Masks

INPUT = InputSpec(shape=(3, 8, 8), classes=("a", "b"), mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 2.0))
EXAMPLE = INPUT.example()


class Own(nn.Module):
    """Somebody's network; `branching` makes it one that no trace can follow."""

    def __init__(self, width: int = 8, branching: bool = False) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 6, 1)
        self.fc, self.branching = nn.Linear(6, 2), branching

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.last(self.norm(self.conv(x)).relu()).relu().mean((2, 3))
        y: Tensor = self.fc(hidden if not self.branching or hidden.sum() > 0 else -hidden)
        return y


def trained() -> tuple[nn.Module, Masks, Slimmed]:
    """A network, its masks, and its slim version."""
    torch.manual_seed(0)
    model = Own().eval()
    randomise_(model)
    masks = random_masks(model, chosen_groups(model, EXAMPLE))
    return model, masks, slimmed(model, masks, example=EXAMPLE, round_to=1)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> str:
    """A module `somebody` with a function `net`."""
    somebody = types.ModuleType("somebody")
    somebody.net = Own  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "somebody", somebody)
    return "somebody:net"


def assert_holds(path: Path, result: Slimmed) -> None:
    network = load_network(path, kinds=("slim",))
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 8, 8)
        torch.testing.assert_close(network.model(x), result.model(x), rtol=0, atol=0)


def test_a_file_with_a_program_needs_neither_code_nor_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHASE_TRUST_CODE", raising=False)
    model, masks, result = trained()

    save_slim(tmp_path / "slim.pt", result, masks, dense=model, input=INPUT)

    assert_holds(tmp_path / "slim.pt", result)
    content = load_network(tmp_path / "slim.pt").content
    assert content["model"].keys() == {"name", "program"}
    assert content["model"]["name"] == "Own"
    assert content["state_dict"] == {}


def test_a_file_that_names_a_constructor_is_built_by_it_where_it_is_trusted(
    tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, masks, result = trained()
    named = {"name": module, "settings": {"width": 8}}

    save_slim(tmp_path / "slim.pt", result, masks, dense=model, input=INPUT, model=named)

    monkeypatch.delenv("CHASE_TRUST_CODE", raising=False)
    with pytest.raises(CheckpointError, match="is code outside Chase; if you trust the file"):
        load_network(tmp_path / "slim.pt")
    monkeypatch.setenv("CHASE_TRUST_CODE", "1")
    assert_holds(tmp_path / "slim.pt", result)
    loaded = load_network(tmp_path / "slim.pt").model
    assert isinstance(loaded, Own)
    assert repr(loaded) == repr(result.model)


def test_the_facts_are_those_of_the_slim_network_beside_the_dense_one(tmp_path: Path) -> None:
    model, masks, result = trained()

    save_slim(tmp_path / "slim.pt", result, masks, dense=model, input=INPUT)

    network = load_network(tmp_path / "slim.pt")
    dense, slim = count(model, EXAMPLE), count(result.model, EXAMPLE)
    assert network.input == INPUT
    assert network.kind == "slim"
    assert network.macs == slim.macs.to_dict() | {"dense": dense.macs.dense}
    assert network.params == slim.params.to_dict() | {"dense": dense.params.dense}
    assert network.params["stored"] < network.params["dense"]
    assert network.facts["sparsity"] == masks.sparsity
    assert network.facts["channel_sparsity"] == pytest.approx(masks.channel_sparsity)
    assert network.facts["widths"] == {name: [len(alive), int(alive.sum())] for name, alive in masks.alive.items()}
    assert network.content["certificate"] == result.certificate
    assert torch.equal(network.content["masks"]["kept"]["conv"], result.kept["conv"])


def test_a_network_that_cannot_be_a_program_writes_nothing(tmp_path: Path) -> None:
    model, masks, result = trained()
    result.model.branching = True  # type: ignore[assignment]

    with pytest.raises(TraceError, match="cannot export Own as a program"):
        save_slim(tmp_path / "slim.pt", result, masks, dense=model, input=INPUT)
    assert list(tmp_path.iterdir()) == []


def test_settings_that_fetch_weights_never_reach_a_constructor(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def constructor(**settings: Any) -> nn.Module:
        seen.update(settings)
        return nn.Linear(1, 1)

    monkeypatch.setitem(MODELS, "recorded", constructor)
    fetching = {
        "pretrained": True,
        "pretrained_cfg": {"file": "x"},
        "pretrained_cfg_overlay": {"url": "http://nowhere"},
        "checkpoint_path": "x.pt",
        "cache_dir": "x",
        "weights": "DEFAULT",
    }

    build_model({"name": "recorded", "settings": {"num_classes": 3, "width": 2, **fetching}})

    assert seen == {"num_classes": 3, "width": 2}


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet10t"])
def test_a_file_that_asks_for_pretrained_weights_is_built_without_a_network(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object, **settings: object) -> None:
        raise AssertionError("asked for weights")

    monkeypatch.setattr("socket.socket.connect", refused)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refused)
    fetching = {"weights": "DEFAULT"} if name.startswith("torchvision") else {"pretrained": True}

    model = build_model({"name": name, "settings": {"num_classes": 5, **fetching}})

    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 5)
