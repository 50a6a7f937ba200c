from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from chase.benchmarks import bench
from chase.benchmarks.campaign.__main__ import main
from chase.benchmarks.campaign.records import OVERHEAD
from chase.benchmarks.overhead import measure
from chase.benchmarks.schema import mismatches, problems
from chase.benchmarks.steps import Workload
from chase.benchmarks.timing import CudaWatch
from chase.runtimes.base import torch_settings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]

GPU = torch.device("cuda", 0)


def network(layers: int) -> nn.Module:
    torch.manual_seed(0)
    middle = [part for _ in range(layers) for part in (nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())]
    return nn.Sequential(nn.Conv2d(3, 8, 1), *middle, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)).eval()


def test_events_and_the_host_agree_on_long_work() -> None:
    x = torch.randn(4096, 4096, device=GPU)
    watch = CudaWatch(GPU)
    watch.sample(lambda: x @ x)

    found = watch.sample(lambda: x @ x, calls=50)

    assert found.gpu is not None
    assert found.enqueue is not None
    assert found.gpu == pytest.approx(found.host, rel=0.2)
    assert found.enqueue < 0.5 * found.gpu


def test_small_kernels_are_launch_bound_and_a_graph_helps() -> None:
    report = bench(
        [("small", network(30))],
        runtimes=["eager", "eager+cuda-graph"],
        device="cuda",
        batch_sizes=[1],
        example=torch.zeros(1, 3, 16, 16),
        budget_s=1.0,
        profile=True,
    )

    eager, graph = report.rows
    assert problems(report.to_dict()) == []
    assert any(text.startswith("launch-bound: ") and "eager+cuda-graph" in text for text in eager.warnings)
    assert graph.speedup_vs_dense is not None
    assert graph.speedup_vs_dense["verdict"] == "faster"
    assert graph.settings["cuda_graph"]
    for row in report.rows:
        assert row.peak_memory_bytes is not None
        assert 0 < row.peak_memory_bytes < 2e9
        assert row.gpu_ms is not None
        assert row.enqueue_ms is not None
        assert row.transfer_ms is not None
        assert len(row.gpu_ms) == len(row.samples_ms)
    assert len(report.profiles["small"]) > 60
    assert report.environment["gpu"]["clocks"] or report.environment["gpu"]["no_clocks"]


def test_tf32_rounds_only_where_it_is_allowed() -> None:
    x = torch.randn(512, 512, device=GPU)
    exact = (x.double() @ x.double()).float()

    with torch_settings():
        plain = x @ x
        with torch_settings(tf32=True):
            rounded = x @ x

    assert (plain - exact).abs().max() < 1e-3
    if torch.cuda.get_device_capability(GPU) >= (8, 0):
        assert (rounded - exact).abs().max() > (plain - exact).abs().max()


@pytest.mark.parametrize("compiled", [False, True])
def test_the_sparsifier_s_overhead_is_measured_between_events(compiled: bool) -> None:
    given: dict[str, Any] = {"batch_size": 8, "device": "cuda", "precision": "bf16", "channels_last": True}
    row = measure(Workload(model="cifar-resnet20", settings={"num_classes": 10}, compiled=compiled, **given), seconds=1)

    assert list(mismatches("", row, OVERHEAD)) == []
    assert 0 < row["peak_memory_bytes"]["dense"] < row["peak_memory_bytes"]["sparse"]


def test_a_campaign_in_little_works_on_a_gpu(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path), "--smoke", "--minutes", "6"]) == 0

    summary = json.loads((tmp_path / "campaign.json").read_text())
    outcomes = {each["item"]: each["outcome"] for each in summary["items"]}
    assert [name for name, outcome in outcomes.items() if outcome == "failed"] == []
    assert {outcome for name, outcome in outcomes.items() if "eager" in name} == {"done"}
