from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_reports import epochs

from chase.benchmarks.page.facts import Facts
from chase.benchmarks.page.history import (
    clocks_charts,
    learning_charts,
    profile_chart,
    sparsity_chart,
    widths_chart,
)
from chase.benchmarks.page.widths import Width, width_table, widths_of


def facts(**known: Any) -> Facts:
    return Facts(name="run", folder=Path("run"), **known)


def test_sparsity_is_drawn_over_steps_with_its_events() -> None:
    chart = sparsity_chart(tuple(epochs(2)))

    assert chart is not None
    weights, channels, events = chart.data
    assert (weights["x"], weights["y"]) == ([10, 20], [80.0, 80.0])
    assert channels["y"] == [10.0, 20.0]
    assert events["x"] == [5, 10, 15, 20]
    assert "4 mask events" in chart.caption


def test_a_training_without_events_or_none_at_all_is_drawn_as_far_as_it_goes() -> None:
    dense = [epoch | {"events": []} for epoch in epochs(2)]

    chart = sparsity_chart(tuple(dense))

    assert chart is not None
    assert len(chart.data) == 2
    assert sparsity_chart(()) is None


def test_accuracy_and_loss_are_drawn_beside_those_of_the_dense_twin() -> None:
    accuracy, loss = learning_charts(facts(epochs=tuple(epochs(3)), dense_epochs=tuple(epochs(2))))

    assert [(trace["name"], trace["x"]) for trace in accuracy.data] == [("sparse", [1, 2, 3]), ("dense twin", [1, 2])]
    assert accuracy.data[0]["y"] == [80.0, 85.0, pytest.approx(86.667, abs=1e-3)]
    assert loss.data[0]["y"] == [2.0, 1.0, pytest.approx(2 / 3)]
    assert loss.layout["yaxis"].get("type") is None


def test_a_loss_that_fell_far_stands_on_a_logarithmic_axis() -> None:
    fallen = [epoch | {"loss": 10.0 ** -epoch["epoch"]} for epoch in epochs(4)]

    *_, loss = learning_charts(facts(epochs=tuple(fallen)))

    assert loss.layout["yaxis"]["type"] == "log"


def test_without_a_validation_split_only_the_loss_is_drawn() -> None:
    blind = [epoch | {"validation_accuracy": None} for epoch in epochs(2)]

    assert [chart.name for chart in learning_charts(facts(epochs=tuple(blind)))] == ["loss"]


def test_widths_off_the_grid_have_bars_of_their_own() -> None:
    widths = widths_of({"facts": {"widths": {"a": [16, 16], "b": [32, 24], "c": [32, 13], "d": [5, 5]}}})

    chart = widths_chart(widths)

    assert [width.aligned for width in widths] == [True, True, False, True]
    assert chart is not None
    dense, aligned, striped = chart.data
    assert dense["x"] == [16, 32, 32, 5]
    assert aligned["x"] == [16, 24, None, 5]
    assert striped["x"] == [None, None, 13, None]
    assert "pattern" in striped["marker"]


def test_widths_that_nobody_named_are_not_drawn() -> None:
    assert widths_of({}) == widths_of({"facts": {"sparsity": 0.5}}) == []
    assert widths_chart([]) is None
    assert width_table([]) is None


def test_the_table_of_widths_says_what_was_kept() -> None:
    table = width_table([Width("c", 32, 13)])

    assert table is not None
    assert [cell.text for cell in table.rows[0]] == ["c", "32", "13", "40.6", "no"]


def test_a_profile_shows_the_slowest_layers_first() -> None:
    layers = [
        {"layer": f"l{n}", "op": "Conv", "macs": n, "share_of_macs": n / 435, "ms": 1.0, "share_of_time": n / 435}
        for n in range(30)
    ]
    layers[3] |= {"share_of_macs": None, "share_of_time": 0.5}

    chart = profile_chart("slim.onnx", layers, 0)

    time, macs = chart.data
    assert chart.layout["yaxis"]["ticktext"][:2] == ["l3 (Conv)", "l29 (Conv)"]
    assert (time["x"][0], macs["x"][0]) == (50.0, 0)
    assert len(time["x"]) == 20


def test_clocks_are_drawn_as_far_as_the_gpu_tells_them() -> None:
    samples: list[dict[str, Any]] = [
        {"t_s": n, "sm_mhz": 1000 + n, "temperature_c": None, "power_w": 5.0, "throttle": []} for n in (0, 1)
    ]

    made = clocks_charts(samples)

    assert [chart.name for chart in made] == ["gpu-sm_mhz", "gpu-power_w"]
    assert (made[0].data[0]["x"], made[0].data[0]["y"]) == ([0, 1], [1000, 1001])
    assert clocks_charts([]) == []
