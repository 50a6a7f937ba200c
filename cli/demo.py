"""chase demo: the whole chain on real handwritten digits that come with the package; nothing is downloaded."""

from __future__ import annotations

import typer

from chase.cli.bench import Measuring
from chase.cli.options import DeviceOption, SecondsOption, SetOption, build_recipe
from chase.cli.run import chain


def command(
    ctx: typer.Context,
    seconds: SecondsOption = 1.0,
    device: DeviceOption = "auto",
    assign: SetOption = None,
) -> None:
    """Train, slim, export and measure a small network on handwritten digits, in about two minutes."""
    recipe = build_recipe("digits-demo", {}, assign)
    chain(ctx.obj, recipe, Measuring(device=device, seconds=seconds))
