"""The comparison with torch-pruning, on networks of a few channels."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from chase.benchmarks import grouping
from chase.benchmarks.torch_pruning import SWEEP, examine, heads, table
from chase.errors import MissingDependency
from chase.models import MODELS
from chase.slimming.groups import Group
from chase.slimming.tracer import channel_groups

pytest.importorskip("torch_pruning", reason="torch-pruning is not installed")

SIDES = (8,)


class Dense(nn.Module):
    """Two convolutions side by side, one norm over both, then 3 outputs; `act` comes after the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 10, 3), nn.Conv2d(3, 10, 3)
        self.norm, self.head = nn.BatchNorm2d(20), nn.Linear(20, 3)
        self.act: nn.Module = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        both = self.act(self.norm(torch.cat([self.left(x), self.right(x)], 1)))
        return self.head(both.mean((2, 3)))  # type: ignore[no-any-return]


class Leaking(Dense):
    """A dead channel leaves a sigmoid as 0.5."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.Sigmoid()


class Scaling(nn.Module):
    """Scales channels by a buffer, which the library leaves as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.rand(20, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.get_buffer("scale")


class Refusing(Dense):
    """Takes no other width than its own once it was pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.act = Scaling()


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, toy in {"dense": Dense, "leaking": Leaking, "refusing": Refusing}.items():
        monkeypatch.setitem(MODELS, name, toy)


def coverage(row: dict[str, Any]) -> list[bool]:
    return [row["graph"], row["prune"], row["forward"], row["equivalent"]]


@pytest.mark.parametrize("mode", ["raw", "pruner", "safe"])
def test_what_is_exact_is_ok_in_every_mode(mode: str) -> None:
    row = examine(f"dense {mode}", sides=SIDES)

    assert row["ok"], row["error"]
    assert coverage(row) == [True] * 4
    assert row["params"] == [20 * 27 + 20 + 40 + 20 * 3 + 3, 14 * 27 + 14 + 28 + 14 * 3 + 3]
    assert row["max_rel"] < 1e-5


def test_a_silent_error_is_found() -> None:
    row = examine("leaking raw", sides=SIDES)

    assert coverage(row) == [True, True, True, False]
    assert (row["ok"], row["stage"]) == (False, "equivalent")
    assert row["error"].startswith("GateError: the pruned network differs from the masked one by ")


def test_a_fixed_width_breaks_the_pruned_network() -> None:
    row = examine("refusing raw", sides=SIDES)

    assert coverage(row) == [True, True, False, False]
    assert row["stage"] == "forward"


def test_where_both_are_exact_the_same_entries_leave_with_a_channel() -> None:
    found = examine("dense safe", sides=SIDES)["agreement"]

    assert found == {"agree": 20, "differ": 0, "only_torch_pruning": 0, "only_chase": 0, "example": None}


def test_a_channel_that_takes_something_else_along_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(model: nn.Module, example: Tensor) -> tuple[Group, ...]:
        return tuple(
            dataclasses.replace(group, slices=tuple(part for part in group.slices if part.tensor != "left.bias"))
            for group in channel_groups(model, example)
        )

    monkeypatch.setattr(grouping, "channel_groups", forgetful)

    found = examine("dense safe", sides=SIDES)["agreement"]

    assert (found["agree"], found["differ"]) == (10, 10)
    assert found["example"] == [["left.bias", 0, 0]]


def test_what_chase_holds_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def careful(model: nn.Module, example: Tensor) -> tuple[Group, ...]:
        return tuple(
            dataclasses.replace(group, pinned="by hand") if group.name == "left" else group
            for group in channel_groups(model, example)
        )

    monkeypatch.setattr(grouping, "channel_groups", careful)

    found = examine("dense safe", sides=SIDES)["agreement"]

    assert (found["agree"], found["only_torch_pruning"], found["only_chase"]) == (10, 10, 0)


def test_attention_layers_are_declared() -> None:
    attention = nn.MultiheadAttention(8, 2)
    joint, layer = nn.Module(), nn.Linear(6, 18)
    joint.add_module("qkv", layer)
    joint.__dict__["num_heads"] = 3

    assert heads(nn.ModuleList([attention, joint])) == {attention: 2, layer: 3}


def test_the_table_counts_how_far_each_mode_came() -> None:
    rows = [
        {
            "case": "a raw",
            "ok": True,
            **dict.fromkeys(("graph", "prune", "forward", "equivalent"), True),
            "params": [2_000_000, 1_000_000],
            "graph_cost": {"cpu_s": 0.5, "extra_mb": 2.0},
            "prune_cost": {"cpu_s": 1.5, "extra_mb": 4.0},
        },
        {"case": "b raw", "ok": False, "stage": "prune", "error": "ran past 9 s", "graph": True},
        {"case": "c safe", "ok": False, "stage": "start", "error": "killed by signal 9"},
    ]

    lines = table(rows).splitlines()

    assert lines[2:5] == [
        "| raw | 2 | 2 | 1 | 1 | 1 |",
        "| pruner | 0 | 0 | 0 | 0 | 0 |",
        "| safe | 1 | 0 | 0 | 0 | 0 |",
    ]
    assert lines[8] == "| a raw | ok | 2.00 M → 1.00 M | 0.50 s | 1.50 s | 4 MB |  |"
    assert "| fails at prune: ran past 9 s |" in lines[9]


def test_children_run_the_module_that_the_sweep_is_in() -> None:
    assert importlib.import_module(SWEEP.module).SWEEP is SWEEP
    assert SWEEP.cases(["a"]) == ["a raw", "a pruner", "a safe"]


def test_without_the_library_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)

    with pytest.raises(MissingDependency, match="run: pip install torch-pruning==1.6.1"):
        SWEEP.check()
