"""Schedules against values worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chase.schedules import constant, cosine, cubic, multistep, warmup


@pytest.mark.parametrize(("progress", "expected"), [(-1, 1), (0, 1), (0.25, 0.8535534), (0.5, 0.5), (1, 0), (7, 0)])
def test_cosine_falls_from_one_to_zero_and_stays_there(progress: float, expected: float) -> None:
    assert cosine(progress) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0), (500, 0.01145), (1500, 0.03382), (2500, 0.05550), (64500, 0.4999998), (65000, 0.5)]
)
def test_cubic_is_eq_3_of_the_paper(step: int, expected: float) -> None:
    assert cubic(step / 65000, final=0.5) == pytest.approx(expected, abs=6e-6 if step < 60000 else 5e-8)


def test_cubic_starts_at_its_initial_value_and_ends_exactly_at_the_final_one() -> None:
    assert cubic(-0.5, final=0.4, initial=0.1) == pytest.approx(0.1)
    assert cubic(0.5, final=0.4, initial=0.1) == pytest.approx(0.4 - 0.3 / 8)
    assert cubic(1, final=0.4, initial=0.1) == 0.4
    assert cubic(2, final=0.4, initial=0.1) == 0.4


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.99))
def test_cubic_never_falls_and_never_exceeds_its_final_value(a: float, b: float, final: float) -> None:
    early, late = sorted((a, b))

    assert cubic(early, final=final) + 1e-15 >= 0
    assert cubic(early, final=final) <= cubic(late, final=final) + 1e-15
    assert cubic(late, final=final) <= final


def test_constant_is_one() -> None:
    assert [constant(p) for p in (0, 0.5, 1)] == [1, 1, 1]


def test_multistep_multiplies_at_each_milestone_from_that_epoch_on() -> None:
    factors = [multistep(epoch, milestones=(80, 120), gamma=0.1) for epoch in (0, 79.9, 80, 119, 120, 159)]

    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_warmup_is_a_straight_line_up_to_one() -> None:
    assert [warmup(epoch, epochs=4) for epoch in (0, 1, 2, 4, 9)] == [0, 0.25, 0.5, 1, 1]
    assert warmup(0, epochs=0) == 1


def test_cosine_is_symmetric_about_its_middle() -> None:
    assert all(math.isclose(cosine(p) + cosine(1 - p), 1) for p in (0.1, 0.2, 0.3, 0.45))
