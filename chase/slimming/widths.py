"""Widths: the grid they keep to, and the groups of a grouped convolution that stay equally wide.

Both are met by keeping some dead channels, which is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from chase.errors import RecipeError
from chase.slimming.groups import Group, Lane

Grid: TypeAlias = int | Mapping[str, int]
"""One number for all layers, or a number for each pattern of layer names; the first pattern that fits counts, and a
layer that none fits has no grid."""


def check_grid(grid: Grid) -> None:
    """Refuse a width grid below 1.

    Raises:
        RecipeError: with the value.
    """
    for pattern, number in ({"*": grid} if isinstance(grid, int) else grid).items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            where = "" if isinstance(grid, int) else f" for {pattern!r}"
            raise RecipeError(f"round_to{where} must be a whole number of at least 1, not {number!r}")


def grid_from(text: str) -> Grid:
    """A width grid as it is written on a command line: "8", or "layer1.*=16,fc=1,8" with the rest at the end.

    Raises:
        RecipeError: if it is not one.
    """
    entries = {}
    for entry in text.split(","):
        pattern, _, number = entry.rpartition("=")
        if not number.strip().isdigit():
            raise RecipeError(
                f"{text!r} is not a width grid; write a number, or numbers by layers, as in layer1.*=16,8"
            )
        entries[pattern.strip() or "*"] = int(number)
    grid: Grid = entries["*"] if list(entries) == ["*"] else entries
    check_grid(grid)
    return grid


def grid_of(grid: Grid, group: Group) -> int:
    """The number that the widths of a group are multiples of."""
    if isinstance(grid, int):
        return grid
    return next((number for pattern, number in grid.items() if group.matches(pattern)), 1)


def patterns_of(grid: Grid) -> tuple[str, ...]:
    """The patterns of layer names in a grid; one number for all layers has none."""
    return () if isinstance(grid, int) else tuple(grid)


def lanes_of(group: Group) -> tuple[Lane, ...]:
    """The widths that a group's units add up to."""
    return group.lanes or (Lane(torch.arange(group.size)),)


def filled(group: Group, alive: Tensor, *, grid: int = 1, scores: Tensor | None = None) -> Tensor:
    """`alive` (bool [size]) and the dead units that must be kept: never none, on the grid, groups of convolutions even.

    A width is a multiple of `grid`, or the dense width where that is smaller. Of the dead units, those with the
    highest `scores` [size] are kept (default: the first).
    """
    kept = alive.clone()
    order = torch.arange(group.size) if scores is None else scores.argsort(descending=True, stable=True)
    while True:
        before = int(kept.sum())
        for blocks in group.even:
            step = grid // math.gcd(grid, len(blocks))
            wanted = max(block.count(kept) for block in blocks)
            for block in blocks:
                _raise(kept, block, _rounded(wanted, step, block.width), order)
        for lane in lanes_of(group):
            _raise(kept, lane, _rounded(max(1, lane.count(kept)), grid, lane.width), order)
        if int(kept.sum()) == before:
            return kept


def _rounded(width: int, grid: int, dense: int) -> int:
    return min(-(-width // grid) * grid, dense)


def _raise(kept: Tensor, lane: Lane, width: int, order: Tensor) -> None:
    """Keep dead units of a lane until it has `width` channels."""
    missing = width - lane.count(kept)
    if missing <= 0:
        return
    channels = torch.bincount(lane.units, minlength=len(kept))
    for unit in order[(~kept & (channels > 0))[order]].tolist():
        if missing <= 0:
            return
        kept[unit] = True
        missing -= int(channels[unit])


def spread(group: Group, count: int) -> Tensor:
    """`count` units of a group, evenly spread, bool [size]."""
    kept = torch.zeros(group.size, dtype=torch.bool)
    kept[torch.arange(count) * group.size // max(1, count)] = True
    return kept


def removable_blocks(group: Group, scores: Tensor, alive: Tensor, *, floor: int, grid: int) -> Iterator[Tensor]:
    """Living units that may leave together, lowest scores first: each block brings the widths onto the grid and keeps
    the groups of a convolution even. At least `floor` units stay."""
    left, block = int(alive.sum()), list[Tensor]()
    lane = lanes_of(group)[0]
    channels, width = torch.bincount(lane.units, minlength=group.size), lane.count(alive)
    for row in _rows(group, scores, alive):
        block.append(row)
        left, width = left - len(row), width - int(channels[row].sum())
        if left < floor:
            return
        if width % grid == 0:
            yield torch.cat(block)
            block = []


def _rows(group: Group, scores: Tensor, alive: Tensor) -> Iterator[Tensor]:
    """Living units by score, one by one; of a grouped convolution, one of each group at a time."""
    ranked = [units[alive[units]] for units in _blocks(group)]
    ranked = [units[scores[units].argsort(stable=True)] for units in ranked]
    spare = [len(units) - min(map(len, ranked)) for units in ranked]
    for units, extra in zip(ranked, spare, strict=True):
        yield from units[:extra].unsqueeze(1).unbind(0)
    columns = [units[extra:] for units, extra in zip(ranked, spare, strict=True)]
    yield from torch.stack(columns, dim=1).unbind(0)


def _blocks(group: Group) -> list[Tensor]:
    """The units of each group of a grouped convolution, where that divides them; otherwise all of them."""
    if len(group.even) == 1:
        blocks = [lane.units for lane in group.even[0]]
        if len(torch.cat(blocks).unique()) == len(torch.cat(blocks)) == group.size:
            return blocks
    return [torch.arange(group.size)]
