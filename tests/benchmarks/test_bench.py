from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from chase.artifact import Artifact
from chase.benchmarks import bench
from chase.benchmarks.accuracy import accuracy, agreement
from chase.benchmarks.candidates import Candidate, baselines, find_candidates
from chase.errors import CheckpointError, DataError, RecipeError, TraceError, UnknownName
from chase.exporters import export
from chase.runtimes import Runtime, open_runtime

EXAMPLE = torch.zeros(1, 3, 4, 4)
FAST = {"budget_s": 0.01, "batch_sizes": [1, 2]}


def tiny(width: int = 6) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * width, 4)).eval()


class Brightness(nn.Module):
    """Class 0 for a dark image and class 1 for a bright one."""

    def __init__(self, bias: float = 0.0) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        level = x.flatten(1).mean(1) + self.bias
        return torch.stack([-level, level], dim=1)


class FakeSplit:
    """Images of constant brightness."""

    def __init__(self, levels: list[float], labels: list[int]) -> None:
        self.images = torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
        self.labels = torch.tensor(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batch_size: int, device: Any = "cpu") -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(torch.split(self.images, batch_size), torch.split(self.labels, batch_size), strict=True)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    folder = tmp_path_factory.mktemp("artifacts")
    return [
        export(tiny(width), folder / f"{kind}.ts", example=EXAMPLE, facts={"kind": kind})
        for kind, width in (("dense", 6), ("slim", 3))
    ]


def candidate(**facts: Any) -> Candidate:
    defaults: dict[str, Any] = {"label": "x", "source": tiny(), "runtime": "eager", "kind": "slim"}
    rest: dict[str, Any] = {"input_shape": (3, 4, 4), "macs": {}, "params": {}, "size_bytes": 1}
    return Candidate(**defaults | rest | facts)


def test_the_dense_one_on_the_same_runtime_is_the_baseline() -> None:
    found = [
        candidate(),
        candidate(kind="dense", runtime="onnxruntime"),
        candidate(kind="dense"),
        candidate(runtime="onnxruntime"),
        candidate(runtime="onnxruntime", precision="fp16"),
        candidate(runtime="torchscript"),
        candidate(kind="dense"),
    ]

    assert baselines(found) == [2, None, None, 1, None, None, 2]


def test_the_first_one_is_the_baseline_if_none_is_dense() -> None:
    found = [candidate(), candidate(runtime="onnxruntime"), candidate(precision="fp16")]

    assert baselines(found) == [None, 0, 0]


def test_every_item_has_a_row_at_every_batch_size(artifacts: list[Artifact]) -> None:
    report = bench([*artifacts, str(artifacts[1].path)], threads=1, **FAST)  # type: ignore[arg-type]

    assert [(row.artifact, row.batch_size) for row in report.rows] == [
        (name, size) for size in (1, 2) for name in ("dense.ts", "slim.ts", "slim.ts (2)")
    ]
    assert [row.speedup_vs_dense is None for row in report.rows] == [True, False, False] * 2
    assert report.environment["threads"] == 1
    row = report.rows[1]
    assert (row.runtime, row.provider, row.device, row.precision) == ("torchscript", "cpu", "cpu", "fp32")
    assert row.size_bytes == artifacts[1].path.stat().st_size
    assert (row.accuracy, row.accuracy_reason, row.agreement) == (None, "no data was given", 100)
    assert len(row.samples_ms) >= 10
    assert row.throughput > 0


def test_a_module_takes_its_input_from_its_neighbour_and_is_the_baseline(artifacts: list[Artifact]) -> None:
    report = bench([tiny(), artifacts[1]], **FAST | {"batch_sizes": [2]})  # type: ignore[arg-type]

    assert [row.artifact for row in report.rows] == ["Sequential", "slim.ts"]
    assert report.rows[0].speedup_vs_dense is None
    assert report.rows[1].speedup_vs_dense is not None
    assert report.rows[0].macs["dense"] == 6 * 27 * 4 + 24 * 4
    assert report.rows[0].params["stored"] == 6 * 27 + 6 + 24 * 4 + 4
    assert report.rows[0].size_bytes == 4 * (6 * 27 + 6 + 24 * 4 + 4)


def test_one_item_alone_and_labels_are_fine(artifacts: list[Artifact]) -> None:
    assert [row.artifact for row in bench(artifacts[0], **FAST).rows] == ["dense.ts"] * 2  # type: ignore[arg-type]
    labelled = bench([("mine", artifacts[0].path)], batch_sizes=[1], budget_s=0.01)
    assert [row.artifact for row in labelled.rows] == ["mine"]


