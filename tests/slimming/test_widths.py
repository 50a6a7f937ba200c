"""Widths: what is kept beside the living channels, and which channels may leave together."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from chase.errors import RecipeError
from chase.slimming.groups import Group, Lane
from chase.slimming.widths import Grid, check_grid, filled, grid_of, removable_blocks, spread


def lane(*units: int, fixed: int = 0) -> Lane:
    return Lane(torch.tensor(units, dtype=torch.int64), fixed)


def group(size: int, *lanes: Lane, even: tuple[tuple[Lane, ...], ...] = (), producers: tuple[str, ...] = ()) -> Group:
    return Group("a", size, (), producers, lanes=lanes, even=even)


def only(size: int, *units: int) -> Tensor:
    """These units of `size`, bool [size]."""
    found = torch.zeros(size, dtype=torch.bool)
    found[list(units)] = True
    return found


def kept(of: Group, *alive: int, grid: int = 1, scores: list[float] | None = None) -> list[int]:
    best = None if scores is None else torch.tensor(scores)
    return filled(of, only(of.size, *alive), grid=grid, scores=best).nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("alive", "grid", "expected"),
    [
        ((1, 4), 1, [1, 4]),
        ((1, 4), 4, [0, 1, 2, 4]),
        ((0, 1, 2, 3), 4, [0, 1, 2, 3]),
        ((1, 4), 8, [0, 1, 2, 3, 4, 5]),  # the dense width, which is no multiple
        ((0, 1, 2, 3, 4), 4, [0, 1, 2, 3, 4, 5]),
        ((), 1, [0]),
        ((), 4, [0, 1, 2, 3]),
    ],
)
def test_dead_units_fill_the_grid_up_to_the_dense_width_and_never_leave_none(
    alive: tuple[int, ...], grid: int, expected: list[int]
) -> None:
    assert kept(group(6), *alive, grid=grid) == expected


@pytest.mark.parametrize(("width", "expected"), [(1, 8), (8, 8), (9, 16), (16, 16), (17, 20), (20, 20)])
def test_a_width_is_rounded_up_and_stops_at_the_dense_width(width: int, expected: int) -> None:
    assert len(kept(group(20), *range(width), grid=8)) == expected


def test_of_the_dead_those_with_the_highest_scores_are_kept_and_of_equals_the_first() -> None:
    scores = [0.5, 9.0, 0.7, 0.7, 0.1, 0.7]

    assert kept(group(6), 4, grid=2, scores=scores) == [1, 4]
    assert kept(group(6), 4, 1, grid=4, scores=scores) == [1, 2, 3, 4]
    assert kept(group(6), scores=[float("-inf")] * 5 + [0.0]) == [5]


def test_what_lives_is_left_as_it_is() -> None:
    alive = only(6, 2)

    filled(group(6), alive, grid=4)

    assert alive.tolist() == [False, False, True, False, False, False]


def test_channels_that_stay_anyway_count_towards_the_grid() -> None:
    """A layer of 5 channels, 2 of them fixed: 1 + 2 → 4 with a dead one; 2 + 2 is on the grid."""
    five = group(3, lane(0, 1, 2, fixed=2))

    assert kept(five, 1, grid=4) == [0, 1]
    assert kept(five, 0, 2, grid=4) == [0, 2]
    assert kept(five, grid=1) == []
    assert kept(five, grid=2) == []
    assert kept(five, 0, 1, 2, grid=4) == [0, 1, 2]


def test_every_lane_stands_on_the_grid_also_where_a_unit_is_several_channels() -> None:
    """The first layer makes units 0-3 once each, the second unit 0 and 1 twice each."""
    two = group(4, lane(0, 1, 2, 3), lane(0, 0, 1, 1))

    assert kept(two, 2, 3, grid=2) == [0, 1, 2, 3]  # 0 for the second, then 1 for the first
    assert kept(two, 0, 3, grid=2) == [0, 3]
    assert kept(two, 0, grid=2) == [0, 1]


def halves(*sizes: int) -> tuple[Lane, ...]:
    """Lanes of consecutive units."""
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    return tuple(lane(*range(start, start + size)) for start, size in zip(starts, sizes, strict=True))


@pytest.mark.parametrize(
    ("alive", "grid", "expected"),
    [
        ((), 1, [0, 3]),
        ((1,), 1, [1, 3]),
        ((1, 2, 3), 1, [1, 2, 3, 4]),
        ((5,), 2, [0, 5]),  # together on the grid: one each
        ((5,), 4, [0, 1, 3, 5]),
        ((0, 1, 2), 1, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_the_groups_of_a_convolution_keep_equally_many(alive: tuple[int, ...], grid: int, expected: list[int]) -> None:
    assert kept(group(6, lane(*range(6)), even=(halves(3, 3),)), *alive, grid=grid) == expected


def test_two_divisions_of_the_same_units_are_both_even() -> None:
    """Halves for one convolution and thirds for another: 6 units, so 2 a third and 3 a half where 0, 1 live."""
    both = group(6, lane(*range(6)), even=(halves(3, 3), halves(2, 2, 2)))

    assert kept(both, 0, 1) == [0, 1, 2, 3, 4, 5]
    assert kept(both, 0) == [0, 1, 2, 3, 4, 5]  # one a third makes 2 + 1 in the halves, and so on


even_groups = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 9), st.integers(0, 2**16))


@settings(deadline=None, max_examples=60)
@given(even_groups)
def test_filling_keeps_the_living_stands_on_the_grid_and_is_even(drawn: tuple[int, int, int, int]) -> None:
    count, each, grid, seed = drawn
    size, generator = count * each, torch.Generator().manual_seed(seed)
    one = group(size, lane(*range(size)), even=(halves(*[each] * count),))
    alive, scores = torch.rand(size, generator=generator) < 0.3, torch.rand(size, generator=generator)

    found = filled(one, alive, grid=grid, scores=scores)

    counts = [int(found[block.units].sum()) for block in one.even[0]]
    assert bool(found[alive].all())
    assert len(set(counts)) == 1
    assert counts[0] > 0
    assert found.sum() % grid == 0 or bool(found.all())
    assert torch.equal(filled(one, found, grid=grid, scores=scores), found)


def blocks(
    of: Group, scores: list[float], *, floor: int = 1, grid: int = 1, dead: tuple[int, ...] = ()
) -> list[list[int]]:
    alive = ~only(of.size, *dead)
    return [part.tolist() for part in removable_blocks(of, torch.tensor(scores), alive, floor=floor, grid=grid)]


def test_units_may_leave_one_by_one_lowest_first_down_to_the_floor() -> None:
    assert blocks(group(4), [3, 1, 2, 0]) == [[3], [1], [2]]
    assert blocks(group(4), [3, 1, 2, 0], floor=3) == [[3]]
    assert blocks(group(4), [3, 1, 2, 0], floor=4) == []
    assert blocks(group(4), [3, 1, 2, 0], dead=(3,)) == [[1], [2]]
    assert blocks(group(4), [0, 0, 0, 0], floor=0) == [[0], [1], [2], [3]]


def test_each_block_brings_the_width_onto_the_grid() -> None:
    assert blocks(group(7), [6, 5, 4, 3, 2, 1, 0], grid=3) == [[6], [5, 4, 3]]
    assert blocks(group(7), [6, 5, 4, 3, 2, 1, 0], grid=3, floor=4) == [[6]]
    assert blocks(group(7), [6, 5, 4, 3, 2, 1, 0], grid=3, dead=(6, 5)) == [[4, 3]]
    assert blocks(group(7), [6, 5, 4, 3, 2, 1, 0], grid=8) == []


def test_channels_that_stay_anyway_count_when_blocks_are_made() -> None:
    assert blocks(group(4, lane(0, 1, 2, 3, fixed=3)), [0, 1, 2, 3], grid=4) == [[0, 1, 2]]
    assert blocks(group(4, lane(0, 1, 2, 3, fixed=2)), [0, 1, 2, 3], grid=4) == [[0, 1]]


def test_one_channel_of_each_group_of_a_convolution_leaves_at_a_time() -> None:
    grouped = group(6, lane(*range(6)), even=(halves(3, 3),))

    assert blocks(grouped, [0, 2, 1, 5, 3, 4], floor=2) == [[0, 4], [2, 5]]
    assert blocks(grouped, [0, 2, 1, 5, 3, 4], floor=2, grid=4) == [[0, 4]]
    assert blocks(grouped, [0, 2, 1, 5, 3, 4], floor=3) == [[0, 4]]


def test_where_more_live_in_one_group_of_a_convolution_those_leave_first() -> None:
    grouped = group(6, lane(*range(6)), even=(halves(3, 3),))

    assert blocks(grouped, [0, 2, 1, 5, 3, 4], dead=(0, 2), floor=2) == [[4], [5]]
    assert blocks(grouped, [0, 2, 1, 5, 3, 4], dead=(2,), floor=1) == [[4], [0, 5]]


def test_there_is_no_empty_block() -> None:
    assert all(blocks(group(3), [0.0, 1, 2], floor=0, dead=dead) != [[]] for dead in ((), (0,), (0, 1, 2)))
    assert blocks(group(3), [0.0, 1, 2], floor=0, dead=(0, 1, 2)) == []
    assert blocks(group(2, even=(halves(1, 1),)), [0.0, 1]) == []


@pytest.mark.parametrize(("count", "units"), [(0, []), (1, [0]), (2, [0, 3]), (3, [0, 2, 4]), (6, [0, 1, 2, 3, 4, 5])])
def test_units_are_spread_evenly(count: int, units: list[int]) -> None:
    assert spread(group(6), count).nonzero().flatten().tolist() == units


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (8, 8),
        ({}, 1),
        ({"fc": 4}, 1),
        ({"layer1.*": 4, "*": 2}, 4),
        ({"*": 2, "layer1.*": 4}, 2),  # the first that fits
        ({"layer2.0.conv1": 16}, 16),  # any layer that makes the units
    ],
)
def test_the_grid_of_a_group_is_that_of_the_first_pattern_that_fits(grid: Grid, expected: int) -> None:
    one = group(4, producers=("layer1.0.conv1.weight", "layer2.0.conv1.weight"))

    assert grid_of(grid, one) == expected


@pytest.mark.parametrize(
    ("grid", "shown"),
    [
        (0, "round_to must be a whole number of at least 1, not 0"),
        (-8, "round_to must be a whole number of at least 1, not -8"),
        (True, "round_to must be a whole number of at least 1, not True"),
        ({"fc": 0}, "round_to for 'fc' must be a whole number of at least 1, not 0"),
        ({"a": 8, "b": "8"}, "round_to for 'b' must be a whole number of at least 1, not '8'"),
        ({"*": 2.0}, "round_to for '*' must be a whole number of at least 1, not 2.0"),
    ],
)
def test_a_grid_that_is_no_whole_number_is_refused(grid: Grid, shown: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check_grid(grid)

    assert str(caught.value) == shown


@pytest.mark.parametrize("grid", [1, 8, {}, {"*": 1, "fc": 64}])
def test_a_grid_of_whole_numbers_is_taken(grid: Grid) -> None:
    check_grid(grid)
