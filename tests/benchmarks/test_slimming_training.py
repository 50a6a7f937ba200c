"""The gain of compaction over a whole schedule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from chase.benchmarks import slimming_training
from chase.benchmarks.slimming_training import STEPS, Case, _whole, main

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def row(ratio: float, seconds: float = 0.0) -> dict[str, float]:
    return {"time_ratio": ratio, "masked_step_s": 2.0, "compaction_s": seconds}


def test_each_stretch_counts_by_its_length() -> None:
    found = _whole([STEPS // 4, STEPS // 2], [row(1.01), row(0.6, 3.0), row(0.4, 5.0)])

    assert found["time_ratio"] == pytest.approx(0.25 + 0.25 * 0.6 + 0.5 * 0.4)
    assert found["compacting_share"] == pytest.approx(8 / (2 * STEPS))
    assert (found["compactions"], found["masked_over_masked"]) == (2, 1.01)


class Small(nn.Sequential):
    """Two convolutions for images of CIFAR's size."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 100)),
        )


@pytest.mark.parametrize("allocation", ["umm", "even"])
def test_a_replay_ends_at_half_of_the_channels(
    allocation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slimming_training, "build", lambda name, num_classes: Small())
    monkeypatch.setattr(slimming_training, "CASES", (Case("small", 2, 0.5, allocation, channels_last=True),))
    threads = torch.get_num_threads()

    main(["--out", str(tmp_path / "s.json"), "--rounds", "2"])

    assert torch.get_num_threads() == threads
    (found,) = json.loads((tmp_path / "s.json").read_text())["rows"]
    shares = [each["macs_ratio"] for each in found["rows"]]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1
    assert 0.1 < shares[-1] < 0.6
    assert 3 <= found["compactions"] == len(found["rows"]) - 1 <= 6


def test_the_published_schedules_were_measured_with_few_compactions_and_meet_their_targets() -> None:
    found = json.loads((RESULTS / "cpu" / "2026-11-28-in-training-slimming.json").read_text())
    best: dict[str, float] = {}
    for each in found["rows"]:
        best[each["model"]] = min(each["time_ratio"], best.get(each["model"], 1.0))

    assert found["steps"] == STEPS
    for each in found["rows"]:
        assert 3 <= each["compactions"] <= 6
        assert 0.9 < each["masked_over_masked"] < 1.1
        assert best[each["model"]] <= each["target"]
