from __future__ import annotations

import math
from collections.abc import Callable, Collection
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chase.errors import ParityError
from chase.exporters.precision.search import smallest

NAMES = [f"layer{index}" for index in range(100)]
SETS = st.sets(st.sampled_from(NAMES), max_size=6)


class Counted:
    """A predicate that counts its calls."""

    def __init__(self, passes: Callable[[set[str]], bool]) -> None:
        self.calls, self._passes = 0, passes

    def __call__(self, kept: Collection[str]) -> bool:
        self.calls += 1
        return self._passes(set(kept))


@given(SETS)
def test_the_planted_set_is_found_in_the_order_of_the_names(planted: set[str]) -> None:
    assert smallest(NAMES, lambda kept: planted <= set(kept)) == tuple(name for name in NAMES if name in planted)


@given(SETS)
def test_it_takes_about_log2_n_trials_for_each_name(planted: set[str]) -> None:
    passes = Counted(lambda kept: planted <= kept)

    smallest(NAMES, passes)

    assert passes.calls <= 2 + len(planted) * (math.ceil(math.log2(len(NAMES))) + 3)


@given(st.lists(st.sets(st.sampled_from(NAMES[:12]), min_size=1, max_size=4), min_size=1, max_size=5))
def test_no_name_can_be_left_out_where_any_of_several_sets_is_enough(enough: list[set[str]]) -> None:
    def passes(kept: Collection[str]) -> bool:
        return any(each <= set(kept) for each in enough)

    found = smallest(NAMES[:12], passes)

    assert passes(found)
    assert not any(passes(set(found) - {name}) for name in found)


@given(st.integers(), st.integers(1, 12))
def test_no_name_can_be_left_out_where_keeping_more_may_hurt(seed: int, count: int) -> None:
    names = NAMES[:count]

    def passes(kept: Collection[str]) -> bool:  # at random, but always the same
        return len(kept) == count or crc32(f"{seed}{sorted(kept)}".encode()) % 3 == 0

    found = smallest(names, passes)

    assert passes(found)
    assert not any(passes(set(found) - {name}) for name in found)


def test_nothing_is_kept_where_nothing_must_be() -> None:
    passes = Counted(lambda kept: True)

    assert smallest(NAMES, passes) == ()
    assert passes.calls == 1


def test_where_not_even_all_names_pass_that_is_said() -> None:
    with pytest.raises(ParityError, match="not even all 100 layers kept in fp32 meet the gate"):
        smallest(NAMES, lambda kept: False)


def test_without_trials_left_the_smallest_set_that_passed_is_given() -> None:
    passes = Counted(lambda kept: len(kept) >= 30)

    found = smallest(NAMES, passes, trials=8)

    assert passes.calls == 8
    assert len(found) >= 30
    assert found == tuple(NAMES[: len(found)])
