"""chase recipes: what comes with Chase."""

from __future__ import annotations

from typing import Annotated

import typer

from chase.cli.console import Console


def command(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(help="A recipe to show, or: methods, models, data.")] = None,
) -> None:
    """List the shipped recipes, show one, or list methods, models or data sets."""
    from chase import recipe
    from chase.data import DATASETS
    from chase.models import MODELS
    from chase.sparse import METHODS

    console: Console = ctx.obj
    lists = {"methods": sorted(METHODS), "models": sorted(MODELS), "data": sorted(DATASETS)}
    if name is None:
        abouts = {each: recipe.Recipe.from_dict(recipe.read(each)).about for each in recipe.shipped()}
        console.result({"recipes": abouts})
        console.table("recipes", ("name", "what it is"), list(abouts.items()))
    elif name in lists:
        console.result({name: lists[name]})
        console.table(name, ("name",), [(each,) for each in lists[name]])
    else:
        chosen = recipe.Recipe.from_dict(recipe.read(name), source=name)
        console.result(chosen.to_dict())
        if not console.json:
            print(chosen.to_yaml(), end="")
