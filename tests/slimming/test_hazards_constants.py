"""Hazards: a dead channel that becomes a constant, which is folded into a bias or holds the channel and says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hazards import IMAGE, TOKENS, VECTOR, Operation, Toy, assert_exact, between, example_of, reason
from torch import nn
from torch.nn import functional as F

EXAMPLE = example_of(IMAGE)
OTHER = "arrives as something other than zero at last"


def last(padding: int | str = 0, *, kernel: int = 3, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(8, 2, kernel, padding=padding, bias=bias)


FOLDED: dict[str, Operation] = {
    "plus one": lambda net, x: x + 1,
    "one minus": lambda net, x: 1 - x,
    "plus a multiple": lambda net, x: torch.add(x, 2, alpha=3),
    "sigmoid": lambda net, x: x.sigmoid(),
    "hardsigmoid": lambda net, x: F.hardsigmoid(x),
    "softplus": lambda net, x: F.softplus(x),
    "logsigmoid": lambda net, x: F.logsigmoid(x),
    "exp": lambda net, x: x.exp(),
    "cos": lambda net, x: x.cos(),
    "clamp": lambda net, x: x.clamp(min=0.1),
    "threshold": lambda net, x: F.threshold(x, 0.5, 0.25),
    "several": lambda net, x: (x.sigmoid() * 2 + 3).reciprocal(),
    "ones like it": lambda net, x: x + torch.ones_like(x),
    "zeros that were added to": lambda net, x: torch.zeros_like(x).add_(x.sigmoid()),
    "average pool": lambda net, x: F.avg_pool2d(x + 1, 2, ceil_mode=True),
    "adaptive pool": lambda net, x: F.adaptive_avg_pool2d(x + 1, 3),
    "max pool with padding": lambda net, x: F.max_pool2d(x - 1, 3, 1, 1),
    "bilinear resize": lambda net, x: F.interpolate(x + 1, scale_factor=2, mode="bilinear"),
    "dropout": lambda net, x: F.dropout(x.sigmoid(), training=net.training),
    "padded with the constant itself": lambda net, x: F.pad(x + 1, (1, 1, 1, 1), value=1.0),
    "padded by repetition": lambda net, x: F.pad(x + 1, (1, 1, 1, 1), mode="replicate"),
}


@pytest.mark.parametrize("name", FOLDED)
def test_a_constant_is_folded_into_the_bias_of_a_convolution_without_padding(name: str) -> None:
    result = assert_exact(between(FOLDED[name], last()), EXAMPLE, {"first": 8}, {"last.weight": (2, 4, 3, 3)})

    assert result.certificate["dtype"] == "float64"


@pytest.mark.parametrize("name", ["plus one", "sigmoid", "exp", "several"])
def test_a_constant_beside_zero_padding_or_without_a_bias_holds(name: str) -> None:
    value = {"plus one": "1", "sigmoid": "0.5", "exp": "1", "several": "0.25"}[name]

    for padding in (1, "same"):
        assert reason(FOLDED[name], last(padding)) == f"arrives as the constant {value} beside zero padding at last"
    assert reason(FOLDED[name], last("valid")) is None
    assert reason(FOLDED[name], last(bias=False)) == (
        f"arrives as the constant {value} with no bias of its own to fold it into, at last"
    )


@pytest.mark.parametrize("shape", [VECTOR, TOKENS])
@pytest.mark.parametrize("name", ["plus one", "softplus"])
def test_a_constant_is_folded_into_the_bias_of_a_linear_layer(name: str, shape: tuple[int, ...]) -> None:
    assert_exact(
        between(FOLDED[name], nn.Linear(8, 2), shape),
        example_of(shape),
        {"first": 8},
        {"first.weight": (4, 4), "last.weight": (2, 4)},
    )


def test_a_constant_is_folded_into_a_grouped_convolution_row_by_row() -> None:
    model = between(lambda net, x: F.softplus(x), nn.Conv2d(8, 4, 1, groups=2))

    assert_exact(model, EXAMPLE, {"first": 8}, {"last.bias": (4,)}, seed=3)


def test_a_flattened_constant_is_folded() -> None:
    model = between(lambda net, x: x.sigmoid().flatten(1), nn.Linear(512, 2))

    assert_exact(model, EXAMPLE, {"first": 8}, {"last.weight": (2, 256)})


def test_what_is_folded_meets_the_norm_after_it_and_leaves_with_dead_rows() -> None:
    model = between(
        lambda net, x: net.n(net.l(F.softplus(x))).relu(),
        nn.Conv2d(6, 2, 1),
        l=nn.Conv2d(8, 6, 1),
        n=nn.BatchNorm2d(6),
    )

    assert_exact(model, EXAMPLE, {"first": 8, "l": 6}, {"l.weight": (3, 4, 1, 1), "l.bias": (3,)})


def test_a_layer_that_runs_on_two_constants_has_no_bias_of_its_own() -> None:
    model = Toy(
        lambda net, x: net.last(net.first(x).sigmoid()) + net.last(net.first(x)),
        first=nn.Linear(4, 8),
        last=nn.Linear(8, 2),
    )

    assert_exact(model, example_of(VECTOR), {}, {})


def test_a_bias_that_is_also_read_elsewhere_takes_no_constant() -> None:
    model = Toy(
        lambda net, x: F.linear(net.first(x).sigmoid(), net.w, net.v) + net.v,
        first=nn.Linear(4, 8),
        w=nn.Parameter(torch.zeros(2, 8)),
        v=nn.Parameter(torch.zeros(2)),
    )

    assert_exact(model, example_of(VECTOR), {}, {})


def test_two_constants_side_by_side_hold_unless_they_are_one() -> None:
    one = between(lambda net, x: torch.cat([x.sigmoid(), 1 - x.sigmoid()], 1), nn.Conv2d(16, 2, 1))

    assert_exact(one, EXAMPLE, {"first": 8}, {"last.weight": (2, 8, 1, 1)})
    assert reason(lambda net, x: torch.cat([x.sigmoid(), x], 1), nn.Conv2d(16, 2, 1)) == OTHER


NOT_ONE_NUMBER: dict[str, Operation] = {
    "padded with another number": lambda net, x: F.pad(x, (1, 1, 1, 1), value=2.0),
    "a constant padded with zeros": lambda net, x: F.pad(x + 1, (1, 1, 1, 1)),
    "averaged with the zeros around it": lambda net, x: F.avg_pool2d(x + 1, 3, 1, 1),
    "averaged with a divisor of its own": lambda net, x: F.avg_pool2d(x + 1, 2, divisor_override=3),
    "random": lambda net, x: x + torch.rand_like(x),
    "divided by zero": lambda net, x: x / x.relu(),
    "summed over space": lambda net, x: (x + 1).sum((2, 3), keepdim=True),
    "a softmax over space": lambda net, x: x.flatten(2).softmax(-1).view_as(x),
    "zeroed at some places": lambda net, x: torch.where(net.mask, x, 1.0),
}


@pytest.mark.parametrize("name", NOT_ONE_NUMBER)
def test_what_is_not_one_number_holds(name: str) -> None:
    mask = torch.arange(64).view(8, 8) % 2 == 0

    assert reason(NOT_ONE_NUMBER[name], nn.Conv2d(8, 2, 1), mask=mask) == OTHER


HARMLESS: dict[str, Operation] = {
    "padded with zeros": lambda net, x: F.pad(x, (1, 1, 1, 1)),
    "cropped": lambda net, x: F.pad(x, (-1, 0, 0, -1)),
    "averaged with the zeros around it": lambda net, x: F.avg_pool2d(x, 3, 1, 1),
    "max pool": lambda net, x: F.max_pool2d(x, 2),
    "nearest resize": lambda net, x: F.interpolate(x, scale_factor=2),
    "bilinear resize": lambda net, x: F.interpolate(x, size=(5, 5), mode="bilinear"),
    "lp pool": lambda net, x: F.lp_pool2d(x, 2, 2),
    "variance over space": lambda net, x: x.var((2, 3), keepdim=True),
    "norm over space": lambda net, x: F.normalize(x.flatten(2), dim=2).view_as(x),
    "times a constant": lambda net, x: x * x.sigmoid(),
    "times a softmax": lambda net, x: x * x.flatten(2).softmax(-1).view_as(x),
    "divided by a positive number": lambda net, x: x / (1 + x.exp()),
    "dropout of channels": lambda net, x: F.dropout2d(x, training=net.training),
    "slopes that channels share": lambda net, x: F.prelu(x, torch.tensor([0.2]).to(x)),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_keeps_a_zero_is_harmless_whatever_the_padding_after_it(name: str) -> None:
    model = between(HARMLESS[name], last(1))

    assert_exact(model, EXAMPLE, {"first": 8}, {"first.weight": (4, 3, 1, 1), "last.weight": (2, 4, 3, 3)})


def gated(gate: Callable[..., Any]) -> Operation:
    return lambda net, x: x * gate(net.up(net.down(F.adaptive_avg_pool2d(x, 1)).relu()))


@pytest.mark.parametrize("gate", [torch.sigmoid, F.hardsigmoid], ids=["sigmoid", "hardsigmoid"])
def test_a_gate_is_tied_to_the_channels_that_it_multiplies_and_its_constant_vanishes(gate: Operation) -> None:
    model = between(gated(gate), last(1), down=nn.Conv2d(8, 4, 1), up=nn.Conv2d(4, 8, 1))
    shapes = {"down.weight": (2, 4, 1, 1), "up.weight": (4, 2, 1, 1), "last.weight": (2, 4, 3, 3)}

    assert_exact(model, EXAMPLE, {"first": 8, "down": 4}, shapes)


def test_slopes_for_each_channel_leave_with_them() -> None:
    model = between(lambda net, x: net.p(x), last(1), p=nn.PReLU(8))
    small: Any = assert_exact(model, EXAMPLE, {"first": 8}, {"p.weight": (4,)}).model

    assert small.p.num_parameters == 4
    assert reason(lambda net, x: net.p(x + 1), last(), p=nn.PReLU(8)) == OTHER


COMPUTED: dict[str, tuple[Operation, str | None]] = {
    "a bias from an exponential": (lambda net, x: F.linear(x, net.w, net.v.exp()), None),
    "a bias in a buffer": (lambda net, x: F.linear(x, net.w, net.b), OTHER),
    "a silent bias": (lambda net, x: F.linear(x, net.w, net.v.abs()), None),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_a_bias_that_masks_do_not_silence_makes_a_constant(name: str) -> None:
    operation, held = COMPUTED[name]
    parts = {"w": nn.Parameter(torch.zeros(6, 8)), "v": nn.Parameter(torch.zeros(6)), "b": torch.zeros(6)}
    model = between(operation, nn.Linear(6, 2), VECTOR, **parts)
    leaving = {"first": 8} if held else {"first": 8, "w": 6}

    assert_exact(model, example_of(VECTOR), leaving, {"w": (6 if held else 3, 4)})
