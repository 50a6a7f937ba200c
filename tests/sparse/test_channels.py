"""Scores of coupled channels, floors, and the choice of channels over all groups."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from chase.errors import RecipeError
from chase.slimming.groups import Group, Lane, Slice
from chase.slimming.widths import Grid
from chase.sparse.channels import (
    AGGREGATES,
    NORMALISERS,
    Blocks,
    Scored,
    first_channels,
    first_enough,
    floor_width,
    group_scores,
    most_removable,
    ranked_blocks,
    removable,
)
from chase.sparse.criteria import CHANNEL_SCORES


@pytest.mark.parametrize(
    ("ratio", "sparsity", "floors"),
    [(0.5, 0.5, [16, 32, 64, 128]), (0.2, 0.5, [6, 12, 25, 51]), (0.2, 0.4, [7, 15, 30, 61])],
)
def test_floors_are_those_of_the_papers_settings(ratio: float, sparsity: float, floors: list[int]) -> None:
    found = [floor_width(width, channel_sparsity=sparsity, ratio=ratio) for width in (64, 128, 256, 512)]

    assert found == floors


def test_floors_round_down_but_never_to_nothing_and_not_by_float_error() -> None:
    assert floor_width(100, channel_sparsity=0.9, ratio=1) == 10  # (1 − 0.9) · 100 = 9.999…
    assert floor_width(3, channel_sparsity=0.5, ratio=0.1) == 1
    assert floor_width(100, channel_sparsity=0.0, ratio=1) == 100


def lists(*rows: list[float]) -> dict[str, Tensor]:
    return {name: torch.tensor(row) for name, row in zip("abcd", rows, strict=False)}


def groups_of(scores: dict[str, Tensor]) -> list[Group]:
    """A group for each name, with a unit for each score."""
    return [Group(name, len(score), (), ()) for name, score in scores.items()]


def select(
    groups: list[Group],
    scores: dict[str, Tensor],
    alive: dict[str, Tensor],
    *,
    remove: int,
    floors: dict[str, int],
    grid: Grid = 1,
    scope: str = "global",
) -> dict[str, Tensor]:
    """Which units leave, bool by group."""
    leaving = {name: torch.zeros_like(living) for name, living in alive.items()}
    blocks = ranked_blocks(groups, scores, alive, floors=floors, grid=grid, scope=scope)
    for name, units in first_channels(blocks, remove):
        leaving[name][units] = True
    return leaving


def chosen(scores: dict[str, Tensor], remove: int, floors: tuple[int, ...], grid: int = 1) -> list[list[int]]:
    alive = {name: torch.ones(len(score), dtype=torch.bool) for name, score in scores.items()}
    floor_of = dict(zip(scores, floors, strict=True))
    leaving = select(groups_of(scores), scores, alive, remove=remove, floors=floor_of, grid=grid)
    return [units.nonzero().flatten().tolist() for units in leaving.values()]


HAND = lists([5, 1, 4, 2, 8, 7, 6, 3], [10, 0.5, 20, 2.5])  # a: 8 channels, b: 4


@pytest.mark.parametrize(
    ("remove", "floors", "expected"),
    [
        (-2, (1, 1), [[], []]),
        (0, (1, 1), [[], []]),
        (1, (1, 1), [[], [1]]),
        (4, (1, 1), [[1, 3], [1, 3]]),
        (4, (1, 4), [[1, 2, 3, 7], []]),
        (6, (6, 1), [[1, 3], [0, 1, 3]]),  # floors end it after five
        (12, (1, 1), [[0, 1, 2, 3, 5, 6, 7], [0, 1, 3]]),
    ],
)
def test_one_by_one_by_hand(remove: int, floors: tuple[int, int], expected: list[list[int]]) -> None:
    assert chosen(HAND, remove, floors) == expected


@pytest.mark.parametrize(
    ("remove", "floors", "expected"),
    [
        # blocks of four, mean score: a {1,3,7,2} 2.5, a {0,6,5,4} 6.5; b {…} would empty b
        (1, (1, 1), [[], []]),
        (2, (1, 1), [[1, 2, 3, 7], []]),
        (5, (1, 1), [[1, 2, 3, 7], []]),
        (8, (1, 1), [[1, 2, 3, 7], []]),
        (4, (5, 1), [[], []]),
    ],
)
def test_blocks_of_four_by_hand(remove: int, floors: tuple[int, int], expected: list[list[int]]) -> None:
    assert chosen(HAND, remove, floors, grid=4) == expected


def test_the_first_block_brings_an_odd_width_onto_the_grid_of_eight() -> None:
    scores = lists([float(i) for i in range(19)], [50.0] * 16)

    assert chosen(scores, 1, (1, 1), grid=8) == [[], []]  # 3 is further from 1 than 0
    assert chosen(scores, 2, (1, 1), grid=8) == [[0, 1, 2], []]
    assert chosen(scores, 6, (1, 1), grid=8) == [[0, 1, 2], []]
    assert chosen(scores, 7, (1, 1), grid=8) == [list(range(11)), []]
    assert chosen(scores, 11, (9, 1), grid=8) == [[0, 1, 2], [0, 1, 2, 3, 4, 5, 6, 7]]


@pytest.mark.parametrize(("remove", "expected"), [(7, 8), (8, 8), (11, 8), (12, 16), (13, 16), (16, 16)])
def test_the_number_removed_is_the_nearest_multiple_of_the_block(remove: int, expected: int) -> None:
    scores = lists([float(i) for i in range(32)], [float(i) for i in range(32)])

    assert sum(map(len, chosen(scores, remove, (8, 8), grid=8))) == expected


def test_equal_scores_go_to_the_earlier_group_and_the_lower_index() -> None:
    scores = {"z": torch.zeros(4), "a": torch.zeros(4)}

    assert chosen(scores, 5, (1, 1)) == [[0, 1, 2], [0, 1]]


def test_the_dead_stay_out_of_the_ranking() -> None:
    scores, alive = {"a": torch.tensor([0.0, 1, 2, 3])}, {"a": torch.tensor([False, True, True, True])}

    leaving = select(groups_of(scores), scores, alive, remove=1, floors={"a": 1})
    none = select(groups_of(scores), scores, alive, remove=3, floors={"a": 3})

    assert leaving["a"].tolist() == [False, True, False, False]
    assert none["a"].tolist() == [False] * 4
    assert alive["a"].tolist() == [False, True, True, True]


groups_of_scores = st.lists(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=12), min_size=1, max_size=4
)


@settings(deadline=None, max_examples=80)
@given(groups_of_scores, st.data())
def test_without_binding_floors_the_lowest_leave_whatever_the_group(
    table: list[list[tuple[int, bool]]], data: st.DataObject
) -> None:
    scores = {str(i): torch.tensor([float(s) for s, _ in row]) for i, row in enumerate(table)}
    alive = {str(i): torch.tensor([live for _, live in row]) for i, row in enumerate(table)}
    ranked = sorted(
        (s, g, c) for g, row in enumerate(table) for c, (s, live) in enumerate(row) if live
    )  # ties: the earlier group, the lower index
    remove = data.draw(st.integers(0, len(ranked)))

    leaving = select(groups_of(scores), scores, alive, remove=remove, floors=dict.fromkeys(scores, 0))

    found = {(g, c) for g in range(len(table)) for c in leaving[str(g)].nonzero().flatten().tolist()}
    assert found == {(g, c) for _, g, c in ranked[:remove]}


@settings(deadline=None, max_examples=80)
@given(groups_of_scores, st.integers(0, 50), st.integers(1, 9), st.integers(1, 8))
def test_floors_and_grid_hold_and_the_count_is_the_nearest(
    table: list[list[tuple[int, bool]]], remove: int, grid: int, floor: int
) -> None:
    scores = {str(i): torch.tensor([float(s) for s, _ in row]) for i, row in enumerate(table)}
    alive = {name: torch.ones(len(row), dtype=torch.bool) for name, row in scores.items()}
    widths = [len(row) for row in table]
    floors = {name: min(floor, len(row)) for name, row in scores.items()}

    leaving = select(groups_of(scores), scores, alive, remove=remove, floors=floors, grid=grid)

    left = [width - int(units.sum()) for width, units in zip(widths, leaving.values(), strict=True)]
    most = most_removable(groups_of(scores), floors, grid)
    assert all(new == old or new % grid == 0 for new, old in zip(left, widths, strict=True))
    assert all(new >= floors[name] for new, name in zip(left, floors, strict=True))
    removed = sum(widths) - sum(left)
    assert removed <= most
    assert abs(removed - min(remove, most)) <= grid / 2


def test_most_removable_is_what_a_greedy_demand_takes() -> None:
    scores, floors = lists([0.0] * 64, [0.0] * 20, [0.0] * 5), {"a": 6, "b": 9, "c": 2}

    assert most_removable(groups_of(scores), floors, 8) == 56 + 4 + 0
    assert most_removable(groups_of(scores), floors, 1) == 58 + 11 + 3
    assert sum(map(len, chosen(scores, 99, (6, 9, 2), grid=8))) == 60


UMM = CHANNEL_SCORES["umm"]
TWO = torch.arange(2)
COUPLED = Group(  # two producers, the second with its units in reverse and two rows a unit; consumers do not count
    name="a",
    size=2,
    producers=("a.weight", "b.weight"),
    slices=(
        Slice("a.weight", 0, TWO, TWO),
        Slice("b.weight", 0, torch.arange(4), torch.tensor([1, 1, 0, 0])),
        Slice("b.weight", 1, TWO, TWO, reads=True),
        Slice("c.weight", 0, TWO, TWO),
    ),
)
COUPLED_WEIGHTS = {
    "a.weight": torch.tensor([[1.0, 3.0], [5.0, 7.0]]),
    "b.weight": torch.tensor([[4.0, 0.0], [8.0, 0.0], [1.0, 1.0], [2.0, 2.0]]),
    "c.weight": torch.full((2, 2), 1000.0),
}


def test_a_group_is_scored_by_the_mean_over_the_rows_that_make_each_unit() -> None:
    masks = {name: torch.ones_like(weight) for name, weight in COUPLED_WEIGHTS.items()}

    # unit 0: rows 2 | 1, 2 → 5/3; unit 1: rows 6 | 2, 4 → 12/3
    assert group_scores(COUPLED, UMM, Scored(COUPLED_WEIGHTS, masks, {})).tolist() == pytest.approx([5 / 3, 4.0])


@pytest.mark.parametrize(("name", "expected"), [("mean", [5 / 3, 4.0]), ("sum", [5.0, 12.0]), ("max", [2.0, 6.0])])
def test_the_scores_of_coupled_rows_are_combined_as_asked(name: str, expected: list[float]) -> None:
    masks = {name: torch.ones_like(weight) for name, weight in COUPLED_WEIGHTS.items()}

    found = group_scores(COUPLED, UMM, Scored(COUPLED_WEIGHTS, masks, {}), aggregate=AGGREGATES[name])

    assert list(AGGREGATES) == ["mean", "sum", "max"]
    assert found.tolist() == pytest.approx(expected)


def test_the_largest_of_negative_scores_is_not_zero() -> None:
    """As reversed criteria have them; unit 2 has no row and scores 0."""
    values, units = torch.tensor([-0.5, -0.25, -1.0]), torch.tensor([0, 0, 1])

    assert AGGREGATES["max"](values, units, 3).tolist() == [-0.25, -1.0, 0.0]


def test_a_transposed_convolution_is_scored_over_its_columns() -> None:
    units = torch.arange(2)
    group = Group("up", 2, (Slice("up.weight", 1, units, units),), ("up.weight",))
    weight = {"up.weight": torch.tensor([[[1.0], [2.0]], [[3.0], [6.0]]])}

    assert group_scores(group, UMM, Scored(weight, {}, {})).tolist() == [2.0, 4.0]  # no mask: nothing is masked


def test_of_a_grouped_convolution_one_channel_of_each_group_leaves_at_a_time() -> None:
    """Two convolution groups, units 0-2 and 3-5; rows of one unit each: 0|5 (mean 0.5), 1|4 (5), 2|3 (9)."""
    halves = (Lane(torch.arange(3)), Lane(torch.arange(3, 6)))
    group = Group("a", 6, (), (), even=(halves,))
    scores, alive = {"a": torch.tensor([0.0, 2, 9, 9, 8, 1])}, {"a": torch.ones(6, dtype=torch.bool)}

    def leaves(remove: int, grid: int = 1) -> list[int]:
        leaving = select([group], scores, alive, remove=remove, floors={"a": 1}, grid=grid)["a"]
        return leaving.nonzero().flatten().tolist()

    one, two = [0, 5], [0, 1, 4, 5]
    assert [leaves(remove) for remove in (0, 1, 2, 3, 4, 6)] == [[], one, one, two, two, two]
    assert leaves(2, grid=4) == [0, 5]
    assert most_removable([group], {"a": 1}) == 4


def test_a_grid_may_differ_from_layer_to_layer() -> None:
    unit = torch.arange(8)
    groups = [Group(name, 8, (Slice(f"{name}.weight", 0, unit, unit),), (f"{name}.weight",)) for name in ("a", "b")]
    scores = {"a": torch.arange(8.0), "b": torch.arange(8.0)}
    alive = {name: torch.ones(8, dtype=torch.bool) for name in scores}
    floors = {"a": 1, "b": 1}

    leaving = select(groups, scores, alive, remove=7, floors=floors, grid={"a": 4})

    # a: {0, 1, 2, 3} at 1.5; b one by one
    assert leaving["a"].nonzero().flatten().tolist() == [0, 1, 2, 3]
    assert leaving["b"].nonzero().flatten().tolist() == [0, 1, 2]
    assert most_removable(groups, floors, {"a": 4}) == 4 + 7


def test_a_score_that_is_nan_counts_as_zero() -> None:
    one = torch.arange(2)
    group = Group(name="a", size=2, producers=("a",), slices=(Slice("a", 0, one, one),))
    weight = {"a": torch.tensor([[float("nan")], [2.0]])}

    assert group_scores(group, UMM, Scored(weight, {"a": torch.ones(2, 1)}, {})).tolist() == [0.0, 2.0]


def test_by_layer_all_groups_keep_to_the_same_share() -> None:
    scores = lists([float(i) for i in range(8)], [100.0 + i for i in range(4)])
    alive = {name: torch.ones(len(row), dtype=torch.bool) for name, row in scores.items()}

    for remove, left in ((3, (6, 3)), (6, (4, 2)), (9, (2, 1))):
        leaving = select(groups_of(scores), scores, alive, remove=remove, floors={"a": 1, "b": 1}, scope="layer")
        assert tuple(len(row) - int(leaving[name].sum()) for name, row in scores.items()) == left
        assert leaving["a"].nonzero().flatten().tolist() == list(range(8 - left[0]))  # the lowest of each


def test_by_layer_shares_are_of_the_dense_width_also_after_a_cut() -> None:
    scores = lists([0.0] * 4, [0.0] * 4)
    alive = {name: torch.ones(4, dtype=torch.bool) for name in scores}
    blocks = ranked_blocks(
        groups_of(scores), scores, alive, floors={"a": 1, "b": 1}, scope="layer", sizes={"a": 8, "b": 4}
    )

    assert [name for name, _ in blocks] == ["b", "b", "a", "a", "b", "a"]  # a has lost half already


def at_least(wanted: int, taken: Blocks) -> bool:
    return len(taken) >= wanted


def test_the_fewest_blocks_that_are_enough() -> None:
    blocks: Blocks = [("a", torch.tensor([unit])) for unit in range(10)]

    for wanted in (0, 1, 7, 10):
        assert len(first_enough(blocks, partial(at_least, wanted))) == wanted
    assert first_enough(blocks, lambda taken: False) == blocks
    assert first_enough([], lambda taken: False) == []


def test_what_is_removable_stops_at_the_floors() -> None:
    scores = lists([0.0] * 9, [0.0] * 5)

    blocks = removable(groups_of(scores), {"a": 2, "b": 4}, 4)

    assert [(name, len(units)) for name, units in blocks] == [("a", 1), ("a", 4), ("b", 1)]


def test_normalised_scores_by_hand() -> None:
    scores, alive = torch.tensor([1.0, 3.0, 100.0]), torch.tensor([True, True, False])

    assert NORMALISERS["none"](scores, alive, 10.0).tolist() == [1.0, 3.0, 100.0]
    assert NORMALISERS["layer"](scores, alive, 10.0).tolist() == [0.5, 1.5, 50.0]  # the dead do not count
    assert NORMALISERS["layer"](-scores, alive, 10.0).tolist() == [-0.5, -1.5, -50.0]  # reversed ones stay reversed
    assert NORMALISERS["layer"](scores * 0, alive, 10.0).tolist() == [0.0, 0.0, 0.0]
    assert NORMALISERS["macs"](scores, alive, 10.0).tolist() == pytest.approx([0.1, 0.3, 10.0])
    with pytest.raises(RecipeError, match="needs a criterion that is never negative, not a reversed one"):
        NORMALISERS["macs"](-scores, alive, 10.0)
