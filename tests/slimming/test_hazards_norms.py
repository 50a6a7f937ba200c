"""Hazards: norms of activations, and weights that are computed in the forward pass (weight norm and its kin)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hazards import IMAGE, TOKENS, VECTOR, Operation, assert_exact, between, example_of, reason, reasons
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

pytestmark = pytest.mark.filterwarnings("ignore:input's size at dim=1 does not match num_features")  # an InstanceNorm

EXAMPLE = example_of(IMAGE)
OTHER = "arrives as something other than zero at last"
SHARED = "shares statistics with other channels at a GroupNorm"
COMPUTED = "is read by a weight that is computed in the forward pass, at conv2d in m"
HALF: dict[str, tuple[int, ...]] = {"first.weight": (4, 3, 1, 1), "last.weight": (2, 4, 3, 3)}


def normed(norm: nn.Module, before: Operation = torch.relu) -> Any:
    """A norm between two convolutions, of which the second pads with zeros."""
    return between(lambda net, x: net.m(before(x)), nn.Conv2d(8, 2, 3, padding=1), m=norm)


def parameters(*names: str) -> dict[str, Any]:
    return {name: nn.Parameter(torch.zeros(8)) for name in names}


EXACT: dict[str, tuple[nn.Module, int]] = {
    "batch norm": (nn.BatchNorm2d(8), 8),
    "batch norm of each batch": (nn.BatchNorm2d(8, track_running_stats=False), 8),
    "instance norm": (nn.InstanceNorm2d(8), 8),
    "affine instance norm": (nn.InstanceNorm2d(8, affine=True), 8),
    "affine instance norm with statistics": (nn.InstanceNorm2d(8, affine=True, track_running_stats=True), 8),
    "group norm": (nn.GroupNorm(4, 8), 4),
    "group norm of single channels": (nn.GroupNorm(8, 8), 8),
    "layer norm over space without bias": (nn.LayerNorm((8, 8), bias=False), 8),
    "rms norm over space": (nn.RMSNorm((8, 8)), 8),
}


@pytest.mark.parametrize("name", EXACT)
def test_a_norm_of_each_channel_or_group_by_itself_lets_them_leave(name: str) -> None:
    norm, units = EXACT[name]
    model = normed(copy.deepcopy(norm))
    channels = {
        f"m.{name}": (4,) for name, tensor in norm.state_dict().items() if tuple(tensor.shape) == (8,)
    }  # γ, β and the statistics

    assert_exact(model, EXAMPLE, {"first": units}, HALF | channels)


@pytest.mark.parametrize("name", ["batch norm", "affine instance norm", "instance norm", "group norm"])
def test_a_norm_turns_a_constant_back_into_zero(name: str) -> None:
    norm, units = EXACT[name]

    assert_exact(normed(copy.deepcopy(norm), torch.sigmoid), EXAMPLE, {"first": units}, HALF)


def test_the_groups_of_a_group_norm_follow_its_channels() -> None:
    small: Any = assert_exact(normed(nn.GroupNorm(4, 8)), EXAMPLE, {"first": 4}, HALF).model

    assert (small.m.num_groups, small.m.num_channels) == (2, 4)


HELD: dict[str, tuple[nn.Module, str]] = {
    "batch norm that leaks its mean": (nn.BatchNorm2d(8, affine=False), OTHER),
    "instance norm that leaks its mean": (nn.InstanceNorm2d(8, track_running_stats=True), OTHER),
    "group norm over all": (nn.GroupNorm(1, 8), SHARED),
    "group norm without weights": (nn.GroupNorm(4, 8, affine=False), SHARED),
    "layer norm over space": (nn.LayerNorm((8, 8)), OTHER),
    "layer norm over everything": (nn.LayerNorm((8, 8, 8)), "meets LayerNorm over channels"),
    "local response norm": (nn.LocalResponseNorm(3), "is pooled by aten.avg_pool3d"),
}


@pytest.mark.parametrize("name", HELD)
def test_a_norm_that_leaks_or_mixes_holds(name: str) -> None:
    norm, held = HELD[name]

    assert reasons(normed(copy.deepcopy(norm)), EXAMPLE)["first"] == held


@pytest.mark.parametrize("norm", [nn.LayerNorm(8), nn.RMSNorm(8)])
def test_a_norm_over_the_channels_of_tokens_holds(norm: nn.Module) -> None:
    found = reason(lambda net, x: net.m(x), nn.Linear(8, 2), TOKENS, m=norm)

    assert found == f"meets {type(norm).__name__} over channels"


def test_a_layer_norm_that_is_written_out_holds() -> None:
    def norm(net: Any, x: Tensor) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-5).sqrt()

    assert reason(norm, nn.Linear(8, 2), TOKENS) == "is reduced over channels by aten.mean"


FUNCTIONAL: dict[str, tuple[Operation, str]] = {
    "groups by number": (lambda net, x: F.group_norm(x, 4, net.w, net.v), SHARED),
    "groups by number, weights of a module": (lambda net, x: F.group_norm(x, 2, net.m.weight, net.m.bias), SHARED),
    "weights in buffers": (lambda net, x: F.batch_norm(x, net.b, net.c, net.b, net.b), OTHER),
    "weights that are not silent": (lambda net, x: F.batch_norm(x, net.b, net.c, net.w + 1, net.v), OTHER),
}


@pytest.mark.parametrize("name", FUNCTIONAL)
def test_a_functional_norm_is_not_taken_for_a_module(name: str) -> None:
    operation, held = FUNCTIONAL[name]
    parts: dict[str, Any] = {"m": nn.GroupNorm(4, 8), "b": torch.zeros(8), "c": torch.ones(8), **parameters("w", "v")}

    assert reason(operation, nn.Conv2d(8, 2, 3, padding=1), **parts) == held


def test_a_functional_batch_norm_slims_like_the_module() -> None:
    def norm(net: Any, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, net.w, net.v, training=True)

    model = between(norm, nn.Conv2d(8, 2, 3, padding=1), **parameters("w", "v"))

    assert_exact(model, EXAMPLE, {"first": 8}, HALF | {"w": (4,), "v": (4,)})


class Standardised(nn.Conv2d):
    """A convolution with a weight of mean 0 and variance 1 in each filter."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.var((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        return F.conv2d(x, weight, self.bias, padding=self.padding)


