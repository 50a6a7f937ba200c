from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from chase.benchmarks.statistics import speedup
from chase.benchmarks.timing import MAX_ROUNDS, interleave, rotated, throughput


class FakeClock:
    """Time passes only when a runner runs."""

    def __init__(self) -> None:
        self.time_s = 0.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.time_s

    def runner(self, name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self.log.append(name)
            self.time_s += seconds

        return run


def test_samples_are_milliseconds_per_call() -> None:
    clock = FakeClock()

    found = interleave({"a": clock.runner("a", 0.02), "b": clock.runner("b", 0.03)}, budget_s=1, clock=clock)

    assert set(found) == {"a", "b"}
    assert found["a"] == pytest.approx([20] * 20)
    assert found["b"] == pytest.approx([30] * 20)


def test_all_take_turns_and_the_order_rotates() -> None:
    clock = FakeClock()
    runners = {name: clock.runner(name, 0.01) for name in "abc"}

    interleave(runners, warmup_s=0, min_rounds=4, budget_s=0, clock=clock)

    assert "".join(clock.log[6:]) == "abcbcacababc"
    assert rotated(["a", "b"], 3) == ["b", "a"]


def test_there_are_enough_rounds_and_not_too_many() -> None:
    clock = FakeClock()

    few = interleave({"slow": clock.runner("slow", 60)}, budget_s=1, min_rounds=7, clock=clock)
    many = interleave({"fast": clock.runner("fast", 0.002)}, budget_s=1e6, clock=clock)

    assert (len(few["slow"]), len(many["fast"])) == (7, MAX_ROUNDS)


def test_warm_up_goes_by_time_and_is_not_counted() -> None:
    clock = FakeClock()
    lazy = iter([5.0, 0.01] + [0.01] * 100)

    def run() -> None:
        clock.time_s += next(lazy)

    found = interleave({"lazy": run}, warmup_s=0.5, min_rounds=10, budget_s=0, clock=clock)

    assert found["lazy"] == pytest.approx([10] * 10)


def test_short_calls_are_timed_several_at_once() -> None:
    clock = FakeClock()

    found = interleave({"tiny": clock.runner("tiny", 0.0001)}, warmup_s=0, min_rounds=6, budget_s=0, clock=clock)

    assert found["tiny"] == pytest.approx([0.1] * 6)
    assert 2 + 6 * 10 <= len(clock.log) <= 2 + 6 * 11


def test_a_device_is_waited_for_before_and_after_each_sample() -> None:
    clock = FakeClock()
    pending: list[float] = []

    def sync() -> None:
        clock.time_s += sum(pending)
        pending.clear()

    runners = {"slow": lambda: pending.append(0.02), "fast": lambda: pending.append(0.01)}
    found = interleave(runners, warmup_s=0, min_rounds=6, budget_s=0, sync=sync, clock=clock)

    assert found["slow"] == pytest.approx([20] * 6)
    assert found["fast"] == pytest.approx([10] * 6)


def test_a_planted_slowdown_is_found_although_the_machine_drifts() -> None:
    clock = FakeClock()

    def runner(seconds: float) -> Callable[[], None]:
        def run() -> None:
            clock.time_s += seconds * (1 + clock.time_s)  # slower and slower

        return run

    found = interleave(
        {"dense": runner(0.01), "slow": runner(0.013)}, warmup_s=0, min_rounds=30, budget_s=0, clock=clock
    )

    assert speedup(found["dense"], found["slow"])["verdict"] == "slower"
    assert speedup(found["dense"], found["slow"])["median"] == pytest.approx(1 / 1.3, rel=0.05)


def test_throughput_counts_images_by_time() -> None:
    clock = FakeClock()
    runners = {"a": clock.runner("a", 0.1), "b": clock.runner("b", 0.4)}

    found = throughput(runners, images=8, slice_s=0.5, clock=clock)

    assert found == pytest.approx({"a": 80, "b": 20})
    assert clock.log.count("a") >= 1 + 3 * 5


def test_nothing_tracks_gradients_while_timed() -> None:
    clock = FakeClock()
    seen = set()

    def run() -> None:
        seen.add(torch.is_inference_mode_enabled())
        clock.time_s += 1

    interleave({"run": run}, clock=clock)
    throughput({"run": run}, images=1, clock=clock)

    assert seen == {True}
