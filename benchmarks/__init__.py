"""Benchmarks: what was gained, measured so that it can be trusted.

bench(["dense.onnx", "slim.onnx"], batch_sizes=[1, 32]).save("bench.json")
"""

from __future__ import annotations

from chase.benchmarks.accuracy import agreement, predictions
from chase.benchmarks.compare import bench, default_batch_sizes
from chase.benchmarks.gate import check_accuracy
from chase.benchmarks.report import Report, Row
from chase.benchmarks.statistics import speedup, summary
from chase.benchmarks.timing import interleave

__all__ = [
    "Report",
    "Row",
    "agreement",
    "bench",
    "check_accuracy",
    "default_batch_sizes",
    "interleave",
    "predictions",
    "speedup",
    "summary",
]
