from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from chase.benchmarks.statistics import speedup, summary, verdict
from chase.errors import RecipeError

Array = NDArray[np.float64]


def test_a_summary_is_that_of_a_table() -> None:
    found = summary([float(value) for value in range(1, 102)])

    assert {name: found[name] for name in ("p50", "p90", "p99", "mean", "samples")} == {
        "p50": 51,
        "p90": 91,
        "p99": 100,
        "mean": 51,
        "samples": 101,
    }
    assert found["cv"] == pytest.approx(np.sqrt((101**2 - 1) / 12) / 51)


def test_percentiles_interpolate() -> None:
    found = summary([1, 2, 3, 4])

    assert [found["p50"], found["p90"]] == pytest.approx([2.5, 3.7])


@pytest.mark.parametrize(("count", "known"), [(99, False), (100, True)])
def test_there_is_a_p99_from_a_hundred_samples_on(count: int, known: bool) -> None:
    assert (summary([1.0] * count)["p99"] is not None) is known


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


def test_an_interval_is_wider_where_neighbouring_rounds_are_alike() -> None:
    random = np.random.default_rng(0)
    ratios = np.exp(0.1 * random.standard_normal(64))
    mixed, sorted_ = (speedup(each.tolist(), [1.0] * 64)["ci95"] for each in (ratios, np.sort(ratios)))

    assert sorted_[1] - sorted_[0] > 1.3 * (mixed[1] - mixed[0])


def machine(random: np.random.Generator, experiments: int, calls: int) -> Array:
    """How much slower each call is than on a calm machine [experiments, calls]: it drifts by up to 30 %, wanders by
    7 % with a memory of ten calls, is shared with others in bursts of ten calls on average (1.3 to 2.5 times slower),
    and one call in thirty is hit by a spike that takes as long as three calls do."""
    shape = experiments, calls
    drift = 1 + random.uniform(-0.3, 0.3, (experiments, 1)) * np.linspace(0, 1, calls)
    wander, busy = np.zeros(shape), np.zeros(shape, dtype=bool)
    for call in range(1, calls):
        wander[:, call] = 0.9 * wander[:, call - 1] + random.normal(0, 0.03, experiments)
        draw = random.random(experiments)
        busy[:, call] = np.where(busy[:, call - 1], draw > 0.1, draw < 0.05)
    shared = np.where(busy, random.uniform(1.3, 2.5, shape), 1.0)
    spikes = np.where(random.random(shape) < 0.03, random.exponential(3, shape), 0.0)
    return np.asarray(drift * np.exp(wander + random.normal(0, 0.02, shape)) * shared + spikes)


def experiments(count: int, rounds: int, slowdown: float) -> list[dict[str, Any]]:
    """Speed-ups of a program over another that takes `slowdown` times as long on such a machine, timed in turn, the
    order turned round in every other round. Programs lie elsewhere in memory each time, which is worth 0.4 %."""
    random = np.random.default_rng(0)
    times = machine(random, count, 2 * rounds).reshape(count, rounds, 2)
    times[:, 1::2] = times[:, 1::2, ::-1]
    own = np.exp(random.normal(0, 0.004, (count, 1))) * slowdown
    return [speedup(first, second) for first, second in zip(times[:, :, 0], times[:, :, 1] * own, strict=True)]


@pytest.mark.parametrize("rounds", [12, 50])
def test_a_program_against_itself_is_no_difference_in_a_thousand_experiments(rounds: int) -> None:
    alarms = sum(found["verdict"] != "no difference" for found in experiments(1000, rounds, 1.0))

    assert alarms <= 50


def test_a_tenth_more_time_is_found_in_a_thousand_experiments() -> None:
    found = experiments(1000, 50, 1.1)

    assert sum(each["verdict"] == "slower" for each in found) >= 900
    assert np.median([each["median"] for each in found]) == pytest.approx(1 / 1.1, rel=0.01)


def test_the_seed_decides_the_interval() -> None:
    random = np.random.default_rng(0)
    first, second = (1 + random.random(15) for _ in range(2))

    assert speedup(first.tolist(), second.tolist()) == speedup(first.tolist(), second.tolist())


@pytest.mark.parametrize(("baseline", "samples"), [(6, 7), (5, 5), (0, 0)])
def test_too_few_or_unpaired_rounds_give_no_speedup(baseline: int, samples: int) -> None:
    with pytest.raises(RecipeError, match=f"{baseline} baseline samples and {samples} samples give no speedup"):
        speedup([1.0] * baseline, [1.0] * samples)
