"""For the tests of operators: a toy network with an operation in it, and the proof that its channels leave exactly."""

from __future__ import annotations

from collections.abc import Callable

import torch
from networks import chosen_groups, random_masks, randomise_
from torch import Tensor, nn

from chase.slimming import Group, channel_groups, slimmed

Operation = Callable[[Tensor], Tensor]
IMAGE, TOKENS, VECTOR = (3, 4, 4), (5, 4), (4,)


class Between(nn.Module):
    """A producer of 6 channels, an operation, and a consumer."""

    def __init__(self, operation: Operation, shape: tuple[int, ...], consumer: nn.Module) -> None:
        super().__init__()
        self.first: nn.Module = nn.Conv2d(3, 6, 1) if shape == IMAGE else nn.Linear(4, 6)
        self.last = consumer
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.operation(self.first(x)))
        return y


def first_group(model: nn.Module, shape: tuple[int, ...]) -> Group:
    return channel_groups(model, torch.zeros(1, *shape))[0]


def assert_exact(model: nn.Module, shape: tuple[int, ...], *, prune_skip: bool = False) -> None:
    """Slim equals masked, with channels of `first` among the dead, whether what reads them is masked or not."""
    example = torch.zeros(1, *shape)
    randomise_(model)
    groups = chosen_groups(model, example, prune_skip=prune_skip)
    for bury in (False, True):
        masks = random_masks(model, groups, bury=False)
        masks.alive["first"][0] &= not masks.alive["first"].all()
        if bury:
            masks.bury()
        result = slimmed(model, masks, example=example, round_to=1)
        assert len(result.kept["first"]) < len(masks.alive["first"])
        assert result.certificate["max_rel"] <= 1e-10
        assert result.certificate["dtype"] == "float64"


def read_value(model: nn.Module, shape: tuple[int, ...]) -> float:
    """What the last layer reads from a dead channel of the first, as the group says."""
    return next(part.value for part in first_group(model, shape).slices if part.tensor == "last.weight")
