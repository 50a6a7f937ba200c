"""chase bench: measure artifacts, dense and slim interleaved in one process."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chase.cli.console import Console, millions, percent
from chase.cli.options import BatchSizesOption, DeviceOption, ImagesOption, SecondsOption
from chase.errors import RecipeError

if TYPE_CHECKING:
    from chase.artifact import Artifact
    from chase.benchmarks import Report, Row
    from chase.checkpoint import Network
    from chase.cli.rivals import Rivals
    from chase.data import Split
    from chase.run import Run

BASELINES = ("dense", "none")
UNTRAINED = "the dense twin is untrained, here for speed alone; `chase run` with training.dense_twin=true trains it"


@dataclass(frozen=True)
class Measuring:
    """How to measure: batch sizes (None: the usual ones), runtimes (None: the format's own), device, CPU threads,
    seconds per artifact and batch size, what else to find out, and which other networks to measure beside.

    Raises:
        RecipeError: if a number is out of range, which must not show only after a training.
    """

    batch_sizes: tuple[int, ...] | None = None
    runtimes: list[str] | None = None
    device: str = "auto"
    threads: int = 1
    seconds: float = 2.0
    memory: bool = False
    profile: bool = False
    compare: list[str] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.seconds < math.inf:
            raise RecipeError(f"--seconds must be above 0, not {self.seconds}")
        if self.batch_sizes and min(self.batch_sizes) < 1:
            raise RecipeError(f"--batch-size must be at least 1, not {min(self.batch_sizes)}")

    def settings(self) -> dict[str, Any]:
        """As the manifest states them."""
        return asdict(self) | {"batch_sizes": self.batch_sizes and list(self.batch_sizes)}


def command(
    ctx: typer.Context,
    artifacts: Annotated[
        list[Path] | None, typer.Argument(help="Default: all the run exported, and its dense twin.")
    ] = None,
    batch_size: BatchSizesOption = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option("--runtime", help="Repeatable; one of `chase doctor`, as eager, compiled or eager+cuda-graph."),
    ] = None,
    against: Annotated[str, typer.Option("--against", help="dense, or none.")] = "dense",
    device: DeviceOption = "auto",
    threads: Annotated[int, typer.Option("--threads", help="CPU threads; 1 is steadiest on a busy machine.")] = 1,
    seconds: SecondsOption = 2.0,
    compare: Annotated[
        list[str] | None,
        typer.Option("--compare", help="Also torchvision:resnet34, self@160, dense@160 or a file; repeatable."),
    ] = None,
    data: ImagesOption = None,
    max_accuracy_drop: Annotated[
        float, typer.Option("--max-accuracy-drop", help="Points below its fp32 network; beyond it, exit 3.")
    ] = 0.5,
    memory: Annotated[bool, typer.Option("--memory", help="Also the peak of main memory of each file.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Also the time of every layer.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Default: bench.json in the run.")] = None,
) -> None:
    """Measure latency, throughput and accuracy, and say whether slim is faster than dense."""
    from chase.benchmarks.gate import check_accuracy
    from chase.cli.explain import explainer, warn
    from chase.run import current

    console: Console = ctx.obj
    _check(console, artifacts or (), against, max_accuracy_drop)
    sizes = tuple(batch_size) if batch_size else None
    how = Measuring(sizes, runtime, device, threads, seconds, memory=memory, profile=profile, compare=compare)
    if artifacts:
        paths, target = {str(path): path for path in artifacts}, out or Path("bench.json")
        report = named(console, artifacts, how, data=data)
    else:
        run = current(console.run)
        paths, target = {f"slim {path.name}": path for path in run.artifacts()}, out or run.bench
        report = stage(console, run, how, against=against, data=data)
    report.save(target)
    if not artifacts and out is None:
        record(run, how)
    show(console, report)
    warn(console, report)
    console.say(f"{target}: raw samples, statistics and environment")
    console.result(report.to_dict())
    check_accuracy(report, max_drop=max_accuracy_drop, explain=explainer(paths, data))


def _check(console: Console, artifacts: Iterable[Path], against: str, max_accuracy_drop: float) -> None:
    """Refuse what cannot be measured, before anything is."""
    from chase.cli.explain import warn_if_changed
    from chase.errors import UnknownName
    from chase.registry import did_you_mean
    from chase.runtimes import load_source

    if against not in BASELINES:
        raise UnknownName(f"--against: nothing named {against!r}; {did_you_mean(against, BASELINES)}")
    if not max_accuracy_drop >= 0:
        raise RecipeError(f"--max-accuracy-drop must be at least 0, not {max_accuracy_drop}")
    for path in artifacts:
        warn_if_changed(console, load_source(path))


def named(console: Console, artifacts: list[Path], how: Measuring, *, data: str | None) -> Report:
    """Measure files by name."""
    from chase.cli import rivals

    others = rivals.named(how.compare or (), like=artifacts[0])
    items = [(str(path), path) for path in artifacts]
    return measure(console, items, how, rivals=others, data=_test_split(console, artifacts[0], data))


def record(run: Run, how: Measuring) -> None:
    """Enter bench.json in the run's manifest, with what was measured in it."""
    run.record(run.bench, parents=[run.slim, *run.artifacts(), *run.dense.artifacts()], **how.settings())


def stage(console: Console, run: Run, how: Measuring, *, against: str = "dense", data: str | None = None) -> Report:
    """Measure all that a run exported, beside its dense twin exported the same way."""
    from chase.cli import rivals
    from chase.errors import CheckpointError
    from chase.twin import write_dense

    exported = run.artifacts()
    if not run.slim.is_file() or not exported:
        missing = "slim.pt; run `chase slim`" if not run.slim.is_file() else "exported artifact; run `chase export`"
        raise CheckpointError(f"{run.folder} has no {missing} first")
    items = [(f"slim {path.name}", path) for path in [run.slim, *exported]]
    others = rivals.made(console, run, how.compare or (), exported=exported, data=data)
    trained = True
    if against == "dense":
        dense = write_dense(run)
        trained = bool(run.entries()["dense/dense.pt"]["trained"])
        twins = export_like(console, dense, exported, data)
        items += [("dense dense.pt", dense), *((f"dense {path.name}", path) for path in twins)]
    others = replace(others, items=_runnable(console, others.items, how.device))
    report = measure(
        console,
        _runnable(console, items, how.device),
        how,
        rivals=others,
        data=_test_split(console, run.slim, data),
    )
    twin = frozenset() if trained else frozenset(label for label, _ in items if label.startswith("dense "))
    return rivals.without_accuracy(report, twin, UNTRAINED)


def export_like(
    console: Console, network: Path, artifacts: list[Path], data: str | None, prefix: str = ""
) -> list[Path]:
    """A network exported as each of some artifacts was, to a file of the same name beside it."""
    from chase.artifact import Artifact
    from chase.cli import export
    from chase.run import Run

    twins = []
    for path in artifacts:
        twins.append(twin := network.with_name(prefix + path.name))
        made = Artifact.load(path)
        if not Run(network.parent).is_current(twin) or not alike(Artifact.load(twin), made):
            export.stage(console, network, made.format, twin, export.like(made, data))
    return twins


def _runnable(console: Console, items: Iterable[tuple[str, Path]], device: str) -> tuple[tuple[str, Path], ...]:
    """The items whose runtime is there, with a line for each that is left out."""
    from chase.errors import MissingDependency
    from chase.runtimes import open_runtime
    from chase.training import resolve_device

    found = []
    for label, path in items:
        try:
            with open_runtime(path, device=resolve_device(device)):
                found.append((label, path))
        except MissingDependency as error:
            console.say(f"{label} is not measured: {error}")
    return tuple(found)


def alike(first: Artifact, second: Artifact) -> bool:
    """Whether two files were made in the same way, so that they can be compared."""
    return all(
        getattr(first, name) == getattr(second, name) for name in ("format", "precision", "preprocessing", "settings")
    )


def measure(
    console: Console, items: Iterable[tuple[str, Path]], how: Measuring, *, rivals: Rivals, data: Split | None
) -> Report:
    """Run the benchmark with a progress bar."""
    from chase.benchmarks import bench
    from chase.benchmarks.rivals import as_rival
    from chase.cli import rivals as others
    from chase.training import resolve_device

    own = list(items)
    with console.progress("measuring") as advance:
        report = bench(
            [*own, *((label, as_rival(path)) for label, path in rivals.items)],
            batch_sizes=how.batch_sizes,
            device=resolve_device(how.device),
            threads=how.threads,
            runtimes=how.runtimes,
            data=data,
            reference=parents(path for _, path in [*own, *rivals.items]),
            budget_s=how.seconds,
            memory=how.memory,
            profile=how.profile,
            command=sys.argv,
            on_progress=lambda done, total, step: advance(done, total),
        )
    return others.without_accuracy(report, rivals.untrained, others.UNTRAINED)


def parents(paths: Iterable[Path]) -> list[Network]:
    """The networks that lie beside exported files, from which these may have come."""
    from chase.checkpoint import load_network

    beside = dict.fromkeys(path.with_name(name) for path in paths for name in ("slim.pt", "dense.pt"))
    return [load_network(path) for path in beside if path.is_file()]


def _test_split(console: Console, path: Path, data: str | None) -> Split | None:
    """The test images for accuracy, or None with a line that says why there are none."""
    from chase.cli.images import splits
    from chase.errors import DataError

    try:
        return splits(path, data)[1]
    except (DataError, RecipeError) as error:
        if data is not None:
            raise
        console.say(f"accuracy is not measured: {error}")
        return None


def show(console: Console, report: Report) -> None:
    """The tables: what each artifact costs, and how fast it is."""
    first = {row.artifact: row for row in report.rows}
    columns = ("artifact", "accuracy", "theoretical", "supported", "share", "nonzero", "stored", "MB")
    title = "test accuracy, MACs per image (GPU-supported: share of dense), parameters, size"
    console.table(title, columns, [_cost(row) for row in first.values()])
    threads, cpu = report.environment["threads"], report.environment["cpu"]
    wide = ("artifact", "runtime", "batch", "p50", "p90", "images/s", "speed-up (95 %)", "verdict")
    title = f"speed on {cpu}, CPU threads: {threads}; p50 and p90 in ms, speed-up over dense"
    console.table(title, wide, [_speed(row) for row in report.rows])


def _cost(row: Row) -> tuple[Any, ...]:
    macs, params = row.macs, row.params
    return (
        row.artifact,
        percent(row.accuracy),
        millions(macs["theoretical"]),
        millions(macs["gpu_supported"]),
        f"{macs['gpu_supported'] / macs['dense']:.3f}×",
        millions(params["nonzero"]),
        millions(params["stored"]),
        f"{row.size_bytes / 1e6:.2f}",
    )


def _speed(row: Row) -> tuple[Any, ...]:
    latency, speedup = row.latency_ms, row.speedup_vs_dense
    runtime = row.runtime if row.device == "cpu" else f"{row.runtime} on {row.provider}"
    cells = (f"{latency['p50']:.3f}", f"{latency['p90']:.3f}", f"{row.throughput:.0f}")
    if speedup is None:
        return (row.artifact, runtime, row.batch_size, *cells, "", "")
    low, high = speedup["ci95"]
    ratio = f"{speedup['median']:.2f}× ({low:.2f}–{high:.2f})"
    return (row.artifact, runtime, row.batch_size, *cells, ratio, speedup["verdict"])
