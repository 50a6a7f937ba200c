"""The ledger: which units are tied, who owns them, and what holds them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chase.slimming.units import NO_UNIT, UNKNOWN, Axis, Block, Labels, Ledger, Owned, UnionFind

pairs = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=15)


@given(pairs)
def test_joined_numbers_share_their_smallest_as_root(joins: list[tuple[int, int]]) -> None:
    sets = UnionFind(10)
    groups = [{number} for number in range(10)]
    for one, other in joins:
        sets.join(one, other)
        merged = next(g for g in groups if one in g) | next(g for g in groups if other in g)
        groups = [g for g in groups if not g & merged] + [merged]

    smallest = {number: min(g) for g in groups for number in g}
    assert sets.roots().tolist() == [smallest[number] for number in range(10)]


def test_new_numbers_follow_the_old_ones() -> None:
    sets = UnionFind()

    assert sets.extend(2).tolist() == [0, 1]
    assert sets.extend(3).tolist() == [2, 3, 4]
    assert sets.roots().tolist() == [0, 1, 2, 3, 4]


def test_a_block_is_its_share_of_the_rows() -> None:
    tensor = torch.arange(12).view(6, 2)

    assert Block(1, 3).rows(tensor).tolist() == [[4, 5], [6, 7]]
    Block(0, 2).rows(tensor).zero_()  # a view
    assert tensor.sum() == sum(range(6, 12))


def test_labels_hold_each_unit_once_and_go_through_functions_and_shapes() -> None:
    labels = Labels((2, 4, 3), {1: Axis(torch.tensor([5, NO_UNIT, 5, 7])), 2: Axis(torch.tensor([1, 2, 3]), 0.5)})

    assert labels.held() == [5, 7, 1, 2, 3]
    doubled = labels.mapped(lambda value: value + 1)
    assert {number: axis.value for number, axis in doubled.axes.items()} == {1: 1.0, 2: 1.5}
    assert torch.equal(doubled.axes[1].ids, labels.axes[1].ids)
    assert labels.shaped((2, 4, 6)) == Labels((2, 4, 6), labels.axes)


def test_an_axis_of_a_tensor_has_the_same_units_each_time_it_is_asked_for() -> None:
    ledger = Ledger()

    first = ledger.units_of("a", 0, 3)
    assert ledger.units_of("a", 1, 2).tolist() == [3, 4]
    assert torch.equal(ledger.units_of("a", 0, 3), first)
    assert torch.equal(ledger.produce("a", 0, 3), first)
    assert list(ledger.produced) == [("a", 0)]


def test_tied_units_leave_together_position_by_position() -> None:
    ledger = Ledger()
    ours, theirs = ledger.units.extend(3), ledger.units.extend(3)

    ledger.tie(ours, theirs.flip(0))

    assert ledger.units.roots().tolist() == [0, 1, 2, 2, 1, 0]
    assert ledger.pins == {}


def test_what_meets_no_unit_stays() -> None:
    ledger = Ledger()
    ours, theirs = ledger.units.extend(2), torch.tensor([NO_UNIT, 1])

    ledger.tie(ours, theirs)
    ledger.tie(torch.tensor([NO_UNIT]), torch.tensor([NO_UNIT]))

    assert ledger.pins == {0: "is tied to channels that cannot leave"}
    assert ledger.units.roots().tolist() == [0, 1]


def test_sides_of_different_lengths_cannot_be_tied() -> None:
    ledger = Ledger()

    with pytest.raises(ValueError, match="shorter"):
        ledger.tie(ledger.units.extend(3), ledger.units.extend(2))


def test_the_first_reason_counts_and_no_unit_needs_none() -> None:
    ledger = Ledger()
    ledger.units.extend(3)

    ledger.pin_all(torch.tensor([1, NO_UNIT]), "first")
    ledger.pin(Labels((3,), {0: Axis(torch.arange(3))}), "second")
    ledger.pin(None, "third")

    assert ledger.pins == {1: "first", 0: "second", 2: "second"}


def reader(ids: torch.Tensor, value: float = 0.0, bias: str | None = None, block: Block | None = None) -> Owned:
    return Owned("w", 1, ids, block, reads=True, value=value, bias=bias)


def test_a_tensor_that_is_used_twice_ties_what_it_owns() -> None:
    ledger = Ledger()
    ours, theirs = ledger.units.extend(2), ledger.units.extend(2)

    ledger.own(Owned("w", 1, ours))
    ledger.own(Owned("w", 1, theirs))
    ledger.own(Owned("w", 0, theirs))  # another axis

    assert ledger.units.roots().tolist() == [0, 1, 0, 1]
    assert {key: owned.ids.tolist() for key, owned in ledger.owned.items()} == {
        ("w", 1, None): [0, 1],
        ("w", 0, None): [2, 3],
    }


def test_blocks_of_a_tensor_are_owned_apart() -> None:
    ledger = Ledger()
    ours, theirs = ledger.units.extend(2), ledger.units.extend(2)

    ledger.own(reader(ours, block=Block(0, 2)))
    ledger.own(reader(theirs, block=Block(1, 2)))

    assert len(ledger.owned) == 2
    assert ledger.units.roots().tolist() == [0, 1, 2, 3]
    ledger.settle()
    assert ledger.pins == {}


def test_a_tensor_that_is_used_in_blocks_and_whole_stays() -> None:
    ledger = Ledger()
    ours, theirs = ledger.units.extend(2), ledger.units.extend(4)

    ledger.own(reader(ours, block=Block(0, 2)))
    ledger.own(reader(theirs))
    ledger.settle()

    assert set(ledger.pins) == {0, 1}
    assert set(ledger.pins.values()) == {"owns part of w, which is used both grouped and whole"}


def test_a_unit_that_is_read_and_made_by_the_same_axis_counts_as_made() -> None:
    """Whatever is silent in a tensor may be masked there, so that is what has to be remembered."""
    ledger = Ledger()
    ids = ledger.units.extend(2)

    ledger.own(reader(ids))
    ledger.own(Owned("w", 1, ids))

    assert not ledger.owned["w", 1, None].reads
    assert ledger.pins == {}


@pytest.mark.parametrize(
    ("first", "second", "held"),
    [
        ((0.0, None), (0.0, None), False),
        ((0.5, "b"), (0.5, "b"), False),  # as in a layer that is called twice on the same value
        ((0.5, "b"), (0.0, "b"), True),
        ((0.0, "b"), (0.5, "b"), True),
        ((0.5, "b"), (0.5, "c"), True),
    ],
)
def test_a_weight_that_reads_constants_in_several_places_has_one_bias_to_fold_them_into_or_holds_them(
    first: tuple[float, str | None], second: tuple[float, str | None], held: bool
) -> None:
    ledger = Ledger()
    ids = ledger.units.extend(2)

    ledger.own(reader(ids, *first))
    ledger.own(reader(ids, *second))

    reasons = {"is a constant, and w reads it in several places"} if held else set()
    assert set(ledger.pins.values()) == reasons
    assert set(ledger.pins) == ({0, 1} if held else set())


def test_blocks_that_stay_even_are_noted_unless_there_is_only_one() -> None:
    ledger = Ledger()
    ids = ledger.units.extend(4)

    ledger.balance([ids])
    ledger.balance(ids.chunk(2))

    assert [[block.tolist() for block in blocks] for blocks in ledger.even] == [[[0, 1], [2, 3]]]


def test_an_unexplained_use_of_a_tensor_holds_all_its_units_in_the_end() -> None:
    ledger = Ledger()
    rows, columns, free = ledger.units.extend(2), ledger.units.extend(2), ledger.units.extend(1)
    ledger.own(Owned("w", 0, rows))
    ledger.own(reader(columns))
    ledger.own(Owned("v", 0, free))
    ledger.foreign["w"] = "owns part of w, which aten.sort also uses"

    assert ledger.pins == {}
    ledger.settle()

    assert ledger.pins == dict.fromkeys(range(4), "owns part of w, which aten.sort also uses")


def test_the_units_of_a_computed_weight_are_channels_of_the_first_parameter_that_has_them() -> None:
    ledger = Ledger()
    ids, others = ledger.units.extend(2), ledger.units.extend(2)
    ledger.own(Owned("read", 1, ids, reads=True))
    ledger.own(Owned("other", 0, others))
    ledger.own(Owned("scale", 0, ids))
    ledger.own(Owned("direction", 0, ids))

    ledger.produce_again(ids)
    ledger.produce_again(torch.tensor([8, 9]))  # nobody's

    assert list(ledger.produced) == [("scale", 0)]


def test_skips_are_the_units_of_a_value() -> None:
    ledger = Ledger()

    ledger.skip(Labels((1, 3), {1: Axis(torch.tensor([4, NO_UNIT, 2]), UNKNOWN)}))
    ledger.skip(None)

    assert ledger.skips == {2, 4}
    assert math.isnan(UNKNOWN)
