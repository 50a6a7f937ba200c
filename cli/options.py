"""Options that several commands share, those that stand for settings of a recipe, and the recipe that they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from chase.recipe import Recipe

RecipeOption = Annotated[str | None, typer.Option("--recipe", help="A shipped recipe's name or a YAML file.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
RuntimeOption = Annotated[str | None, typer.Option("--runtime", help="Default: the one for the file's format.")]
ImagesOption = Annotated[str | None, typer.Option("--data", help="Where the test images are; default: the recipe's.")]
BatchSizesOption = Annotated[
    list[int] | None, typer.Option("--batch-size", help="Repeatable; default 1, 2 and 32, and 128 on a GPU.")
]
SecondsOption = Annotated[float, typer.Option("--seconds", help="Per artifact and batch size, when measuring.")]
RoundOption = Annotated[
    str,
    typer.Option("--round-to", metavar="N|LAYER=N,…", help="The width grid: 8, or by layer names layer1.*=16,8."),
]
SetOption = Annotated[
    list[str] | None, typer.Option("-o", metavar="KEY=VALUE", help="Any setting, as in -o optimizer.lr=0.05.")
]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="A model's name, torchvision:NAME, timm:NAME or module:function.")
]
DataOption = Annotated[
    str | None, typer.Option("--data", help="A data set's name, a folder of images, an .npz file or tar shards.")
]
SparsityOption = Annotated[float | None, typer.Option("--sparsity", help="Share of weights that leave, in [0, 1).")]
ChannelSparsityOption = Annotated[
    float | None, typer.Option("--channel-sparsity", help="Share of channels that leave, in [0, 1).")
]
ChannelRoundOption = Annotated[
    str | None, typer.Option("--round-to", metavar="N|LAYER=N,…", help="The width grid that channels leave on.")
]
PruneSkipOption = Annotated[
    bool, typer.Option("--prune-skip", help="Let channels on skip connections leave, coupled ones together.")
]


def build_recipe(name: str | None, shortcuts: dict[str, Any], assignments: list[str] | None) -> Recipe:
    """The recipe called `name` (default: the built-in settings) with shortcuts and assignments on top.

    A model, data set or method that is named anew does not inherit settings that only fit the old one.
    """
    from chase import recipe

    blocks = recipe.read(name) if name else {}
    given = {key: value for key, value in shortcuts.items() if value is not None}
    for key in ("model", "data", "method"):
        if f"{key}.name" in given:
            blocks[key] = _without_own(key, blocks.get(key), given[f"{key}.name"])
    assigned = [f"{key}={value}" for key, value in given.items()] + list(assignments or [])
    return recipe.Recipe.from_dict(recipe.override(blocks, assigned), source=name or "settings")


def _without_own(key: str, given: Any, name: str) -> dict[str, Any]:
    block: dict[str, Any] = {"name": given} if isinstance(given, str) else dict(given or {})
    if block.get("name") == name or (key == "method" and name != "dense"):
        return block
    keep = ("batch_size", "validation") if key == "data" else ()
    return {setting: value for setting, value in block.items() if setting in keep}
