"""chase run: the whole chain, skipping what is up to date."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chase.cli.bench import Measuring
from chase.cli.console import Console
from chase.cli.options import (
    BatchSizesOption,
    DeviceOption,
    RecipeOption,
    RoundOption,
    SecondsOption,
    SetOption,
    build_recipe,
)
from chase.errors import RecipeError

if TYPE_CHECKING:
    from chase.benchmarks import Report
    from chase.recipe import Recipe
    from chase.run import Run
    from chase.slimming.widths import Grid

FORMATS = ("torchscript", "onnx")


def command(
    ctx: typer.Context,
    recipe: RecipeOption = None,
    format: Annotated[
        list[str] | None, typer.Option("--format", help="Repeatable; default torchscript and onnx.")
    ] = None,
    batch_size: BatchSizesOption = None,
    round_to: RoundOption = "8",
    seconds: SecondsOption = 2.0,
    device: DeviceOption = "auto",
    assign: SetOption = None,
) -> None:
    """Train, slim, export and measure, by one recipe."""
    from chase.slimming.widths import grid_from

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError("`chase run` works in one process; let torchrun start `chase train`, then run the rest")
    chosen = build_recipe(recipe, {}, assign)
    how = Measuring(tuple(batch_size) if batch_size else None, device=device, seconds=seconds)
    chain(ctx.obj, chosen, how, formats=format or FORMATS, round_to=grid_from(round_to))


def chain(
    console: Console, recipe: Recipe, how: Measuring, *, formats: Sequence[str] = FORMATS, round_to: Grid = 8
) -> None:
    """Every stage in order, on the device of `how`; a stage whose inputs have not changed is skipped."""
    from chase.cli import export, report, slim
    from chase.exporters import EXPORTERS
    from chase.run import ROOT, Run

    for format in formats:
        EXPORTERS[format]
    run = Run(console.run or ROOT / recipe.name)
    trained(console, recipe, run, how.device)
    if recipe.training.dense_twin:
        trained(console, dense_recipe(recipe), run.dense, how.device)
    run.make_latest()
    if not run.is_current(run.slim, round_to=round_to):
        slim.stage(console, run, run.checkpoint, run.slim, round_to=round_to)
    for format in formats:
        if not _exported(run, format):
            export.stage(console, run.slim, format)
    found = measured(console, run, how)
    page = Path(report.stage(console, run.folder)["report"])
    summarise(console, run, found, page)


def measured(console: Console, run: Run, how: Measuring) -> Report:
    """Measure all that was exported, or find that it has been done."""
    from chase.benchmarks import Report
    from chase.cli import bench

    if run.is_current(run.bench, **how.settings()):
        console.say(f"{run.bench} is up to date")
        return Report.load(run.bench)
    report = bench.stage(console, run, how)
    report.save(run.bench)
    bench.record(run, how)
    return report


def _exported(run: Run, format: str) -> bool:
    from chase.exporters import default_name

    return run.is_current(run.folder / default_name(format, "fp32"))


def trained(console: Console, recipe: Recipe, run: Run, device: str) -> None:
    """Train, or continue, or find that it has been done."""
    from chase.checkpoint import read
    from chase.cli import train
    from chase.recipe import Recipe as RecipeType
    from chase.recipe import read as read_recipe

    begun = run.checkpoint.is_file() and run.recipe.is_file()
    there = RecipeType.from_dict(read_recipe(str(run.recipe)), source=str(run.recipe)) if begun else recipe
    if there != recipe:
        raise RecipeError(
            f"{run.folder} holds a run of another recipe ({differing(there.to_dict(), recipe.to_dict())}); "
            "choose another folder with --run, or remove it"
        )
    if begun and read(run.checkpoint)["facts"].get("test_accuracy") is not None:
        console.say(f"{run.checkpoint} is up to date")
        return
    train.stage(console, recipe, run, device=device, resume=begun)


def differing(there: dict[str, Any], here: dict[str, Any]) -> str:
    """The first setting that two recipes differ in, as in: training.seed is 0 there, 9 here."""
    for key in there | here:
        first, second = there.get(key), here.get(key)
        if isinstance(first, dict) and isinstance(second, dict) and first != second:
            return f"{key}.{differing(first, second)}"
        if first != second:
            return f"{key} is {first!r} there, {second!r} here"
    return "nothing"


def dense_recipe(recipe: Recipe) -> Recipe:
    """The same training without sparsity."""
    from chase.sparse.methods import METHODS

    return replace(
        recipe,
        name=f"{recipe.name}-dense",
        about="",
        method=METHODS["dense"],
        training=replace(recipe.training, dense_twin=False),
    )


def summarise(console: Console, run: Run, report: Report, page: Path) -> None:
    """Dense against slim in one table, then the measurements."""
    from chase.cli import bench
    from chase.cli.console import millions, percent
    from chase.twin import write_dense

    slim, dense = _facts(run.slim), _facts(write_dense(run))
    rows = [
        ("test accuracy", percent(dense.get("test_accuracy")), percent(slim.get("test_accuracy"))),
        ("sparsity", f"{dense['sparsity']:.4f}", f"{slim['sparsity']:.4f}"),
        ("channel sparsity", f"{dense['channel_sparsity']:.4f}", f"{slim['channel_sparsity']:.4f}"),
        ("parameters, nonzero", millions(dense["params"]["nonzero"]), millions(slim["params"]["nonzero"])),
        ("parameters, stored", millions(dense["params"]["stored"]), millions(slim["params"]["stored"])),
        ("MACs, theoretical", millions(dense["macs"]["theoretical"]), millions(slim["macs"]["theoretical"])),
        (
            "MACs, GPU-supported",
            millions(dense["macs"]["gpu_supported"]),
            millions(slim["macs"]["gpu_supported"]),
        ),
        ("MACs, of dense", "1.000×", f"{slim['macs']['gpu_supported'] / slim['macs']['dense']:.3f}×"),
        ("training MACs, theoretical", _trained(dense, "theoretical"), _trained(slim, "theoretical")),
        ("training MACs, GPU-supported", _trained(dense, "gpu_supported"), _trained(slim, "gpu_supported")),
    ]
    console.table(f"{run.folder}: dense against slim", ("", "dense", "slim"), rows)
    bench.show(console, report)
    console.say(f"{run.folder}: checkpoint.pt, slim.pt, artifacts, bench.json and manifest.json; open {page}")
    console.result({"run": str(run.folder), "dense": dense, "slim": slim, "bench": report.to_dict()})


def _trained(facts: dict[str, Any], column: str) -> str:
    """A column of the training's MACs, of those of a dense training; a twin that was not trained has none."""
    macs = facts.get("training_macs")
    return f"{macs[column] / macs['dense']:.3f}×" if macs else "–"


def _facts(path: Path) -> dict[str, Any]:
    from chase.checkpoint import read

    facts: dict[str, Any] = read(path)["facts"]
    return facts
