from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_exports import exported_here
from torch import Tensor, nn

from chase.artifact import Artifact
from chase.benchmarks import bench, default_batch_sizes
from chase.benchmarks.candidates import Candidate, baselines, find_candidates
from chase.benchmarks.schema import problems
from chase.checkpoint import InputSpec, Network
from chase.errors import CheckpointError, RecipeError, TraceError, UnknownName

EXAMPLE = torch.zeros(1, 3, 4, 4)
FACTS = {
    "macs": {"theoretical": 1, "gpu_supported": 2, "dense": 3},
    "params": {"nonzero": 1, "stored": 2, "dense": 3},
}
FAST = {"budget_s": 0.01, "batch_sizes": [1, 2]}


def tiny(width: int = 6) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * width, 4)).eval()


class FakeSplit:
    """Images [3, 4, 4] of noise with labels."""

    def __init__(self, labels: list[int]) -> None:
        self.labels = torch.tensor(labels)
        self.images = torch.randn(len(labels), 3, 4, 4, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batch_size: int, device: Any = "cpu") -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(torch.split(self.images, batch_size), torch.split(self.labels, batch_size), strict=True)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    folder = tmp_path_factory.mktemp("artifacts")
    return [
        exported_here(tiny(width), folder / f"{kind}.ts", example=EXAMPLE, facts={"kind": kind} | FACTS)
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


def test_a_rival_is_compared_with_the_dense_one_and_never_a_baseline() -> None:
    found = [candidate(kind="rival"), candidate(), candidate(kind="dense"), candidate(kind="rival", precision="fp16")]

    assert baselines(found) == [2, 2, None, None]


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
    facts = {"macs": {"dense": 3}, "params": {"dense": 2}}
    network: Any = Network(
        path=tmp_path / "slim.pt",
        kind="dense",
        model=tiny(),
        input=InputSpec(shape=(3, 4, 4)),
        content={"facts": facts},
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
        ([tiny()], {"batch_sizes": []}, "there is no batch size to measure"),
        ([tiny()], {"threads": 0, "example": EXAMPLE}, "threads is 0"),
        ([tiny()], {"tf32": True, "example": EXAMPLE}, "TF32 is a mode of NVIDIA GPUs, and this runs on cpu"),
        ([tiny()], {}, r"Sequential does not say the shape of its input; pass example=x\[:1\]"),
        ([tiny()], {"example": EXAMPLE, "runtimes": ["torchscript"]}, "torchscript can run none of these"),
        (
            [tiny(), nn.Sequential(nn.ReLU(), nn.Linear(9, 9))],
            {"example": EXAMPLE},
            r"Sequential \(2\): eager cannot run an input of \[1, 3, 4, 4\]",
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


def test_accuracy_is_measured_once_an_item_and_steps_are_told() -> None:
    model = tiny()
    split: Any = FakeSplit([0, 1, 2, 3])
    split.labels = model(split.images).argmax(1)
    split.labels[0] = (split.labels[0] + 1) % 4
    steps: list[tuple[int, int, str]] = []

    report = bench(
        [model],
        data=split,
        example=EXAMPLE,
        profile=True,
        on_progress=lambda done, total, name: steps.append((done, total, name)),
        **FAST,  # type: ignore[arg-type]
    )

    facts = [(row.accuracy, row.reference_accuracy, row.agreement, row.flipped) for row in report.rows]
    assert facts == [(75, 75, 100, 0)] * 2
    assert [row.worst_logit_error for row in report.rows] == [0.0] * 2
    assert steps == [
        (0, 4, "accuracy of Sequential on eager"),
        (1, 4, "batch size 1"),
        (2, 4, "batch size 2"),
        (3, 4, "layers"),
        (4, 4, "done"),
    ]
    assert [layer["layer"] for layer in report.profiles["Sequential"]][:4] == ["0", "1", "2", "3"]
    assert report.profiles["Sequential"][0]["macs"] == 6 * 27 * 4  # of batch size 1, the smallest


def test_a_module_may_be_the_reference_of_artifacts(artifacts: list[Artifact]) -> None:
    report = bench(artifacts, data=FakeSplit([0, 1, 2, 3]), reference=tiny(3), **FAST)  # type: ignore[arg-type]

    dense, slim = report.rows[:2]
    assert (dense.agreement, dense.reference_accuracy) == (None, None)
    assert (slim.agreement, slim.flipped) == (100, 0)
    assert slim.reference_accuracy == slim.accuracy
    assert slim.worst_logit_error is not None
    assert slim.worst_logit_error < 1e-5


def test_a_file_is_measured_at_the_batch_sizes_it_was_made_for(artifacts: list[Artifact]) -> None:
    dense, slim = artifacts[0], replace(artifacts[1], batch_sizes=(2, 2, 4))

    report = bench([dense, slim], batch_sizes=[1, 2], budget_s=0.01)

    assert [(row.artifact, row.batch_size) for row in report.rows] == [("dense.ts", 1), ("dense.ts", 2), ("slim.ts", 2)]
    assert report.rows[2].warnings[-1].startswith("not measured at batch size 1: it was made for batches of 2 to 4")
    assert not any("not measured" in warning for row in report.rows[:2] for warning in row.warnings)
    with pytest.raises(RecipeError, match="slim.ts is not measured at batch size 1: it was made for batches of 2 to 4"):
        bench([dense, slim], batch_sizes=[1], budget_s=0.01)


def test_a_row_says_how_it_was_measured(artifacts: list[Artifact]) -> None:
    report = bench(artifacts, threads=1, command=["chase", "bench"], batch_sizes=[2], budget_s=0.01)

    dense, slim = report.rows
    assert report.command == ("chase", "bench")
    assert (slim.settings["threads"], slim.settings["tf32"], slim.settings["cuda_graph"]) == (1, False, False)
    assert slim.settings["calls_per_sample"] >= 1
    assert slim.cpu_ms is not None
    assert len(slim.cpu_ms) == len(slim.samples_ms) == len(dense.samples_ms)
    assert (slim.gpu_ms, slim.enqueue_ms, slim.transfer_ms, slim.peak_memory_bytes) == (None,) * 4
    assert slim.first_call_ms is not None
    assert slim.first_call_ms > 0
    assert slim.compressed_bytes is not None
    assert 0 < slim.compressed_bytes < slim.size_bytes
    assert slim.speedup_vs_dense is not None
    assert (slim.speedup_vs_dense["baseline"], slim.speedup_vs_dense["clock"]) == ("dense.ts", "cpu")
    assert problems(report.to_dict()) == []


def test_main_memory_is_measured_where_it_is_asked_for(
    artifacts: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def peaks(path: Path, **options: Any) -> dict[int, int]:
        asked.append((path, options))
        return {2: 77}

    monkeypatch.setattr("chase.benchmarks.compare.resident_peaks", peaks)

    rows = bench([artifacts[0], tiny()], memory=True, threads=1, **FAST).rows  # type: ignore[arg-type]

    options = {"runtime": "torchscript", "batch_sizes": [1, 2], "threads": 1}
    assert asked == [(artifacts[0].path, options)]  # a bare module is no file
    assert [row.peak_memory_bytes for row in rows] == [None, None, 77, None]


def test_batch_sizes_follow_from_the_device() -> None:
    assert default_batch_sizes("cpu") == (1, 2, 32)
    assert default_batch_sizes(torch.device("cuda", 1)) == (1, 2, 32, 128)
