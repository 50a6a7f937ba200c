"""chase slim: from checkpoint.pt to slim.pt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chase.cli.console import Console, millions
from chase.cli.options import RoundOption

if TYPE_CHECKING:
    from chase.run import Run
    from chase.slimming.widths import Grid


def command(
    ctx: typer.Context,
    checkpoint: Annotated[Path | None, typer.Argument(help="Default: the current run's checkpoint.pt.")] = None,
    round_to: RoundOption = "8",
    out: Annotated[Path | None, typer.Option("--out", help="Default: slim.pt beside the checkpoint.")] = None,
) -> None:
    """Cut dead channels out, and prove that the network computes the same."""
    from chase.run import Run, current
    from chase.slimming.widths import grid_from

    console: Console = ctx.obj
    grid = grid_from(round_to)
    source = checkpoint or current(console.run).checkpoint
    target = out or source.parent / "slim.pt"
    console.result(stage(console, Run(source.parent), source, target, round_to=grid))


def stage(console: Console, run: Run, source: Path, target: Path, *, round_to: Grid = 8) -> dict[str, Any]:
    """Slim, and say what came of it."""
    from chase.slimming.stage import slim_checkpoint

    facts = slim_checkpoint(source, target, round_to=round_to)
    if facts.get("test_accuracy") is None:
        console.say(f"{source} is of an unfinished training, after {facts['epoch']} of {facts['epochs']} epochs")
    if target.resolve().parent == run.folder.resolve():
        run.record(target, parents=[source], round_to=round_to)
    rows = [(name, before, after) for name, (before, after) in facts["widths"].items() if before != after]
    if rows:
        console.table("widths", ("group", "dense", "slim"), rows)
    else:
        console.say("no channel leaves: none is dead, or --round-to keeps it; train with --channel-sparsity for some")
    macs, params = facts["macs"], facts["params"]
    console.say(
        f"{target}: masked and slim differ by {facts['certificate']['max_rel']:.1e} relative (float64); sparsity "
        f"{facts['sparsity']:.4f}, channel sparsity {facts['channel_sparsity']:.4f}; GPU-supported MACs "
        f"{millions(macs['dense'])} → {millions(macs['gpu_supported'])}, stored parameters "
        f"{millions(params['dense'])} → {millions(params['stored'])}"
    )
    return {"slim": str(target), **facts}
