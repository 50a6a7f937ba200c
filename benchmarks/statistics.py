"""Statistics of raw timings, and when a difference is one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chase.errors import RecipeError

NOISE_MARGIN = 0.02  # what two copies of one program differ by: they lie elsewhere in memory
MIN_PAIRS = 6  # fewer cannot bound a median with 95 % confidence: 1 - 2 * 0.5 ** 6 = 0.97
MIN_P99 = 100  # with fewer samples the 99th percentile is the slowest of them or nearly so
RESAMPLES = 1000


def summary(samples_ms: Sequence[float]) -> dict[str, Any]:
    """p50, p90, p99 and mean in ms, cv (standard deviation / mean), and how many samples there are.

    Percentiles interpolate; with fewer than MIN_P99 samples p99 is None.
    """
    values = np.asarray(samples_ms, dtype=np.float64)
    p50, p90, p99 = (float(each) for each in np.percentile(values, [50, 90, 99]))
    mean = float(values.mean())
    found = {"p50": p50, "p90": p90, "p99": p99 if len(values) >= MIN_P99 else None}
    return found | {"mean": mean, "cv": float(values.std()) / mean, "samples": len(values)}


def speedup(baseline_ms: Sequence[float], samples_ms: Sequence[float], *, seed: int = 0) -> dict[str, Any]:
    """How many times faster the samples are than the baseline, paired by round.

    Gives the median of the ratios, its 95 % interval and a verdict: "faster" or "slower" if the whole interval is
    beyond 1 by more than NOISE_MARGIN, else "no difference". The interval is that of a bootstrap which draws stretches
    of neighbouring rounds, because a machine that is slow in one round is often slow in the next.

    Raises:
        RecipeError: if the two are not paired or have fewer than MIN_PAIRS rounds.
    """
    rounds = len(baseline_ms)
    if rounds != len(samples_ms) or rounds < MIN_PAIRS:
        counts = f"{rounds} baseline samples and {len(samples_ms)} samples"
        raise RecipeError(f"{counts} give no speedup; time both in the same {MIN_PAIRS} rounds or more")
    ratios = np.asarray(baseline_ms, dtype=np.float64) / np.asarray(samples_ms, dtype=np.float64)
    drawn = ratios[stretches(rounds, math.ceil(rounds ** (1 / 3)), seed)]
    low, high = (float(each) for each in np.percentile(np.median(drawn, axis=1), [2.5, 97.5]))
    return {"median": float(np.median(ratios)), "ci95": [low, high], "verdict": verdict(low, high)}


def stretches(count: int, length: int, seed: int) -> NDArray[np.int64]:
    """Positions [RESAMPLES, count] drawn anew: stretches of `length` neighbours, the first following the last."""
    starts = np.random.default_rng(seed).integers(count, size=(RESAMPLES, -(-count // length), 1))
    return ((starts + np.arange(length)) % count).reshape(RESAMPLES, -1)[:, :count]


def verdict(low: float, high: float) -> str:
    """What a 95 % interval of a speedup says."""
    if low > 1 + NOISE_MARGIN:
        return "faster"
    return "slower" if high < 1 - NOISE_MARGIN else "no difference"
