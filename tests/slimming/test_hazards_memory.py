"""Hazards: operations that write in place, with and without other views of what they write; detach and freezing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hazards import IMAGE, Operation, Toy, assert_exact, between, example_of, reason
from torch import Tensor, nn

EXAMPLE = example_of(IMAGE)
HALF = {"first.weight": (4, 3, 1, 1), "last.weight": (2, 4, 1, 1)}


def written(name: str) -> str:
    return f"is written in place by aten.{name} and read through another view"


def after(write: Operation, *, view: Operation = lambda x: x, read: Operation = lambda x, y: y) -> Operation:
    """Copy, take a view `y` of the copy `x`, write into them, and go on with what `read(x, y)` returns."""

    def forward(net: Any, x: Tensor) -> Any:
        x = x.clone()
        y = view(x)
        write(x, y)
        return read(x, y)

    return forward


def both(x: Tensor, y: Tensor) -> Tensor:
    return x


def only_view(x: Tensor, y: Tensor) -> Tensor:
    return y[..., None]


EXACT: dict[str, Operation] = {
    "relu_": lambda net, x: x.relu_(),
    "what relu_ wrote, twice": lambda net, x: x + x.relu_(),
    "a constant": lambda net, x: x.add_(1),
    "a result that is not used": lambda net, x: (x.sigmoid_(), x)[1],
    "a view that is all there is": after(lambda x, y: y.relu_(), view=lambda x: x.flatten(2), read=only_view),
    "zeros that were added to": lambda net, x: torch.zeros_like(x).add_(x.sigmoid()),
    "dropout": lambda net, x: torch.nn.functional.dropout(x, inplace=True, training=net.training),
    "detached": lambda net, x: x.detach(),
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_a_write_that_nothing_else_sees_lets_channels_leave(name: str) -> None:
    model = between(EXACT[name], nn.Conv2d(8, 2, 1))

    assert_exact(model, EXAMPLE, {"first": 8}, HALF)


def test_a_sum_in_place_ties_both_sides() -> None:
    model = between(lambda net, x: net.o(x).add_(x), nn.Conv2d(8, 2, 1), o=nn.Conv2d(8, 8, 1))

    assert_exact(model, EXAMPLE, {"first": 8}, HALF | {"o.weight": (4, 4, 1, 1)})


def half(x: Tensor) -> Tensor:
    return x[:, :4]


def flat(x: Tensor) -> Tensor:
    return x.flatten(2)


HELD: dict[str, tuple[Operation, str]] = {
    "one more in half of the channels": (after(lambda x, y: y.add_(1), view=half, read=both), written("add_")),
    "twice half of the channels": (after(lambda x, y: y.mul_(2), view=half, read=both), written("mul_")),
    "one more in half of the image": (
        after(lambda x, y: y.add_(1), view=lambda x: x[:, :, :4], read=both), written("add_")
    ),
    "a view of all, and the whole": (after(lambda x, y: y.add_(1), view=flat, read=both), written("add_")),
    "the whole, and a view": (after(lambda x, y: x.add_(1), view=flat, read=only_view), written("add_")),
    "a view of the same shape": (
        after(lambda x, y: y.add_(1), view=lambda x: x.view(x.shape), read=both), written("add_")
    ),
    "a detached view": (after(lambda x, y: y.add_(1), view=lambda x: x.detach(), read=both), written("add_")),
    "a transposed view": (after(lambda x, y: y.sub_(2), view=lambda x: x.transpose(1, 2), read=both), written("sub_")),
    "half copied over the other": (
        after(lambda x, y: y.copy_(x[:, 4:]), view=half, read=both), "reaches aten.copy_, which has no rule"
    ),
    "copied into zeros": (
        lambda net, x: torch.zeros_like(x).copy_(x.sigmoid()), "reaches aten.copy_, which has no rule"
    ),
    "filled": (after(lambda x, y: x.fill_(1)), "reaches aten.fill_, which has no rule"),
    "zeroed at some places": (
        after(lambda x, y: y.zero_(), view=lambda x: x[:, :, :4], read=both), "reaches aten.zero_, which has no rule"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HELD)
def test_a_write_that_another_view_sees_holds_and_names_the_operator(name: str) -> None:
    operation, held = HELD[name]

    assert reason(operation, nn.Conv2d(8, 2, 3, padding=1)) == held


def test_one_channel_written_through_a_view_holds() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = x.clone()
        x.permute(0, 2, 3, 1)[..., 0] = 1
        return x

    found = reason(forward, nn.Conv2d(8, 2, 3, padding=1))

    assert found is not None
    assert found.startswith(("is cut at fixed positions", "reaches aten.fill_", "reaches aten.copy_"))


def test_a_frozen_layer_slims_and_stays_frozen() -> None:
    model = between(lambda net, x: net.f(x), nn.Conv2d(8, 2, 1), f=nn.Conv2d(8, 8, 1).requires_grad_(False))
    small = assert_exact(model, EXAMPLE, {"first": 8, "f": 8}, {"f.weight": (4, 4, 1, 1)}).model

    assert [name for name, weight in small.named_parameters() if not weight.requires_grad] == ["f.weight", "f.bias"]


def test_batches_of_the_same_memory_do_not_tie_their_readers() -> None:
    model = Toy(
        lambda net, x: net.last(net.a(x).relu_()) + net.other(net.b(x).relu_()),
        a=nn.Conv2d(3, 8, 1),
        b=nn.Conv2d(3, 6, 1),
        last=nn.Conv2d(8, 2, 1),
        other=nn.Conv2d(6, 2, 1),
    )

    assert_exact(model, EXAMPLE, {"a": 8, "b": 6}, {"last.weight": (2, 4, 1, 1), "other.weight": (2, 3, 1, 1)})
