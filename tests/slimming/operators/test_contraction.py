"""Convolutions and products: what they read and make, and the bias that takes constants."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import chosen_groups
from operations import IMAGE, TOKENS, VECTOR, Between, Operation, assert_exact, first_group
from torch import Tensor, nn
from torch.nn import functional as F

from chase.slimming import slimmed
from chase.sparse.masks import Masks


def test_channels_of_tokens_may_leave_exactly() -> None:
    assert_exact(Between(F.gelu, TOKENS, nn.Linear(6, 2)), TOKENS)


@pytest.mark.parametrize(
    ("operation", "consumer", "reason"),
    [
        (F.sigmoid, nn.Conv2d(6, 2, 3, padding=1), "arrives as the constant 0.5 beside zero padding at last"),
        (F.sigmoid, nn.Conv2d(6, 2, 3, padding="same"), "arrives as the constant 0.5 beside zero padding at last"),
        (
            lambda x: x + 3,
            nn.Conv2d(6, 2, 1, bias=False),
            "arrives as the constant 3 with no bias of its own to fold it into, at last",
        ),
        (nn.BatchNorm2d(6, affine=False), nn.Conv2d(6, 2, 1), "arrives as something other than zero at last"),
        (torch.log, nn.Conv2d(6, 2, 1), "arrives as something other than zero at last"),
    ],
    ids=["padded", "padded to the same size", "no bias", "norm without affine", "infinite"],
)
def test_a_constant_that_no_bias_can_take_holds_its_channel_at_the_consumer(
    operation: Operation, consumer: nn.Module, reason: str
) -> None:
    assert first_group(Between(operation, IMAGE, consumer), IMAGE).why_not() == reason


@pytest.mark.parametrize("padding", ["valid", 0])
def test_a_constant_without_padding_around_it_may_leave(padding: Any) -> None:
    assert_exact(Between(F.sigmoid, IMAGE, nn.Conv2d(6, 2, 3, padding=padding)), IMAGE)


@pytest.mark.parametrize("bias", [False, True])
def test_a_linear_layer_over_another_axis_adds_its_bias_to_what_was_zero(bias: bool) -> None:
    model = Between(nn.Linear(4, 5, bias=bias), IMAGE, nn.Conv2d(6, 2, 1))

    if bias:
        assert first_group(model, IMAGE).why_not() == "arrives as something other than zero at last"
    else:
        assert_exact(model, IMAGE)


def test_a_grouped_convolution_loses_equally_many_channels_of_each_group() -> None:
    model = Between(F.relu, IMAGE, nn.Conv2d(6, 6, 1, groups=2))
    masks = Masks.dense(model, chosen_groups(model, torch.zeros(1, *IMAGE)))
    masks.alive["first"][[0, 1, 4]] = False

    result = slimmed(model, masks, example=torch.zeros(1, *IMAGE), round_to=1)

    kept = result.kept["first"].tolist()
    assert {2, 3, 5} < set(kept)
    assert len(set(kept) & {0, 1}) == 1
    assert len(kept) == 4
    assert result.model.get_parameter("last.weight").shape == (6, 2, 1, 1)


class Weighted(nn.Module):
    """A linear layer whose weight is made in the forward pass."""

    def __init__(self, make: Operation) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 6))
        self.make = make

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.make(self.weight))


def test_the_columns_of_a_weight_that_is_computed_leave_where_they_can_be_followed() -> None:
    model = Between(F.relu, VECTOR, Weighted(torch.abs))
    group = first_group(model, VECTOR)

    assert {(part.tensor, part.dim) for part in group.slices} >= {("first.weight", 0), ("last.weight", 1)}
    assert_exact(model, VECTOR)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (torch.exp, "is read by a weight that is computed in the forward pass, at linear in last"),  # exp(0) = 1
        (
            lambda w: w - w.mean(1, keepdim=True),
            "is read by a weight that is computed in the forward pass, at linear in last",
        ),
        (lambda w: w.cumsum(1), "is read by a weight that is computed in the forward pass, at linear in last"),
    ],
    ids=["not silent", "centred", "no rule"],
)
def test_a_weight_that_is_computed_in_another_way_holds_what_it_reads(make: Operation, reason: str) -> None:
    assert first_group(Between(F.relu, VECTOR, Weighted(make)), VECTOR).why_not() == reason


@pytest.mark.parametrize("dimensions", [1, 3])
def test_convolutions_over_one_and_three_axes_have_groups_too(dimensions: int) -> None:
    conv: Any = {1: nn.Conv1d, 3: nn.Conv3d}[dimensions]
    bn: Any = {1: nn.BatchNorm1d, 3: nn.BatchNorm3d}[dimensions]
    model = nn.Sequential()
    model.first, model.norm, model.last = conv(3, 6, 1), bn(6), conv(6, 2, 1)
    shape = (3, *[2] * dimensions)

    assert_exact(model, shape)
