"""Which layers grow, by hand."""

from __future__ import annotations

import pytest

from chase.errors import UnknownName
from chase.sparse.allocation import ALLOCATIONS, Growth

GROWTH = Growth(
    add=6,
    before={"a": 8, "b": 4, "c": 2},
    living={"a": 4, "b": 3, "c": 1},
    room={"a": 10, "b": 10, "c": 10},
    momentum=lambda: {"a": 0.5, "b": 0.0, "c": 1.5},
)


def test_all_layers_compete_where_growth_is_global() -> None:
    assert ALLOCATIONS["global"](GROWTH) is None


def test_layers_are_restored_to_what_they_had() -> None:
    assert ALLOCATIONS["layer"](GROWTH) == {"a": 4, "b": 1, "c": 1}


def test_a_layer_without_room_leaves_its_part_to_others() -> None:
    full = Growth(6, GROWTH.before, GROWTH.living, {"a": 1, "b": 10, "c": 10}, GROWTH.momentum)

    assert ALLOCATIONS["layer"](full) == {"a": 1, "b": 3, "c": 2}  # 14 in all: a holds 5, b and c 9 as 4 to 2


def test_growth_follows_survivors_or_momentum() -> None:
    assert ALLOCATIONS["survivors"](GROWTH) == {"a": 4, "b": 3, "c": 1}
    assert ALLOCATIONS["momentum"](GROWTH) == {"a": 0.5, "b": 0.0, "c": 1.5}


def test_a_wrong_name_is_explained() -> None:
    with pytest.raises(UnknownName, match="no allocation named 'survivor'; did you mean 'survivors'"):
        ALLOCATIONS["survivor"]
