"""The benchmark: every candidate at every batch size, in turn, with the same input and the same threads."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chase.artifact import Artifact
from chase.benchmarks.accuracy import Score
from chase.benchmarks.candidates import RIVAL, Candidate, Item, Source, find_candidates
from chase.benchmarks.caveats import refused
from chase.benchmarks.clocks import Trace, gpu_of, throttled
from chase.benchmarks.environment import environment, environment_after
from chase.benchmarks.measure import Entry, measure, open_entry
from chase.benchmarks.memory import resident_peaks
from chase.benchmarks.profile import profile_of
from chase.benchmarks.references import Reference, References
from chase.benchmarks.report import Report, Row
from chase.checkpoint import Network
from chase.data.split import Split
from chase.errors import RecipeError
from chase.runtimes.base import resolve_device, torch_settings

Progress = Callable[[int, int, str], None]


def default_batch_sizes(device: torch.device | str) -> tuple[int, ...]:
    """The batch sizes that are measured where none are named: 1, 2 and 32, and 128 on a GPU."""
    return (1, 2, 32, 128) if torch.device(device).type == "cuda" else (1, 2, 32)


def bench(
    items: Sequence[Item] | Source | str | Path,
    *,
    batch_sizes: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
    threads: int | None = None,
    runtimes: Sequence[str] | None = None,
    data: Split | None = None,
    reference: Reference | Sequence[Reference] = (),
    example: Tensor | None = None,
    budget_s: float = 3.0,
    seed: int = 0,
    tf32: bool = False,
    memory: bool = False,
    profile: bool = False,
    command: Sequence[str] = (),
    on_progress: Progress | None = None,
) -> Report:
    """Latency, throughput, cost and accuracy of each item, and how much faster it is than the dense network.

    An item is a module, a Network, an Artifact, the path of a file, or (label, item). It runs on the runtime
    for its format, or on each of `runtimes` that takes it ("eager+cuda-graph" replays a CUDA graph). All of them are
    timed in turn, in one process, for about `budget_s` seconds each and per batch size (`default_batch_sizes`), on the
    same number of CPU `threads` (None: torch's setting) and on random input drawn from `seed`. What goes into a bare
    module is what goes into the first other item, or `example` [b, c, h, w].

    An item of kind "dense" is the baseline of those with the same runtime and precision; if no item is dense,
    the first one is the baseline of all others. One of kind "rival" is another network beside them: it is no baseline,
    and test images are resized to what it takes (settings: `rival`, `resized_from`).

    Products of fp32 numbers are those unless `tf32` allows a GPU to round their factors; an engine keeps to what it was
    built with.

    Accuracy is measured on `data`, and the answers are compared with those of the network that an artifact came from:
    the item or the `reference` with its parent's hash, or a bare module given as `reference`. With `memory` the peak
    of main memory is measured in a child process for each file (on a GPU it is always known); with `profile` the time
    of every layer is, where the runtime tells. `command` is kept in the report. `on_progress` is told how many steps
    are done, of how many, and which comes next.

    Raises:
        RecipeError: if an argument is wrong or an item cannot run; UnknownName if there is no such runtime.
        CheckpointError: if a file is missing, truncated or foreign.
        MissingDependency: if the device or a runtime is not there.
    """
    place = resolve_device(device)
    if tf32 and place.type != "cuda":
        raise RecipeError(f"TF32 is a mode of NVIDIA GPUs, and this runs on {place}; leave tf32 out")
    sizes = _checked(default_batch_sizes(place) if batch_sizes is None else batch_sizes)
    candidates = _candidates(items, sizes, runtimes=runtimes, example=example)
    step = _steps(len(sizes) + (0 if data is None else len(candidates)) + memory + profile, on_progress)
    references = References(_networks(reference, candidates), data, place)
    with torch_settings(threads, tf32=tf32), contextlib.ExitStack() as stack, Trace(gpu_of(place)[0]) as trace:
        before = environment(place)
        entries = [open_entry(candidate, place, stack) for candidate in candidates]
        scores = [_score(entry, references, data, step) for entry in entries]
        if memory:
            step("memory")
            entries = [_with_memory(entry, sizes) for entry in entries]
        rows: list[Row] = []
        for size in sizes:
            step(f"batch size {size}")
            rows += _rows(entries, scores, size, trace=trace, budget_s=budget_s, seed=seed)
        after = environment_after(before)
    profiles: dict[str, tuple[dict[str, Any], ...]] = {}
    if profile:
        step("layers")
        with torch_settings(tf32=tf32):
            profiles = _profiles(candidates, place, sizes, threads)
    step("done")
    return Report(
        environment=after,
        rows=tuple(_with_gaps(row, candidates, sizes) for row in rows),
        clocks=tuple(trace.samples),
        profiles=profiles,
        command=tuple(command),
    )


def _checked(batch_sizes: Sequence[int]) -> tuple[int, ...]:
    if not batch_sizes:
        raise RecipeError("there is no batch size to measure; 1, 2 and 32 are usual")
    for batch_size in batch_sizes:
        if batch_size < 1:
            raise RecipeError(f"batch size {batch_size} is below 1; 1, 2 and 32 are usual")
    return tuple(batch_sizes)


def _candidates(items: Sequence[Item] | Source | str | Path, sizes: Sequence[int], **given: Any) -> list[Candidate]:
    """What is measured, each of which takes one of the batch sizes at least; `given` are those of `find_candidates`."""
    if isinstance(items, (str, Path, nn.Module, Artifact, Network)):
        items = [items]
    candidates = find_candidates(items, **given)
    for candidate in candidates:
        if not any(candidate.takes(size) for size in sizes):
            raise RecipeError(f"{candidate.label} is {refused(candidate, sizes)}")
    return candidates


def _networks(reference: Reference | Sequence[Reference], candidates: Sequence[Candidate]) -> list[Reference]:
    """The networks that artifacts may have come from: those that are given, then those that are measured."""
    given = [reference] if isinstance(reference, (nn.Module, Network)) else list(reference)
    return [*given, *(each.source for each in candidates if isinstance(each.source, Network))]


def _steps(total: int, on_progress: Progress | None) -> Callable[[str], None]:
    """A function to call before each step, with its name."""
    done = count()

    def step(name: str) -> None:
        if on_progress:
            on_progress(next(done), total, name)

    return step


def _score(entry: Entry, references: References, data: Split | None, step: Callable[[str], None]) -> Score:
    if data is not None:
        step(f"accuracy of {entry.candidate.title}")
    return references.score(entry.candidate, entry.runtime)


def _with_memory(entry: Entry, sizes: Sequence[int]) -> Entry:
    """The entry with what it takes of main memory, if it is a file and runs on the CPU."""
    candidate, taken = entry.candidate, [size for size in sizes if entry.candidate.takes(size)]
    if entry.memory or isinstance(candidate.source, nn.Module) or not taken:
        return entry
    peaks = resident_peaks(
        candidate.source.path, runtime=candidate.runtime, batch_sizes=taken, threads=torch.get_num_threads()
    )
    return dataclasses.replace(entry, resident=peaks)


def _rows(
    entries: Sequence[Entry],
    scores: Sequence[Score],
    batch_size: int,
    *,
    trace: Trace,
    budget_s: float,
    seed: int,
) -> list[Row]:
    """The rows of one batch size: of all entries that were made for it."""
    able = [(entry, score) for entry, score in zip(entries, scores, strict=True) if entry.candidate.takes(batch_size)]
    if not able:
        return []
    since = trace.now()
    found = measure([entry for entry, _ in able], batch_size, budget_s=budget_s, seed=seed)
    if (hot := throttled(trace.samples, since)) is not None:
        found = [facts | {"warnings": (*facts["warnings"], hot)} for facts in found]
    return [_row(entry, score, facts) for (entry, score), facts in zip(able, found, strict=True)]


def _with_gaps(row: Row, candidates: Sequence[Candidate], sizes: Sequence[int]) -> Row:
    """The row with a caveat that names the batch sizes at which there is none of its artifact."""
    candidate = next(each for each in candidates if (each.label, each.runtime) == (row.artifact, row.runtime))
    gaps = [size for size in sizes if not candidate.takes(size)]
    return dataclasses.replace(row, warnings=(*row.warnings, refused(candidate, gaps))) if gaps else row


def _row(entry: Entry, score: Score, measured: dict[str, Any]) -> Row:
    candidate = entry.candidate
    warnings = measured["warnings"]
    if not score.finite:
        warnings = (*warnings, "some answers to the test images are not finite numbers; verify the file")
    names = ("accuracy", "top5", "agreement", "flipped", "worst_logit_error", "reference_accuracy")
    return Row(
        artifact=candidate.label,
        runtime=candidate.runtime,
        provider=entry.runtime.provider,
        precision=candidate.precision,
        device=str(entry.runtime.device),
        macs=candidate.macs,
        params=candidate.params,
        size_bytes=candidate.size_bytes,
        compressed_bytes=candidate.compressed_bytes,
        accuracy_reason=score.reason,
        **{name: getattr(score, name) for name in names},
        **(measured | {"warnings": warnings, "settings": measured["settings"] | _standing(candidate, score)}),
    )


def _standing(candidate: Candidate, score: Score) -> dict[str, Any]:
    """What the settings of a rival's row say beside how it was made."""
    if candidate.kind != RIVAL:
        return {}
    return {"rival": True} | ({"resized_from": list(score.resized_from)} if score.resized_from else {})


def _profiles(
    candidates: Sequence[Candidate], device: torch.device, sizes: Sequence[int], threads: int | None
) -> dict[str, tuple[dict[str, Any], ...]]:
    """Where the time of each candidate goes at its smallest batch size, by its label, where its runtime tells."""
    found: dict[str, tuple[dict[str, Any], ...]] = {}
    for candidate in candidates:
        if candidate.label not in found:
            smallest = min(size for size in sizes if candidate.takes(size))
            layers = profile_of(candidate, device, batch_size=smallest, threads=threads)
            found |= {candidate.label: tuple(layers)} if layers else {}
    return found
