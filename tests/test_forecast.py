"""Forecasts: the paper's ImageNet recipe in numbers, and a small one by hand."""

from __future__ import annotations

from typing import Any

import pytest

from chase.errors import RecipeError
from chase.forecast import forecast
from chase.recipe import Recipe, read


@pytest.fixture(scope="module")
def imagenet() -> dict[str, Any]:
    """The forecast of the shipped ImageNet recipe; its network takes seconds to trace."""
    return forecast(Recipe.from_dict(read("imagenet-resnet50")))


def test_the_initial_densities_are_those_of_erk(imagenet: dict[str, Any]) -> None:
    densities = {layer["weight"].removesuffix(".weight"): layer["density"] for layer in imagenet["layers"]}

    expected = {
        "conv1": 0.4200,
        "layer1.0.conv1": 1,
        "layer1.0.conv2": 0.1773,
        "layer1.0.downsample.0": 0.9588,
        "layer2.0.conv1": 0.5747,
        "layer2.3.conv3": 0.4779,
        "layer3.0.conv1": 0.2866,
        "layer3.5.conv2": 0.0428,
        "layer4.0.conv2": 0.0213,
        "layer4.0.downsample.0": 0.0715,
        "fc": 0.0726,
    }
    assert len(densities) == 54
    assert {name: round(densities[name], 4) for name in expected} == expected


def test_the_initial_weights_add_up_to_a_tenth(imagenet: dict[str, Any]) -> None:
    assert sum(layer["nonzero"] for layer in imagenet["layers"]) == 2_550_291  # of 25,502,912
    assert all(abs(layer["nonzero"] - layer["density"] * size(layer)) < 1 for layer in imagenet["layers"])


def size(layer: dict[str, Any]) -> int:
    product = 1
    for side in layer["shape"]:
        product *= side
    return product


def test_resnet50_costs_what_the_paper_says(imagenet: dict[str, Any]) -> None:
    macs = imagenet["macs"]

    assert imagenet["parameters"] == 25_557_032
    assert macs["dense"] == 4_089_184_256
    assert macs["theoretical_at_start"] / macs["dense"] == pytest.approx(0.2418, abs=5e-5)
    assert macs["gpu_supported_at_floors"] < macs["gpu_supported_if_even"] < macs["dense"]
    assert imagenet["unknown_operators"] == []


def test_the_prunable_channels_and_their_floors_are_the_references(imagenet: dict[str, Any]) -> None:
    groups = [group for group in imagenet["groups"] if group["stays_because"] is None]

    assert imagenet["prunable_channels"] == sum(group["width"] for group in groups) == 7552
    assert len(groups) == 32
    assert {group["width"]: group["floor"] for group in groups} == {64: 7, 128: 15, 256: 30, 512: 61}
    assert all(group["lowest_width"] == group["floor"] for group in groups)


def test_the_groups_that_stay_say_why(imagenet: dict[str, Any]) -> None:
    reasons = {group["name"]: group["stays_because"] for group in imagenet["groups"]}

    assert reasons["conv1"] == reasons["layer4.0.conv3"] == "meets a skip connection; use prune_skip"
    assert reasons["fc"] == "is an output of the model"


def test_the_events_end_at_tau_stop_with_all_channels_gone(imagenet: dict[str, Any]) -> None:
    events = imagenet["events"]

    assert (imagenet["steps"], imagenet["steps_per_epoch"], imagenet["stop_step"]) == (250_200, 2502, 200_160)
    assert len(events) == 201
    assert [event["step"] for event in events[:2]] == [1000, 2000]
    assert events[-1] == {
        "step": 200_160,
        "channel_sparsity": pytest.approx(0.4),
        "keep": pytest.approx(0.1),
        "density": pytest.approx(0.1),
        "executed_macs": None,
    }


def test_what_can_be_reached_is_said_beside_the_target(imagenet: dict[str, Any]) -> None:
    # 6 + 8 + 12 + 6 layers of 64 to 512 channels, all on their floors
    lowest = 6 * 7 + 8 * 15 + 12 * 30 + 6 * 61

    assert imagenet["sparsity"] == 0.9
    assert imagenet["channel_sparsity"]["target"] == 0.4
    assert imagenet["channel_sparsity"]["highest_reachable"] == pytest.approx(1 - lowest / 7552)


def small(**method: Any) -> Recipe:
    """An MLP 4 → 8 → 2 on 40 images."""
    blocks = {
        "model": {"name": "mlp", "hidden": [8]},
        "data": {"name": "synthetic", "shape": [1, 2, 2], "train": 40, "test": 4, "classes": 2, "batch_size": 10},
        "method": {"name": "chase", "sparsity": 0.5, "distribution": "uniform", **method},
        "training": {"epochs": 2},
    }
    return Recipe.from_dict(blocks)


def test_a_small_forecast_is_what_one_computes_by_hand() -> None:
    found = forecast(small(channel_sparsity=0.5, round_to=2, min_channel_ratio=0.5, update_every=0, channel_every=2))

    assert (found["steps_per_epoch"], found["steps"], found["stop_step"]) == (
        3,
        6,
        5,
    )  # 36 images, whole batches; 0.8 × 6
    assert found["parameters"] == 8 * 4 + 8 + 2 * 8 + 2
    assert found["prunable_channels"] == 8
    assert found["groups"][0] == {"name": "1", "width": 8, "floor": 2, "lowest_width": 2, "stays_because": None}
    assert found["channel_sparsity"] == {"target": 0.5, "highest_reachable": 0.75}
    assert found["macs"] == {
        "dense": 48,
        "theoretical_at_start": 24,
        "gpu_supported_if_even": 4 * 4 + 4 * 2,
        "gpu_supported_at_floors": 2 * 4 + 2 * 2,
    }
    assert [event["step"] for event in found["events"]] == [2, 4, 5]


def test_without_channel_sparsity_no_channel_is_counted() -> None:
    found = forecast(small())

    assert found["prunable_channels"] == 0
    assert found["channel_sparsity"] == {"target": 0.0, "highest_reachable": 0.0}
    assert found["macs"]["gpu_supported_at_floors"] == found["macs"]["dense"] == 48


def test_a_target_beyond_the_floors_is_refused() -> None:
    with pytest.raises(RecipeError, match="channel_sparsity"):
        forecast(small(channel_sparsity=0.8, round_to=8))
