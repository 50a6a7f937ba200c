"""Prunability of a network half of whose channels are useless (see `useless`)."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
import torch
from useless import network, recipe, split

from chase.benchmarks.prunability import Images, Prunability, collapses, prunability, prunability_table
from chase.errors import RecipeError, UnknownName
from chase.sparse.criteria import CHANNEL_SCORES


def images(**settings: Any) -> Images:
    return Images.of(recipe(settings.pop("validation", 0.25)), split(), split(40), **settings)


def measured(*criteria: str, shares: tuple[float, ...] = (0.25, 0.5), **settings: Any) -> Prunability:
    return prunability(network(), images(), criteria=criteria, shares=shares, **settings)


def accuracies(found: Prunability, criterion: str) -> list[float]:
    return [row.accuracy for row in found.rows if row.criterion == criterion]


def test_useless_channels_cost_nothing_by_umm() -> None:
    found = measured("umm")

    assert found.unpruned == 100.0
    assert accuracies(found, "umm") == [100.0, 100.0]
    assert [row.channel_sparsity for row in found.rows] == [0.25, 0.5]
    assert (found.channels, found.shares) == (8, [0.25, 0.5])


def test_useful_channels_are_what_the_reversed_criterion_destroys() -> None:
    found = measured("umm-reverse", "mmm-reverse", shares=(0.5,))

    assert [row.accuracy for row in found.rows] == [25.0, 25.0]  # nothing answers any more, so class 0 is chosen


def test_random_pruning_is_drawn_several_times() -> None:
    (row,) = measured("random", shares=(0.5,), draws=4).rows
    (one,) = measured("random", shares=(0.5,), draws=1).rows

    assert len(row.accuracies) == 4
    assert len(set(row.accuracies)) > 1
    assert row.accuracy == statistics.fmean(row.accuracies)
    assert row.std == statistics.stdev(row.accuracies)
    assert (one.accuracies, one.std) == (row.accuracies[:1], None)


def test_beyond_the_useless_ones_each_channel_costs_its_class() -> None:
    (row,) = measured("umm", shares=(0.75,)).rows

    assert row.accuracy in (50.0, 75.0)  # two of four classes are gone; where nothing is left, class 0 is answered
    assert row.std is None


def test_layers_that_collapse_are_named() -> None:
    bare = measured("umm", "umm-reverse", shares=(0.5, 0.8, 0.9))

    assert [row.collapsed for row in bare.rows[:3]] == [(), (), ("1",)]
    assert collapses(bare) == (
        "A layer is left with a single channel by umm from 90 % on (1); umm-reverse from 90 % on (1)."
    )
    assert collapses(measured("umm")) == ""
    with pytest.raises(RecipeError, match=r"min_channel_ratio must lie in \[0, 1\], not 2"):
        measured("umm", min_channel_ratio=2)


def test_nothing_is_changed_by_measuring() -> None:
    net = network()
    before = {name: value.clone() for name, value in net.model.state_dict().items()}

    first = prunability(net, images(), criteria=["umm", "mmm"])

    assert all(torch.equal(before[name], value) for name, value in net.model.state_dict().items())
    assert prunability(net, images(), criteria=["umm", "mmm"]) == first


def test_every_criterion_that_the_network_has_scores_for_is_tried_by_default() -> None:
    found = measured(draws=2)

    assert [row.criterion for row in found.rows[::2]] == [name for name in CHANNEL_SCORES if name != "network-slimming"]
    assert found.left_out.keys() == {"network-slimming"}
    assert "needs a norm after each layer" in found.left_out["network-slimming"]
    with pytest.raises(RecipeError, match="needs a norm after each layer"):
        measured("network-slimming")


def test_the_images_are_those_that_were_held_out_and_the_test_images_without_them() -> None:
    held, test = images(), images(validation=0.0)

    assert (held.name, len(held.split), len(held.train)) == ("validation", 16, 48)
    assert (test.name, len(test.split), len(test.train)) == ("test", 40, 64)


def test_a_limit_takes_images_from_all_over() -> None:
    few = images(limit=4, validation=0.0)

    assert few.split.labels.tolist() == [0, 1, 2, 3]  # images 0, 13, 26 and 39
    assert len(images(limit=1000).split) == 16
    with pytest.raises(RecipeError, match="0 images are too few"):
        images(limit=0)


def test_the_table_has_a_row_for_each_criterion_beside_the_unpruned_network() -> None:
    headings, rows = prunability_table(measured("umm", "ws"))

    assert headings == ("criterion", "25 % pruned", "50 % pruned")
    assert [row[0] for row in rows] == ["unpruned", "umm", "ws"]
    assert rows[:2] == [("unpruned", "100.00", "100.00"), ("umm", "100.00", "100.00")]


def test_the_result_is_plain_data() -> None:
    found = measured("umm", shares=(0.5,))

    assert found.to_dict() == {
        "split": "validation",
        "images": 16,
        "channels": 8,
        "unpruned": 100.0,
        "rows": [
            {
                "criterion": "umm",
                "share": 0.5,
                "channel_sparsity": 0.5,
                "accuracy": 100.0,
                "std": None,
                "accuracies": [100.0],
                "collapsed": [],
            }
        ],
        "left_out": {},
    }


def test_what_is_named_twice_is_measured_once() -> None:
    found = measured("umm", "umm", shares=(0.5, 0.25, 0.5))

    assert [(row.criterion, row.share) for row in found.rows] == [("umm", 0.5), ("umm", 0.25)]


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []

    measured("umm", "ws", advance=lambda done, total: told.append((done, total)))

    assert told == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


def test_bad_settings_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"must lie in \(0, 1\), not 1.5"):
        measured("umm", shares=(0.1, 1.5))
    with pytest.raises(UnknownName, match="did you mean 'umm'"):
        measured("umn")
