"""chase train: from a recipe to checkpoint.pt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chase.cli.console import Console, millions, percent
from chase.cli.options import DeviceOption, RecipeOption, SetOption, build_recipe

if TYPE_CHECKING:
    from chase.recipe import Recipe
    from chase.run import Run
    from chase.training import Epoch


def command(
    ctx: typer.Context,
    recipe: RecipeOption = None,
    model: Annotated[
        str | None, typer.Option("--model", help="A model's name, torchvision:NAME, timm:NAME or module:function.")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="A data set's name, a folder of images or an .npz file.")
    ] = None,
    method: Annotated[str | None, typer.Option("--method", help="chase, rigl, set, static or dense.")] = None,
    sparsity: Annotated[
        float | None, typer.Option("--sparsity", help="Share of weights that leave, in [0, 1).")
    ] = None,
    channel_sparsity: Annotated[
        float | None, typer.Option("--channel-sparsity", help="Share of channels that leave, in [0, 1).")
    ] = None,
    round_to: Annotated[
        str | None, typer.Option("--round-to", metavar="N|LAYER=N,…", help="The width grid that channels leave on.")
    ] = None,
    prune_skip: Annotated[
        bool, typer.Option("--prune-skip", help="Let channels on skip connections leave, coupled ones together.")
    ] = False,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the training images.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of weights, masks and the order of images.")] = None,
    device: DeviceOption = "auto",
    assign: SetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the current run (or --run DIR).")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and stop.")] = False,
) -> None:
    """Train a network sparse, by a recipe."""
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
        resumed(console, device)
        return
    chosen = build_recipe(recipe, shortcuts, assign)
    if dry_run:
        show_forecast(console, chosen)
        return
    run = new_run(console, chosen)
    console.result(stage(console, chosen, run, device=device))


def _refuse_settings(given: dict[str, Any]) -> None:
    """A run is continued with its own recipe, so that the result is the same as without the break."""
    from chase.errors import RecipeError

    extra = [name for name, value in given.items() if value is not None]
    if extra:
        raise RecipeError(f"--resume continues with the run's own recipe; leave out {', '.join(extra)}")


def resumed(console: Console, device: str) -> None:
    """Continue the current run with the recipe that it was started with."""
    from chase.errors import CheckpointError
    from chase.recipe import Recipe, read
    from chase.run import current

    run = current(console.run)
    if not run.recipe.is_file() or not run.checkpoint.is_file():
        raise CheckpointError(f"{run.folder} holds no training to resume; start one with `chase train`")
    recipe = Recipe.from_dict(read(str(run.recipe)), source=str(run.recipe))
    console.result(stage(console, recipe, run, device=device, resume=True))


def new_run(console: Console, recipe: Recipe) -> Run:
    """A folder that holds no run yet: --run DIR, else runs/<name>, runs/<name>-2, …"""
    from chase.errors import RecipeError
    from chase.run import Run, fresh

    if console.run is None:
        return fresh(recipe.name)
    run = Run(console.run)
    if run.checkpoint.exists():
        raise RecipeError(f"{run.folder} already holds a run; continue it with --resume, or name another folder")
    return run


def stage(console: Console, recipe: Recipe, run: Run, *, device: str = "auto", resume: bool = False) -> dict[str, Any]:
    """Train, and say what came of it."""
    from chase.checkpoint import read
    from chase.data import load_data
    from chase.forecast import forecast
    from chase.training import Watch, train

    data = load_data(recipe.data.name, root=recipe.data.root, **recipe.data.settings)
    summary = forecast(recipe, data=data)
    _announce(console, recipe, summary, run.folder)
    with console.progress(f"training {recipe.name}") as advance:
        watch = Watch(advance, lambda epoch: console.say(_line(epoch, recipe.training.epochs)))
        path = train(recipe, run, device=device, resume=resume, data=data, watch=watch)
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


def _line(epoch: Epoch, epochs: int) -> str:
    return (
        f"epoch {epoch.epoch}/{epochs}: loss {epoch.loss:.4f}, validation {percent(epoch.validation_accuracy)}, "
        f"sparsity {epoch.sparsity:.4f}, channel sparsity {epoch.channel_sparsity:.4f}, "
        f"GPU-supported MACs {epoch.macs['gpu_supported'] / epoch.macs['dense']:.3f}×, "
        f"{epoch.images_per_second:.0f} images/s"
    )


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
