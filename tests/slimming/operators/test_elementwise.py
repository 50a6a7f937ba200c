"""Element by element: what happens to zero, and what is tied where values meet."""

from __future__ import annotations

import math

import pytest
import torch
from operations import IMAGE, Between, Operation, assert_exact, first_group, read_value
from torch import Tensor, nn
from torch.nn import functional as F

ON_IMAGES: dict[str, Operation] = {
    "relu": F.relu,
    "relu in place": lambda x: F.relu(x, inplace=True),
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "hardtanh in place": lambda x: F.hardtanh_(x, -0.5, 2.0),
    "gelu": F.gelu,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "mish": F.mish,
    "elu": F.elu,
    "celu": F.celu,
    "leaky relu": F.leaky_relu,
    "tanh": torch.tanh,
    "dropout": lambda x: F.dropout(x, training=False),
    "times a number": lambda x: 2.5 * x / 3,
    "product of tensors": lambda x: x * x.relu(),
    "gated by itself": lambda x: x * x.exp(),
}


@pytest.mark.parametrize("name", ON_IMAGES)
def test_what_keeps_zero_lets_channels_leave_exactly(name: str) -> None:
    model = Between(ON_IMAGES[name], IMAGE, nn.Conv2d(6, 2, 1))

    assert first_group(model, IMAGE).why_not() is None
    assert_exact(model, IMAGE)


def test_a_conversion_lets_channels_leave() -> None:
    model = Between(lambda x: x.double().float(), IMAGE, nn.Conv2d(6, 2, 1))

    assert first_group(model, IMAGE).why_not() is None


MADE_CONSTANT: dict[str, tuple[Operation, float]] = {
    "sigmoid": (torch.sigmoid, 0.5),
    "sigmoid in place": (lambda x: x.sigmoid_(), 0.5),
    "hardsigmoid": (F.hardsigmoid, 0.5),
    "softplus": (F.softplus, math.log(2)),
    "exp": (torch.exp, 1.0),
    "plus a number": (lambda x: x + 1, 1.0),
    "minus a number in place": (lambda x: x.sub_(1), -1.0),
    "hardtanh without zero": (lambda x: F.hardtanh(x, 0.5, 2.0), 0.5),
    "and a relu after it": (lambda x: (x + 1).relu(), 1.0),
    "and an average after it": (lambda x: x.exp().mean((2, 3), keepdim=True), 1.0),
    "and arithmetic after it": (lambda x: 3 * (x.sigmoid() - 2) / 4, -1.125),
}


@pytest.mark.parametrize("name", MADE_CONSTANT)
def test_a_zero_that_becomes_a_constant_leaves_through_the_bias_of_the_consumer(name: str) -> None:
    operation, value = MADE_CONSTANT[name]
    model = Between(operation, IMAGE, nn.Conv2d(6, 2, 1))

    assert first_group(model, IMAGE).why_not() is None
    assert read_value(model, IMAGE) == pytest.approx(value)
    assert_exact(model, IMAGE)


class Sum(nn.Module):
    """The producer's channels plus something else, or plus themselves."""

    def __init__(self, other: str, in_place: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.last = nn.Conv2d(3, 2, 1)
        self.offset = nn.Parameter(torch.randn(3, 1, 1))
        self.other, self.in_place = other, in_place

    def forward(self, x: Tensor) -> Tensor:
        ours = self.first(x).relu()
        theirs = {"image": x, "parameter": self.offset, "branch": self.second(ours), "itself": ours}[self.other]
        result: Tensor = self.last(ours.add_(theirs) if self.in_place else ours - theirs)
        return result


def test_a_sum_with_something_that_is_no_channel_holds() -> None:
    assert first_group(Sum("image"), IMAGE).why_not() == "meets something that is not a channel at sub"


def test_a_parameter_that_is_added_leaves_with_the_channel() -> None:
    model = Sum("parameter")

    assert ("offset", 0) in {(part.tensor, part.dim) for part in first_group(model, IMAGE).slices}
    assert not first_group(model, IMAGE).skip
    assert_exact(model, IMAGE)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_sum_of_branches_ties_them_exactly(in_place: bool) -> None:
    model = Sum("branch", in_place)
    group = first_group(model, IMAGE)

    assert group.producers == ("first.weight", "second.weight")
    assert group.skip
    assert_exact(model, IMAGE, prune_skip=True)


def test_a_sum_with_itself_ties_nothing_else() -> None:
    assert first_group(Sum("itself"), IMAGE).producers == ("first.weight",)
