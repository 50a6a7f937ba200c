"""The exact k largest, against torch's own stable sort."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from chase.sparse.select import keep_highest, keep_largest, score_bits

DENORMAL = 1e-42
VALUES = (0.0, -0.0, DENORMAL, -2 * DENORMAL, 1e-38, 0.1, -0.1, 0.1000001, 1.0, -1.0, 3.4e38)


def select(scores: Mapping[str, Tensor], candidates: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    return dict(keep_largest({name: partial(score_bits, scores[name], candidates[name]) for name in scores}, k))


def by_sort(scores: Mapping[str, Tensor], candidates: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    """The same by one stable sort: equal scores stay in the order of layers and indices."""
    flat = torch.cat([score.abs().flatten() for score in scores.values()]).double()
    flat[~torch.cat([candidates[name].flatten() for name in scores])] = -1
    kept = torch.zeros(len(flat), dtype=torch.bool)
    kept[flat.argsort(descending=True, stable=True)[:k]] = True
    kept &= flat >= 0
    parts = torch.split(kept, [score.numel() for score in scores.values()])
    return {name: part.view(scores[name].shape) for name, part in zip(scores, parts, strict=True)}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


layers = st.lists(st.lists(st.tuples(st.sampled_from(VALUES), st.booleans()), max_size=12), min_size=1, max_size=4)


@settings(deadline=None, max_examples=100)
@given(layers, st.integers(0, 50))
@example([[(0.0, True)] * 5, [(0.0, True)] * 5], 6)
def test_it_equals_a_stable_sort_for_ties_zeros_and_denormals(table: list[list[tuple[float, bool]]], k: int) -> None:
    scores = {str(i): torch.tensor([value for value, _ in row]) for i, row in enumerate(table)}
    candidates = {str(i): torch.tensor([c for _, c in row], dtype=torch.bool) for i, row in enumerate(table)}

    kept = select(scores, candidates, k)

    assert same(kept, by_sort(scores, candidates, k))
    assert sum(int(m.sum()) for m in kept.values()) == min(k, sum(int(c.sum()) for c in candidates.values()))


@pytest.mark.parametrize("levels", [0, 3, 40])
@pytest.mark.parametrize("channels_last", [False, True])
def test_it_equals_a_stable_sort_on_weights(levels: int, channels_last: bool) -> None:
    generator = torch.Generator().manual_seed(levels)
    scores = {name: torch.randn(16, 5, 3, 3, generator=generator) for name in "abc"}
    if levels:  # many ties
        scores = {name: (score * levels).round() / levels for name, score in scores.items()}
    if channels_last:
        scores = {name: score.to(memory_format=torch.channels_last) for name, score in scores.items()}
    candidates = {name: torch.rand(score.shape, generator=generator) < 0.7 for name, score in scores.items()}

    for k in (1, 7, 300, 900, 1500, 2159, 2160, 9999):
        assert same(select(scores, candidates, k), by_sort(scores, candidates, k))


def test_neighbouring_floats_are_told_apart() -> None:
    base = torch.full((1000,), 0.25)
    scores = base.view(torch.int32).add(torch.randperm(1000, dtype=torch.int32)).view(torch.float32)

    kept = select({"a": scores}, {"a": torch.ones(1000, dtype=torch.bool)}, 123)["a"]

    assert int(kept.sum()) == 123
    assert scores[kept].min() > scores[~kept].max()


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
def test_a_score_that_is_not_finite_counts_as_zero(bad: float) -> None:
    scores = {"a": torch.tensor([bad, 1.0, 1e-45, bad, 2.0])}

    assert select(scores, {"a": torch.ones(5, dtype=torch.bool)}, 3)["a"].tolist() == [False, True, True, False, True]


def test_scores_and_candidates_stay_as_they_are() -> None:
    score, candidates = torch.tensor([-1.0, float("inf"), 0.0]), torch.tensor([True, True, False])

    assert score_bits(score, candidates).tolist() == [0x3F800001, 1, 0]
    assert score.tolist() == [-1.0, float("inf"), 0.0]
    assert candidates.tolist() == [True, True, False]


def test_ties_go_to_the_earlier_layer_and_the_lower_index() -> None:
    scores = {"b": torch.tensor([1.0, -1.0, 2.0]), "a": torch.tensor([1.0, 1.0, 3.0])}
    everything = {name: torch.ones(3, dtype=torch.bool) for name in scores}

    kept = select(scores, everything, 4)

    assert kept["b"].tolist() == [True, True, True]
    assert kept["a"].tolist() == [False, False, True]


@pytest.mark.parametrize(("k", "expected"), [(-3, 0), (0, 0), (1, 1), (5, 5), (6, 5)])
def test_no_more_than_there_are_and_none_for_no_k(k: int, expected: int) -> None:
    candidates = torch.tensor([True, False, True, True, True, True])

    kept = select({"a": torch.zeros(6)}, {"a": candidates}, k)["a"]

    assert int(kept.sum()) == expected
    assert not (kept & ~candidates).any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_order_by_their_float32_value(dtype: torch.dtype) -> None:
    score = torch.tensor([0.5, -4.0, 2.0, 0.0], dtype=dtype)

    kept = select({"a": score}, {"a": torch.ones(4, dtype=torch.bool)}, 2)["a"]
    assert kept.tolist() == [False, True, True, False]


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.lists(st.sampled_from((*VALUES, -0.2, -3.4e38)), max_size=12), min_size=1, max_size=4),
    st.integers(-1, 50),
)
@example([[-1.0, -1.0], [-1.0, -2.0]], 3)
@example([[0.0, -0.0], [-0.0, 0.0]], 2)
def test_the_highest_equal_a_stable_sort_with_signs(table: list[list[float]], k: int) -> None:
    scores = {str(i): torch.tensor(row) for i, row in enumerate(table)}
    flat = torch.cat(list(scores.values()))
    expected = torch.zeros(len(flat), dtype=torch.bool)
    expected[flat.argsort(descending=True, stable=True)[: max(k, 0)]] = True

    kept = keep_highest(scores, k)

    assert torch.equal(torch.cat(list(kept.values())), expected)


def test_signed_scores_of_weights_equal_a_stable_sort_in_any_layout() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = {name: torch.randn(16, 5, 3, 3, generator=generator).mul(20).round().div(20) for name in "abc"}
    order = torch.cat([score.flatten() for score in scores.values()]).argsort(descending=True, stable=True)
    tilted = {name: score.to(memory_format=torch.channels_last) for name, score in scores.items()}

    for k in (0, 1, 700, 1080, 1900, 2159, 2160):
        expected = torch.zeros(2160, dtype=torch.bool)
        expected[order[:k]] = True
        assert torch.equal(torch.cat([kept.flatten() for kept in keep_highest(tilted, k).values()]), expected)


def test_a_signed_score_that_is_not_finite_is_the_lowest() -> None:
    scores = {"a": torch.tensor([float("inf"), -5.0, float("nan"), 1.0])}
    assert keep_highest(scores, 2)["a"].tolist() == [False, True, False, True]
