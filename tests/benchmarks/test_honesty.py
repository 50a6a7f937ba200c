from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from chase.benchmarks import honesty
from chase.benchmarks.honesty import LAYERS, MORE, counted, main, network
from chase.counting import cost

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def run(same: str, slower: str, host_same: str = "no difference", host_slower: str = "slower") -> dict[str, Any]:
    return {
        "same": {"verdict": same, "host_verdict": host_same},
        "slower": {"verdict": slower, "host_verdict": host_slower},
    }


def test_alarms_and_finds_are_counted() -> None:
    runs = [
        run("no difference", "slower"),
        run("faster", "slower", host_slower="no difference"),
        run("no difference", "no difference"),
        run("slower", "faster", host_same="slower", host_slower="faster"),
    ]

    found = counted("eager", runs)

    assert (found["runs"], found["false_alarms"], found["found"]) == (4, 2, 2)
    assert (found["host_false_alarms"], found["host_found"]) == (1, 2)
    assert found["results"] == runs


def test_the_twin_has_a_tenth_more_to_do() -> None:
    first, slower = (cost(network(layers), torch.zeros(1, 3, 16, 16)).macs for layers in (LAYERS, MORE))

    assert slower / first == pytest.approx(1.1, abs=0.001)


def test_a_short_run_leaves_its_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(honesty, "WIDTH", 4)

    main(["--json", str(tmp_path / "found.json"), "--runs", "1", "--seconds", "0.01", "--runtime", "eager"])

    content = json.loads((tmp_path / "found.json").read_text())
    (row,) = content["rows"]
    assert content["command"][:3] == ["python", "-m", "chase.benchmarks.honesty"]
    assert content["environment"]["threads"] == 1
    assert (row["runtime"], row["runs"], len(row["results"])) == ("eager", 1, 1)
    assert row["results"][0]["rounds"] >= 10
    assert set(row["results"][0]["same"]) == {"median", "ci95", "verdict", "clock", "host_verdict"}


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*honesty.json")), ids=lambda path: path.stem)
def test_the_published_runs_keep_the_promise(path: Path) -> None:
    """At most 5 of 100 false alarms, at least 90 of 100 slower twins found."""
    for row in json.loads(path.read_text())["rows"]:
        assert row["runs"] >= 100
        assert row == counted(row["runtime"], row["results"])
        assert row["false_alarms"] <= 0.05 * row["runs"]
        assert row["found"] >= 0.9 * row["runs"]
