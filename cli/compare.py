"""chase compare: what changed between runs, and which of the differences are real."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chase.cli.console import Console, percent

if TYPE_CHECKING:
    from chase.benchmarks.comparison import Change, Comparison

LISTED = 5  # rows without a counterpart that are named


def command(
    ctx: typer.Context,
    runs: Annotated[list[Path], typer.Argument(help="Runs' folders, or bench.json files; the first is compared with.")],
    anyway: Annotated[bool, typer.Option("--anyway", help="Compare what was measured on unlike machines.")] = False,
) -> None:
    """Compare measurements of the same artifacts in two runs or more."""
    from chase.benchmarks import Report
    from chase.benchmarks.comparison import compare

    console: Console = ctx.obj
    files = _files(runs)
    found = compare({name: Report.load(file) for name, file in files.items()}, anyway=anyway)
    show(console, found)
    console.result(document(found))


def _files(runs: Sequence[Path]) -> dict[str, Path]:
    """The bench.json of each run, by a short name where that tells them apart.

    Raises:
        RecipeError: if two of them are the same file.
    """
    from chase.errors import RecipeError
    from chase.run import Run

    files = [Run(run).bench if run.is_dir() else run for run in runs]
    for file, times in Counter(file.resolve() for file in files).items():
        if times > 1:
            raise RecipeError(f"{file} was named {times} times; name different runs")
    short = [file.resolve().parent.name if file.stem == "bench" else file.stem for file in files]
    names = short if len(set(short)) == len(short) else [str(run) for run in runs]
    return dict(zip(names, files, strict=True))


def show(console: Console, found: Comparison) -> None:
    """The table of all rows, and what must be known to read it."""
    for words in found.unlike:
        console.say(f"not measured alike: {words}")
    who, what = (
        ("run", "artifact", "runtime", "batch"),
        ("accuracy", "median ms", "clock", "times as fast (95 %)", "verdict"),
    )
    columns = (*who, *what, "images/s", "MACs", "file MB")
    console.table(f"against {found.first}", columns, [_cells(change) for change in found.changes])
    for run, drift in found.drift.items():
        console.say(f"{run}: intervals are widened by {100 * drift:.0f} %, {_why(drift)}")
    for words in found.unmatched[:LISTED]:
        console.say(f"only in one: {words}")
    if len(found.unmatched) > LISTED:
        console.say(f"only in one: {len(found.unmatched) - LISTED} more rows")


def _why(drift: float) -> str:
    from chase.benchmarks.comparison import RUN_MARGIN

    if drift > RUN_MARGIN:
        return "since the dense network, which did not change, differs by that much; measure again on a quiet machine"
    return "which two runs of one network can differ by; for smaller differences, name both files in one `chase bench`"


def _cells(change: Change) -> tuple[Any, ...]:
    before, after = change.before, change.after
    low, high = change.ci95
    who = (change.run, before.artifact, f"{before.runtime} {before.precision}", before.batch_size)
    return (
        *who,
        f"{percent(before.accuracy)} → {percent(after.accuracy)}",
        "{:.3f} → {:.3f}".format(*change.medians_ms),
        change.clock,
        f"{change.ratio:.2f}× ({low:.2f}–{high:.2f})",
        change.verdict,
        f"{before.throughput:.0f} → {after.throughput:.0f}",
        _ratio(after.macs.get("gpu_supported"), before.macs.get("gpu_supported")),
        f"{before.size_bytes / 1e6:.2f} → {after.size_bytes / 1e6:.2f}",
    )


def _ratio(value: float | None, base: float | None) -> str:
    return f"{value / base:.3f}×" if value and base else "–"


def document(found: Comparison) -> dict[str, Any]:
    """The comparison as JSON."""
    return {
        "first": found.first,
        "unlike": list(found.unlike),
        "drift": dict(found.drift),
        "unmatched": list(found.unmatched),
        "changes": [_change(change) for change in found.changes],
    }


def _change(change: Change) -> dict[str, Any]:
    before, after = (row.to_dict() for row in (change.before, change.after))
    fields = ("accuracy", "throughput", "macs", "size_bytes")
    medians = dict(zip(("before", "after"), change.medians_ms, strict=True))
    return {
        "run": change.run,
        "clock": change.clock,
        **{name: before[name] for name in ("artifact", "runtime", "precision", "batch_size")},
        **{name: {"before": before[name], "after": after[name]} for name in fields},
        "accuracy_points": change.accuracy_points,
        "median_ms": medians,
        "ratio": change.ratio,
        "ci95": list(change.ci95),
        "verdict": change.verdict,
    }
