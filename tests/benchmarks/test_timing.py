from __future__ import annotations

import gc
import math
from collections.abc import Callable
from itertools import islice

import pytest
import torch
from fake_cuda import FakeCuda

from chase.benchmarks.statistics import speedup
from chase.benchmarks.timing import (
    MAX_ROUNDS,
    CudaWatch,
    Sample,
    Series,
    Watch,
    interleave,
    orders,
    throughput,
    transfers,
    watch_for,
)

GPU = torch.device("cuda", 0)


class FakeClock(Watch):
    """Time passes only when a runner runs; another program takes `share` of the processor."""

    def __init__(self, share: float = 0.0) -> None:
        super().__init__(lambda: self.time_s, lambda: self.used_s)
        self.time_s = self.used_s = 0.0
        self.share = share
        self.log: list[str] = []

    def runner(self, name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self.log.append(name)
            self.spend(seconds)

        return run

    def spend(self, seconds: float) -> None:
        self.used_s += seconds
        self.time_s += seconds / (1 - self.share)


def test_samples_are_milliseconds_per_call() -> None:
    clock = FakeClock()

    found = interleave({"a": clock.runner("a", 0.02), "b": clock.runner("b", 0.03)}, budget_s=1, watch=clock)

    assert set(found) == {"a", "b"}
    assert found["a"].host_ms == pytest.approx([20] * 20)
    assert found["b"].host_ms == pytest.approx([30] * 20)
    assert (found["a"].gpu_ms, found["a"].enqueue_ms) == ([], [])


def test_processor_time_is_what_the_program_used() -> None:
    clock = FakeClock(share=0.5)

    found = interleave({"a": clock.runner("a", 0.02)}, min_rounds=3, budget_s=0, watch=clock)

    assert found["a"].host_ms == pytest.approx([40] * 3)
    assert found["a"].cpu_ms == pytest.approx([20] * 3)


def test_orders_are_random_and_then_run_backwards() -> None:
    rounds = list(islice(orders(["a", "b", "c"], seed=0), 100))

    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert all(rounds[i + 1] == rounds[i][::-1] for i in range(0, 100, 2))
    assert len({tuple(order) for order in rounds}) == 6
    assert rounds == list(islice(orders(["a", "b", "c"], seed=0), 100))
    assert rounds != list(islice(orders(["a", "b", "c"], seed=1), 100))


def test_everyone_follows_everyone() -> None:
    flat = [name for order in islice(orders(["a", "b", "c"], seed=0), 600) for name in order]

    before = [sum(pair == (first, "a") for pair in zip(flat, flat[1:], strict=False)) for first in "abc"]

    assert min(before) > 100


def test_all_take_turns_in_these_orders() -> None:
    clock = FakeClock()
    runners = {name: clock.runner(name, 0.01) for name in "abc"}

    interleave(runners, warmup_s=0, min_rounds=4, budget_s=0, watch=clock, seed=5)

    assert clock.log[6:] == [name for order in islice(orders(list("abc"), 5), 4) for name in order]


def test_there_are_enough_rounds_and_not_too_many() -> None:
    clock = FakeClock()

    few = interleave({"slow": clock.runner("slow", 60)}, budget_s=1, min_rounds=7, watch=clock)
    many = interleave({"fast": clock.runner("fast", 0.002)}, budget_s=1e6, watch=clock)

    assert (len(few["slow"].samples), len(many["fast"].samples)) == (7, MAX_ROUNDS)


@pytest.mark.parametrize(
    ("seconds", "calls", "expected"),
    [(0.0, 100, 2), (0.055, 100, 6), (10.0, 50, 50), (10.0, 1, 2)],
)
def test_warm_up_goes_by_time_or_by_calls_but_twice_at_least(seconds: float, calls: int, expected: int) -> None:
    clock = FakeClock()

    interleave(
        {"a": clock.runner("a", 0.01)}, warmup_s=seconds, warmup_calls=calls, min_rounds=0, budget_s=0, watch=clock
    )

    assert len(clock.log) == expected


def test_warm_up_is_not_counted() -> None:
    clock = FakeClock()
    lazy = iter([5.0, 0.01] + [0.01] * 100)

    found = interleave({"lazy": lambda: clock.spend(next(lazy))}, warmup_s=0.5, budget_s=0, watch=clock)

    assert found["lazy"].host_ms == pytest.approx([10] * 10)


def test_very_short_calls_are_timed_several_at_once() -> None:
    clock = FakeClock()
    runners = {"tiny": clock.runner("tiny", 0.00001), "short": clock.runner("short", 0.0002)}

    found = interleave(runners, warmup_s=0, min_rounds=6, budget_s=0, watch=clock)

    assert found["tiny"].host_ms == pytest.approx([0.01] * 6)
    assert found["tiny"].calls in (10, 11)
    assert found["short"].calls == 1


def test_a_planted_slowdown_is_found_although_the_machine_drifts() -> None:
    clock = FakeClock()

    def runner(seconds: float) -> Callable[[], None]:
        return lambda: clock.spend(seconds * (1 + clock.time_s))  # slower and slower

    runners = {"dense": runner(0.01), "slow": runner(0.013)}
    found = interleave(runners, warmup_s=0, min_rounds=30, budget_s=0, watch=clock)

    result = speedup(found["dense"].host_ms, found["slow"].host_ms)
    assert result["verdict"] == "slower"
    assert result["median"] == pytest.approx(1 / 1.3, rel=0.05)


def test_throughput_counts_images_by_time() -> None:
    clock = FakeClock()
    runners = {"a": clock.runner("a", 0.1), "b": clock.runner("b", 0.4)}

    found = throughput(runners, images=8, slice_s=0.5, watch=clock)

    assert found == pytest.approx({"a": 80, "b": 20})
    assert clock.log.count("a") >= 1 + 3 * 5


def test_nothing_tracks_gradients_or_collects_garbage_while_timed() -> None:
    clock = FakeClock()
    seen = set()

    def run() -> None:
        seen.add((torch.is_inference_mode_enabled(), gc.isenabled()))
        clock.spend(1)

    interleave({"run": run}, watch=clock)
    throughput({"run": run}, images=1, watch=clock)

    assert seen == {(True, False)}
    assert gc.isenabled()


def test_garbage_is_collected_again_after_a_failure() -> None:
    with pytest.raises(ZeroDivisionError):
        interleave({"bad": lambda: 1 / 0})

    assert gc.isenabled()


def test_a_gpu_has_three_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda().install(monkeypatch)
    watch = CudaWatch(GPU, cuda.now)

    long = watch.sample(cuda.kernel(host_ms=0.1, gpu_ms=5))
    many = watch.sample(cuda.kernel(host_ms=0.1, gpu_ms=0.05, kernels=10))

    assert (long.host, long.gpu, long.enqueue) == pytest.approx((0.0051, 0.0051, 0.0001))
    assert (many.host, many.gpu, many.enqueue) == pytest.approx((0.00105, 0.00105, 0.001))
    assert long.cpu is None


def test_a_gpu_finishes_what_was_queued_before_a_sample_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda().install(monkeypatch)
    cuda.launch(host_ms=0.1, gpu_ms=500)

    assert CudaWatch(GPU, cuda.now).sample(cuda.kernel(host_ms=0.1, gpu_ms=1)).host == pytest.approx(0.0011)


def test_series_on_a_gpu_are_milliseconds_per_call(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda().install(monkeypatch)
    runners = {"slow": cuda.kernel(host_ms=0.2, gpu_ms=20), "fast": cuda.kernel(host_ms=0.2, gpu_ms=10)}

    found = interleave(runners, warmup_s=0, min_rounds=6, budget_s=0, watch=CudaWatch(GPU, cuda.now))

    assert found["slow"].gpu_ms == pytest.approx([20.2] * 6)
    assert found["fast"].host_ms == pytest.approx([10.2] * 6)
    assert found["fast"].enqueue_ms == pytest.approx([0.2] * 6)
    assert found["fast"].cpu_ms == []


def test_throughput_on_a_gpu_waits_only_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda().install(monkeypatch)

    found = throughput({"a": cuda.kernel(host_ms=0.9, gpu_ms=1)}, images=10, slice_s=1, watch=CudaWatch(GPU, cuda.now))

    assert found["a"] == pytest.approx(10_000, rel=0.01)  # one call alone takes 1.9 ms


def test_copies_are_timed_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    x, answer = torch.zeros(2, 3), torch.zeros(2, 4)
    spent = {3: 0.003, 4: 0.001}
    for name in ("to", "cpu"):
        true = getattr(torch.Tensor, name)

        def copied(self: torch.Tensor, *given: object, true: Callable[..., torch.Tensor] = true) -> torch.Tensor:
            clock.spend(spent[self.shape[1]])
            return true(self, *given)

        monkeypatch.setattr(torch.Tensor, name, copied)

    assert transfers(x, answer, watch=clock) == pytest.approx({"to_device": 3, "from_device": 1})


def test_each_device_has_its_watch() -> None:
    assert type(watch_for(torch.device("cpu"))) is Watch
    assert type(watch_for(GPU)) is CudaWatch
    assert watch_for(torch.device("cpu")).warmup(1.0) == (0.25, math.inf)
    assert watch_for(GPU).warmup(1.0) == (2.0, 50)


def test_a_series_divides_by_its_calls() -> None:
    series = Series(calls=4, samples=[Sample(0.008, cpu=0.004), Sample(0.012, cpu=0.004)])

    assert (series.host_ms, series.cpu_ms) == ([2, 3], [1, 1])
