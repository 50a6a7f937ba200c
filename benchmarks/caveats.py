"""Caveats: what makes a measurement say less than it seems to, in words, with the option that helps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from chase.benchmarks.candidates import GRAPH, Candidate
from chase.benchmarks.statistics import MIN_P99, summary
from chase.benchmarks.timing import Series
from chase.runtimes import Runtime
from chase.runtimes.base import tf32_allowed

LAUNCH_BOUND = 0.8  # of the GPU's time goes by until the call has returned
NOISY = 0.3  # a coefficient of variation
BUSY = 1.1  # host time over processor time, of one thread: somebody else had the core
REDUCED = re.compile(r"\b(bf16|f16|fp16|tf32)\b", re.IGNORECASE)
WAITING = ("onnxruntime",)
"""Runtimes whose calls return when the work is done, so that the time until then says nothing about launches."""


def caveats(
    series: Series, candidate: Candidate, runtime: Runtime, *, transfer_ms: dict[str, float] | None, threads: int
) -> tuple[str, ...]:
    """What a reader of a row should know before believing its numbers."""
    found = (*_of_noise(series, threads), *_of_gpu(series, candidate, transfer_ms), *_of_precision(candidate, runtime))
    return tuple(found)


def launches(series: Series, candidate: Candidate) -> list[float] | None:
    """Milliseconds until each call had returned, where that means that its kernels had been launched."""
    waits = candidate.runtime.startswith(WAITING) or not series.enqueue_ms
    return None if waits else series.enqueue_ms


def busy_share(series: Series) -> float:
    """The share of samples of one thread during which its core was given to another program."""
    if not series.cpu_ms:
        return 0.0
    host, cpu = np.asarray(series.host_ms), np.asarray(series.cpu_ms)
    return float(np.mean(host > BUSY * cpu))


def _of_noise(series: Series, threads: int) -> Iterator[str]:
    count, cv = len(series.samples), summary(series.host_ms)["cv"]
    if count < MIN_P99:
        yield f"no p99: {count} calls were timed, and it takes {MIN_P99}; give it more --seconds"
    busy = busy_share(series) if threads == 1 else 0.0
    if busy > 0.1:
        yield (
            f"another program had the processor in {100 * busy:.0f} % of the calls: latencies are too high and "
            "images/s too low; close it and measure again (the speed-up is of processor time)"
        )
    elif cv > NOISY:
        yield f"the calls took very different times (cv {cv:.2f}); look at p50 and p90, and measure again for longer"


def _of_gpu(series: Series, candidate: Candidate, transfer_ms: dict[str, float] | None) -> Iterator[str]:
    if not series.gpu_ms:
        return
    compute, launched = float(np.median(series.gpu_ms)), launches(series, candidate)
    if launched and (enqueue := float(np.median(launched))) > LAUNCH_BOUND * compute:
        option = "a larger --batch-size"
        if not candidate.runtime.endswith(GRAPH):
            option = f"--runtime {candidate.runtime}{GRAPH} or {option}"
        times = f"{enqueue:.3f} of {compute:.3f} ms"
        yield f"launch-bound: starting the kernels takes {times}, so smaller layers save nothing; try {option}"
    if transfer_ms and (copies := sum(transfer_ms.values())) >= compute:
        yield (
            f"copying to and from the GPU takes {copies:.3f} ms, computing {compute:.3f} ms; "
            "keep images there, or send them as uint8 (--preprocessing)"
        )


def _of_precision(candidate: Candidate, runtime: Runtime) -> Iterator[str]:
    found = REDUCED.search(runtime.provider)
    made = candidate.artifact.settings if candidate.artifact else {}
    word = found[0] if found else "tf32" if made.get("tf32", tf32_allowed()) else None
    if candidate.precision == "fp32" and word:
        yield f"fp32 is computed in {word.lower()} here; compare it with others that are, or switch it off"
    if candidate.precision in ("fp16", "bf16") and runtime.provider.endswith(" f32"):
        yield f"this processor computes {candidate.precision} in fp32: the file is smaller, not faster"


def refused(candidate: Candidate, sizes: Sequence[int]) -> str:
    """The caveat for batch sizes that a file was not made for."""
    limits = candidate.artifact.batch_sizes if candidate.artifact else None
    made = f"batches of {limits[0]} to {limits[-1]}" if limits else "other batches"
    return f"not measured at batch size {', '.join(map(str, sizes))}: it was made for {made}; export again with others"
