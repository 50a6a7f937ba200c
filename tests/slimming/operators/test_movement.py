"""Views, permutations, slices: channels are followed to where they move."""

from __future__ import annotations

import pytest
import torch
from operations import IMAGE, Between, Operation, assert_exact, first_group
from torch import nn
from torch.nn import functional as F

ON_IMAGES: dict[str, Operation] = {
    "there and back": lambda x: x.permute(0, 2, 3, 1).relu().permute(0, 3, 1, 2),
    "unsqueezed": lambda x: x.unsqueeze(2).squeeze(2),
}


@pytest.mark.parametrize("name", ON_IMAGES)
def test_what_moves_channels_lets_them_leave_exactly(name: str) -> None:
    model = Between(ON_IMAGES[name], IMAGE, nn.Conv2d(6, 2, 1))

    assert first_group(model, IMAGE).why_not() is None
    assert_exact(model, IMAGE)


@pytest.mark.parametrize(
    ("operation", "width"),
    [
        (lambda x: x.flatten(1), 96),
        (lambda x: x.view(x.shape[0], -1), 96),
        (lambda x: x.mean((2, 3)), 6),
        (lambda x: x.mean(-1).mean(2), 6),
        (lambda x: F.max_pool2d(x, 4).squeeze(-1).squeeze(-1), 6),
        (lambda x: x.permute(0, 2, 3, 1).flatten(1), 96),
    ],
    ids=["flatten", "view", "mean", "mean twice", "squeeze", "channels last flatten"],
)
def test_an_image_may_be_flattened_or_averaged_before_a_linear_layer(operation: Operation, width: int) -> None:
    model = Between(operation, IMAGE, nn.Linear(width, 2))
    group = first_group(model, IMAGE)
    columns = next(part for part in group.slices if part.tensor == "last.weight")

    assert group.why_not() is None
    assert columns.positions.tolist() == list(range(width))
    assert torch.bincount(columns.units).tolist() == [width // 6] * 6
    assert_exact(model, IMAGE)


HELD: dict[str, tuple[Operation, str]] = {
    "cut": (lambda x: torch.cat([x[:, :3], x[:, :3]], 1), "is cut at fixed positions by slice"),
}


@pytest.mark.parametrize("name", HELD)
def test_a_cut_at_positions_that_are_written_down_holds(name: str) -> None:
    operation, reason = HELD[name]
    model = Between(operation, IMAGE, nn.Conv2d(6, 2, 1))

    assert first_group(model, IMAGE).why_not() == reason


def test_sizes_that_are_written_down_hold() -> None:
    model = Between(lambda x: x.reshape(-1, 6, 2, 8).reshape(-1, 3, 32), IMAGE, nn.Linear(32, 2))

    assert first_group(model, IMAGE).why_not() == "is split by reshape into sizes that do not follow its width"