def test_a_standardised_weight_loses_filters_and_keeps_columns() -> None:
    model = normed(nn.Sequential(Standardised(8, 8, 3, padding=1), nn.ReLU()))

    assert reasons(model, EXAMPLE)["first"] == f"{COMPUTED}.0"
    assert_exact(model, EXAMPLE, {"m.0": 8}, {"m.0.weight": (4, 8, 3, 3), "last.weight": (2, 4, 3, 3)})


class Absolute(nn.Conv2d):
    """A convolution with positive weights."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.abs(), self.bias)


def test_a_weight_that_is_computed_entry_by_entry_slims_like_a_plain_one() -> None:
    model = normed(Absolute(8, 8, 1))

    assert_exact(model, EXAMPLE, {"first": 8, "m": 8}, HALF | {"m.weight": (4, 4, 1, 1)})


def test_a_weight_of_low_rank_parts_slims_along_both() -> None:
    model = between(
        lambda net, x: F.linear(x, net.m.weight + net.w @ net.v, net.m.bias).relu(),
        nn.Linear(6, 2),
        VECTOR,
        m=nn.Linear(8, 6),
        w=nn.Parameter(torch.zeros(6, 3)),
        v=nn.Parameter(torch.zeros(3, 8)),
    )
    shapes: dict[str, tuple[int, ...]] = {"w": (3, 3), "v": (3, 4), "m.weight": (3, 4), "last.weight": (2, 3)}

    assert_exact(model, example_of(VECTOR), {"first": 8, "m": 6}, shapes)


class Exponential(nn.Module):
    """A parametrization under which a zero is not a zero."""

    def forward(self, x: Tensor) -> Tensor:
        return x.exp()


def test_weights_that_dead_channels_do_not_silence_hold_on_both_sides() -> None:
    plain = nn.Conv2d(8, 8, 1)
    parametrize.register_parametrization(plain, "weight", Exponential())

    for layer in (plain, parametrizations.weight_norm(nn.Conv2d(8, 8, 1))):
        model = normed(layer)
        assert reasons(model, EXAMPLE) == {"first": COMPUTED, "last": "is an output of the model"}
        assert_exact(model, EXAMPLE, {}, {"m.bias": (8,)})


def test_a_spectral_norm_holds_and_is_not_turned_by_slimming() -> None:
    model = normed(parametrizations.spectral_norm(nn.Conv2d(8, 8, 1)))

    assert reasons(model, EXAMPLE)["first"] == "reaches aten.mv, which has no rule"
    assert_exact(model.train(), EXAMPLE, {}, {})


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_the_old_weight_norm_holds() -> None:
    layer = torch.nn.utils.weight_norm(nn.Conv2d(8, 8, 1))

    assert reasons(normed(layer), EXAMPLE)["first"] == COMPUTED
