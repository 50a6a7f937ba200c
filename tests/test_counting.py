"""Parameters and MACs: hand-computed layers, published networks, and equality with the network really slimmed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from networks import chosen_groups, paper_network, random_masks, randomise_
from torch import Tensor, nn
from torch.nn import functional as F

from chase import counting
from chase.counting import count, macs_at_widths, masked_macs, parameters
from chase.models import build
from chase.models.resnet import BasicBlock
from chase.slimming import slimmed
from chase.sparse.masks import Masks
from chase.tracing import Trace

IMAGE = (1, 4, 10, 12)


class Calls(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Conv2d(4, 6, 3, padding=1), IMAGE, 6 * 4 * 9 * 120),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), IMAGE, 6 * 4 * 9 * 5 * 6),
        (nn.Conv2d(4, 6, 3, dilation=2), IMAGE, 6 * 4 * 9 * 6 * 8),
        (nn.Conv2d(4, 6, 3, padding=1, groups=2), IMAGE, 6 * 2 * 9 * 120),
        (nn.Conv2d(4, 4, (3, 1), groups=4), IMAGE, 4 * 3 * 8 * 12),
        (nn.Conv1d(4, 6, 3), (1, 4, 10), 6 * 4 * 3 * 8),
        (nn.Conv3d(4, 6, 2), (1, 4, 3, 3, 3), 6 * 4 * 8 * 8),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), IMAGE, 4 * 6 * 4 * 120),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), IMAGE, 4 * 3 * 9 * 120),
        (nn.Linear(4, 6), (1, 4), 24),
        (nn.Linear(4, 6), (1, 7, 4), 24 * 7),
        (Calls(lambda x: x @ x.transpose(1, 2)), (1, 7, 4), 7 * 7 * 4),
        (Calls(lambda x: torch.bmm(x, x.transpose(1, 2))), (1, 7, 4), 7 * 7 * 4),
        (Calls(lambda x: F.scaled_dot_product_attention(x, x, x)), (1, 3, 7, 4), 3 * 7 * 7 * (4 + 4)),
        (Calls(lambda x: F.scaled_dot_product_attention(x[:, :5], x, x[..., :2])), (1, 7, 4), 5 * 7 * (4 + 2)),
        (nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()), IMAGE, 0),
    ],
)
def test_macs_of_an_operator_are_those_of_its_formula(layer: nn.Module, shape: tuple[int, ...], macs: int) -> None:
    counts = count(layer, torch.rand(shape))

    assert counts.macs.to_dict() == {"theoretical": macs, "gpu_supported": macs, "dense": macs}
    assert counts.unknown == ()


def test_macs_are_per_image_whatever_the_batch() -> None:
    assert count(nn.Linear(4, 6), torch.rand(5, 4)).macs.dense == 24


def test_a_layer_that_is_used_twice_is_counted_twice_and_stored_once() -> None:
    layer = nn.Linear(4, 4)

    counts = count(nn.Sequential(layer, nn.ReLU(), layer), torch.rand(1, 4))

    assert counts.macs.dense == 32
    assert counts.params.to_dict() == {"nonzero": 20, "stored": 20, "dense": 20}


def test_zeros_are_credited_in_the_theoretical_column_only() -> None:
    model = nn.Linear(4, 6)
    with torch.no_grad():
        model.weight[:2] = 0
        model.bias[0] = 0

    counts = count(model, torch.rand(1, 3, 4), dense=count(nn.Linear(4, 12), torch.rand(1, 3, 4)))

    assert counts.macs.to_dict() == {"theoretical": 3 * 16, "gpu_supported": 3 * 24, "dense": 3 * 48}
    assert counts.params.to_dict() == {"nonzero": 16 + 5, "stored": 30, "dense": 60}


def test_operators_that_nobody_counts_are_reported_with_how_often_they_occur() -> None:
    counts = count(Calls(lambda x: torch.cumsum(x, 1).cumsum(1) + torch.linalg.inv(x)), torch.rand(1, 3, 3))

    assert counts.unknown == ("aten.cumsum ×2", "aten.linalg_inv ×1")
    assert counts.macs.dense == 0


def test_a_convolution_with_a_computed_weight_is_reported_not_ignored() -> None:
    class Computed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(2, 4))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight.abs())

    assert count(Computed(), torch.rand(1, 4)).unknown == ("aten.linear ×1",)


def traced_once(name: str, num_classes: int, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The network, with the trace that other tests use as well."""
    model, traced = paper_network(name, num_classes)

    def given(model: nn.Module, example: Tensor) -> Trace:
        return traced

    monkeypatch.setattr(counting, "trace", given)
    return model


@pytest.mark.parametrize(
    ("name", "num_classes", "params", "weights", "layers", "macs"),
    [
        ("cifar-resnet50", 10, 23_520_832, 23_467_712, 54, 1_297_829_888),
        ("vgg19", 10, 20_040_522, 20_024_000, 17, 398_136_320),
        ("cifar-resnet20", 10, 272_474, 270_896, 22, 40_813_184),
        ("cifar-resnet20", 100, 278_324, 276_656, 22, 40_818_944),
    ],
)
def test_the_papers_networks_cost_what_the_reference_says(
    name: str,
    num_classes: int,
    params: int,
    weights: int,
    layers: int,
    macs: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = count(traced_once(name, num_classes, monkeypatch), torch.zeros(1, 3, 32, 32))

    assert counts.params.stored == params
    assert sum(torch.Size(layer.shape).numel() for layer in counts.cost.layers) == weights
    assert len(counts.cost.layers) == layers
    assert counts.macs.dense == macs
    assert counts.unknown == ()


def test_a_hundred_classes_cost_ninety_more_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = {layer.weight: layer for layer in counting_cost("vgg19", monkeypatch).layers}

    assert layers["classifier.weight"].macs == 5120
    assert 398_136_320 + 90 * 512 == 398_182_400  # the published count for CIFAR-100


def counting_cost(name: str, monkeypatch: pytest.MonkeyPatch) -> counting.Cost:
    model = traced_once(name, 10, monkeypatch)
    return counting.cost(model, torch.zeros(1, 3, 32, 32))


def block() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), BasicBlock(8, 12, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)
    )


@pytest.mark.parametrize("make", [block, lambda: build("vgg8", num_classes=5, width=0.25)])
def test_masked_macs_are_those_of_the_network_once_it_is_slimmed(make: Callable[[], nn.Module]) -> None:
    example = torch.zeros(1, 3, 8, 8)
    model = make()
    randomise_(model)
    masks = random_masks(model, chosen_groups(model, example, prune_skip=True))
    dense = count(model, example)

    small = slimmed(model, masks, example=example, round_to=1).model

    counts = count(small, example, dense=dense)
    assert masked_macs(dense.cost, masks) == counts.macs
    assert counts.macs.theoretical < counts.macs.gpu_supported < counts.macs.dense
    assert macs_at_widths(dense.cost, masks.shapes()) == counts.macs.gpu_supported


def test_masks_under_which_everything_lives_cost_the_dense_network() -> None:
    model = block()
    spent = counting.cost(model, torch.zeros(1, 3, 8, 8))

    macs = masked_macs(spent, Masks.dense(model))

    assert macs.theoretical == macs.gpu_supported == macs.dense == spent.macs


def test_parameters_that_are_zero_are_stored_but_not_counted_as_alive() -> None:
    norm = nn.BatchNorm1d(7)  # γ = 1, β = 0

    assert parameters(norm) == (7, 14)
