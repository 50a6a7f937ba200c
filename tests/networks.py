"""For the tests of slimming and counting: traces that are made once, random masks, networks without special values."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from chase.models import build
from chase.models.resnet import BasicBlock
from chase.slimming.groups import Group, prunable
from chase.slimming.tracer import channel_groups, groups_of
from chase.sparse.masks import Masks
from chase.tracing import Trace, trace


@functools.cache
def paper_network(name: str, num_classes: int = 10) -> tuple[nn.Module, Trace]:
    """One of Chase's networks for 32x32 images, and its trace; shared between tests, so leave it as it is."""
    model = build(name, num_classes=num_classes)
    return model, trace(model, torch.zeros(1, 3, 32, 32))


@functools.cache
def paper_groups(name: str) -> tuple[Group, ...]:
    """The channel groups of `paper_network`."""
    return groups_of(*paper_network(name), torch.zeros(1, 3, 32, 32))


@torch.no_grad()
def randomise_(model: nn.Module, seed: int = 0) -> None:
    """Random biases, norm parameters and norm statistics, so that nothing is zero, one or the identity by chance."""
    generator = torch.Generator().manual_seed(seed)
    named = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, tensor in named.items():
        if tensor.ndim == 1:
            low = 0.5 if name.endswith(("running_var", "weight")) else -0.5
            tensor.uniform_(low, low + 1, generator=generator)


def random_masks(
    model: nn.Module,
    groups: Sequence[Group],
    *,
    dead: float = 0.5,
    sparsity: float = 0.5,
    bury: bool = True,
    seed: int = 0,
) -> Masks:
    """Masks with random dead channels in `groups` (at least one lives in each) and random zeros elsewhere.

    Without `bury`, what reads dead channels keeps its weights, so slimming has to get their value right.
    """
    generator = torch.Generator().manual_seed(seed)
    masks = Masks.dense(model, groups)
    for mask in masks.weights.values():
        mask.copy_(torch.rand(mask.shape, generator=generator) >= sparsity)
    for alive in masks.alive.values():
        alive.copy_(torch.rand(len(alive), generator=generator) >= dead)
        alive[int(torch.randint(len(alive), (), generator=generator))] = True
    if bury:
        masks.bury()
    return masks


def chosen_groups(model: nn.Module, example: Tensor, *, prune_skip: bool = False) -> tuple[Group, ...]:
    """The prunable groups of a model."""
    return prunable(channel_groups(model, example), prune_skip=prune_skip)


def slices(group: Group) -> set[tuple[str, int]]:
    """What leaves with a unit of a group: (tensor, dim)."""
    return {(part.tensor, part.dim) for part in group.slices}


def toy() -> nn.Module:
    """A stem, a block with a shortcut of its own and a classifier, for prune_skip."""
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)]
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), BasicBlock(8, 6, 2), BasicBlock(6, 6, 1), *head)
