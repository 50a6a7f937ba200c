"""Hazards: reshapes, slices and moves of channels, and what looks at several channels at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hazards import IMAGE, TOKENS, VECTOR, Operation, assert_exact, between, example_of, reason, reasons, scramble_
from torch import Tensor, nn
from torch.nn import functional as F

from chase.slimming import channel_groups, prunable, slimmed
from chase.sparse.masks import Masks

EXAMPLE = example_of(IMAGE)
FIXED = "the forward pass fixes their number: "


def last(channels: int = 8) -> nn.Conv2d:
    return nn.Conv2d(channels, 2, 1)


def windows(net: Any, x: Tensor) -> Tensor:
    """A linear layer in windows of 4 x 4 that are shifted by 2."""
    x = torch.roll(x.permute(0, 2, 3, 1), (-2, -2), (1, 2))
    b, h, w, c = x.shape
    y = x.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
    y = net.inner(y).view(b, h // 4, w // 4, 4, 4, -1).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, -1)
    return torch.roll(y, (2, 2), (1, 2)).permute(0, 3, 1, 2)


THROUGH: dict[str, Operation] = {
    "tokens and back": lambda net, x: net.inner(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape),
    "channels last": lambda net, x: net.inner(x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])).view(
        x.shape[0], 8, 8, -1
    ).permute(0, 3, 1, 2),
    "shifted windows": windows,
}  # fmt: skip


@pytest.mark.parametrize("name", THROUGH)
def test_an_image_may_become_tokens_and_an_image_again(name: str) -> None:
    model = between(THROUGH[name], last(), inner=nn.Linear(8, 8))

    assert_exact(model, EXAMPLE, {"first": 8, "inner": 8}, {"inner.weight": (4, 4), "last.weight": (2, 4, 1, 1)})


MOVED: dict[str, tuple[Operation, int, int]] = {
    "repeated": (lambda net, x: x.repeat(1, 2, 1, 1), 16, 8),
    "tiled": (lambda net, x: x.tile(1, 2, 1, 1), 16, 8),
    "expanded behind": (lambda net, x: x.unsqueeze(2).expand(-1, -1, 2, -1, -1).flatten(1, 2), 16, 8),
    "expanded before": (lambda net, x: x.unsqueeze(1).expand(-1, 2, -1, -1, -1).flatten(1, 2), 16, 8),
    "repeated over space": (lambda net, x: x.repeat(1, 1, 2, 2), 8, 8),
    "flipped beside itself": (lambda net, x: torch.cat([x, x.flip(1)], 1), 16, 8),
    "flipped onto itself": (lambda net, x: x.flip(1) + x / 2, 8, 4),
    "rolled over space": (lambda net, x: x.roll((1, 2), (2, 3)), 8, 8),
    "sliced over space": (lambda net, x: x[:, :, ::2, 1:], 8, 8),
    "all of it": (lambda net, x: x[:, :], 8, 8),
    "halves swapped": (lambda net, x: torch.cat(x.chunk(2, 1)[::-1], 1), 8, 8),
    "halves multiplied": (lambda net, x: x[:, : x.shape[1] // 2] * x[:, x.shape[1] // 2 :], 4, 4),
    "one half": (lambda net, x: x.chunk(2, 1)[1], 4, 8),
    "taken apart over space": (lambda net, x: torch.stack(x.unbind(2), 2), 8, 8),
    "stacked and averaged": (lambda net, x: torch.stack([x, x.relu()], 1).mean(1), 8, 8),
    "a diagonal": (lambda net, x: x.diagonal(dim1=2, dim2=3).unsqueeze(-1), 8, 8),
    "batch and channels joined": (lambda net, x: x.reshape(-1, 1, 8, 8).relu().reshape(x.shape), 8, 8),
}


@pytest.mark.parametrize("name", MOVED)
def test_channels_may_be_moved_around(name: str) -> None:
    operation, width, units = MOVED[name]
    model = between(operation, last(width))
    shapes = {"first.weight": (4, 3, 1, 1), "last.weight": (2, width // 2, 1, 1)}

    assert_exact(model, EXAMPLE, {"first": units}, shapes)


@pytest.mark.parametrize(
    "operation",
    [
        lambda net, x: x.flatten(1),
        lambda net, x: x.view(x.shape[0], -1),
        lambda net, x: x.permute(0, 2, 3, 1).flatten(1),
    ],
    ids=["flatten", "view", "channels last"],
)
def test_a_flattened_image_loses_a_column_for_every_pixel_of_a_channel(operation: Operation) -> None:
    shapes: dict[str, tuple[int, ...]] = {"first.weight": (4, 3, 1, 1), "last.weight": (2, 4 * 64)}

    assert_exact(between(operation, nn.Linear(512, 2)), EXAMPLE, {"first": 8}, shapes)


HELD: dict[str, tuple[Operation, int, str]] = {
    "the first four": (lambda net, x: x[:, :4], 4, "is cut at fixed positions by slice"),
    "all but two": (lambda net, x: x[:, :-2], 6, "is cut at fixed positions by slice"),
    "every second": (lambda net, x: x[:, ::2], 4, "is cut at fixed positions by slice"),
    "a third of eight": (lambda net, x: x.chunk(3, 1)[0], 3, "is cut unevenly by aten.chunk"),
    "taken apart": (lambda net, x: torch.stack(x.unbind(1), 1), 8, "is taken apart by aten.unbind"),
    "rolled": (lambda net, x: x.roll(1, 1), 8, "is shifted by aten.roll"),
    "rolled over all": (lambda net, x: x.roll(1), 8, "is shifted by aten.roll"),
    "selected": (lambda net, x: x.index_select(1, net.order), 8, "reaches aten.index_select, which has no rule"),
    "indexed": (lambda net, x: x[:, [0, 2, 4]], 3, "reaches aten.index, which has no rule"),
    "summed up": (lambda net, x: x.cumsum(1), 8, "reaches aten.cumsum, which has no rule"),
    "sorted": (lambda net, x: x.sort(1)[0], 8, "reaches aten.sort, which has no rule"),
    "the largest's number": (lambda net, x: x + x.argmax(1, True), 8, "reaches aten.argmax, which has no rule"),
    "compared": (lambda net, x: torch.where(x > 0, x, x / 2), 8, "reaches aten.gt, which has no rule"),
    "softmax": (lambda net, x: x.softmax(1), 8, "is normalised over channels by aten.softmax"),
    "the largest": (lambda net, x: x - x.amax(1, True), 8, "is reduced over channels by aten.amax"),
    "the mean": (lambda net, x: x - x.mean(1, True), 8, "is reduced over channels by aten.mean"),
    "the mean of all": (lambda net, x: x - x.mean(), 8, "is reduced over channels by aten.mean"),
    "the norm": (lambda net, x: F.normalize(x), 8, "is reduced over channels by aten.linalg_vector_norm"),
    "a sum of constants": (lambda net, x: x * x.exp().sum(1, True), 8, "is reduced over channels by aten.sum"),
    "pooled": (lambda net, x: F.avg_pool3d(x, (2, 1, 1)), 4, "is pooled by aten.avg_pool3d"),
    "mixed with the image": (lambda net, x: x + x.transpose(1, 2), 8, "meets something that is not a channel at add"),
    "two to the power": (lambda net, x: (2**x).mean(1, True), 1, "reaches aten.pow, which has no rule"),
    "between two tensors": (lambda net, x: x.clamp(net.low, net.high), 8, "reaches aten.clamp, which has no rule"),
    "to a power of each": (lambda net, x: x.abs().pow(net.high), 8, "reaches aten.pow, which has no rule"),
}


@pytest.mark.parametrize("name", HELD)
def test_what_depends_on_the_place_or_number_of_channels_holds_and_says_why(name: str) -> None:
    operation, width, held = HELD[name]
    parts: dict[str, Any] = {
        "order": torch.tensor([3, 1, 2, 0, 7, 6, 5, 4]),
        "low": torch.zeros(8, 1, 1),
        "high": torch.ones(8, 1, 1),
    }

    assert reason(operation, last(width), **parts) == held


@pytest.mark.parametrize(
    ("operation", "consumer"),
    [
        (lambda net, x: x.view(x.shape[0], 8, -1), nn.Conv1d(8, 2, 1)),
        (lambda net, x: x.view(-1, 512), nn.Linear(512, 2)),
        (lambda net, x: x.reshape(-1, 8, 4, 16), nn.Conv2d(8, 2, 1)),
    ],
)
def test_a_reshape_with_the_width_in_the_code_holds_and_quotes_the_error(
    operation: Operation, consumer: nn.Module
) -> None:
    found = reason(operation, consumer)

    assert found is not None
    assert found.startswith(FIXED)
    assert len(found) > len(FIXED)


def test_a_sum_over_channels_is_exact() -> None:
    model = between(lambda net, x: x.sum(1, keepdim=True), last(1))

    assert_exact(model, EXAMPLE, {"first": 8}, {"first.weight": (4, 3, 1, 1), "last.weight": (2, 1, 1, 1)})


def test_a_pooling_over_the_channels_of_tokens_holds() -> None:
    assert reason(lambda net, x: F.avg_pool1d(x, 2), nn.Linear(4, 2), TOKENS) == "is pooled by aten.avg_pool1d"


def test_a_norm_over_the_tokens_instead_of_the_channels_holds() -> None:
    assert reasons(between(lambda net, x: net.n(x), nn.Linear(8, 2), TOKENS, n=nn.BatchNorm1d(5)), example_of(TOKENS))[
        "first"
    ] == "is averaged over by aten.batch_norm"  # fmt: skip


def test_a_square_image_does_not_confuse_its_sides_with_its_channels() -> None:
    model = between(
        lambda net, x: x * net.rows.view(1, 1, 8, 1) * net.plane, last(), rows=nn.Parameter(torch.zeros(8)),
        plane=nn.Parameter(torch.zeros(8, 8)),
    )  # fmt: skip

    assert_exact(model, EXAMPLE, {"first": 8}, {"rows": (8,), "plane": (8, 8), "last.weight": (2, 4, 1, 1)})


@pytest.mark.xfail(strict=True, reason="a number that the forward pass computes from a width is not in the graph")
@pytest.mark.parametrize(
    ("operation", "width"),
    [(lambda net, x: x * x.shape[-1] ** -0.5, 8), (lambda net, x: x.sum(-1, keepdim=True) / x.shape[-1], 1)],
    ids=["scaled by the width", "mean by hand"],
)
def test_a_number_that_follows_the_width_never_lets_channels_leave(operation: Operation, width: int) -> None:
    example = example_of(VECTOR)
    model = between(operation, nn.Linear(width, 2), VECTOR)
    scramble_(model)
    masks = Masks.dense(model, prunable(channel_groups(model, example)))
    for alive in masks.alive.values():
        alive[::2] = False

    slimmed(model, masks, example=example, round_to=1)


def test_a_group_of_which_nothing_can_leave_is_not_called_free() -> None:
    assert reason(lambda net, x: x[:, 0:1] * x, last()) is not None
