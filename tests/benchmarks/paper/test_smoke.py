"""`chase paper all --scale smoke`: every table is run, and every method and criterion has its numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chase.benchmarks.paper import TABLES
from chase.cli import main
from chase.sparse.criteria import CHANNEL_SCORES
from chase.sparse.methods import METHODS


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("paper")
    with pytest.raises(SystemExit) as stop:
        main(["paper", "all", "--scale", "smoke", "--device", "cpu", "--out", str(folder), "--quiet"])
    assert stop.value.code == 0
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in TABLES}


def accuracies(content: dict[str, Any]) -> dict[str, float]:
    return {row["row"]: row["cells"]["accuracy"]["mean"] for row in content["rows"]}


def test_every_method_is_trained(tables: dict[str, Any]) -> None:
    found = accuracies(tables["methods"])

    assert set(METHODS) <= set(found)
    assert all(0 <= accuracy <= 100 for accuracy in found.values())


def test_every_criterion_is_tried_gradually_and_at_once(tables: dict[str, Any]) -> None:
    at_once = {row["row"]: row["cells"] for row in tables["table2"]["rows"]}

    assert set(accuracies(tables["criteria"])) == set(CHANNEL_SCORES)
    assert None not in accuracies(tables["criteria"]).values()
    assert all(cell["mean"] is not None for name in CHANNEL_SCORES for cell in at_once[name].values())


def test_nothing_is_missing_but_layers_that_small_networks_lack(tables: dict[str, Any]) -> None:
    reasons = {
        cell["reason"] for content in tables.values() for row in content["rows"] for cell in row["cells"].values()
    }

    allowed = {None, "cifar-resnet8 has no such layer", "no channel has left, so it runs as the dense network does"}
    assert reasons <= allowed


def test_baselines_execute_as_many_macs_as_chase(tables: dict[str, Any]) -> None:
    for row in tables["baselines"]["rows"]:
        if not row["row"].endswith(("Dense", "Chase (S_c = 0.5)")):
            assert row["cells"]["executed MACs"]["mean"] == pytest.approx(0.5, abs=0.03), row["row"]


def test_what_lost_channels_was_slimmed_and_proved(tables: dict[str, Any]) -> None:
    trainings = {name: each for content in tables.values() for name, each in content["trainings"].items()}
    slim = [each for each in trainings.values() if each["channel_sparsity"]]

    assert len(slim) > 50
    assert all(each["certificate"]["max_rel"] <= 1e-10 for each in slim)
    assert all(each["macs"]["gpu_supported"] < each["macs"]["dense"] for each in slim)


def test_a_training_that_many_tables_share_is_one(tables: dict[str, Any]) -> None:
    chase_half = [
        tables[name]["rows"][index]["cells"][column]["trainings"]
        for name, row, column in (
            ("table3", "VGG-19: Chase (S_c = 0.5)", "CIFAR-100 90 %"),
            ("figure4", "VGG-19: RigL + GACP + SM + GE", "CIFAR-10 90 %"),
            ("table5", "CIFAR-100, VGG-19: Chase (S_c = 0.5)", "accuracy"),
        )
        for index, each in enumerate(tables[name]["rows"])
        if each["row"] == row
    ]

    assert len(chase_half) == 3
    assert chase_half[0] == chase_half[1] == chase_half[2]
