"""Slim equals masked, for networks, dead channels and grids that nobody chose."""

from __future__ import annotations

import copy

import torch
from hazards import assert_rebuilds, scramble_
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import Network, random_networks
from torch import nn

from chase.slimming import Group, Slimmed, channel_groups, prunable, slimmed
from chase.slimming.widths import Grid, grid_of, lanes_of
from chase.sparse.masks import Masks

EXAMPLE = torch.zeros(1, 3, 6, 6)
GRIDS: list[Grid] = [1, 2, 3, 4, 8, {"layers.[0-3]*": 3, "*": 2}]


def dead_masks(model: nn.Module, groups: tuple[Group, ...], *, share: float, seed: int, buried: bool) -> Masks:
    """Masks under which a random share of the units is dead, even all of a group, and some weights are zero."""
    generator = torch.Generator().manual_seed(seed)
    masks = Masks.dense(model, groups)
    for mask in masks.weights.values():
        mask.copy_(torch.rand(mask.shape, generator=generator) >= 0.2)
    for alive in masks.alive.values():
        alive.copy_(torch.rand(len(alive), generator=generator) >= share)
    if buried:
        masks.bury()
    return masks


def assert_widths(groups: tuple[Group, ...], masks: Masks, result: Slimmed, grid: Grid) -> None:
    """All that lives is kept, widths are on the grid or dense, groups of convolutions are even."""
    for group in groups:
        kept = torch.zeros(group.size, dtype=torch.bool)
        kept[result.kept[group.name]] = True
        number = grid_of(grid, group)

        assert bool((kept | ~masks.alive[group.name]).all())
        assert all(lane.count(kept) % number == 0 or lane.count(kept) == lane.width for lane in lanes_of(group))
        assert all(len({block.count(kept) for block in blocks}) == 1 for blocks in group.even)


@torch.no_grad()
def assert_same_outputs(model: nn.Module, masks: Masks, small: nn.Module) -> None:
    """At a batch size that no certificate was measured at; in float32, as the network runs."""
    masked = copy.deepcopy(model).eval()
    masks.apply_(masked)
    inputs = torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(5))
    ours, theirs = small.eval()(inputs), masked(inputs)

    assert float((ours - theirs).abs().max()) <= 1e-4 * float(theirs.abs().max().clamp(min=1e-3))


@settings(max_examples=60, deadline=None)
@given(
    model=random_networks(),
    prune_skip=st.booleans(),
    seed=st.integers(0, 2**16),
    share=st.sampled_from([0.3, 0.5, 0.8, 1.0]),
    grid=st.sampled_from(GRIDS),
    buried=st.booleans(),
)
def test_slim_is_masked_for_random_networks(
    model: Network, prune_skip: bool, seed: int, share: float, grid: Grid, buried: bool
) -> None:
    scramble_(model, seed)
    fresh = copy.deepcopy(model)
    groups = prunable(channel_groups(model, EXAMPLE), prune_skip=prune_skip)
    masks = dead_masks(model, groups, share=share, seed=seed, buried=buried)
    result = slimmed(model, masks, example=EXAMPLE, round_to=grid)

    assert result.certificate["dtype"] == "float64"
    assert_widths(groups, masks, result, grid)
    assert_same_outputs(model, masks, result.model)
    assert_rebuilds(fresh, result, EXAMPLE)
