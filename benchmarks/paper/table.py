"""What a table of the paper is: cells, each with the training that it is of, what is measured, and what is printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from chase.benchmarks.paper.published import Published
from chase.errors import ChaseError
from chase.recipe import Recipe


class Inapplicable(ChaseError):
    """A cell has no value here, for example since the smaller network of a scale lacks the layer."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training: its recipe, and the trainings that come before it.

    `before` holds those by the setting of `TrainingSettings` that takes their checkpoint: teacher, start_from.
    """

    recipe: Recipe
    before: Mapping[str, Training] = field(default_factory=dict)

    def with_recipes(self, change: Callable[[Recipe], Recipe]) -> Training:
        """The same with another recipe, and so are those that come before it."""
        before = {setting: training.with_recipes(change) for setting, training in self.before.items()}
        return Training(recipe=change(self.recipe), before=before)

    def seeded(self, seed: int) -> Training:
        """The same with another seed."""
        return self.with_recipes(lambda recipe: replace(recipe, training=replace(recipe.training, seed=seed)))


@dataclass(frozen=True)
class Measure:
    """What a cell holds: a number of a `Trained` (of None, where nothing is trained), with so many digits."""

    name: str
    of: Callable[[Any], float]
    digits: int = 2


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of a table: where it stands, the training it is of, how it is measured, and what the paper prints.

    Without a training it is counted.
    """

    row: str
    column: str
    training: Training | None
    measure: Measure
    paper: Published | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table or a figure. `notes` say what the paper leaves open and how it was read."""

    title: str
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> list[str]:
        """The labels of the rows, in order."""
        return list(dict.fromkeys(cell.row for cell in self.cells))

    @property
    def columns(self) -> list[str]:
        """The labels of the columns, in order."""
        return list(dict.fromkeys(cell.column for cell in self.cells))

    def only(self, matches: Callable[[Cell], bool]) -> Table:
        """The table of those cells alone."""
        return replace(self, cells=tuple(cell for cell in self.cells if matches(cell)))
