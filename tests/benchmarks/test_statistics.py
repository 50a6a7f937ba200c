from __future__ import annotations

import numpy as np
import pytest

from chase.benchmarks.statistics import speedup, summary, verdict
from chase.errors import RecipeError


def test_a_summary_is_that_of_a_table() -> None:
    found = summary([float(value) for value in range(1, 102)])

    assert {name: found[name] for name in ("p50", "p90", "p99", "mean")} == {
        "p50": 51,
        "p90": 91,
        "p99": 100,
        "mean": 51,
    }
    assert found["cv"] == pytest.approx(np.sqrt((101**2 - 1) / 12) / 51)


def test_percentiles_interpolate() -> None:
    found = summary([1, 2, 3, 4])

    assert [found["p50"], found["p90"]] == pytest.approx([2.5, 3.7])


def test_a_speedup_pairs_the_rounds() -> None:
    baseline = [2.0, 4.0, 6.0, 8.0, 10.0, 20.0]  # a machine that becomes slower and slower
    samples = [1.0, 2.0, 3.0, 4.0, 5.0, 10.0]

    assert speedup(baseline, samples) == {"median": 2.0, "ci95": [2.0, 2.0], "verdict": "faster"}
    assert speedup(samples, baseline) == {"median": 0.5, "ci95": [0.5, 0.5], "verdict": "slower"}


def test_a_speedup_is_the_median_of_the_ratios() -> None:
    found = speedup([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6, 1 / 7])

    assert found["median"] == pytest.approx(4)
    assert 1 <= found["ci95"][0] < 4 < found["ci95"][1] <= 7


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.021, 1.3, "faster"),
        (1.019, 1.3, "no difference"),
        (0.7, 0.979, "slower"),
        (0.7, 0.981, "no difference"),
        (0.9, 1.1, "no difference"),
        (1.001, 1.004, "no difference"),
    ],
)
def test_a_verdict_needs_the_whole_interval_beyond_the_margin(low: float, high: float, expected: str) -> None:
    assert verdict(low, high) == expected


@pytest.mark.parametrize("seed", range(20))
def test_the_same_program_twice_is_no_difference(seed: int) -> None:
    random = np.random.default_rng(seed)
    drift = 1 + 0.5 * random.random(40)  # hits both alike
    first, second = (drift * np.exp(0.03 * random.standard_normal(40)) for _ in range(2))

    assert speedup(first.tolist(), second.tolist())["verdict"] == "no difference"


def test_a_slower_program_is_found_under_noise() -> None:
    random = np.random.default_rng(0)
    drift = 1 + 0.5 * random.random(40)
    first, second = (drift * np.exp(0.05 * random.standard_normal(40)) for _ in range(2))

    found = speedup(first.tolist(), (1.3 * second).tolist())

    assert found["verdict"] == "slower"
    assert found["median"] == pytest.approx(1 / 1.3, rel=0.05)


def test_the_seed_decides_the_interval() -> None:
    random = np.random.default_rng(0)
    first, second = (1 + random.random(15) for _ in range(2))

    assert speedup(first.tolist(), second.tolist()) == speedup(first.tolist(), second.tolist())


@pytest.mark.parametrize(("baseline", "samples"), [(6, 7), (5, 5), (0, 0)])
def test_too_few_or_unpaired_rounds_give_no_speedup(baseline: int, samples: int) -> None:
    with pytest.raises(RecipeError, match=f"{baseline} baseline samples and {samples} samples give no speedup"):
        speedup([1.0] * baseline, [1.0] * samples)
