"""Comparison: what was measured in several runs, side by side, and which differences are real.

Rows are the same if their artifact, runtime, precision and batch size are. Samples of two runs are not paired, and
those of one run say nothing of how the next run would differ: another process has other memory, other neighbours
and another clock. So an interval is first taken of each median from stretches of neighbouring samples, and then widened
by what a network that did not change differs by: at least RUN_MARGIN, and more where the dense network, which both
runs measured, says more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chase.benchmarks.caveats import BUSY
from chase.benchmarks.report import Report, Row
from chase.benchmarks.statistics import stretches, verdict
from chase.errors import RecipeError

RUN_MARGIN = 0.1  # what twelve runs of one network on a shared machine lay apart, by medians of processor time
Key = tuple[str, str, str, int]

MACHINE = ("cpu", "cpu_governor", "cpu_limit", "cores", "threads", "torch")
GPU = ("name", "driver", "cuda", "cudnn")
PACKAGES = ("onnxruntime", "openvino", "executorch", "tensorrt", "tensorrt_rtx")
"""What must be alike in two environments: the machine, its GPU, and the packages whose runtimes were used."""

CONDITIONS = ("threads", "tf32", "cuda_graph")
"""Settings of a row that are no property of the file."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One row of the first run beside that of another `run`.

    `medians_ms` are those of both on `clock` ("cpu" for processor time, else "host"), `ratio` is how many times faster
    the second is by them, `ci95` its widened 95 % interval and `verdict` what that says: "faster", "slower" or "no
    difference".
    """

    run: str
    before: Row
    after: Row
    clock: str
    medians_ms: tuple[float, float]
    ci95: tuple[float, float]
    verdict: str

    @property
    def ratio(self) -> float:
        """How many times faster the second is."""
        return self.medians_ms[0] / self.medians_ms[1]

    @property
    def accuracy_points(self) -> float | None:
        """Top-1 accuracy gained, in points; None where one of them has none."""
        if self.before.accuracy is None or self.after.accuracy is None:
            return None
        return self.after.accuracy - self.before.accuracy


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Several runs against the first one.

    `unlike` says in words how the environments differ, `drift` by how much an interval was widened, for each run,
    and `unmatched` names the rows that the first run and another do not share.
    """

    first: str
    changes: tuple[Change, ...]
    unlike: tuple[str, ...]
    drift: Mapping[str, float]
    unmatched: tuple[str, ...]


def compare(reports: Mapping[str, Report], *, anyway: bool = False) -> Comparison:
    """All reports, by the name of their run, against the first.

    Raises:
        RecipeError: if there are fewer than two, if they share no row, or if they come from unlike environments and
            not `anyway`.
    """
    if len(reports) < 2:
        raise RecipeError(f"{len(reports)} run cannot be compared; name two or more")
    (first, base), *others = reports.items()
    unlike = {name: differences(base, other) for name, other in others}
    said = tuple(f"{name}: {words}" for name, found in unlike.items() for words in found)
    if said and not anyway:
        raise RecipeError(f"not measured alike with {first}: {'; '.join(said)}; pass --anyway to compare all the same")
    changes: list[Change] = []
    drifts, unmatched = dict[str, float](), list[str]()
    for name, other in others:
        pairs = _pairs(base, other)
        if not pairs:
            raise RecipeError(f"{first} and {name} measured nothing in common; run `chase bench` on the same artifacts")
        # Between two machines the dense network differs, too, and that is what `anyway` wants to see.
        drifts[name] = RUN_MARGIN if unlike[name] else drift(pairs.values())
        changes += [_change(name, *pair, drifts[name]) for pair in pairs.values()]
        unmatched += _unmatched(first, base, pairs) + _unmatched(name, other, pairs)
    rest = tuple(dict.fromkeys(unmatched))
    return Comparison(first=first, changes=tuple(changes), unlike=said, drift=drifts, unmatched=rest)


def differences(first: Report, second: Report) -> list[str]:
    """How the environments of two reports, and the conditions of the rows they share, differ; in words."""
    pairs = _pairs(first, second)
    runtimes = {before.runtime for before, _ in pairs.values()}
    ours, theirs = (_machine(report.environment, runtimes) for report in (first, second))
    found = [f"{name} is {theirs[name]}, not {ours[name]}" for name in ours if ours[name] != theirs[name]]
    for before, after in pairs.values():
        mine, other = _conditions(before), _conditions(after)
        different = [name for name in mine if mine[name] != other[name]]
        found += [f"{name} of {before.runtime} is {other[name]}, not {mine[name]}" for name in different]
    return list(dict.fromkeys(found))


