"""The images that a command measures with: those of the recipe that a file came from, or of --data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from chase.artifact import Artifact
    from chase.checkpoint import Network
    from chase.data import Split


def splits(path: Path, data: str | None) -> tuple[Split, Split]:
    """The training and the test images of the recipe that `path` came from, or of `data`, as its network takes them.

    Raises:
        RecipeError: if neither says where they are.
        DataError: if they are not there or have other classes than the network.
    """
    from dataclasses import replace

    from chase.data import data_for
    from chase.errors import DataError, RecipeError
    from chase.recipe import coerce
    from chase.runtimes import load_source
    from chase.settings import DataSettings

    source = load_source(path)
    blocks = recipe_data(path)
    settings = coerce(DataSettings(), blocks, f"{path}: data") if blocks else DataSettings()
    if data is not None and data != settings.name:
        settings = replace(settings, name=data, root=None, settings={})
    elif data is None and blocks is None:
        raise RecipeError(f"{path} does not say what it was trained on; name the images with --data")
    loaded = data_for(settings)
    if source.classes and source.classes != loaded.classes:
        raise DataError(
            f"{settings.name} has other classes ({len(loaded.classes)}) than {path} ({len(source.classes)}); "
            "name the data it was trained on with --data"
        )
    if not source.mean:
        return _resized(loaded.train, source), _resized(loaded.test, source)
    train, test = (split.normalised_with(source.mean, source.std) for split in (loaded.train, loaded.test))
    return _resized(train, source), _resized(test, source)


def _resized(split: Split, source: Artifact | Network) -> Split:
    """The split, resized for a network that `chase bench --compare self@160` made of a larger one."""
    from chase.benchmarks.references import fitted
    from chase.checkpoint import Network

    made = isinstance(source, Network) and "resized_from" in source.facts
    return fitted(split, source) if made else split


def recipe_data(path: Path) -> dict[str, object] | None:
    """The data block of the recipe inside a .pt file, or of the run that an artifact lies in."""
    from chase.checkpoint import read
    from chase.recipe import read as read_recipe

    if path.suffix == ".pt":
        return dict(read(path)["recipe"]["data"])
    for folder in (path.parent, path.parent.parent):
        if (folder / "recipe.yaml").is_file():
            return dict(read_recipe(str(folder / "recipe.yaml"))["data"])
    return None


def spread(split: Split, count: int) -> Tensor:
    """Up to `count` images [n, c, h, w] from all over a split, so that sorted classes all take part.

    Raises:
        RecipeError: if `count` is below 1.
    """
    import torch

    from chase.errors import RecipeError

    if count < 1:
        raise RecipeError(f"{count} images are too few; 256 are usual")
    positions = torch.linspace(0, len(split) - 1, min(count, len(split))).long()
    return torch.cat([images for images, _ in split.subset(positions).batches(64)])
