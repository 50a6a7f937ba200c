"""What a table came to: as plain data for JSON, and as a table in Markdown, ours beside the paper's."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from chase.benchmarks.environment import environment
from chase.benchmarks.paper.published import Published
from chase.benchmarks.paper.runner import Result, Runner, name_of, seconds
from chase.benchmarks.paper.scales import differences
from chase.benchmarks.paper.table import Table
from chase.benchmarks.paper.trained import Trained
from chase.benchmarks.schema import finite
from chase.training import resolve_device

EMPTY = "–"
FACTS = ("test_accuracy", "sparsity", "channel_sparsity", "macs", "params", "training_macs")


def document(
    name: str, table: Table, runner: Runner, results: Sequence[Result], *, scale: str, command: Sequence[str]
) -> dict[str, Any]:
    """Everything about a table that has been run: definition, numbers at each seed, trainings, and where it ran."""
    trainings = {each: runner.finished[each] for each in runner.trainings(table) if each in runner.finished}
    content: dict[str, Any] = finite(
        {
            "table": name,
            "title": table.title,
            "scale": scale,
            "notes": list(table.notes),
            "differs": differs(table, runner),
            "environment": environment(resolve_device(runner.device)),
            "command": list(command),
            "columns": table.columns,
            "rows": _rows(table, runner, results),
            "trainings": {each: _facts(found) for each, found in trainings.items() if not isinstance(found, Exception)},
        }
    )
    return content


def differs(table: Table, runner: Runner) -> dict[str, list[list[Any]]]:
    """Every setting that is not the paper's: all its pairs of the paper's value and ours."""
    found: dict[str, list[list[Any]]] = {}
    for cell in table.cells:
        if cell.training:
            for setting, pair in differences(cell.training.recipe, runner.scale.recipe(cell.training.recipe)).items():
                pairs = found.setdefault(setting, [])
                if list(pair) not in pairs:
                    pairs.append(list(pair))
    return found


def _rows(table: Table, runner: Runner, results: Sequence[Result]) -> list[dict[str, Any]]:
    by_row: dict[str, dict[str, Any]] = {row: {} for row in table.rows}
    for result in results:
        by_row[result.cell.row][result.cell.column] = _cell(result, runner)
    return [{"row": row, "cells": cells} for row, cells in by_row.items()]


def _cell(result: Result, runner: Runner) -> dict[str, Any]:
    cell = result.cell
    numbers = [value.number for value in result.values.values() if value.number is not None]
    reasons = dict.fromkeys(value.reason for value in result.values.values() if value.reason)
    training = cell.training
    return {
        "measure": cell.measure.name,
        "digits": cell.measure.digits,
        "paper": cell.paper and asdict(cell.paper),
        "seeds": {str(seed): value.number for seed, value in result.values.items()},
        "mean": statistics.fmean(numbers) if numbers else None,
        "std": statistics.stdev(numbers) if len(numbers) > 1 else None,
        "reason": "; ".join(reasons) or None,
        "failed": any(value.failed for value in result.values.values()),
        "trainings": [name_of(runner.scaled(training, seed)) for seed in result.values] if training else [],
    }


def _facts(trained: Trained) -> dict[str, Any]:
    """What is said of a training."""
    facts = trained.facts
    return {
        "recipe": trained.recipe.to_dict(),
        "seconds": seconds(trained.run),
        **{each: facts[each] for each in FACTS},
        "certificate": trained.slim["certificate"] if trained.slim else None,
    }


def grid(content: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a document as text: ours, and the paper's in brackets."""
    columns = content["columns"]
    rows = [[row["row"], *(_text(row["cells"].get(column)) for column in columns)] for row in content["rows"]]
    return ["", *columns], rows


def _text(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return ""
    digits = cell["digits"]
    ours = "failed" if cell["failed"] else _number(cell["mean"], cell["std"], digits)
    paper = cell["paper"] and Published(**cell["paper"])
    return f"{ours} ({_number(paper.mean, paper.std, digits)})" if paper and paper.mean is not None else ours


def _number(mean: float | None, std: float | None, digits: int) -> str:
    if mean is None:
        return EMPTY
    return f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")


def remarks(content: Mapping[str, Any]) -> list[str]:
    """What must be read with a table: how to read it, what differs, what is missing and why, notes."""
    cells = [(row["row"], column, cell) for row in content["rows"] for column, cell in row["cells"].items()]
    seeds = max((len(cell["seeds"]) for _, _, cell in cells), default=0)
    words = "1 seed" if seeds == 1 else f"{seeds} seeds"
    lines = [f"Ours, at scale {content['scale']}, {words}; in brackets the paper's."]
    lines += [f"Differs from the paper: {_pairs(name, pairs)}." for name, pairs in content["differs"].items()]
    lines += _reasons((f"{row}, {column}", cell["reason"]) for row, column, cell in cells if cell["reason"])
    lines += _reasons(
        (f"{row}, {column}", f"the paper's number: {cell['paper']['remark']}")
        for row, column, cell in cells
        if cell["paper"] and cell["paper"]["remark"]
    )
    return lines + list(content["notes"])


def _pairs(setting: str, pairs: Sequence[Sequence[Any]]) -> str:
    return f"{setting} is " + ", ".join(f"{ours} for {theirs}" for theirs, ours in pairs)


def _reasons(found: Iterable[tuple[str, str]]) -> list[str]:
    """One line for each reason, with the cells that have it: all of them up to three, else the first and a count."""
    by_reason: dict[str, list[str]] = {}
    for where, reason in found:
        by_reason.setdefault(reason, []).append(where)
    return [
        f"{'; '.join(cells if len(cells) < 4 else [cells[0], f'{len(cells) - 1} more'])}: {reason}"
        for reason, cells in by_reason.items()
    ]


def markdown(content: Mapping[str, Any]) -> str:
    """The document as Markdown."""
    words = [f"- {line}" for line in [*remarks(content), f"{made(content)}."]]
    return "\n".join([f"## {content['title']}", "", *cells(content), "", *words, ""])


def cells(content: Mapping[str, Any]) -> list[str]:
    """The lines of the table itself in Markdown."""
    columns, rows = grid(content)
    head = [f"| {' | '.join(columns)} |", f"|---|{'--:|' * (len(columns) - 1)}"]
    return [*head, *(f"| {' | '.join(row)} |" for row in rows)]


def made(content: Mapping[str, Any]) -> str:
    """By which command, where and when the numbers were made."""
    facts = content["environment"]
    command = shlex.join(content["command"])
    return f"`{command}` on {facts['cpu']}, torch {facts['torch']}, {facts['date'][:10]}"
