"""Trainings that are killed come to the same end, and one that does not is found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from chase.benchmarks import survival
from chase.benchmarks.survival import Death, different, survive
from chase.errors import GateError
from chase.run import Run

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def test_what_differs_is_found_wherever_it_lies() -> None:
    ours: dict[str, Any] = {"a": [1, {"b": torch.zeros(2)}], "c": None, "only": 1}
    theirs: dict[str, Any] = {"a": [1, {"b": torch.ones(2)}], "c": 2}

    assert sorted(different(ours, theirs)) == [".a.1.b", ".c", ".only"]
    assert different(ours, ours) == []


def test_deaths_are_counted_by_run_and_the_last_run_may_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fates = iter([True, False, False, True, False, True])
    deaths: list[Death | None] = []

    def lived(run: Run, death: Death | None) -> bool:
        deaths.append(death)
        return next(fates)

    monkeypatch.setattr(survival, "lived", lived)
    monkeypatch.setattr(survival, "written", lambda run: {})
    monkeypatch.setattr(survival, "_step", lambda run: 7)

    found = survive(tmp_path, kills=3)

    assert [row["checkpoint_after_each_kill"] for row in found["rows"]] == [[7, 7], [7]]
    assert found["kills"] == 3
    assert [death is None for death in deaths] == [True, False, False, False, False, True]


def test_an_end_that_differs_is_a_failed_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survival, "lived", lambda run, death: True)
    monkeypatch.setattr(survival, "written", lambda run: {"weights": run.folder.name})

    with pytest.raises(GateError, match="after 0 kills, .*run0 differs in .weights"):
        survive(tmp_path, kills=1)


@pytest.mark.slow
def test_trainings_that_are_killed_come_to_the_same_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "chase.benchmarks.survival", "--kills", "4", "--out", str(tmp_path / "s.json")]

    subprocess.run(command, check=True, timeout=600)

    assert json.loads((tmp_path / "s.json").read_text())["kills"] == 4


def test_the_published_trainings_survived() -> None:
    found = json.loads((RESULTS / "cpu" / "2026-11-28-survival.json").read_text())

    steps = [step for row in found["rows"] for step in row["checkpoint_after_each_kill"]]
    assert found["kills"] == len(steps) == 100
    assert len(set(steps)) > 10  # at all ages
