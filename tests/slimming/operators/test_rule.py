"""The table of rules: what is not in it holds, and a user may add to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from operations import IMAGE, VECTOR, Between, assert_exact, first_group
from torch import fx, nn

from chase.slimming.operators import RULES, Flow
from chase.slimming.operators.elementwise import unary
from chase.slimming.units import Labels


def test_an_operator_without_a_rule_holds_and_is_named() -> None:
    model = Between(lambda x: x.cumsum(1), IMAGE, nn.Conv2d(6, 2, 1))

    assert first_group(model, IMAGE).why_not() == "reaches aten.cumsum, which has no rule"


@pytest.fixture
def asinh_rule() -> Iterator[None]:
    """A rule for `aten.asinh`, taken out again."""

    def rule(flow: Flow, node: fx.Node) -> Labels | None:
        return unary(flow, node)

    RULES["aten.asinh"] = rule
    yield
    del RULES["aten.asinh"]


def test_an_operator_without_a_rule_holds_until_one_is_registered(request: pytest.FixtureRequest) -> None:
    model: Any = Between(torch.asinh, VECTOR, nn.Linear(6, 2))
    assert first_group(model, VECTOR).why_not() == "reaches aten.asinh, which has no rule"

    request.getfixturevalue("asinh_rule")

    assert first_group(model, VECTOR).why_not() is None
    assert_exact(model, VECTOR)
