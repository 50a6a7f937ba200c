from __future__ import annotations

import pytest

from chase.errors import RecipeError
from chase.exporters.precision.names import Step, matching, names


def test_a_module_that_calls_no_other_is_one_layer_whatever_it_computes() -> None:
    steps = [Step("stem.conv", "conv2d", "w"), Step("norm", "mul"), Step("norm", "mul"), Step("norm", "div")]

    assert names(steps) == ["stem.conv", "norm", "norm", "norm"]


def test_what_a_larger_module_computes_itself_is_numbered_from_the_second_on() -> None:
    steps = [Step("block.conv", "conv2d", "w"), Step("block", "add"), Step("block", "mul"), Step("block", "add")]

    assert names(steps) == ["block.conv", "block:add", "block:mul", "block:add.2"]


def test_a_module_with_two_weights_is_taken_apart_and_one_that_is_called_twice_is_not() -> None:
    attention = [Step("attn", "linear", "in"), Step("attn", "matmul"), Step("attn", "linear", "out")]
    twice = [Step("head", "linear", "w"), Step("head", "linear", "w")]

    assert names([*attention, *twice]) == ["attn:linear", "attn:matmul", "attn:linear.2", "head", "head"]


def test_what_the_network_computes_itself_has_no_module_in_its_name() -> None:
    assert names([Step("", "mean"), Step("fc", "linear", "w")]) == [":mean", "fc"]


def test_a_name_that_begins_as_another_is_not_within_it() -> None:
    assert names([Step("layer1", "mul"), Step("layer10.conv", "conv2d", "w")]) == ["layer1", "layer10.conv"]


def test_patterns_choose_layers_in_their_order() -> None:
    layers = ("stem", "layer1.conv", "layer1:add", "layer2.conv")

    assert matching(["layer2.*", "layer1:*", "layer1:add"], layers) == ("layer1:add", "layer2.conv")
    assert matching([], layers) == ()


def test_a_pattern_that_matches_nothing_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match="keep_fp32: no layer matches 'layr1.conv'; did you mean 'layer1.conv'"):
        matching(["layr1.conv"], ("stem", "layer1.conv"))
