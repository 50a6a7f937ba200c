"""The benchmark: every candidate at every batch size, in turn, with the same input and the same threads."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chase.artifact import Artifact
from chase.benchmarks.accuracy import accuracy
from chase.benchmarks.candidates import Candidate, Item, Source, baselines, find_candidates
from chase.benchmarks.environment import environment
from chase.benchmarks.report import Report, Row
from chase.benchmarks.statistics import speedup
from chase.benchmarks.timing import Runner, interleave, throughput
from chase.checkpoint import Network
from chase.data.split import Split
from chase.errors import RecipeError
from chase.runtimes import Runtime, open_runtime
from chase.runtimes.base import reason, resolve_device, torch_settings

Progress = Callable[[int, int, str], None]
Score = tuple[float | None, str | None]  # accuracy in percent, or why there is none


@dataclass(frozen=True)
class _Entry:
    """A candidate that is ready to run."""

    candidate: Candidate
    runtime: Runtime

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"{self.candidate.label} on {self.candidate.runtime}"


def bench(
    items: Sequence[Item] | Source | str | Path,
    *,
    batch_sizes: Sequence[int] = (1, 2, 32),
    device: torch.device | str = "cpu",
    threads: int | None = None,
    runtimes: Sequence[str] | None = None,
    data: Split | None = None,
    example: Tensor | None = None,
    budget_s: float = 3.0,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> Report:
    """Latency, throughput, cost and accuracy of each item, and how much faster it is than the dense network.

    An item is a module, a Network, an Artifact, the path of a file, or (label, item). It runs on the runtime
    for its format, or on each of `runtimes` that takes it. All of them are timed in turn, in one process, for
    about `budget_s` seconds each and per batch size, on the same number of CPU `threads` (None: torch's
    setting) and on random input drawn from `seed`. What goes into a bare module is what goes into the first
    other item, or `example` [b, c, h, w].

    An item of kind "dense" is the baseline of those with the same runtime and precision; if no item is dense,
    the first one is the baseline of all others. Accuracy is top-1 on `data`. `on_progress` is told how many
    steps are done, of how many, and which comes next.

    Raises:
        RecipeError: if an argument is wrong or an item cannot run; UnknownName if there is no such runtime.
        CheckpointError: if a file is missing, truncated or foreign.
        MissingDependency: if the device or a runtime is not there.
    """
    if isinstance(items, (str, Path, nn.Module, Artifact, Network)):
        items = [items]
    for batch_size in batch_sizes:
        if batch_size < 1:
            raise RecipeError(f"batch size {batch_size} is below 1; 1, 2 and 32 are usual")
    device = resolve_device(device)
    candidates = find_candidates(items, runtimes=runtimes, example=example)
    step = _steps(len(batch_sizes) + (0 if data is None else len(candidates)), on_progress)
    with torch_settings(threads), contextlib.ExitStack() as stack:
        entries = [_open(candidate, device, stack) for candidate in candidates]
        scores = [_score(entry, data, step) for entry in entries]
        rows = []
        for batch_size in batch_sizes:
            step(f"batch size {batch_size}")
            rows += _measure(entries, scores, batch_size, budget_s=budget_s, seed=seed)
        found = environment()
    step("done")
    return Report(environment=found, rows=tuple(rows))


def _steps(total: int, on_progress: Progress | None) -> Callable[[str], None]:
    """A function to call before each step, with its name."""
    done = count()

    def step(name: str) -> None:
        if on_progress:
            on_progress(next(done), total, name)

    return step


def _open(candidate: Candidate, device: torch.device, stack: contextlib.ExitStack) -> _Entry:
    runtime = open_runtime(candidate.source, runtime=candidate.runtime, device=device)
    return _Entry(candidate, stack.enter_context(runtime))


def _score(entry: _Entry, data: Split | None, step: Callable[[str], None]) -> Score:
    if data is None:
        return None, "no data was given"
    step(f"accuracy of {entry.title}")
    if (given := next(iter(data.batches(1)))[0].shape[1:]) != entry.candidate.input_shape:
        return None, f"the data are {list(given)}, the network takes {list(entry.candidate.input_shape)}"
    return accuracy(entry.runtime, data), None


def _measure(
    entries: Sequence[_Entry], scores: Sequence[Score], batch_size: int, *, budget_s: float, seed: int
) -> list[Row]:
    """The rows of one batch size."""
    runners = {str(position): _runner(entry, batch_size, seed) for position, entry in enumerate(entries)}
    sync = torch.cuda.synchronize if entries[0].runtime.device.type == "cuda" else None
    warmup_s, total_s = min(0.5, budget_s / 4), budget_s * len(entries)
    samples = interleave(runners, warmup_s=warmup_s, budget_s=total_s, sync=sync)
    speeds = throughput(runners, images=batch_size, slice_s=budget_s / 10, sync=sync)
    partners = baselines([entry.candidate for entry in entries])
    rows = []
    for name, entry, partner, score in zip(runners, entries, partners, scores, strict=True):
        against = None if partner is None else speedup(samples[str(partner)], samples[name], seed=seed)
        measured = {"samples_ms": tuple(samples[name]), "throughput": speeds[name]}
        rows.append(_row(entry, score, batch_size=batch_size, speedup_vs_dense=against, **measured))
    return rows


def _runner(entry: _Entry, batch_size: int, seed: int) -> Runner:
    """A call of the runtime on random input, which has worked once.

    Raises:
        RecipeError: if it does not work.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch_size, *entry.candidate.input_shape, generator=generator).to(entry.runtime.device)
    try:
        entry.runtime.run(x)
    except RuntimeError as error:
        raise RecipeError(f"{entry.title} cannot run {list(x.shape)}: {reason(error)}") from error
    return partial(entry.runtime.run, x)


def _row(entry: _Entry, score: Score, **measured: Any) -> Row:
    candidate = entry.candidate
    return Row(
        artifact=candidate.label,
        runtime=entry.runtime.name,
        provider=entry.runtime.provider,
        precision=candidate.precision,
        device=str(entry.runtime.device),
        macs=candidate.macs,
        params=candidate.params,
        size_bytes=candidate.size_bytes,
        accuracy=score[0],
        accuracy_reason=score[1],
        agreement=candidate.agreement,
        **measured,
    )
