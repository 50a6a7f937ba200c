"""Statistics of raw timings, and when a difference is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chase.errors import RecipeError

NOISE_MARGIN = 0.02  # what two runs of one program differ by on a busy machine
MIN_PAIRS = 6  # fewer cannot bound a median with 95 % confidence: 1 - 2 * 0.5 ** 6 = 0.97
RESAMPLES = 2000


def summary(samples_ms: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99 and mean in ms, and cv (standard deviation / mean).

    Percentiles interpolate; with fewer than 100 samples p99 says little more than the slowest of them.
    """
    values = np.asarray(samples_ms, dtype=np.float64)
    p50, p90, p99 = np.percentile(values, [50, 90, 99])
    mean = values.mean()
    numbers = {"p50": p50, "p90": p90, "p99": p99, "mean": mean, "cv": values.std() / mean}
    return {name: float(value) for name, value in numbers.items()}


def speedup(baseline_ms: Sequence[float], samples_ms: Sequence[float], *, seed: int = 0) -> dict[str, Any]:
    """How many times faster the samples are than the baseline, paired by round.

    Gives the median of the ratios, its 95 % interval (percentile bootstrap) and a verdict: "faster" or
    "slower" if the whole interval is beyond 1 by more than NOISE_MARGIN, else "no difference".

    Raises:
        RecipeError: if the two are not paired or have fewer than MIN_PAIRS rounds.
    """
    rounds = len(baseline_ms)
    if rounds != len(samples_ms) or rounds < MIN_PAIRS:
        counts = f"{rounds} baseline samples and {len(samples_ms)} samples"
        raise RecipeError(f"{counts} give no speedup; time both in the same {MIN_PAIRS} rounds or more")
    ratios = np.asarray(baseline_ms, dtype=np.float64) / np.asarray(samples_ms, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(rounds, size=(RESAMPLES, rounds))
    low, high = np.percentile(np.median(ratios[drawn], axis=1), [2.5, 97.5])
    interval = [float(low), float(high)]
    return {"median": float(np.median(ratios)), "ci95": interval, "verdict": verdict(*interval)}


def verdict(low: float, high: float) -> str:
    """What a 95 % interval of a speedup says."""
    if low > 1 + NOISE_MARGIN:
        return "faster"
    return "slower" if high < 1 - NOISE_MARGIN else "no difference"
