"""Faults planted into slim networks: the certificate finds every one of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hazards import IMAGE, Toy, example_of, half_dead, scramble_
from torch import Tensor, nn

from chase.errors import EquivalenceError
from chase.slimming import Slimmed, channel_groups, slimmed
from chase.slimming.certificate import certify
from chase.slimming.groups import prunable
from chase.slimming.network import unrounded
from chase.sparse.masks import Masks

EXAMPLE = example_of(IMAGE)


def network() -> Toy:
    """Two branches with norms, joined; a depthwise and a grouped convolution; a constant that is folded."""

    def forward(net: Any, x: Tensor) -> Tensor:
        x = torch.cat([net.an(net.a(x)).relu(), net.bn(net.b(x)).relu()], 1)
        x = net.g(net.d(net.c(x)).relu())
        y: Tensor = net.last(x.sigmoid())
        return y

    conv, norm = nn.Conv2d, nn.BatchNorm2d
    return Toy(
        forward, a=conv(3, 8, 3), an=norm(8), b=conv(3, 8, 3), bn=norm(8), c=conv(16, 8, 1),
        d=conv(8, 8, 3, padding=1, groups=8), g=conv(8, 8, 1, groups=2), last=conv(8, 2, 1),
    )  # fmt: skip


@pytest.fixture(scope="module")
def masked() -> tuple[nn.Module, Masks, Slimmed]:
    """The network under masks that kill half of each group, those masks, and its slim network."""
    model = network()
    scramble_(model)
    masks = half_dead(model, prunable(channel_groups(model, EXAMPLE)))
    result = slimmed(model, masks, example=EXAMPLE, round_to=1)
    masks.apply_(model)
    return model, masks, result


def shift(tensor: Tensor, dim: int = 0) -> None:
    tensor.data = tensor.data.roll(1, dim)


def channel_shifted(net: Any) -> None:
    shift(net.a.weight)


def bias_shifted(net: Any) -> None:
    shift(net.c.bias)


def running_mean_wrong(net: Any) -> None:
    net.an.running_mean[1] += 0.01


def running_variance_of_another_channel(net: Any) -> None:
    shift(net.bn.running_var)


def slice_of_a_concatenation_off_by_one(net: Any) -> None:
    net.c.weight.data = torch.cat([net.c.weight[:, :4], net.c.weight[:, 4:].roll(1, 1)], 1)


def slices_of_a_concatenation_swapped(net: Any) -> None:
    shift(net.c.weight, 1)


def depthwise_filters_swapped(net: Any) -> None:
    net.d.weight.data = net.d.weight[[1, 0, *range(2, len(net.d.weight))]]


def fold_forgotten(net: Any) -> None:
    net.last.bias.data = net.folded_from


def groups_wrong(net: Any) -> None:
    net.g.groups = 1


def groups_wrong_in_a_way_that_runs(net: Any) -> None:
    net.g.groups, net.g.weight.data = 1, net.g.weight.repeat(1, 2, 1, 1)


def weight_a_millionth_off(net: Any) -> None:
    net.last.weight.data[0, 0, 0, 0] *= 1 + 1e-6


def not_a_number(net: Any) -> None:
    net.last.bias.data[0] = float("nan")


def output_missing(net: Any) -> None:
    net.last.weight.data, net.last.bias.data = net.last.weight[:1], net.last.bias[:1]


FAULTS: list[Callable[[Any], None]] = [
    channel_shifted, bias_shifted, running_mean_wrong, running_variance_of_another_channel,
    slice_of_a_concatenation_off_by_one, slices_of_a_concatenation_swapped, depthwise_filters_swapped, fold_forgotten,
    groups_wrong, groups_wrong_in_a_way_that_runs, weight_a_millionth_off, not_a_number, output_missing,
]  # fmt: skip


@torch.no_grad()
def certified(masked: tuple[nn.Module, Masks, Slimmed], fault: Callable[[Any], None] | None) -> dict[str, Any]:
    model, masks, result = masked
    small: Any = copy.deepcopy(result.model)
    exact = unrounded(model, masks, result.kept)
    if fault is not None:
        small.folded_from = model.get_parameter("last.bias")
        fault(small)
        exact = {name: value for name, value in exact.items() if torch.equal(value.float(), small.get_parameter(name))}
    return certify(model, small, example=EXAMPLE, exact=exact)


def test_the_slim_network_itself_passes(masked: tuple[nn.Module, Masks, Slimmed]) -> None:
    assert certified(masked, None)["max_rel"] <= 1e-12


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found(masked: tuple[nn.Module, Masks, Slimmed], fault: Callable[[Any], None]) -> None:
    with pytest.raises(EquivalenceError):
        certified(masked, fault)


def test_every_fault_changes_a_network_in_which_all_of_its_targets_are_slim(
    masked: tuple[nn.Module, Masks, Slimmed],
) -> None:
    shapes = masked[2].plan.shapes

    assert shapes["c.weight"] == [4, 8, 1, 1]
    assert shapes["d.weight"] == [4, 1, 3, 3]
    assert shapes["g.weight"][1] == 2
    assert not torch.equal(masked[2].model.get_parameter("last.bias"), masked[0].get_parameter("last.bias"))
