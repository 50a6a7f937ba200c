"""The coverage sweep, on networks of a few channels."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from chase.benchmarks import architectures
from chase.benchmarks.architectures import SWEEP, census, examine, table
from chase.checkpoint import load_network
from chase.models import MODELS
from chase.slimming.groups import Group, Slice
from chase.slimming.tracer import channel_groups

SIDES = (8,)


class Plain(nn.Module):
    """10 channels, a second convolution of 10, and 3 outputs: 10·27 + 2·10 + 10·90 + 10 + 10·3 + 3 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 10, 3, bias=False), nn.BatchNorm2d(10)
        self.second, self.head = nn.Conv2d(10, 10, 3), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.second(self.norm(self.first(x)).relu()).relu()
        return self.head(hidden.mean((2, 3)))  # type: ignore[no-any-return]


class Mixing(Plain):
    """What an image gets depends on the others of its batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * len(x)


class Exploding(Plain):
    """Answers, but cannot be trained."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (float("inf") if self.training else 1)


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, toy in {"plain": Plain, "mixing": Mixing, "exploding": Exploding}.items():
        monkeypatch.setitem(MODELS, name, toy)


def test_a_network_that_keeps_every_promise_is_ok_with_its_numbers() -> None:
    row = examine("plain", sides=SIDES, shares=(0.3, 0.8))

    assert (row["ok"], row["stage"], row["error"]) == (True, None, None)
    assert row["input"] == [3, 8, 8]
    assert (row["units"], row["removable"], row["share"], row["outputs"]) == (20, 20, 1.0, 3)
    assert row["held"] == {}
    assert row["params"] == 10 * 27 + 2 * 10 + 10 * 90 + 10 + 10 * 3 + 3
    slim = row["slim"]
    assert slim["0.3"]["params"] == 7 * 27 + 2 * 7 + 7 * 7 * 9 + 7 + 7 * 3 + 3
    assert slim["0.8"]["params"] == 2 * 27 + 2 * 2 + 2 * 2 * 9 + 2 + 2 * 3 + 3
    assert all(found["max_rel"] <= 1e-10 and found["dtype"] == "float64" for found in slim.values())


def shifted(model: nn.Module, example: Tensor) -> tuple[Group, ...]:
    """The groups with one wrong slice: what the second convolution reads is off by one."""

    def off_by_one(part: Slice) -> Slice:
        wrong = part.tensor == "second.weight" and part.dim == 1
        return dataclasses.replace(part, positions=part.positions.roll(1)) if wrong else part

    groups = channel_groups(model, example)
    return tuple(dataclasses.replace(group, slices=tuple(map(off_by_one, group.slices))) for group in groups)


def test_a_wrong_slice_is_a_failed_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architectures, "channel_groups", shifted)

    row = examine("plain", sides=SIDES)

    assert not row["ok"]
    assert row["stage"] == "certificate"
    assert row["error"].startswith("EquivalenceError: ")


def test_a_file_that_holds_something_else_is_a_failed_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(path: Path) -> Any:
        network = load_network(path)
        with torch.no_grad():
            network.model.get_parameter("head.bias").add_(1e-6)
        return network

    monkeypatch.setattr(architectures, "load_network", damaged)

    row = examine("plain", sides=SIDES)

    assert (row["ok"], row["stage"]) == (False, "reload")


@pytest.mark.parametrize(
    ("name", "stage", "error"),
    [
        ("mixing", "batch", "GateError: in a batch of 5 an image gets an answer that is 4.0e"),
        ("exploding", "train", "GateError: the loss of the slim network in training mode is "),
        ("plane", "build", "UnknownName: no model named 'plane'; did you mean 'plain'"),
    ],
)
def test_a_network_fails_at_the_stage_that_it_breaks(name: str, stage: str, error: str) -> None:
    row = examine(name, sides=SIDES)

    assert (row["ok"], row["stage"]) == (False, stage)
    assert row["error"].startswith(error)


def test_children_run_the_module_that_the_sweep_is_in() -> None:
    assert importlib.import_module(SWEEP.module).SWEEP is SWEEP
    assert SWEEP.cases(["a"]) == ["a"]


def test_the_census_counts_what_may_leave_and_why_the_rest_stays() -> None:
    def group(name: str, size: int, **settings: Any) -> Group:
        return Group(name=name, size=size, slices=(), producers=(f"{name}.weight",), **settings)

    groups = [
        group("free", 6, skip=True, held={"meets a sigmoid": 2}),
        group("fixed", 4, pinned="meets a sigmoid"),
        group("head", 10, pinned="is an output of the model"),
    ]

    assert census(groups) == {
        "units": 12,
        "removable": 6,
        "share": 0.5,
        "outputs": 10,
        "held": {"meets a sigmoid": 6},
    }


def test_the_table_has_a_line_for_each_network_and_counts_those_that_pass() -> None:
    ok = {
        "case": "a",
        "ok": True,
        "units": 20,
        "share": 0.75,
        "held": {"is odd": 5},
        "params": 2_000_000,
        "group": {"cpu_s": 1.25, "extra_mb": 3.0},
        "slim": {"0.3": {"cpu_s": 0.5, "extra_mb": 7.0, "params": 1_000_000, "max_rel": 2e-15, "dtype": "float64"}},
    }
    failed = {"case": "b", "ok": False, "stage": "groups", "error": "ValueError: a | b"}

    lines = table([ok, failed]).splitlines()

    assert lines[0] == "1 of 2 networks pass."
    assert lines[-2] == "| a | ok | 20 | 75.0% | 2.00 M → 1.00 M | 2e-15 float64 | 1.25 s | 0.50 s | 7 MB | 5 is odd |"
    assert lines[-1].startswith("| b | fails at groups |")
    assert lines[-1].endswith("| ValueError: a / b |")
    assert len({line.count("|") for line in lines[2:]}) == 1
