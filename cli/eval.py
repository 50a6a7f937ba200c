"""chase eval: top-1 accuracy of any network or artifact, through the runtime that it would be deployed on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chase.cli.console import Console, percent

if TYPE_CHECKING:
    from chase.data import Split


def command(
    ctx: typer.Context,
    artifact: Annotated[Path, typer.Argument(help="A .pt, .onnx or .ts file of Chase.")],
    data: Annotated[
        str | None, typer.Option("--data", help="Where the test images are; default: the recipe's.")
    ] = None,
    runtime: Annotated[str | None, typer.Option("--runtime", help="Default: the one for the file's format.")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    min_accuracy: Annotated[float | None, typer.Option("--min-accuracy", help="In percent; below it, exit 3.")] = None,
) -> None:
    """Measure the accuracy of a file on the test images."""
    from chase.benchmarks.accuracy import accuracy
    from chase.errors import AccuracyError
    from chase.runtimes import load_source, open_runtime
    from chase.training import resolve_device

    console: Console = ctx.obj
    split = test_split(artifact, data)
    with open_runtime(load_source(artifact), runtime=runtime, device=resolve_device(device)) as opened:
        score = accuracy(opened, split)
    console.say(f"{artifact}: {percent(score)} of {len(split)} test images, {opened.name} on {opened.provider}")
    console.result({"artifact": str(artifact), "accuracy": score, "images": len(split), "provider": opened.provider})
    if min_accuracy is not None and score < min_accuracy:
        raise AccuracyError(f"accuracy {score:.2f} % is below --min-accuracy {min_accuracy}; see `chase bench`")


def test_split(path: Path, data: str | None) -> Split:
    """The test images of the recipe that `path` came from, or of `data`, normalised as its network expects them.

    Raises:
        RecipeError: if neither says where they are.
        DataError: if they are not there or have other classes than the network.
    """
    from dataclasses import replace

    from chase.data import load_data
    from chase.errors import DataError, RecipeError
    from chase.recipe import DataSettings, coerce
    from chase.runtimes import load_source

    blocks = _recipe_data(path)
    settings = coerce(DataSettings(), blocks, f"{path}: data") if blocks else DataSettings()
    if data is not None and data != settings.name:
        settings = replace(settings, name=data, root=None, settings={})
    elif data is None and blocks is None:
        raise RecipeError(f"{path} does not say what it was trained on; name the test images with --data")
    loaded = load_data(settings.name, root=settings.root, **settings.settings)
    source = load_source(path)
    if source.classes and source.classes != loaded.classes:
        raise DataError(
            f"{settings.name} has other classes ({len(loaded.classes)}) than {path} ({len(source.classes)}); "
            "name the data it was trained on with --data"
        )
    return loaded.test.normalised_with(source.mean, source.std) if source.mean else loaded.test


def _recipe_data(path: Path) -> dict[str, object] | None:
    """The data block of the recipe inside a .pt file, or of the run that an artifact lies in."""
    from chase.checkpoint import read
    from chase.recipe import read as read_recipe

    if path.suffix == ".pt":
        return dict(read(path)["recipe"]["data"])
    for folder in (path.parent, path.parent.parent):
        if (folder / "recipe.yaml").is_file():
            return dict(read_recipe(str(folder / "recipe.yaml"))["data"])
    return None
