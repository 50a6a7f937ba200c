"""chase eval: top-1 accuracy of any network or artifact, through the runtime that it would be deployed on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chase.cli.console import Console, percent
from chase.cli.options import DeviceOption, ImagesOption, RuntimeOption


def command(
    ctx: typer.Context,
    artifact: Annotated[Path, typer.Argument(help="A .pt file or an exported one.")],
    data: ImagesOption = None,
    runtime: RuntimeOption = None,
    device: DeviceOption = "auto",
    min_accuracy: Annotated[float | None, typer.Option("--min-accuracy", help="In percent; below it, exit 3.")] = None,
) -> None:
    """Measure the accuracy of a file on the test images."""
    from chase.artifact import Artifact
    from chase.benchmarks.accuracy import accuracy
    from chase.cli.explain import warn_if_changed
    from chase.cli.images import splits
    from chase.errors import AccuracyError
    from chase.runtimes import load_source, open_runtime
    from chase.training import resolve_device

    console: Console = ctx.obj
    source = load_source(artifact)
    warn_if_changed(console, source)
    _, split = splits(artifact, data)
    described = source if isinstance(source, Artifact) else None
    with open_runtime(source, runtime=runtime, device=resolve_device(device)) as opened:
        score = accuracy(opened, split, artifact=described)
    console.say(f"{artifact}: {percent(score)} of {len(split)} test images, {opened.name} on {opened.provider}")
    console.result({"artifact": str(artifact), "accuracy": score, "images": len(split), "provider": opened.provider})
    if min_accuracy is not None and score < min_accuracy:
        raise AccuracyError(f"accuracy {score:.2f} % is below --min-accuracy {min_accuracy}; see `chase bench`")
