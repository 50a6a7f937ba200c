"""Timing: all candidates in turn, in one process, so that whatever slows the machine down hits them alike."""

from __future__ import annotations

import contextlib
import gc
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

Runner = Callable[[], object]

MIN_SAMPLE_S = 1e-4  # shorter calls are timed several at once: beside them the clock would be felt
MAX_ROUNDS = 1000


@dataclass(frozen=True)
class Sample:
    """One measured stretch of calls, in seconds: `host` until all work was finished, by the host's clock.

    On a CPU, `cpu` is the processor time that all threads of this process took together. On a GPU, `gpu` is the time
    between two events on the stream, and `enqueue` what passed until the calls had returned.
    """

    host: float
    cpu: float | None = None
    gpu: float | None = None
    enqueue: float | None = None


class Watch:
    """The clocks of a CPU, where a call that has returned is finished: time that passes, and time that is used."""

    def __init__(
        self, now: Callable[[], float] = time.perf_counter, used: Callable[[], float] = time.process_time
    ) -> None:
        self.now = now
        self._used = used

    def sample(self, run: Runner, calls: int = 1) -> Sample:
        """What `calls` calls in a row take."""
        used, start = self._used(), self.now()
        for _ in range(calls):
            run()
        passed = self.now() - start
        return Sample(passed, cpu=self._used() - used)

    def wait(self) -> None:
        """Return when the device has nothing left to do."""

    def warmup(self, budget_s: float) -> tuple[float, float]:
        """After how many seconds, or calls, a runner is warm that is then measured for `budget_s` seconds."""
        return min(0.5, budget_s / 4), math.inf


class CudaWatch(Watch):
    """The clocks of a GPU: events on its current stream, which runtimes with a stream of their own wait for and are
    awaited by, and the host's beside it."""

    def __init__(self, device: torch.device, now: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(now)
        self._device = device

    def sample(self, run: Runner, calls: int = 1) -> Sample:
        """What `calls` calls in a row take, on all three clocks."""
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        stream = torch.cuda.current_stream(self._device)
        self.wait()
        first.record(stream)
        start = self.now()
        for _ in range(calls):
            run()
        returned = self.now()
        last.record(stream)
        self.wait()
        passed = self.now() - start
        return Sample(passed, gpu=first.elapsed_time(last) / 1000, enqueue=returned - start)

    def wait(self) -> None:
        """Return when the GPU has nothing left to do."""
        torch.cuda.synchronize(self._device)

    def warmup(self, budget_s: float) -> tuple[float, float]:
        """2 s or 50 calls, in which clocks rise and libraries choose their kernels."""
        return 2.0, 50


def watch_for(device: torch.device) -> Watch:
    """The clocks of a device."""
    return CudaWatch(device) if device.type == "cuda" else Watch()


@dataclass(frozen=True)
class Series:
    """The samples of one runner, one a round, each of `calls` calls."""

    calls: int = 1
    samples: list[Sample] = field(default_factory=list)

    @property
    def host_ms(self) -> list[float]:
        """Milliseconds per call on the host's clock."""
        return self._per_call([sample.host for sample in self.samples])

    @property
    def cpu_ms(self) -> list[float]:
        """Milliseconds of processor time per call; empty where a GPU computes."""
        return self._per_call([sample.cpu for sample in self.samples])

    @property
    def gpu_ms(self) -> list[float]:
        """Milliseconds per call between the events; empty where there is no GPU."""
        return self._per_call([sample.gpu for sample in self.samples])

    @property
    def enqueue_ms(self) -> list[float]:
        """Milliseconds until a call returned; empty where there is no GPU."""
        return self._per_call([sample.enqueue for sample in self.samples])

    def _per_call(self, seconds: Sequence[float | None]) -> list[float]:
        """To the nanosecond, which is what the clocks know."""
        return [round(1000 * each / self.calls, 6) for each in seconds if each is not None]


def interleave(
    runners: Mapping[str, Runner],
    *,
    watch: Watch | None = None,
    warmup_s: float = 0.3,
    warmup_calls: float = math.inf,
    min_rounds: int = 10,
    budget_s: float = 3.0,
    seed: int = 0,
) -> dict[str, Series]:
    """Milliseconds per call of each runner, one sample a round; samples of the same round belong together.

    Each runner first warms up for `warmup_s` or `warmup_calls`, whichever ends first, but two calls at least. Then come
    rounds of one sample each, in a random order that the next round runs backwards, until `budget_s` have passed, but
    at least `min_rounds` and at most MAX_ROUNDS. Calls below 0.1 ms are timed several at once: their sample is the mean
    of these.
    """
    watch = watch or Watch()
    gc.collect()
    with torch.inference_mode(), _no_collection():
        found = {
            name: Series(_warm_up(run, watch, seconds=warmup_s, calls=warmup_calls)) for name, run in runners.items()
        }
        end = watch.now() + budget_s
        for round, order in enumerate(islice(orders(list(runners), seed), MAX_ROUNDS)):
            if round >= min_rounds and watch.now() >= end:
                break
            for name in order:
                found[name].samples.append(watch.sample(runners[name], found[name].calls))
    return found


def throughput(
    runners: Mapping[str, Runner],
    *,
    images: int,
    watch: Watch | None = None,
    slice_s: float = 0.5,
    rounds: int = 3,
    seed: int = 0,
) -> dict[str, float]:
    """Images per second of each runner, whose calls take `images` images each.

    The runners, warm already, take turns: `rounds` slices each of as many calls as fill `slice_s`, without waiting for
    the device between the calls; all their images by all their time.
    """
    watch = watch or Watch()
    seconds = dict.fromkeys(runners, 0.0)
    with torch.inference_mode(), _no_collection():
        calls = {name: _calls(slice_s, watch.sample(run).host) for name, run in runners.items()}
        for order in islice(orders(list(runners), seed), rounds):
            for name in order:
                seconds[name] += watch.sample(runners[name], calls[name]).host
    return {name: images * calls[name] * rounds / seconds[name] for name in runners}


def transfers(x: Tensor, answer: Tensor, *, watch: Watch, rounds: int = 20) -> dict[str, float]:
    """Median milliseconds of copying `x` to its device and `answer` from there; the host's memory is not pinned."""
    there, back = x.cpu(), answer.to(x.device)
    runners = {"to_device": lambda: there.to(x.device), "from_device": back.cpu}
    found = interleave(runners, watch=watch, warmup_s=0, min_rounds=rounds, budget_s=0)
    return {name: sorted(series.host_ms)[rounds // 2] for name, series in found.items()}


def orders(names: Sequence[str], seed: int) -> Iterator[list[str]]:
    """An order for each round: a random one, then the same backwards, and so on.

    So a steady drift of the machine favours none, and none always runs in the cache that the same other one left.
    """
    generator = random.Random(seed)
    while True:
        order = generator.sample(list(names), len(names))
        yield order
        yield order[::-1]


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage is collected while something is timed."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _warm_up(run: Runner, watch: Watch, *, seconds: float, calls: float) -> int:
    """Call until `seconds` or `calls` have passed, twice at least; how many calls make up one sample."""
    end = watch.now() + seconds
    fastest, done = watch.sample(run).host, 1
    while done < 2 or (watch.now() < end and done < calls):
        fastest = min(fastest, watch.sample(run).host)
        done += 1
    return _calls(MIN_SAMPLE_S, fastest)


def _calls(wanted_s: float, call_s: float) -> int:
    """How many calls fill `wanted_s`."""
    return max(1, math.ceil(wanted_s / max(call_s, 1e-7)))
