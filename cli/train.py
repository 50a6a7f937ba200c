"""chase train: from a recipe to checkpoint.pt."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chase.cli.console import Console, millions, percent
from chase.cli.options import (
    ChannelRoundOption,
    ChannelSparsityOption,
    DataOption,
    DeviceOption,
    ModelOption,
    PruneSkipOption,
    RecipeOption,
    SetOption,
    SparsityOption,
    build_recipe,
)
from chase.errors import CheckpointError, RecipeError

if TYPE_CHECKING:
    from chase.pace import Progress
    from chase.recipe import Recipe
    from chase.run import Run
    from chase.training import Epoch


def command(
    ctx: typer.Context,
    recipe: RecipeOption = None,
    model: ModelOption = None,
    data: DataOption = None,
    method: Annotated[str | None, typer.Option("--method", help="One of `chase recipes methods`.")] = None,
    sparsity: SparsityOption = None,
    channel_sparsity: ChannelSparsityOption = None,
    round_to: ChannelRoundOption = None,
    prune_skip: PruneSkipOption = False,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the training images.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of weights, masks and the order of images.")] = None,
    device: DeviceOption = "auto",
    assign: SetOption = None,
    log: Annotated[
        list[str] | None, typer.Option("--log", help="Show the run in tensorboard or wandb too; repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the current run (or --run DIR).")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and stop.")] = False,
) -> None:
    """Train a network sparse, by a recipe."""
    from chase import distributed
    from chase.slimming.widths import grid_from

    console: Console = ctx.obj
    shortcuts = {
        "model.name": model,
        "data.name": data,
        "method.name": method,
        "method.sparsity": sparsity,
        "method.channel_sparsity": channel_sparsity,
        "method.round_to": None if round_to is None else json.dumps(grid_from(round_to)),
        "method.prune_skip": prune_skip or None,
        "training.epochs": epochs,
        "training.seed": seed,
    }
    if resume:
        _refuse_settings({"recipe": recipe, "-o": assign, "dry-run": dry_run or None, **shortcuts})
        with distributed.joined():
            resumed(console, device, log or ())
        return
    chosen = build_recipe(recipe, shortcuts, assign)
    if dry_run:
        show_forecast(console, chosen)
        return
    with distributed.joined():
        run, begun = distributed.from_first(run_for(console, chosen))
        console.result(stage(console, chosen, run, device=device, resume=begun, log=log or ()))


def _refuse_settings(given: dict[str, Any]) -> None:
    """A run is continued with its own recipe, so that the result is the same as without the break."""
    extra = [name for name, value in given.items() if value is not None]
    if extra:
        raise RecipeError(f"--resume continues with the run's own recipe; leave out {', '.join(extra)}")


def resumed(console: Console, device: str, log: Sequence[str]) -> None:
    """Continue the current run with the recipe that it was started with."""
    from chase.recipe import Recipe, read
    from chase.run import current

    run = current(console.run)
    if not run.recipe.is_file() or not run.checkpoint.is_file():
        raise CheckpointError(f"{run.folder} holds no training to resume; start one with `chase train`")
    recipe = Recipe.from_dict(read(str(run.recipe)), source=str(run.recipe))
    console.result(stage(console, recipe, run, device=device, resume=True, log=log))


def run_for(console: Console, recipe: Recipe) -> tuple[Run, bool]:
    """The run to train in, and whether it has begun: torchrun starts the same command again when a process fails."""
    from chase import distributed
    from chase.run import current

    if distributed.restarted():
        with contextlib.suppress(CheckpointError):
            run = current(console.run)
            if unfinished(run, recipe):
                return run, True
    return new_run(console, recipe), False


def unfinished(run: Run, recipe: Recipe) -> bool:
    """Whether a run holds a training by `recipe` that was interrupted."""
    from chase.checkpoint import read

    content = read(run.checkpoint)
    return content["recipe"] == recipe.to_dict() and "test_accuracy" not in content["facts"]


def new_run(console: Console, recipe: Recipe) -> Run:
    """A folder that holds no run yet: --run DIR, else runs/<name>, runs/<name>-2, …"""
    from chase.run import Run, fresh

    if console.run is None:
        return fresh(recipe.name)
    run = Run(console.run)
    if run.checkpoint.exists():
        raise RecipeError(f"{run.folder} already holds a run; continue it with --resume, or name another folder")
    return run


def stage(
    console: Console,
    recipe: Recipe,
    run: Run,
    *,
    device: str = "auto",
    resume: bool = False,
    log: Sequence[str] = (),
) -> dict[str, Any]:
    """Train, and say what came of it."""
    from chase import distributed
    from chase.checkpoint import read
    from chase.data import data_for
    from chase.forecast import forecast
    from chase.loggers import logging
    from chase.pace import Pace
    from chase.training import Watch, train

    with distributed.in_turn():
        data = data_for(recipe.data)
    summary = forecast(recipe, data=data)
    _announce(console, recipe, summary, run.folder)
    pace, shown = Pace(), () if distributed.rank() else log
    with console.progress(f"training {recipe.name}") as advance, logging(shown, run.folder, recipe) as record:

        def on_step(done: int, steps: int) -> None:
            pace.step(done, steps)
            advance(done, steps)

        def on_epoch(epoch: Epoch) -> None:
            progress = pace.epoch(epoch.epoch)
            console.say(_line(epoch, recipe.training.epochs, progress))
            record(epoch, progress)

        path = train(recipe, run, device=device, resume=resume, data=data, watch=Watch(on_step, on_epoch))
    facts = read(path)["facts"]
    console.say(
        f"{path}: test accuracy {percent(facts['test_accuracy'])}, sparsity {facts['sparsity']:.4f}, "
        f"channel sparsity {facts['channel_sparsity']:.4f}, epoch {facts['epoch']} kept"
    )
    return {"run": str(run.folder), "checkpoint": str(path), **facts}


def _announce(console: Console, recipe: Recipe, summary: dict[str, Any], folder: Path) -> None:
    macs, channels = summary["macs"], summary["channel_sparsity"]
    console.say(
        f"{folder}: {recipe.method.name}, {recipe.model.name} on {recipe.data.name}, {recipe.training.epochs} epochs, "
        f"{summary['steps']} steps, {len(summary['events'])} events"
    )
    if recipe.method.prunes_channels:
        console.say(
            f"{summary['prunable_channels']} channels may leave; channel sparsity {channels['target']} wanted, up to "
            f"{channels['highest_reachable']:.3f} reachable; GPU-supported MACs {millions(macs['dense'])} → "
            f"{millions(macs['gpu_supported_if_even'])} if every layer loses its share"
        )


def _line(epoch: Epoch, epochs: int, progress: Progress) -> str:
    return (
        f"epoch {epoch.epoch}/{epochs}: loss {epoch.loss:.4f}, validation {percent(epoch.validation_accuracy)}, "
        f"sparsity {epoch.sparsity:.4f}, channel sparsity {epoch.channel_sparsity:.4f}, "
        f"GPU-supported MACs {epoch.macs['gpu_supported'] / epoch.macs['dense']:.3f}×, "
        f"{_throughput(epoch)}{_pace(epoch, progress)}"
    )


def _throughput(epoch: Epoch) -> str:
    """Images, and the MACs of their training: those that the dense network would take, and those that were executed."""
    from chase.training_cost import PASSES

    images = epoch.images_per_second
    dense, executed = (PASSES * images * macs / 1e9 for macs in (epoch.macs["dense"], epoch.executed_macs))
    return f"{images:.0f} images/s ({dense:,.1f} GMAC/s dense-equivalent, {executed:,.1f} executed)"


def _pace(epoch: Epoch, progress: Progress) -> str:
    text = ""
    if progress.speedup and epoch.epoch > progress.since:
        text += f", steps {progress.speedup:.2f}× as fast as in epoch {progress.since}"
    if progress.seconds_left:
        text += f", done about {_clock(progress.seconds_left)}"
    return text


def _clock(seconds: float) -> str:
    """The time of day in so many seconds, with the date if it is not today."""
    now, then = time.time(), time.time() + seconds
    today = time.localtime(now)[:3] == time.localtime(then)[:3]
    return time.strftime("%H:%M" if today else "%Y-%m-%d %H:%M", time.localtime(then))


def show_forecast(console: Console, recipe: Recipe) -> None:
    """What `recipe` would do."""
    from chase.forecast import forecast

    summary = forecast(recipe)
    console.result(summary)
    columns = ("weight", "shape", "density", "nonzero")
    layers = [
        (e["weight"], "×".join(map(str, e["shape"])), f"{e['density']:.4f}", e["nonzero"]) for e in summary["layers"]
    ]
    console.table(f"{recipe.name}: {recipe.method.distribution} densities at the start", columns, layers)
    groups = [(g["name"], g["width"], g["floor"], g["stays_because"] or "may leave") for g in summary["groups"]]
    console.table("channel groups", ("group", "width", "floor", "channels"), groups)
    events = [
        tuple("–" if value is None else value if key == "step" else f"{value:.4f}" for key, value in event.items())
        for event in summary["events"]
    ]
    changes = ("step", "channel sparsity", "density pruned to", "density grown to", "executed MACs")
    console.table("events", changes, events)
    macs = [(name.replace("_", " "), millions(number)) for name, number in summary["macs"].items()]
    console.table("MACs per image", ("", "MACs"), macs)
