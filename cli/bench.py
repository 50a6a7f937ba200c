"""chase bench: measure artifacts, dense and slim interleaved in one process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chase.cli.console import Console, millions, percent
from chase.cli.options import SecondsOption

if TYPE_CHECKING:
    from chase.benchmarks import Report, Row
    from chase.data import Split
    from chase.run import Run

BASELINES = ("dense", "none")
SIZES = (1, 2, 32)


@dataclass(frozen=True)
class Measuring:
    """How to measure: batch sizes, runtimes (None: the one for each format), device, CPU threads, and seconds per
    artifact and batch size."""

    batch_sizes: tuple[int, ...] = SIZES
    runtimes: list[str] | None = None
    device: str = "auto"
    threads: int = 1
    seconds: float = 2.0


def command(
    ctx: typer.Context,
    artifacts: Annotated[
        list[Path] | None, typer.Argument(help="Default: all the run exported, and its dense twin.")
    ] = None,
    batch_size: Annotated[
        list[int] | None, typer.Option("--batch-size", help="Repeatable; default 1, 2 and 32.")
    ] = None,
    runtime: Annotated[
        list[str] | None, typer.Option("--runtime", help="Repeatable; eager, torchscript, onnxruntime.")
    ] = None,
    against: Annotated[str, typer.Option("--against", help="dense, or none.")] = "dense",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option("--threads", help="CPU threads; 1 is steadiest on a busy machine.")] = 1,
    seconds: SecondsOption = 2.0,
    data: Annotated[
        str | None, typer.Option("--data", help="Where the test images are; default: the recipe's.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Default: bench.json in the run.")] = None,
) -> None:
    """Measure latency, throughput and accuracy, and say whether slim is faster than dense."""
    from chase.errors import CheckpointError, RecipeError, UnknownName
    from chase.registry import did_you_mean
    from chase.run import current

    console: Console = ctx.obj
    if against not in BASELINES:
        raise UnknownName(f"--against: nothing named {against!r}; {did_you_mean(against, BASELINES)}")
    if seconds <= 0:
        raise RecipeError(f"--seconds must be above 0, not {seconds}")
    for path in artifacts or ():
        if not path.is_file():
            raise CheckpointError(f"no such file: {path}; make it with `chase export`")
    how = Measuring(tuple(batch_size or SIZES), runtimes=runtime, device=device, threads=threads, seconds=seconds)
    if artifacts:
        items = [(str(path), path) for path in artifacts]
        report = measure(console, items, how, data=_test_split(console, artifacts[0], data))
        target = out or Path("bench.json")
    else:
        run = current(console.run)
        report = stage(console, run, how, against=against, data=data)
        target = out or run.bench
    report.save(target)
    show(console, report)
    console.say(f"{target}: raw samples, statistics and environment")
    console.result(report.to_dict())


def stage(console: Console, run: Run, how: Measuring, *, against: str = "dense", data: str | None = None) -> Report:
    """Measure all that a run exported, beside its dense twin exported the same way."""
    from chase.cli import export
    from chase.errors import CheckpointError
    from chase.twin import write_dense

    exported = run.artifacts()
    if not run.slim.is_file() or not exported:
        missing = "slim.pt; run `chase slim`" if not run.slim.is_file() else "exported artifact; run `chase export`"
        raise CheckpointError(f"{run.folder} has no {missing} first")
    items = [(f"slim {path.name}", path) for path in [run.slim, *exported]]
    trained = True
    if against == "dense":
        dense = write_dense(run)
        trained = bool(run.entries()["dense/dense.pt"]["trained"])
        items += [("dense dense.pt", dense)]
        for path in exported:
            twin = run.dense.folder / path.name
            if not run.dense.is_current(twin) or _format(twin) != _format(path):
                export.stage(console, dense, _format(path), twin)
            items.append((f"dense {path.name}", twin))
    items = _runnable(console, items, how.device)
    report = measure(console, items, how, data=_test_split(console, run.slim, data))
    return report if trained else without_accuracy(report, "dense ")


def _runnable(console: Console, items: list[tuple[str, Path]], device: str) -> list[tuple[str, Path]]:
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
    return found


def _format(artifact: Path) -> str:
    from chase.artifact import Artifact

    return Artifact.load(artifact).format


def measure(console: Console, items: list[tuple[str, Path]], how: Measuring, *, data: Split | None) -> Report:
    """Run the benchmark with a progress bar."""
    from chase.benchmarks import bench
    from chase.training import resolve_device

    with console.progress("measuring") as advance:
        return bench(
            items,
            batch_sizes=how.batch_sizes,
            device=resolve_device(how.device),
            threads=how.threads,
            runtimes=how.runtimes,
            data=data,
            budget_s=how.seconds,
            on_progress=lambda done, total, step: advance(done, total),
        )


def _test_split(console: Console, path: Path, data: str | None) -> Split | None:
    """The test images for accuracy, or None with a line that says why there are none."""
    from chase.cli.eval import test_split
    from chase.errors import DataError, RecipeError

    try:
        return test_split(path, data)
    except (DataError, RecipeError) as error:
        if data is not None:
            raise
        console.say(f"accuracy is not measured: {error}")
        return None


def without_accuracy(report: Report, prefix: str) -> Report:
    """The report with no accuracy on rows of an untrained network."""
    from dataclasses import replace

    reason = "the dense twin is untrained, here for speed alone; `chase run` with training.dense_twin=true trains it"
    rows = tuple(
        replace(row, accuracy=None, accuracy_reason=reason) if row.artifact.startswith(prefix) else row
        for row in report.rows
    )
    return replace(report, rows=rows)


def show(console: Console, report: Report) -> None:
    """The tables: what each artifact costs, and how fast it is."""
    first = {row.artifact: row for row in report.rows}
    columns = ("artifact", "accuracy", "theoretical", "GPU-supported", "of dense", "nonzero", "stored", "file")
    console.table("test accuracy, MACs per image, parameters, size", columns, [_cost(row) for row in first.values()])
    threads, cpu = report.environment["threads"], report.environment["cpu"]
    wide = ("artifact", "runtime", "batch", "p50 ms", "p90 ms", "images/s", "against dense (95 %)", "verdict")
    console.table(f"speed on {cpu}, CPU threads: {threads}", wide, [_speed(row) for row in report.rows])


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
        f"{row.size_bytes / 1e6:.2f} MB",
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
