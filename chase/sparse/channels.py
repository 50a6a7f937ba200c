"""Which channels leave: scores of coupled channels, made comparable between groups, and their global selection under
floors and a width grid."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from chase.errors import RecipeError
from chase.registry import Registry
from chase.slimming.groups import Group, Slice
from chase.slimming.widths import Grid, grid_of, removable_blocks
from chase.sparse.criteria import Criterion, Rows
from chase.sparse.gates import scales

Aggregate = Callable[[Tensor, Tensor, int], Tensor]


def _reduced(kind: str, values: Tensor, units: Tensor, size: int) -> Tensor:
    return torch.zeros(size).scatter_reduce(0, units, values, reduce=kind, include_self=False)


AGGREGATES: Registry[Aggregate] = Registry(
    "aggregate", {name: partial(_reduced, kind) for name, kind in (("mean", "mean"), ("sum", "sum"), ("max", "amax"))}
)
"""Contract: `(values, units, size) → [size]`, from the scores of single rows to those of the units they make."""


Normaliser = Callable[[Tensor, Tensor, float], Tensor]


def _unchanged(scores: Tensor, alive: Tensor, macs: float) -> Tensor:
    return scores


def _by_layer(scores: Tensor, alive: Tensor, macs: float) -> Tensor:
    """Relative to the mean score of the group's living channels."""
    return scores / scores[alive].abs().mean().clamp(min=torch.finfo(scores.dtype).tiny)


def _by_macs(scores: Tensor, alive: Tensor, macs: float) -> Tensor:
    """Per executed MAC, so that expensive channels leave before cheap ones of the same score."""
    if (scores[alive] < 0).any():
        raise RecipeError("method.normalise macs needs a criterion that is never negative, not a reversed one")
    return scores / macs


NORMALISERS: Registry[Normaliser] = Registry(
    "normalisation", {"none": _unchanged, "layer": _by_layer, "macs": _by_macs}
)
"""Contract: `(scores [size], alive [size], macs) → [size]`, with the MACs that one channel of the group executes."""


@dataclass(frozen=True)
class Scored:
    """What scores are made of: the model's `weights` and their `masks` by name, the units `alive` by group, the dense
    `shapes` of weights that have been cut, and mean gate gradients (|G|, G²) by group, for criteria that need them."""

    weights: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    alive: Mapping[str, Tensor]
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    gates: Callable[[str], tuple[Tensor | None, Tensor | None]] = lambda group: (None, None)


def group_scores(
    group: Group,
    criterion: Criterion,
    scored: Scored,
    *,
    aggregate: Aggregate = AGGREGATES["mean"],
    seed: int = 0,
) -> Tensor:
    """The score of each unit of a group, float32 [size] on the CPU: by default the mean over the rows that make it.

    Raises:
        RecipeError: if the criterion needs something that the group has not.
    """
    generator = torch.Generator().manual_seed(seed)
    values, units = [], []
    for part in group.slices:
        if part.tensor in group.producers and not part.reads:
            rows = criterion.score(_rows(group, part, scored, generator))
            values.append(rows.float().cpu()[part.positions])
            units.append(part.units)
    return torch.nan_to_num(aggregate(torch.cat(values), torch.cat(units), group.size))


def _rows(group: Group, part: Slice, scored: Scored, generator: torch.Generator) -> Rows:
    weight = scored.weights[part.tensor].detach()
    mask = scored.masks[part.tensor] if part.tensor in scored.masks else torch.ones_like(weight)
    shape = scored.shapes.get(part.tensor, weight.shape)
    alive = scored.alive.get(group.name, torch.ones(group.size, dtype=torch.bool))
    taylor, fisher = scored.gates(group.name)

    def of_rows(units: Tensor | None) -> Tensor | None:
        """From a value for each unit to one for each row; rows that make none get 0."""
        if units is None:
            return None
        return units.new_zeros(weight.shape[part.dim]).index_copy_(0, part.positions, units[part.units])

    living = of_rows(alive)
    assert living is not None
    return Rows(
        layer=part.tensor,
        weight=(weight * mask).transpose(0, part.dim),
        mask=mask.transpose(0, part.dim),
        size=math.prod(shape) // shape[part.dim],
        groups=group.conv_groups.get(part.tensor, 1),
        alive=living,
        scale=of_rows(scales(group, scored.weights)),
        taylor=of_rows(taylor),
        fisher=of_rows(fisher),
        generator=generator,
    )


def floor_width(width: int, *, channel_sparsity: float, ratio: float) -> int:
    """The fewest channels a layer of `width` may keep: ⌊(1 − S_f) · β · w⌋, at least 1 (paper §3)."""
    return max(1, math.floor((1 - channel_sparsity) * ratio * width + 1e-9))


Blocks = list[tuple[str, Tensor]]


def ranked_blocks(
    groups: Sequence[Group],
    scores: Mapping[str, Tensor],
    alive: Mapping[str, Tensor],
    *,
    floors: Mapping[str, int],
    grid: Grid = 1,
    scope: str = "global",
    sizes: Mapping[str, int] | None = None,
) -> Blocks:
    """(group, units) in the order in which they leave: blocks that bring each width onto the grid, one unit each for a
    grid of 1; no group goes below its floor.

    "global": the lowest mean score first, equal ones by group and index. "layer": in turn, such that all groups keep
    to the same share of their dense width, one of `sizes` where they have been cut.
    """
    ranked = []
    for order, group in enumerate(groups):
        found, living = scores[group.name], int(alive[group.name].sum())
        blocks = removable_blocks(group, found, alive[group.name], floor=floors[group.name], grid=grid_of(grid, group))
        for step, units in enumerate(blocks):
            living -= len(units)
            size = (sizes or {}).get(group.name, group.size)
            key = float(found[units].double().mean()) if scope == "global" else 1 - living / size
            ranked.append((key, order, step, group.name, units))
    return [(name, units) for *_, name, units in sorted(ranked, key=lambda block: block[:3])]


def first_channels(blocks: Blocks, count: int) -> Blocks:
    """The blocks from the front that make `count` units, to the nearest block."""
    taken = []
    for name, units in blocks:
        if len(units) > 2 * count:
            break
        taken.append((name, units))
        count -= len(units)
    return taken


def first_enough(blocks: Blocks, enough: Callable[[Blocks], bool]) -> Blocks:
    """The fewest blocks from the front that are enough, all where none are; once enough, more are so too."""
    fewest = bisect.bisect_left(range(len(blocks)), True, key=lambda number: enough(blocks[:number]))
    return blocks[:fewest]


def removable(groups: Sequence[Group], floors: Mapping[str, int], grid: Grid = 1) -> Blocks:
    """All blocks that can leave before every group stands on its floor, on the grid."""
    everything = {group.name: torch.ones(group.size, dtype=torch.bool) for group in groups}
    scores = {group.name: torch.zeros(group.size) for group in groups}
    return ranked_blocks(groups, scores, everything, floors=floors, grid=grid)


def most_removable(groups: Sequence[Group], floors: Mapping[str, int], grid: Grid = 1) -> int:
    """How many channels can leave before every group stands on its floor, on the grid."""
    return sum(len(units) for _, units in removable(groups, floors, grid))
