"""Which channels leave: channel scores (paper Table 1) and their global selection under floors and a width grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from chase.registry import Registry
from chase.slimming.groups import Group

ChannelScore = Callable[[Tensor, Tensor], Tensor]


def umm(weight: Tensor, mask: Tensor) -> Tensor:
    """Unmasked mean magnitude: Σ|θ| over a row, divided by its dense size, zeros counted; [out]."""
    return (weight * mask).abs().flatten(1).mean(1)


def ws(weight: Tensor, mask: Tensor) -> Tensor:
    """Weight sparsity: the share of a row that is masked; [out]. The highest leave first."""
    return 1 - mask.flatten(1).mean(1)


def mmm(weight: Tensor, mask: Tensor) -> Tensor:
    """Masked mean magnitude: the mean |θ| over the unmasked weights of a row, 0 where there are none; [out]."""
    return (weight * mask).abs().flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1)


def _lowest_first(weight: Tensor, mask: Tensor) -> Tensor:
    return -ws(weight, mask)


CHANNEL_SCORES: Registry[ChannelScore] = Registry("channel score", {"umm": umm, "ws": _lowest_first, "mmm": mmm})
"""Contract: `(weight, mask) → [out]`, and the channels with the lowest values leave first."""


def group_scores(
    group: Group, score: ChannelScore, weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> Tensor:
    """The score of each unit of a group, float32 [size] on the CPU: the mean over the rows that make it."""
    total, rows = torch.zeros(group.size), torch.zeros(group.size)
    for part in group.slices:
        if part.tensor in group.producers and part.dim == 0:
            values = score(weights[part.tensor].detach(), masks[part.tensor])
            total.index_add_(0, part.units, values.float().cpu()[part.positions])
            rows.index_add_(0, part.units, torch.ones(len(part.units)))
    return torch.nan_to_num(total / rows.clamp(min=1))


def floor_width(width: int, *, channel_sparsity: float, ratio: float) -> int:
    """The fewest channels a layer of `width` may keep: ⌊(1 − S_f) · β · w⌋, at least 1 (paper §3)."""
    return max(1, math.floor((1 - channel_sparsity) * ratio * width + 1e-9))


def on_grid(width: int, *, grid: int, dense: int) -> int:
    """The smallest multiple of `grid` that is at least `width`, or the dense width where that is smaller."""
    return min(-(-width // grid) * grid, dense)


def select_channels(
    scores: Mapping[str, Tensor],
    alive: Mapping[str, Tensor],
    *,
    remove: int,
    floors: Mapping[str, int],
    grid: int = 1,
) -> dict[str, Tensor]:
    """Which units leave now: bool [size] per group, `remove` of them in all, to the nearest block.

    The lowest scores over all groups leave first, in blocks that bring each width onto a multiple of `grid` (one by
    one for a grid of 1); no group goes below its floor. Equal scores go to the earlier group and the lower index.
    """
    leaving = {name: torch.zeros_like(mask) for name, mask in alive.items()}
    blocks = [
        (score, order, step, name, units)
        for order, name in enumerate(alive)
        for step, (score, units) in enumerate(_blocks(scores[name], alive[name], floors[name], grid))
    ]
    left = remove
    for _, _, _, name, units in sorted(blocks, key=lambda block: block[:3]):
        if len(units) > 2 * left:
            break
        leaving[name][units] = True
        left -= len(units)
    return leaving


def _blocks(scores: Tensor, alive: Tensor, floor: int, grid: int) -> Iterator[tuple[float, Tensor]]:
    """Blocks of the lowest-scored living units that may leave together, with their mean score, in order."""
    units = alive.nonzero().flatten()
    units = units[scores[units].argsort(stable=True)]
    start = 0
    while start < len(units):
        size = (len(units) - start) % grid or grid
        if len(units) - start - size < floor:
            return
        block = units[start : start + size]
        yield float(scores[block].double().mean()), block
        start += size


def most_removable(widths: Sequence[int], floors: Sequence[int], grid: int) -> int:
    """How many channels can leave before every group stands on its floor, on the grid."""
    lowest = (on_grid(floor, grid=grid, dense=width) for width, floor in zip(widths, floors, strict=True))
    return sum(widths) - sum(lowest)
