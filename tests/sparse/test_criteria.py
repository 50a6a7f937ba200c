"""Channel criteria (paper Tables 1 and 2) by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from chase.errors import RecipeError, UnknownName
from chase.sparse.criteria import CHANNEL_SCORES, Criterion, Rows

WEIGHT = torch.tensor([[1.0, -2.0, 3.0, 4.0], [9.0, 9.0, 9.0, 9.0], [0.0, -8.0, 5.0, 5.0], [1.0, 1.0, 1.0, 1.0]])
MASK = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])


def rows_of(
    weight: Tensor,
    mask: Tensor,
    *,
    size: int | None = None,
    groups: int = 1,
    alive: Tensor | None = None,
    **more: Tensor,
) -> Rows:
    known = {name: more.get(name) for name in ("scale", "taylor", "fisher")}
    return Rows(
        layer="conv.weight",
        weight=weight * mask,
        mask=mask,
        size=size or weight[0].numel(),
        groups=groups,
        alive=torch.ones(len(weight), dtype=torch.bool) if alive is None else alive,
        generator=torch.Generator().manual_seed(0),
        **known,
    )


def score(name: str, rows: Rows) -> list[float]:
    found: list[float] = CHANNEL_SCORES[name].score(rows).tolist()
    return found


ROWS = rows_of(WEIGHT, MASK)


def test_table_1_by_hand() -> None:
    assert score("umm", ROWS) == [0.75, 0.0, 2.0, 1.0]
    assert score("ws", ROWS) == [0.5, 0.0, 0.5, 1.0]  # 1 − WS: the sparsest first
    assert score("mmm", ROWS) == [1.5, 0.0, 4.0, 1.0]


def test_norms_by_hand() -> None:
    assert score("l1", ROWS) == [3.0, 0.0, 8.0, 4.0]
    assert score("l2", ROWS) == pytest.approx([math.sqrt(5), 0.0, 8.0, 2.0])


def test_fpgm_sums_the_distances_to_living_rows() -> None:
    weight, mask = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0], [50.0, 0.0]]), torch.ones(4, 2)
    alive = torch.tensor([True, True, True, False])

    found = score("fpgm", rows_of(weight, mask, alive=alive))

    side = math.sqrt(9 + 9)
    assert found[:3] == pytest.approx([5 + 1, 5 + side, 1 + side], rel=1e-6)  # the middle one can be replaced first


def test_fpgm_compares_no_rows_that_read_different_channels() -> None:
    weight = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 1.0], [1.0, 2.0]])
    alive = torch.tensor([True, True, True, False])

    assert score("fpgm", rows_of(weight, torch.ones(4, 2), groups=2)) == [5.0, 5.0, 1.0, 1.0]
    assert score("fpgm", rows_of(weight, torch.ones(4, 2), groups=2, alive=alive)) == [5.0, 5.0, 0.0, 1.0]


def test_what_was_recorded_is_the_score() -> None:
    values = torch.tensor([3.0, 1.0, 2.0, 0.0])
    rows = rows_of(WEIGHT, MASK, scale=values, taylor=values + 1, fisher=values + 2)

    assert score("network-slimming", rows) == [3.0, 1.0, 2.0, 0.0]
    assert score("taylor", rows) == [4.0, 2.0, 3.0, 1.0]
    assert score("group-fisher", rows) == [5.0, 3.0, 4.0, 2.0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("network-slimming", "needs a norm after each layer, which conv.weight has not"),
        ("taylor", "needs gradients of training steps, which conv.weight has none of"),
        ("group-fisher", "needs gradients of training steps"),
    ],
)
def test_what_is_missing_is_named(name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        score(name, ROWS)


def test_random_draws_depend_on_the_generator_alone() -> None:
    assert score("random", rows_of(WEIGHT, MASK)) == score("random", rows_of(-WEIGHT, MASK))


@pytest.mark.parametrize("name", ["umm", "ws", "mmm"])
def test_a_reversed_criterion_reverses_the_order(name: str) -> None:
    assert score(f"{name}-reverse", ROWS) == [-value for value in score(name, ROWS)]


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_table_1_does_not_care_where_in_a_row_the_weights_are(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randint(-8, 9, (5, 4, 3, 3), generator=generator).float()
    mask = (torch.rand(weight.shape, generator=generator) < 0.4).float()
    order = torch.randperm(36, generator=generator)
    moved = rows_of(*(t.flatten(1)[:, order].view(weight.shape) for t in (weight, mask)), size=36)

    for name in ("umm", "ws", "mmm"):
        assert score(name, rows_of(weight, mask)) == pytest.approx(score(name, moved))
    expected = (weight * mask).abs().sum((1, 2, 3)) / 36
    assert score("umm", rows_of(weight, mask)) == pytest.approx(expected.tolist())


def test_the_dense_size_of_a_row_counts_where_columns_have_been_cut_out() -> None:
    cut = rows_of(WEIGHT[:, :2], MASK[:, :2], size=4)

    assert score("umm", cut) == [0.75, 0.0, 2.0, 0.5]
    assert score("ws", cut) == [0.5, 0.0, 0.5, 0.5]


def test_a_new_criterion_is_one_function_and_a_wrong_name_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHANNEL_SCORES, "first", Criterion(lambda rows: torch.arange(float(len(rows.weight)))))

    assert score("first", ROWS) == [0.0, 1.0, 2.0, 3.0]
    with pytest.raises(UnknownName, match="no channel score named 'um'; did you mean 'umm'"):
        CHANNEL_SCORES["um"]