def _machine(environment: Mapping[str, Any], runtimes: set[str]) -> dict[str, Any]:
    used = [name for name in PACKAGES if any(_normal(runtime).startswith(name) for runtime in runtimes)]
    gpu = environment.get("gpu") or {}
    facts = {name: environment.get(name) for name in (*MACHINE, *used)}
    return facts | {f"gpu {name}": gpu.get(name) for name in GPU}


def _normal(runtime: str) -> str:
    return runtime.replace("-", "_")


def _conditions(row: Row) -> dict[str, Any]:
    return {"provider": row.provider, "device": row.device} | {name: row.settings.get(name) for name in CONDITIONS}


def drift(pairs: Iterable[tuple[Row, Row]]) -> float:
    """How far medians of a network that did not change lie apart, as a share; at least RUN_MARGIN.

    Such a network is one with nothing removed, and with the same MACs, in both runs.
    """
    apart = [RUN_MARGIN]
    for before, after in pairs:
        macs = before.macs
        if macs and macs == after.macs and macs["gpu_supported"] == macs["dense"]:
            first, second = (float(np.median(samples)) for samples in clocks(before, after)[1:])
            ratio = first / second
            apart.append(max(ratio, 1 / ratio) - 1)
    return max(apart)


def median_interval(samples_ms: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the median, in ms."""
    low, high = np.percentile(_medians(samples_ms, seed=0), [2.5, 97.5])
    return float(low), float(high)


def clocks(before: Row, after: Row) -> tuple[str, Sequence[float], Sequence[float]]:
    """The clock by which two rows are compared, "cpu" or "host", and their samples on it, in ms.

    Processor time does not count what other programs do; it stands for time where one thread computed.
    """
    used = (before.cpu_ms, after.cpu_ms)
    if used[0] and used[1] and _one_thread(before) and _one_thread(after):
        return "cpu", used[0], used[1]
    return "host", before.samples_ms, after.samples_ms


def _one_thread(row: Row) -> bool:
    """Whether processor time is the time of an undisturbed call, as where speed-ups are measured."""
    pairs = list(zip(row.cpu_ms or (), row.samples_ms, strict=True))
    fitting = sum(0 < used <= BUSY * passed for used, passed in pairs)
    return row.settings.get("threads") == 1 and 2 * fitting > len(pairs)


def _medians(samples_ms: Sequence[float], *, seed: int) -> NDArray[np.float64]:
    """Medians of samples drawn anew [RESAMPLES], in blocks of √n successive ones, since neighbours are alike."""
    values = np.asarray(samples_ms, dtype=np.float64)
    positions = stretches(len(values), math.ceil(math.sqrt(len(values))), seed)
    medians: NDArray[np.float64] = np.median(values[positions], axis=1)
    return medians


def _change(run: str, before: Row, after: Row, drift: float) -> Change:
    clock, ours, theirs = clocks(before, after)
    low, high = np.percentile(_medians(ours, seed=0) / _medians(theirs, seed=1), [2.5, 97.5])
    interval = (float(low) / (1 + drift), float(high) * (1 + drift))
    middle, said = (float(np.median(ours)), float(np.median(theirs))), verdict(*interval)
    return Change(run=run, before=before, after=after, clock=clock, medians_ms=middle, ci95=interval, verdict=said)


def _pairs(first: Report, second: Report) -> dict[Key, tuple[Row, Row]]:
    """The rows that both have, in the order of the first."""
    ours, theirs = _keyed(first), _keyed(second)
    return {key: (row, theirs[key]) for key, row in ours.items() if key in theirs}


def _keyed(report: Report) -> dict[Key, Row]:
    """The rows by what is the same in another run: file names without folders, unless these are needed."""
    names = {row.artifact: row.artifact.replace("\\", "/").rsplit("/", 1)[-1] for row in report.rows}
    if len(set(names.values())) < len(names):
        names = {name: name for name in names}
    return {(names[row.artifact], row.runtime, row.precision, row.batch_size): row for row in report.rows}


def _unmatched(name: str, report: Report, pairs: Mapping[Key, Any]) -> list[str]:
    return [
        f"{name}: {artifact} on {runtime}, {precision}, batch size {batch}"
        for artifact, runtime, precision, batch in (key for key in _keyed(report) if key not in pairs)
    ]
