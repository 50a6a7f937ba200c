"""chase paper: the paper's tables, run here."""

from __future__ import annotations

import sys
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chase.cli.console import Advance, Console
from chase.cli.options import DeviceOption, SetOption

if TYPE_CHECKING:
    from chase.benchmarks.paper.runner import Runner, Watcher
    from chase.benchmarks.paper.scales import Scale
    from chase.benchmarks.paper.table import Cell, Table


def command(
    ctx: typer.Context,
    table: Annotated[str, typer.Argument(help="A table's name, as in --list, or all.")] = "all",
    scale: Annotated[str, typer.Option("--scale", help="smoke, small or full (the paper's own setting).")] = "smoke",
    data: Annotated[
        str | None, typer.Option("--data", help="A data set's name or path in place of every other.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option("--seed", help="Repeatable; default those of the scale.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="PATTERN", help="Cells whose row and column hold this, * for any; repeatable."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Of an ordinary training; 1.5× ones have half as many again.")
    ] = None,
    device: DeviceOption = "auto",
    assign: SetOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Default: runs/paper/SCALE.")] = None,
    list_tables: Annotated[bool, typer.Option("--list", help="Say what would be run, and stop.")] = False,
) -> None:
    """Run the paper's tables and print our numbers beside its own."""
    console: Console = ctx.obj
    tables = chosen(table, only)
    runner = _runner(adapted(scale, data, seed, epochs, assign), out or Path("runs", "paper", scale), device)
    if list_tables:
        show_list(console, tables, runner)
        return
    if data and runner.scale.data:
        runner.loaded(runner.scale.data)  # what was named must be there; what the paper used may be missing
    documents = {name: stage(console, name, each, runner, scale) for name, each in tables.items()}
    console.result({"scale": scale, "tables": documents})
    _fail_if_any(documents)


def chosen(name: str, only: list[str] | None) -> dict[str, Table]:
    """The tables of that name, or all, with the cells that match one of the patterns.

    Raises:
        UnknownName: if there is no such table.
        RecipeError: if no cell matches.
    """
    from chase.benchmarks.paper import TABLES
    from chase.errors import RecipeError, UnknownName
    from chase.registry import did_you_mean

    if name != "all" and name not in TABLES:
        raise UnknownName(f"no table named {name!r}; {did_you_mean(name, [*TABLES, 'all'])}")
    patterns = [f"*{each}*".lower() for each in only or [""]]

    def matches(cell: Cell) -> bool:
        return any(fnmatch(f"{cell.row} | {cell.column}".lower(), pattern) for pattern in patterns)

    found = {each: TABLES[each]().only(matches) for each in (TABLES if name == "all" else [name])}
    left = {each: table for each, table in found.items() if table.cells}
    if not left:
        asked = " or ".join(map(repr, only or ()))
        raise RecipeError(f"no row or column matches --only {asked}; `chase paper {name} --list` names them")
    return left


def adapted(
    name: str, data: str | None, seeds: list[int] | None, epochs: int | None, assignments: list[str] | None = None
) -> Scale:
    """A scale with what was named on the command line in place of its own.

    Raises:
        UnknownName: if there is no such scale.
        RecipeError: if epochs is not positive.
    """
    from chase.benchmarks.paper.scales import SCALES
    from chase.errors import RecipeError
    from chase.settings import DataSettings

    scale = SCALES[name]
    if epochs is not None and epochs < 1:
        raise RecipeError(f"--epochs must be at least 1, not {epochs}")
    return replace(
        scale,
        data=DataSettings(name=data) if data else scale.data,
        seeds=tuple(dict.fromkeys(seeds)) if seeds else scale.seeds,
        epochs=epochs or scale.epochs,
        assignments=tuple(assignments or ()),
    )


def _runner(scale: Scale, folder: Path, device: str) -> Runner:
    from chase.benchmarks.paper.runner import Runner
    from chase.training import resolve_device

    resolve_device(device)
    return Runner(scale, folder, device=device)


def stage(console: Console, name: str, table: Table, runner: Runner, scale: str) -> dict[str, Any]:
    """Run one table, write it as JSON and as Markdown, and show it."""
    from chase.benchmarks.paper.document import document, grid, markdown, remarks
    from chase.files import atomic, write_json

    with console.progress(name) as advance:
        results = runner.run(table, watcher(console, advance))
    command = ["chase", *sys.argv[1:]]
    content = document(name, table, runner, results, scale=scale, command=command)
    write_json(runner.folder / f"{name}.json", content)
    with atomic(runner.folder / f"{name}.md") as temporary:
        temporary.write_text(markdown(content))
    console.table(content["title"], *grid(content))
    for line in remarks(content):
        console.say(line)
    return content


def watcher(console: Console, advance: Advance) -> Watcher:
    """What names each training and shows the progress of all trainings of a table, as if all had as many steps."""
    from chase.training import Watch

    def watch(name: str, done: int, total: int) -> Watch:
        console.say(f"training {done + 1} of {total}: {name}")
        return Watch(lambda step, steps: advance(done * steps + step, total * steps))

    return watch


def _fail_if_any(documents: dict[str, dict[str, Any]]) -> None:
    """Raises ChaseError if a cell failed, naming the first."""
    from chase.errors import ChaseError

    failed = [
        f"{name}, {row['row']}, {column}: {cell['reason']}"
        for name, content in documents.items()
        for row in content["rows"]
        for column, cell in row["cells"].items()
        if cell["failed"]
    ]
    if failed:
        raise ChaseError(f"{len(failed)} cells failed, all others are done; the first: {failed[0]}")


def show_list(console: Console, tables: dict[str, Table], runner: Runner) -> None:
    """The tables with the number of their cells and trainings; of a single one every cell with its first training."""
    trainings = {name: list(runner.trainings(table)) for name, table in tables.items()}
    facts = {
        name: {"title": table.title, "cells": len(table.cells), "trainings": trainings[name]}
        for name, table in tables.items()
    }
    console.result({"tables": facts})
    counts = [(name, len(table.cells), len(trainings[name]), table.title) for name, table in tables.items()]
    console.table("the paper's tables", ("name", "cells", "trainings", "what it is"), counts)
    if len(tables) == 1:
        (table,) = tables.values()
        console.table(table.title, ("row", "column", "training"), _trainings(table, runner))


def _trainings(table: Table, runner: Runner) -> list[tuple[str, str, str]]:
    from chase.benchmarks.paper.runner import name_of

    first = runner.scale.seeds[0]
    return [
        (cell.row, cell.column, name_of(runner.scaled(cell.training, first)) if cell.training else "none")
        for cell in table.cells
    ]
