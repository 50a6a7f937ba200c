"""Measure: all candidates at one batch size, in turn, on the same random input."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from chase.benchmarks.candidates import GRAPH, Candidate, baselines
from chase.benchmarks.caveats import BUSY, caveats, launches
from chase.benchmarks.memory import GpuMemory
from chase.benchmarks.statistics import speedup
from chase.benchmarks.timing import Series, Watch, interleave, throughput, transfers, watch_for
from chase.errors import RecipeError, reason
from chase.runtimes import Runtime
from chase.runtimes.base import tf32_allowed

Found = dict[str, Any]
"""Fields of a row."""


@dataclass(frozen=True)
class Entry:
    """A candidate that is open, with what it takes of a GPU and, by batch size, of main memory."""

    candidate: Candidate
    runtime: Runtime
    memory: GpuMemory | None = None
    resident: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Ready:
    """An entry with its input at one batch size, after its first call."""

    entry: Entry
    x: Tensor
    answer: Tensor
    first_call_ms: float

    @property
    def run(self) -> Callable[[], Tensor]:
        """One call."""
        return partial(self.entry.runtime.run, self.x)


def open_entry(candidate: Candidate, device: torch.device, stack: contextlib.ExitStack) -> Entry:
    """The candidate on its runtime, which `stack` will close."""
    if device.type != "cuda":
        return Entry(candidate, stack.enter_context(candidate.open(device)))
    memory = GpuMemory(device)
    with memory.watched():
        runtime = stack.enter_context(candidate.open(device))
    return Entry(candidate, runtime, memory)


def measure(entries: Sequence[Entry], batch_size: int, *, budget_s: float, seed: int) -> list[Found]:
    """What was measured of each entry at one batch size, all in turn, for about `budget_s` seconds each.

    Raises:
        RecipeError: if one of them cannot run it.
    """
    device = entries[0].runtime.device
    watch = watch_for(device)
    ready = {str(position): _ready(entry, batch_size, seed, watch) for position, entry in enumerate(entries)}
    runners = {name: each.run for name, each in ready.items()}
    warmup_s, warmup_calls = watch.warmup(budget_s)
    series = interleave(
        runners,
        watch=watch,
        warmup_s=warmup_s,
        warmup_calls=warmup_calls,
        budget_s=budget_s * len(entries),
        seed=seed,
    )
    speeds = throughput(runners, images=batch_size, watch=watch, slice_s=budget_s / 10, seed=seed)
    against = _speedups(entries, list(series.values()), seed)
    return [
        _found(ready[name], series[name], watch, batch_size=batch_size, throughput=speeds[name], speedup_vs_dense=each)
        for name, each in zip(runners, against, strict=True)
    ]


def _ready(entry: Entry, batch_size: int, seed: int, watch: Watch) -> Ready:
    """An entry whose first call on random input has worked.

    Raises:
        RecipeError: if it did not.
    """
    device, candidate = entry.runtime.device, entry.candidate
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch_size, *candidate.input_shape, generator=generator).to(device)
    x = candidate.artifact.encode(x) if candidate.artifact else x
    answers: list[Tensor] = []
    try:
        with entry.memory.watched() if entry.memory else contextlib.nullcontext():
            first = watch.sample(lambda: answers.append(entry.runtime.run(x)))
    except RecipeError as error:
        raise RecipeError(f"{candidate.label}: {error}") from error
    except RuntimeError as error:  # too little memory, most of all
        raise RecipeError(f"{candidate.title} cannot run {list(x.shape)}: {reason(error)}") from error
    return Ready(entry, x, answers[0], 1000 * first.host)


def _speedups(entries: Sequence[Entry], series: Sequence[Series], seed: int) -> list[Found | None]:
    """How much faster each entry is than its baseline; None for a baseline."""
    candidates = [entry.candidate for entry in entries]
    found: list[Found | None] = []
    for position, partner in enumerate(baselines(candidates)):
        if partner is None:
            found.append(None)
            continue
        clock, base, own = clocks(series[partner], series[position], torch.get_num_threads())
        ratio = _mac_ratio(candidates[partner], candidates[position])
        facts = {"clock": clock, "baseline": candidates[partner].label, "mac_ratio": ratio}
        found.append({**speedup(base, own, seed=seed), **facts})
    return found


def clocks(baseline: Series, series: Series, threads: int) -> tuple[str, list[float], list[float]]:
    """The clock by which two series are to be compared, "cpu" or "host", and their samples on it.

    Processor time does not count what other programs do, and so is the fair clock wherever it is the same as the
    time of an undisturbed call: on a CPU, if one thread computes. Several threads use more of it than passes.
    """
    both = (baseline, series)
    if threads == 1 and all(_one_thread(each) for each in both):
        return "cpu", baseline.cpu_ms, series.cpu_ms
    return "host", baseline.host_ms, series.host_ms


def _one_thread(series: Series) -> bool:
    """Whether no more than one core was ever in use, as it must be if processor time is to stand for time."""
    pairs = list(zip(series.cpu_ms, series.host_ms, strict=bool(series.cpu_ms)))
    return bool(pairs) and min(series.cpu_ms) > 0 and sum(cpu <= BUSY * host for cpu, host in pairs) > len(pairs) / 2


def _mac_ratio(baseline: Candidate, candidate: Candidate) -> float | None:
    """How many times more MACs the baseline executes."""
    more, fewer = (each.macs.get("gpu_supported") for each in (baseline, candidate))
    return more / fewer if more and fewer else None


def _found(ready: Ready, series: Series, watch: Watch, *, batch_size: int, **measured: Any) -> Found:
    """The fields of a row that were measured."""
    entry, on_gpu, threads = ready.entry, bool(series.gpu_ms), torch.get_num_threads()
    transfer_ms = transfers(ready.x, ready.answer, watch=watch) if on_gpu else None
    resident = entry.resident.get(batch_size)
    return {
        "batch_size": batch_size,
        "samples_ms": tuple(series.host_ms),
        "first_call_ms": ready.first_call_ms,
        "cpu_ms": tuple(series.cpu_ms) or None,
        "gpu_ms": tuple(series.gpu_ms) or None,
        "enqueue_ms": tuple(launches(series, entry.candidate) or ()) or None,
        "transfer_ms": transfer_ms,
        "peak_memory_bytes": entry.memory.peak_bytes if entry.memory else resident,
        "warnings": caveats(series, entry.candidate, entry.runtime, transfer_ms=transfer_ms, threads=threads),
        "settings": _settings(entry.candidate, series, threads),
        **measured,
    }


def _settings(candidate: Candidate, series: Series, threads: int) -> Found:
    """What was chosen, for the file and for the measurement."""
    made = candidate.artifact.settings if candidate.artifact else {}
    return {
        **made,
        "threads": threads,
        "tf32": bool(made.get("tf32", tf32_allowed())),
        "cuda_graph": candidate.runtime.endswith(GRAPH),
        "calls_per_sample": series.calls,
    }
