"""chase recipes: what comes with Chase."""

from __future__ import annotations

from typing import Annotated

import typer

from chase.cli.console import Console

MORE = {
    "models": "also torchvision:NAME, timm:NAME, and package.module:function of your own",
    "data": "also a path: a folder of images, an .npz file, or tar shards",
}
"""What the lists of names leave out."""


def command(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(help="A recipe to show, or: methods, criteria, models, data.")] = None,
) -> None:
    """List the shipped recipes, show one, or list methods, channel criteria, models or data sets."""
    from chase import recipe
    from chase.data import DATASETS
    from chase.models import MODELS
    from chase.sparse.criteria import CHANNEL_SCORES
    from chase.sparse.methods import ABOUT

    console: Console = ctx.obj
    lists = {"models": sorted(MODELS), "data": sorted(DATASETS)}
    explained = {"methods": ABOUT, "criteria": {name: each.about for name, each in CHANNEL_SCORES.items()}}
    if name is None:
        abouts = {each: recipe.Recipe.from_dict(recipe.read(each)).about for each in recipe.shipped()}
        console.result({"recipes": abouts})
        console.table("recipes", ("name", "what it is"), list(abouts.items()))
    elif name in explained:
        console.result({name: explained[name]})
        console.table(name, ("name", "what it is"), list(explained[name].items()))
    elif name in lists:
        console.result({name: lists[name]})
        console.table(name, ("name",), [(each,) for each in lists[name]])
        console.say(MORE[name])
    else:
        chosen = recipe.Recipe.from_dict(recipe.read(name), source=name)
        console.result(chosen.to_dict())
        if not console.json:
            print(chosen.to_yaml(), end="")
