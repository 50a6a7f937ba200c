"""Settings of modules that follow the shapes of their tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import chosen_groups, random_masks, randomise_
from torch import Tensor, nn

from chase.slimming import FOLLOWERS, channel_groups, slimmed
from chase.slimming.followers import followed, follower


def with_shapes(module: nn.Module, **shapes: tuple[int, ...]) -> Any:
    """The module with tensors of other shapes."""
    for name, shape in shapes.items():
        getattr(module, name).data = torch.zeros(shape)
    return module


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (with_shapes(nn.Conv2d(6, 8, 3), weight=(5, 4, 3, 3)), {"in_channels": 4, "out_channels": 5}),
        (with_shapes(nn.Conv1d(6, 8, 3, groups=2), weight=(4, 2, 3)), {"in_channels": 4, "out_channels": 4}),
        (
            with_shapes(nn.Conv2d(6, 6, 3, groups=6), weight=(4, 1, 3, 3)),
            {"in_channels": 4, "out_channels": 4, "groups": 4},
        ),
        (
            with_shapes(nn.Conv2d(6, 12, 3, groups=6), weight=(8, 1, 3, 3)),  # two filters a channel
            {"in_channels": 4, "out_channels": 8, "groups": 4},
        ),
        (with_shapes(nn.Conv2d(1, 6, 3), weight=(4, 1, 3, 3)), {"out_channels": 4}),
        (with_shapes(nn.ConvTranspose2d(6, 8, 2), weight=(5, 4, 2, 2)), {"in_channels": 5, "out_channels": 4}),
        (
            with_shapes(nn.ConvTranspose2d(6, 6, 2, groups=6), weight=(4, 1, 2, 2)),
            {"in_channels": 4, "out_channels": 4, "groups": 4},
        ),
        (with_shapes(nn.Linear(6, 8), weight=(3, 2)), {"in_features": 2, "out_features": 3}),
        (with_shapes(nn.BatchNorm2d(6), running_mean=(4,)), {"num_features": 4}),
        (with_shapes(nn.BatchNorm2d(6, affine=False), running_mean=(4,)), {"num_features": 4}),
        (with_shapes(nn.InstanceNorm2d(6, affine=True), weight=(4,)), {"num_features": 4}),
        (nn.InstanceNorm2d(6), {}),
        (with_shapes(nn.GroupNorm(3, 6), weight=(4,)), {"num_channels": 4, "num_groups": 2}),
        (with_shapes(nn.GroupNorm(6, 6), weight=(4,)), {"num_channels": 4, "num_groups": 4}),
        (nn.GroupNorm(3, 6, affine=False), {}),
        (with_shapes(nn.PReLU(6), weight=(4,)), {"num_parameters": 4}),
        (with_shapes(nn.Embedding(9, 6), weight=(9, 4)), {"embedding_dim": 4}),
        (nn.ReLU(), {}),
        (nn.Linear(6, 8), {}),
    ],
    ids=repr,
)
def test_the_settings_are_those_that_the_tensors_ask_for(module: nn.Module, expected: dict[str, int]) -> None:
    assert followed(nn.Sequential(module)) == ({"0": expected} if expected else {})
    assert {name: getattr(module, name) for name in expected} == expected
    assert followed(nn.Sequential(module)) == {}


def test_a_module_that_follows_computes_with_its_new_tensors() -> None:
    norm = with_shapes(nn.GroupNorm(3, 6), weight=(4,), bias=(4,))
    depthwise = with_shapes(nn.Conv2d(6, 12, 3, groups=6), weight=(8, 1, 3, 3), bias=(8,))
    model = nn.Sequential(norm, depthwise)

    followed(model)

    assert model(torch.randn(2, 4, 5, 5)).shape == (2, 8, 3, 3)


class Heads(nn.Module):
    """A hidden layer of `heads` blocks, as a user would write it; the blocks are averaged."""

    def __init__(self, heads: int = 6) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(4, heads), nn.Linear(heads, 2)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.outer(self.inner(x).view(-1, self.heads).relu())
        return y


class MoreHeads(Heads):
    """A child of a declared class."""


def heads(module: Any) -> dict[str, Any]:
    return {"heads": module.inner.weight.shape[0]}


EXAMPLE = torch.zeros(1, 4)


def test_a_number_that_nobody_declared_fixes_the_channels() -> None:
    assert follower(Heads()) is None
    assert (channel_groups(Heads(), EXAMPLE)[0].why_not() or "").startswith("the forward pass fixes their number: ")


@pytest.mark.parametrize("key", [Heads, f"{Heads.__module__}.Heads"], ids=["class", "name"])
@pytest.mark.parametrize("kind", [Heads, MoreHeads])
def test_a_users_class_is_declared_by_itself_or_by_its_name(
    key: type | str, kind: type[Heads], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FOLLOWERS, key, heads)
    torch.manual_seed(0)
    model = kind()
    randomise_(model)

    masks = random_masks(model, chosen_groups(model, EXAMPLE))
    result = slimmed(model, masks, example=EXAMPLE, round_to=1)

    left = masks.widths()["inner"]
    assert left < 6
    assert result.plan.attributes == {
        "": {"heads": left},
        "inner": {"out_features": left},
        "outer": {"in_features": left},
    }
    assert result.certificate["max_rel"] <= 1e-10


def test_the_nearest_declared_parent_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(module: Any) -> dict[str, Any]:
        return {}

    monkeypatch.setitem(FOLLOWERS, Heads, heads)
    monkeypatch.setitem(FOLLOWERS, MoreHeads, nothing)

    assert follower(MoreHeads()) is nothing
    assert follower(Heads()) is heads
    assert follower(nn.BatchNorm3d(2)) is follower(nn.InstanceNorm1d(2))
