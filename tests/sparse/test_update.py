"""Prune and grow: exact counts, and the right weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from chase.sparse.allocation import ALLOCATIONS, Growth
from chase.sparse.update import NewMasks, count_ones, grow, mix, prune, random_masks

Masks = dict[str, Tensor]


def masks_of(*rows: str) -> Masks:
    return {name: torch.tensor([float(c) for c in row]) for name, row in zip("abcd", rows, strict=False)}


def text(masks: Masks | NewMasks) -> list[str]:
    return ["".join(str(int(v)) for v in mask.tolist()) for mask in dict(masks).values()]


def scores_of(*rows: list[float]) -> Callable[[str], Tensor]:
    table = {name: torch.tensor(row) for name, row in zip("abcd", rows, strict=False)}
    return table.__getitem__


def masked(masks: Masks) -> Masks:
    return {name: mask == 0 for name, mask in masks.items()}


def to_restore(masks: Masks, add: int, before: dict[str, int]) -> Mapping[str, float] | None:
    growth = Growth(add, before, count_ones(masks), count_ones(masked(masks)), dict)
    return ALLOCATIONS["layer"](growth)


def test_global_prune_keeps_the_largest_of_all_layers() -> None:
    masks = masks_of("1101", "1111")
    score_of = scores_of([0.1, -0.9, 9.0, 0.2], [-0.8, 0.3, 0.0, 0.05])

    assert text(prune(masks, score_of, 3)) == ["0100", "1100"]


def test_layer_prune_takes_the_same_share_of_each_layer() -> None:
    masks = masks_of("1111", "1111", "1100")
    score_of = scores_of([9.0, 8.0, 7.0, 6.0], [0.1, 0.4, 0.2, 0.3], [0.5, -0.6, 5.0, 5.0])

    assert text(prune(masks, score_of, 5, scope="layer")) == ["1100", "0101", "0100"]


def test_pruning_a_layer_of_exact_zeros_does_not_make_it_dense() -> None:
    masks = masks_of("11110000", "11000000")
    score_of = scores_of([0.0] * 8, [0.0] * 7 + [1.0])

    assert text(prune(masks, score_of, 5)) == ["11110000", "10000000"]
    assert text(prune(masks, score_of, 2)) == ["11000000", "00000000"]


def test_pruning_to_more_than_live_changes_nothing_and_to_none_clears() -> None:
    masks = masks_of("1010", "0111")
    score_of = scores_of([1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 1.0, 2.0])

    for scope in ("global", "layer"):
        assert text(prune(masks, score_of, 99, scope=scope)) == ["1010", "0111"]
        assert text(prune(masks, score_of, 0, scope=scope)) == ["0000", "0000"]


def test_global_growth_takes_the_largest_masked_score_of_living_channels() -> None:
    masks = masks_of("1000", "0100")
    score_of = scores_of([9.0, 0.5, -0.7, 0.1], [8.0, 9.0, 0.6, 0.0])

    free = {"a": masks["a"] == 0, "b": torch.tensor([False, False, True, True])}
    grown = grow(masks, score_of, 2, free=free.__getitem__)

    assert text(grown) == ["1010", "0110"]  # b's 8.0 is not free


def test_growth_never_takes_a_gradient_that_is_not_finite_before_a_finite_one() -> None:
    masks = masks_of("000000")
    score_of = scores_of([float("inf"), 1e-30, float("nan"), float("-inf"), -1e-30, 1.0])

    assert text(grow(masks, score_of, 3, free=masked(masks).__getitem__)) == ["010011"]


def test_layer_growth_gives_each_layer_its_part() -> None:
    masks = masks_of("11000000", "10000000", "11111110")
    score_of = scores_of([float(i) for i in range(8)], [float(8 - i) for i in range(8)], [1.0] * 8)

    shares = to_restore(masks, 5, {"a": 4, "b": 4, "c": 7})
    grown = grow(masks, score_of, 5, free=masked(masks).__getitem__, shares=shares)

    assert text(grown) == ["11000011", "11110000", "11111110"]


def test_layer_growth_spills_over_where_a_layer_is_full() -> None:
    masks = masks_of("1110", "0000")
    score_of = scores_of([1.0] * 4, [4.0, 3.0, 2.0, 1.0])

    grown = grow(masks, score_of, 4, free=masked(masks).__getitem__, shares=to_restore(masks, 4, {"a": 9, "b": 1}))

    assert text(grown) == ["1111", "1110"]


def test_new_masks_leave_the_old_ones_alone() -> None:
    masks = masks_of("1100")
    less = prune(masks, scores_of([1.0] * 4), 1)
    more = grow(masks, scores_of([1.0] * 4), 1, free=masked(masks).__getitem__)

    assert text(less) == ["1000"]
    assert text(more) == ["1110"]
    assert text(masks) == ["1100"]


def test_new_masks_may_replace_the_old_ones_as_they_come() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = {name: torch.rand(50, generator=generator).round() for name in "abc"}
    scores = {name: torch.rand(50, generator=generator).mul(4).round() for name in "abc"}  # many ties
    less = dict(prune(masks, scores.__getitem__, 30))
    more = dict(grow(less, scores.__getitem__, 25, free=masked(less).__getitem__))

    for name, mask in prune(masks, scores.__getitem__, 30):
        masks[name].copy_(mask)
    assert all(torch.equal(masks[name].bool(), less[name]) for name in masks)
    for name, mask in grow(masks, scores.__getitem__, 25, free=lambda name: masks[name] == 0):
        masks[name].copy_(mask)
    assert all(torch.equal(masks[name].bool(), more[name]) for name in masks)


layers = st.lists(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=15), min_size=1, max_size=4)


@settings(deadline=None, max_examples=80)
@given(layers, st.integers(0, 60), st.booleans(), st.integers(0, 3))
def test_prune_and_grow_are_exact(table: list[list[tuple[bool, bool]]], k: int, by_layer: bool, levels: int) -> None:
    masks = masks_of(*("".join(str(int(live)) for live, _ in row) for row in table))
    living = {name: torch.tensor([ok for _, ok in row]) for name, row in zip("abcd", table, strict=False)}
    generator = torch.Generator().manual_seed(k)
    scores = {name: (torch.rand(len(m), generator=generator) * levels).round() for name, m in masks.items()}
    before = count_ones(masks)

    less = dict(prune(masks, scores.__getitem__, k, scope="layer" if by_layer else "global"))
    free = {name: (masks[name] == 0) & living[name] for name in masks}
    more = dict(grow(masks, scores.__getitem__, k, free=free.__getitem__, shares=before if by_layer else None))

    room = count_ones(free)
    assert sum(count_ones(less).values()) == min(k, sum(before.values()))
    assert sum(count_ones(more).values()) == sum(before.values()) + min(k, sum(room.values()))
    for name in masks:
        assert (less[name] <= masks[name]).all()
        assert (more[name] >= masks[name]).all()
        assert ((more[name] > masks[name]) <= living[name]).all()
        assert set(more[name].tolist()) <= {0.0, 1.0}


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=4), st.floats(0, 1))
def test_drop_and_grow_by_layer_keeps_each_layers_count(sizes: list[tuple[int, int]], drop: float) -> None:
    masks = masks_of(*("1" * ones + "0" * (zeros + 1) for ones, zeros in sizes))
    scores = {name: torch.randn(len(m), generator=torch.Generator().manual_seed(1)) for name, m in masks.items()}
    before = count_ones(masks)
    total = sum(before.values())

    less = dict(prune(masks, scores.__getitem__, round((1 - drop) * total), scope="layer"))
    add = total - sum(count_ones(less).values())
    growing = grow(less, scores.__getitem__, add, free=masked(less).__getitem__, shares=to_restore(less, add, before))
    after = dict(growing)

    assert count_ones(after) == before or total == 0
    if total:
        assert all(abs(count_ones(less)[n] - (1 - drop) * before[n]) <= 1.5 for n in masks)


def test_random_masks_have_exact_counts_and_depend_on_the_seed_alone() -> None:
    like = {"a": torch.zeros(6, 5, 3, 3).to(memory_format=torch.channels_last), "b": torch.zeros(40, 7).half()}
    torch.manual_seed(1)
    first = random_masks({"a": 100, "b": 3}, like, seed=5)
    torch.manual_seed(2)
    again, other = (random_masks({"a": 100, "b": 3}, like, seed=seed) for seed in (5, 6))

    assert count_ones(first) == {"a": 100, "b": 3}
    assert all(torch.equal(first[name], again[name]) for name in like)
    assert not torch.equal(first["a"], other["a"])
    assert first["a"].is_contiguous(memory_format=torch.channels_last)
    assert first["b"].dtype == torch.float16


def test_random_masks_spread_evenly() -> None:
    mask = random_masks({"a": 5000}, {"a": torch.zeros(100, 100)}, seed=0)["a"]

    for line in (mask.sum(0), mask.sum(1)):  # hypergeometric: mean 50, deviation 5
        assert line.sub(50).abs().max() < 25


def test_two_layers_of_one_shape_get_different_masks() -> None:
    like = {"a": torch.zeros(50, 50), "b": torch.zeros(50, 50)}
    masks = random_masks({"a": 1250, "b": 1250}, like, seed=0)

    assert not torch.equal(masks["a"], masks["b"])


def test_mixed_seeds_are_distinct_and_fit_a_generator() -> None:
    seeds = [mix(*numbers) for numbers in itertools.product(range(8), range(8), range(3), range(8))]

    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_channels_last_masks_prune_as_others_do(scope: str) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(8, 4, 3, 3, generator=generator).mul(2).round() for name in "ab"}
    last = {name: weight.to(memory_format=torch.channels_last) for name, weight in weights.items()}

    plain, other = (
        dict(prune({n: torch.ones_like(w) for n, w in table.items()}, table.__getitem__, 200, scope=scope))
        for table in (weights, last)
    )

    assert all(torch.equal(plain[name], other[name]) for name in weights)
