"""Timing: all candidates in turn, in one process, so that whatever slows the machine down hits them alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import torch

Runner = Callable[[], object]

MIN_SAMPLE_S = 1e-3  # shorter calls are timed several at once, so that the clock's resolution does not matter
MAX_ROUNDS = 300


class Stopwatch:
    """Measures calls from start to finished work: `sync` waits for what a device has yet to do."""

    def __init__(self, *, sync: Runner | None, clock: Callable[[], float]) -> None:
        self.now = clock
        self._sync = sync

    def seconds(self, run: Runner, calls: int = 1) -> float:
        """The wall time of `calls` calls, in seconds."""
        self._wait()
        start = self.now()
        for _ in range(calls):
            run()
        self._wait()
        return self.now() - start

    def _wait(self) -> None:
        if self._sync:
            self._sync()


def interleave(
    runners: Mapping[str, Runner],
    *,
    warmup_s: float = 0.3,
    min_rounds: int = 10,
    budget_s: float = 3.0,
    sync: Runner | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Milliseconds per call of each runner, one sample a round; samples of the same round belong together.

    Each runner first warms up for `warmup_s`. Then come rounds of one sample each, in an order that rotates,
    until `budget_s` have passed, but at least `min_rounds` and at most MAX_ROUNDS. Calls below 1 ms are timed
    several at once: their sample is the mean of these. `sync` waits for a device to finish its work.
    """
    watch = Stopwatch(sync=sync, clock=clock)
    samples: dict[str, list[float]] = {name: [] for name in runners}
    with torch.inference_mode():
        calls = {name: _warm_up(run, warmup_s, watch) for name, run in runners.items()}
        end = watch.now() + budget_s
        for round in range(MAX_ROUNDS):
            if round >= min_rounds and watch.now() >= end:
                break
            for name in rotated(list(runners), round):
                samples[name].append(1000 * watch.seconds(runners[name], calls[name]) / calls[name])
    return samples


def throughput(
    runners: Mapping[str, Runner],
    *,
    images: int,
    slice_s: float = 0.5,
    rounds: int = 3,
    sync: Runner | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Images per second of each runner, whose calls take `images` images each.

    The runners, warm already, take turns: `rounds` slices each of as many calls as fill `slice_s`, without
    waiting between the calls; all their images by all their time.
    """
    watch = Stopwatch(sync=sync, clock=clock)
    seconds = dict.fromkeys(runners, 0.0)
    with torch.inference_mode():
        calls = {name: _calls(slice_s, watch.seconds(run)) for name, run in runners.items()}
        for round in range(rounds):
            for name in rotated(list(runners), round):
                seconds[name] += watch.seconds(runners[name], calls[name])
    return {name: images * calls[name] * rounds / seconds[name] for name in runners}


def rotated(names: list[str], round: int) -> list[str]:
    """The names in another order each round; every one is first equally often."""
    first = round % max(len(names), 1)
    return names[first:] + names[:first]


def _warm_up(run: Runner, warmup_s: float, watch: Stopwatch) -> int:
    """Call until `warmup_s` have passed, twice at least; how many calls make up one sample."""
    end = watch.now() + warmup_s
    fastest = watch.seconds(run)
    while True:
        fastest = min(fastest, watch.seconds(run))
        if watch.now() >= end:
            return _calls(MIN_SAMPLE_S, fastest)


def _calls(wanted_s: float, call_s: float) -> int:
    """How many calls fill `wanted_s`."""
    return max(1, math.ceil(wanted_s / max(call_s, 1e-6)))