def test_runtimes_choose_what_runs(artifacts: list[Artifact]) -> None:
    items: list[Any] = [artifacts[0], tiny()]

    both = find_candidates(items, runtimes=["eager", "torchscript"])
    one = find_candidates(items, runtimes=["torchscript"])

    assert [(each.label, each.runtime) for each in both] == [("dense.ts", "torchscript"), ("Sequential", "eager")]
    assert [each.label for each in one] == ["dense.ts"]


def test_a_network_brings_its_facts(tmp_path: Path) -> None:
    (tmp_path / "slim.pt").write_bytes(b"1234")
    network: Any = SimpleNamespace(
        path=tmp_path / "slim.pt",
        kind="dense",
        model=tiny(),
        input_shape=(3, 4, 4),
        macs={"dense": 3},
        params={"dense": 2},
    )

    (found,) = find_candidates([network])

    assert (found.label, found.kind, found.runtime, found.precision) == ("slim.pt", "dense", "eager", "fp32")
    assert (found.macs, found.params, found.size_bytes) == ({"dense": 3}, {"dense": 2}, 4)


def test_a_module_that_cannot_be_counted_claims_no_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: nn.Module, example: Tensor) -> None:
        raise TraceError("no")

    monkeypatch.setattr("chase.benchmarks.candidates.count", refuse)

    (found,) = find_candidates([tiny()], example=EXAMPLE)

    assert (found.macs, found.params) == ({}, {})


@pytest.mark.parametrize(
    ("items", "arguments", "message"),
    [
        ([], {}, "there is nothing to measure"),
        ([tiny()], {"batch_sizes": [1, 0]}, "batch size 0 is below 1"),
        ([tiny()], {"threads": 0, "example": EXAMPLE}, "threads is 0"),
        ([tiny()], {}, r"Sequential does not say the shape of its input; pass example=x\[:1\]"),
        ([tiny()], {"example": EXAMPLE, "runtimes": ["torchscript"]}, "torchscript can run none of these"),
        (
            [Brightness(), nn.Sequential(nn.ReLU(), nn.Linear(9, 9))],
            {"example": EXAMPLE},
            r"Sequential on eager cannot run \[1, 3, 4, 4\]: ",
        ),
    ],
)
def test_wrong_arguments_are_refused(items: list[Any], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        bench(items, **arguments)


def test_unknown_runtimes_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="no runtime named 'egar'; did you mean 'eager'"):
        bench([tiny()], runtimes=["egar"], example=EXAMPLE)
    with pytest.raises(CheckpointError, match="no such file"):
        bench([tmp_path / "gone.onnx"])


def test_accuracy_and_agreement_are_percent() -> None:
    split: Any = FakeSplit([-1.0, 1.0, 2.0, -0.5], [0, 1, 0, 0])

    with open_runtime(Brightness()) as first, open_runtime(Brightness(bias=0.75)) as second:
        assert accuracy(first, split, batch_size=3) == 75
        assert accuracy(second, split) == 50
        assert agreement(first, second, split, batch_size=1) == 75


def test_an_empty_split_has_no_accuracy() -> None:
    empty: Any = FakeSplit([], [])

    runtime: Runtime
    with open_runtime(Brightness()) as runtime, pytest.raises(DataError, match="the split holds no images"):
        accuracy(runtime, empty)


def test_accuracy_is_measured_once_an_item_and_steps_are_told() -> None:
    split: Any = FakeSplit([-1.0, 1.0, 2.0, -0.5], [0, 1, 0, 0])
    steps: list[tuple[int, int, str]] = []

    report = bench(
        [Brightness()],
        data=split,
        example=EXAMPLE,
        on_progress=lambda done, total, name: steps.append((done, total, name)),
        batch_sizes=[1, 2],
        budget_s=0.01,
    )

    assert [(row.accuracy, row.accuracy_reason) for row in report.rows] == [(75, None)] * 2
    assert steps == [
        (0, 3, "accuracy of Brightness on eager"),
        (1, 3, "batch size 1"),
        (2, 3, "batch size 2"),
        (3, 3, "done"),
    ]


def test_data_of_another_shape_give_no_accuracy() -> None:
    split: Any = FakeSplit([1.0], [1])

    report = bench([Brightness()], data=split, example=torch.zeros(1, 3, 5, 5), batch_sizes=[1], budget_s=0.01)

    row = report.rows[0]
    assert (row.accuracy, row.accuracy_reason) == (None, "the data are [3, 4, 4], the network takes [3, 5, 5]")
