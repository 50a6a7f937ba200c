"""A small report and a small run's folder, made by hand: no number in them was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from chase.benchmarks.report import Report, Row
from chase.checkpoint import InputSpec, save
from chase.run import Run

ENVIRONMENT = {
    "date": "2026-01-02T03:04:05+00:00",
    "os": "Linux",
    "python": "3.11",
    "chase": "0.1.0",
    "torch": "2.9.0",
    "onnxruntime": "1.20.0",
    "openvino": None,
    "cpu": "A Processor",
    "cores": 4,
    "threads": 1,
    "gpu": None,
}
SLIM_MACS = {"theoretical": 1_000_000, "gpu_supported": 2_000_000, "dense": 4_000_000}
DENSE_MACS = {"theoretical": 4_000_000, "gpu_supported": 4_000_000, "dense": 4_000_000}
TRAINING_MACS = {"theoretical": 3 * 10**12, "gpu_supported": 9 * 10**12, "dense": 12 * 10**12}
SLIM_PARAMS = {"nonzero": 100_000, "stored": 500_000, "dense": 1_000_000}
DENSE_PARAMS = {"nonzero": 1_000_000, "stored": 1_000_000, "dense": 1_000_000}
WIDTHS = {"conv1": [16, 16], "conv2": [32, 24], "conv3": [32, 13]}


def samples(median_ms: float, count: int = 12) -> tuple[float, ...]:
    """So many times around a median, up to 1.1 % away from it."""
    return tuple(median_ms * (1 + 0.002 * (position - (count - 1) / 2)) for position in range(count))


def gained(median: float, baseline: str, *, verdict: str = "faster", mac_ratio: float | None = 2.0) -> dict[str, Any]:
    """A speed-up with an interval of 2 % to each side."""
    facts = {"median": median, "ci95": [0.98 * median, 1.02 * median], "verdict": verdict}
    return facts | {"clock": "host", "baseline": baseline, "mac_ratio": mac_ratio}


def slim_row(**changes: Any) -> Row:
    """slim model.onnx on ONNX Runtime at batch size 1: 1 ms, twice as fast as dense, 90 % right."""
    row = Row(
        artifact="slim model.onnx",
        runtime="onnxruntime",
        provider="CPUExecutionProvider",
        precision="fp32",
        device="cpu",
        batch_size=1,
        samples_ms=samples(1.0),
        first_call_ms=7.5,
        throughput=1010.25,
        macs=SLIM_MACS,
        params=SLIM_PARAMS,
        size_bytes=2_000_321,
        compressed_bytes=700_123,
        accuracy=90.125,
        top5=99.5,
        agreement=100.0,
        flipped=0,
        worst_logit_error=1.25e-6,
        reference_accuracy=90.125,
        speedup_vs_dense=gained(2.0, "dense model.onnx"),
        settings={"threads": 1, "tf32": False, "cuda_graph": False},
    )
    return replace(row, **changes)


def dense_row(**changes: Any) -> Row:
    """dense model.onnx on ONNX Runtime at batch size 1: 2 ms, 91 % right."""
    facts = {"artifact": "dense model.onnx", "samples_ms": samples(2.0), "throughput": 505.5, "macs": DENSE_MACS}
    facts |= {"params": DENSE_PARAMS, "size_bytes": 4_000_654, "compressed_bytes": 3_600_456, "accuracy": 91.0}
    return slim_row(**(facts | {"reference_accuracy": 91.0, "speedup_vs_dense": None} | changes))


def other_row(**changes: Any) -> Row:
    """A smaller network from elsewhere at batch size 1: 1.5 ms, 85 % right."""
    macs = {"theoretical": 3_000_000, "gpu_supported": 3_000_000, "dense": 3_000_000}
    facts = {"artifact": "torchvision:small", "samples_ms": samples(1.5), "macs": macs, "params": DENSE_PARAMS}
    gain = gained(4 / 3, "dense model.onnx", mac_ratio=4 / 3)
    return slim_row(**(facts | {"accuracy": 85.0, "speedup_vs_dense": gain} | changes))


def rows() -> tuple[Row, ...]:
    """Dense, slim and another network at batch sizes 1 and 8; at 8, slim is no faster."""
    same = gained(1.01, "dense model.onnx", verdict="no difference")
    large = {"batch_size": 8, "throughput": 1100.5}
    return (
        dense_row(),
        slim_row(),
        other_row(),
        dense_row(**large, samples_ms=samples(8.0)),
        slim_row(**large, samples_ms=samples(7.9), speedup_vs_dense=same, warnings=("the calls took 2.5 times",)),
        other_row(**large, samples_ms=samples(6.0)),
    )


def small_report(some: Sequence[Row] = (), **facts: Any) -> Report:
    """A report of these rows (default: `rows`), with the command that is said to have made it."""
    given: dict[str, Any] = {"environment": ENVIRONMENT, "command": ("/opt/bin/chase", "bench", "--data", "my images")}
    return Report(rows=tuple(some) or rows(), **(given | facts))


def epochs(count: int = 4) -> list[dict[str, Any]]:
    """What a training might have written, with two events an epoch."""
    return [
        {
            "epoch": epoch,
            "step": 10 * epoch,
            "lr": 0.1,
            "loss": 2.0 / epoch,
            "validation_accuracy": 90.0 - 10 / epoch,
            "sparsity": 0.8,
            "channel_sparsity": 0.1 * epoch,
            "macs": SLIM_MACS,
            "events": [{"step": 10 * epoch - 5, "density": 0.2}, {"step": 10 * epoch, "density": 0.2}],
            "images_per_second": 100.0,
        }
        for epoch in range(1, count + 1)
    ]


def write_slim(folder: Path, *, about: str = "A small one.", widths: Mapping[str, list[int]] | None = None) -> None:
    """A slim.pt with facts and no network to speak of."""
    facts = {"sparsity": 0.9, "channel_sparsity": 0.4, "macs": SLIM_MACS, "params": SLIM_PARAMS}
    facts["training_macs"] = TRAINING_MACS
    save(
        folder / "slim.pt",
        kind="slim",
        model={"name": "vgg8", "settings": {}},
        network=nn.Identity(),
        recipe={"about": about},
        input=InputSpec(shape=(1, 8, 8), classes=("no", "yes")),
        widths=None,
        masks=None,
        facts=facts | {"widths": WIDTHS if widths is None else widths},
        certificate={"max_rel": 3e-16, "tolerance": 1e-10, "dtype": "float64"},
        parent_sha256=None,
    )


def write_run(folder: Path, *, report: Report | None = None, about: str = "A small one.") -> Run:
    """A run's folder with bench.json, metrics.jsonl, slim.pt and a manifest."""
    folder.mkdir(parents=True)
    run = Run(folder)
    (report or small_report()).save(run.bench)
    run.metrics.write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs()))
    write_slim(folder, about=about)
    run.record(run.slim, run.bench)
    return run
