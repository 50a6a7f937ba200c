"""Which channels leave: channel scores (paper Table 1) and their global selection under floors and a width grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from chase.registry import Registry
from chase.slimming.groups import Group
from chase.slimming.widths import Grid, grid_of, removable_blocks


class ChannelScore(Protocol):
    """From a weight, its mask and the dense size of a row to a score for each row, [out].

    `size` differs from the row's own where dead channels have been cut out of a live training.
    """

    def __call__(self, weight: Tensor, mask: Tensor, size: int | None = None) -> Tensor: ...


def umm(weight: Tensor, mask: Tensor, size: int | None = None) -> Tensor:
    """Unmasked mean magnitude: Σ|θ| over a row, divided by its dense size, zeros counted; [out]."""
    return (weight * mask).abs().flatten(1).sum(1) / (size or weight[0].numel())


def ws(weight: Tensor, mask: Tensor, size: int | None = None) -> Tensor:
    """Weight sparsity: the share of a row that is masked; [out]. The highest leave first."""
    return 1 - mask.flatten(1).sum(1) / (size or weight[0].numel())


def mmm(weight: Tensor, mask: Tensor, size: int | None = None) -> Tensor:
    """Masked mean magnitude: the mean |θ| over the unmasked weights of a row, 0 where there are none; [out]."""
    return (weight * mask).abs().flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1)


def _lowest_first(weight: Tensor, mask: Tensor, size: int | None = None) -> Tensor:
    return -ws(weight, mask, size)


CHANNEL_SCORES: Registry[ChannelScore] = Registry("channel score", {"umm": umm, "ws": _lowest_first, "mmm": mmm})
"""Contract: `(weight, mask, size) → [out]`, and the channels with the lowest values leave first."""


Aggregate = Callable[[Tensor, Tensor, int], Tensor]


def _reduced(kind: str, values: Tensor, units: Tensor, size: int) -> Tensor:
    return torch.zeros(size).scatter_reduce(0, units, values, reduce=kind, include_self=False)


AGGREGATES: Registry[Aggregate] = Registry(
    "aggregate", {name: partial(_reduced, kind) for name, kind in (("mean", "mean"), ("sum", "sum"), ("max", "amax"))}
)
"""Contract: `(values, units, size) → [size]`, from the scores of single rows to those of the units they make."""


def group_scores(
    group: Group,
    score: ChannelScore,
    weights: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    *,
    aggregate: Aggregate = AGGREGATES["mean"],
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Tensor:
    """The score of each unit of a group, float32 [size] on the CPU: by default the mean over the rows that make it.

    `shapes` are those of the dense weights, where they are not those of the weights given.
    """
    values, units = [], []
    for part in group.slices:
        if part.tensor in group.producers and not part.reads:
            weight = weights[part.tensor].detach()
            mask = masks[part.tensor] if part.tensor in masks else torch.ones_like(weight)
            shape = (shapes or {}).get(part.tensor, weight.shape)
            size = math.prod(shape) // shape[part.dim]
            rows = score(weight.transpose(0, part.dim), mask.transpose(0, part.dim), size)
            values.append(rows.float().cpu()[part.positions])
            units.append(part.units)
    return torch.nan_to_num(aggregate(torch.cat(values), torch.cat(units), group.size))


def floor_width(width: int, *, channel_sparsity: float, ratio: float) -> int:
    """The fewest channels a layer of `width` may keep: ⌊(1 − S_f) · β · w⌋, at least 1 (paper §3)."""
    return max(1, math.floor((1 - channel_sparsity) * ratio * width + 1e-9))


def select_channels(
    groups: Sequence[Group],
    scores: Mapping[str, Tensor],
    alive: Mapping[str, Tensor],
    *,
    remove: int,
    floors: Mapping[str, int],
    grid: Grid = 1,
) -> dict[str, Tensor]:
    """Which units leave now: bool [size] per group, `remove` of them in all, to the nearest block.

    The lowest scores over all groups leave first, in blocks that bring each width onto the grid (one by one for a
    grid of 1); no group goes below its floor. Equal scores go to the earlier group and the lower index.
    """
    leaving = {group.name: torch.zeros_like(alive[group.name]) for group in groups}
    blocks = [
        (float(scores[group.name][units].double().mean()), order, step, group.name, units)
        for order, group in enumerate(groups)
        for step, units in enumerate(
            removable_blocks(
                group, scores[group.name], alive[group.name], floor=floors[group.name], grid=grid_of(grid, group)
            )
        )
    ]
    left = remove
    for _, _, _, name, units in sorted(blocks, key=lambda block: block[:3]):
        if len(units) > 2 * left:
            break
        leaving[name][units] = True
        left -= len(units)
    return leaving


def most_removable(groups: Sequence[Group], floors: Mapping[str, int], grid: Grid = 1) -> int:
    """How many channels can leave before every group stands on its floor, on the grid."""
    return sum(
        len(units)
        for group in groups
        for units in removable_blocks(
            group,
            torch.zeros(group.size),
            torch.ones(group.size, dtype=torch.bool),
            floor=floors[group.name],
            grid=grid_of(grid, group),
        )
    )
