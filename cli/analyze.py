"""chase analyze: which channels became sparse while a network trained, and how many of them it can do without."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chase.cli.console import Console
from chase.cli.options import DeviceOption

if TYPE_CHECKING:
    from chase.benchmarks.analysis import Analysis, History
    from chase.benchmarks.prunability import Images, Prunability
    from chase.checkpoint import Network
    from chase.run import Run


def command(
    ctx: typer.Context,
    run: Annotated[Path | None, typer.Argument(help="A run's folder; default: the run.")] = None,
    metric: Annotated[str, typer.Option("--metric", help="umm or ws.")] = "umm",
    threshold: Annotated[
        float | None, typer.Option("--threshold", metavar="V", help="One of those on record; default 0.2.")
    ] = None,
    layer: Annotated[str, typer.Option("--layer", metavar="PATTERN", help="Layers to show, as in 'layer4.*'.")] = "*",
    criterion: Annotated[
        list[str] | None, typer.Option("--criterion", help="To prune by; repeatable; default: all.")
    ] = None,
    share: Annotated[
        list[float] | None, typer.Option("--share", help="Of channels to prune; repeatable; default: 0.1, 0.2, 0.3.")
    ] = None,
    draws: Annotated[int, typer.Option("--draws", help="How often random pruning is tried.")] = 5,
    min_channel_ratio: Annotated[
        float, typer.Option("--min-channel-ratio", metavar="β", help="Floors as in training; 0 keeps one channel.")
    ] = 0.0,
    limit: Annotated[int | None, typer.Option("--limit", metavar="IMAGES", help="To measure on; default: all.")] = None,
    no_prunability: Annotated[bool, typer.Option("--no-prunability", help="Prune nothing.")] = False,
    data: Annotated[str | None, typer.Option("--data", help="Where the images are; default: the recipe's.")] = None,
    device: DeviceOption = "auto",
) -> None:
    """Show sparse amenable channels over training, and accuracy after pruning channels by each criterion."""
    from chase.benchmarks.analysis import History, analysis_of
    from chase.benchmarks.prunability import SHARES
    from chase.run import current

    console: Console = ctx.obj
    chosen = current(run or console.run)
    history = History.of(chosen)
    at = None
    if history.shares:
        at = history.threshold(metric, threshold)
        show_history(console, history, metric, at, layer)
    else:
        _nothing_recorded(console, chosen, alone=no_prunability)
    found = None
    if not no_prunability:
        network, images = subject(chosen, data, limit)
        settings: dict[str, Any] = {"draws": draws, "min_channel_ratio": min_channel_ratio}
        found = measure(console, network, images, device, criteria=criterion or (), shares=share or SHARES, **settings)
        show_prunability(console, found)
    write(console, chosen, analysis_of(chosen, history, metric=metric, threshold=at, prunability=found))


def _nothing_recorded(console: Console, run: Run, *, alone: bool) -> None:
    """Say so; where nothing else was asked for, it is an error."""
    from chase.errors import CheckpointError

    why = "it was trained dense, or without training.amenable_thresholds"
    if alone:
        raise CheckpointError(f"{run.metrics} holds no amenable channels: {why}; train a sparse network")
    console.say(f"{run.metrics} holds no amenable channels: {why}")


def show_history(console: Console, history: History, metric: str, threshold: str, pattern: str) -> None:
    """The shares of some layers, epoch by epoch, as in the paper's Table 14."""
    from chase.benchmarks.analysis import history_table

    headings, rows = history_table(history, metric, threshold, pattern)
    console.say("share of each layer's channels that are sparse amenable, epoch by epoch")
    shown = [(name, *(f"{share:.2f}" for share in shares)) for name, *shares in rows]
    console.table(f"{metric}, v = {threshold}", headings, shown)


def subject(run: Run, data: str | None, limit: int | None) -> tuple[Network, Images]:
    """The run's network, and the images that it is measured on.

    Raises:
        CheckpointError: if there is no finished checkpoint.
        DataError: if the images are not there.
    """
    from chase.benchmarks.prunability import Images
    from chase.checkpoint import load_network
    from chase.cli.images import splits
    from chase.slimming.stage import recipe_of

    network = load_network(run.checkpoint, kinds=("masked", "dense"))
    return network, Images.of(recipe_of(network), *splits(run.checkpoint, data), limit=limit)


def measure(console: Console, network: Network, images: Images, device: str, **settings: Any) -> Prunability:
    """Prune by each criterion, and measure; `settings` are those of `prunability`."""
    from chase.benchmarks.prunability import prunability
    from chase.training import resolve_device

    on = resolve_device(device)
    with console.progress("pruning") as advance:
        return prunability(network, images, device=on, advance=advance, **settings)


def show_prunability(console: Console, found: Prunability) -> None:
    """Accuracies by criterion and share, as in the paper's Table 2."""
    from chase.benchmarks.prunability import collapses, prunability_table

    console.table("top-1 accuracy, %", *prunability_table(found))
    console.say(
        f"after one-shot pruning of {found.channels} channels, without fine-tuning, on {found.images} images of the "
        f"{found.split} split"
    )
    if collapsed := collapses(found):
        console.say(collapsed)
    for criterion, reason in found.left_out.items():
        console.say(f"{criterion} left out: {reason}")


def write(console: Console, run: Run, analysis: Analysis) -> None:
    """Write analysis.json and the page beside it."""
    from chase.benchmarks.page.analysis import write_analysis

    page = write_analysis(run, analysis)
    console.say(f"written to {page}")
    console.result({"page": str(page), "analysis": str(run.analysis), **analysis.to_dict()})
