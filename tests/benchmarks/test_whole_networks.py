"""Real networks from end to end: groups, cut, certificate, reload, another batch size, a training step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from chase.benchmarks.architectures import examine
from chase.benchmarks.zoo import ZOOS
from chase.slimming import channel_groups, prunable, slimmed
from chase.sparse.masks import Masks

LAYER_NORM, HEAD = "meets LayerNorm over channels", "is part of an attention head"


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("torchvision:mobilenet_v3_small", {}),
        ("torchvision:shufflenet_v2_x0_5", {}),
        ("torchvision:squeezenet1_1", {}),
        ("torchvision:regnet_y_400mf", {}),
        ("torchvision:googlenet", {}),  # with its auxiliary heads
        ("timm:test_vit", {LAYER_NORM: 64, HEAD: 192}),
        ("timm:test_convnext", {LAYER_NORM: 168}),
        ("timm:test_byobnet", {}),
        ("timm:test_efficientnet", {}),
    ],
)
def test_a_network_slims_exactly_and_trains_on(name: str, held: dict[str, int]) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")

    row = examine(name, shares=(0.5,))

    assert row["ok"], f"{row['stage']}: {row['error']}"
    assert row["slim"]["0.5"]["max_rel"] <= 1e-10
    assert row["held"] == held
    assert row["share"] == pytest.approx(row["removable"] / (row["removable"] + sum(held.values())))


def test_a_hidden_width_that_is_declared_follows() -> None:
    res2net = pytest.importorskip("timm.models.res2net")
    torch.manual_seed(0)
    block = res2net.Bottle2neck(32, 8, base_width=64, scale=4, act_layer=nn.ReLU, norm_layer=nn.BatchNorm2d)
    model = nn.Sequential(nn.Conv2d(3, 32, 3), block).eval()
    example = torch.zeros(1, 3, 12, 12)
    groups = prunable(channel_groups(model, example), prune_skip=True)
    masks = Masks.dense(model, groups)
    for alive in masks.alive.values():
        alive[::2] = False

    small = slimmed(model, masks, example=example, round_to=1).model

    assert {group.name: group.size for group in groups} == {"1.conv1": 32, "1.convs.2": 8}
    assert small.get_submodule("1").width == 4  # it splits the 16 channels of its first convolution into 4 parts


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for zoo in ("torchvision", "timm") for name in ZOOS[zoo]()])
def test_every_network_of_the_zoos_slims_exactly(name: str) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")

    row = examine(name)

    assert row["ok"], f"{row['stage']}: {row['error']}"
